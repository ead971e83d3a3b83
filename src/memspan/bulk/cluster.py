"""The Ray cluster that reads and encodes: joining it, parts read as a stream of blocks, texts encoded in actors.

Needs ``memspan[ray]`` here, and memspan on every machine of the cluster. Actors that die are replaced and what they
were at is given to others; Ray runs reading tasks again by itself.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan import encoders
from memspan.activations.tokens import Activation, TokenCodec
from memspan.bulk.sources import Block, Part, Reader
from memspan.encoders.base import Encoder
from memspan.encoders.running import share
from memspan.errors import ClusterError, EncoderMismatch, InvalidInput, MissingExtra
from memspan.projection import Activator
from memspan.segmenting import shown

DEPTH = 2  # batches that an actor has at once: it never waits for the next
TRIES = 3  # actors that may die of one batch
PATIENCE = 300.0  # seconds in which no machine has room for an encoder
ANSWER = 10.0  # seconds in which a cluster answers
STREAMED = 4 << 20  # bytes of blocks that travel together
MOST_TASKS = 10_000

Made = tuple[list[bytes], NDArray[np.float16], list[bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What the actors shall do: ``encoder``, by its spec or itself, which must have the ``id`` that the store records;
    ``codec`` as of Projection."""

    encoder: str | Encoder
    id: str
    codec: TokenCodec | None


@contextmanager
def joined(address: str) -> Iterator[Cluster]:
    """The cluster at ``address``: "auto" (the one this machine is part of), "local" (one of this machine alone, which
    ends with it), or "HOST:PORT". One that this process has joined already is used and stays.

    Raises MissingExtra, and InvalidInput naming ``ray`` where none is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of every cluster it starts
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("bulk ingest needs Ray", mend='pip install "memspan[ray]"') from error
    _answers(address)
    if ray.is_initialized():
        yield Cluster(ray)
        return
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # what is done is told here
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _nowhere(address, error) from error
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Ask whether anybody is there, for Ray itself would ask for minutes. Raises InvalidInput naming ``ray``."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise InvalidInput("ray", f"{shown(address)} is no address", mend="give auto, local or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _nowhere(address, error) from error


def _nowhere(address: str, error: Exception) -> InvalidInput:
    mend = "start one (ray start --head), join it here (ray start --address=HOST:PORT), or use 'local'"
    return InvalidInput("ray", f"there is no Ray cluster at {address!r} ({_first(error)})", mend=mend)


class Cluster:
    """A Ray cluster this process has joined."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def size(self, gpus: float) -> int:
        """How many encoders it has room for, each with one CPU and so many ``gpus``."""
        there = self.ray.cluster_resources()
        return max(1, int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1)))

    def read(self, parts: Sequence[Part], reader: Reader, tasks: int) -> Iterator[Block]:
        """The blocks of all parts in their order, read by at most so many ``tasks`` at once, as far ahead as the object
        store has room. Raises ClusterError."""
        from ray.data import DataContext, TaskPoolStrategy, from_items
        from ray.exceptions import RayError

        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = STREAMED
        context.execution_options.preserve_order = True
        reading: Any = _read  # which takes more than Ray's types know of
        work = [{"part": pickle.dumps(part)} for part in parts]
        with DataContext.current(context):
            found = from_items(work, override_num_blocks=min(len(work), MOST_TASKS)).flat_map(
                reading,
                fn_kwargs={"reader": self.ray.put(reader)},
                num_cpus=0,  # what encodes has the CPUs; reading waits for it as soon as enough is read
                compute=TaskPoolStrategy(size=tasks),
            )
            try:
                for row in found.iter_rows():
                    yield pickle.loads(row["block"])
            except RayError as error:
                problem = f"the cluster cannot read any more ({_first(error)})"
                raise ClusterError(problem, mend="look what became of its machines, and run it again") from error


def _read(row: Mapping[str, bytes], reader: Any) -> Iterator[dict[str, bytes]]:
    import ray

    for block in ray.get(reader).blocks(pickle.loads(row["part"])):
        yield {"block": pickle.dumps(block)}


class EncodingActor:
    """Encodes texts in a process of its own, on one core."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def ready(self) -> None:
        """Make the encoder. Raises EncoderMismatch where it is not the store's, and what making it raises."""
        _ = self._activator

    @cached_property
    def _activator(self) -> Activator:
        share(1)
        wanted = self._encoding
        made = encoders.make(wanted.encoder)
        if made is None or made.id != wanted.id:
            there = None if made is None else made.id
            problem = f"a machine of the cluster has the encoder {there!r}, not {wanted.id!r}"
            raise EncoderMismatch(problem, mend="install the same memspan and the same model on all of them")
        return Activator(made, wanted.codec)

    def encode(self, texts: Mapping[bytes, str]) -> Made:
        """Contents, their vectors float16[n, dim] and token matrices; without those that the encoder alone refuses."""
        done, _ = self._activator.take(texts)
        rows = [each.pooled for each in done.values()]
        pooled = np.stack(rows) if rows else np.zeros((0, 0), np.float16)
        return list(done), pooled, [each.tokens for each in done.values()]


@dataclass(slots=True)
class _Job:
    """A call of an actor: to encode ``texts``, or where there are none to be ready."""

    actor: Any
    texts: Mapping[bytes, str] | None
    tries: int = 0


class Encoders:
    """``count`` actors, each with one CPU and so many ``gpus``, that encode batches of texts."""

    def __init__(self, cluster: Cluster, encoding: Encoding, count: int, gpus: float) -> None:
        self.count = count
        self._ray = cluster.ray
        self._encoding = self._ray.put(encoding)
        self._kind = self._ray.remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(EncodingActor)
        self._load: dict[Any, int] = {}  # how many batches each actor that is ready has
        self._running: dict[Any, _Job] = {}
        self._waiting: deque[tuple[Mapping[bytes, str], int]] = deque()
        self._lost = 0
        for _ in range(count):
            self._start()

    @property
    def busy(self) -> bool:
        """Whether there is as much to do as all actors take at once."""
        return sum(self._load.values()) + len(self._waiting) >= DEPTH * self.count

    def submit(self, texts: Mapping[bytes, str]) -> None:
        self._waiting.append((texts, 0))
        self._assign()

    def next(self) -> tuple[Mapping[bytes, str], dict[bytes, Activation]]:
        """A batch that was submitted, and its activations, as soon as there is one. Raises ClusterError where actors
        die of it or none can be had, and what encoders raise that cannot be made or take nothing at all."""
        from ray.exceptions import RayError, RayTaskError

        while True:
            ready, _ = self._ray.wait(list(self._running), timeout=None if self._load else PATIENCE)
            if not ready:
                problem = f"no machine of the cluster had room for an encoder in {PATIENCE:.0f} s"
                raise ClusterError(problem, mend="wait for what else runs there, or ask for fewer --encoders or --gpus")
            job = self._running.pop(ready[0])
            try:
                made = self._ray.get(ready[0])
            except RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from error
            except RayError as error:  # it died, or its machine did with what it had made
                self._replace(job, error)
                continue
            self._lost = 0
            if job.texts is None:
                self._load[job.actor] = 0
                self._assign()
                continue
            if job.actor in self._load:
                self._load[job.actor] -= 1
            self._assign()
            contents, pooled, tokens = made
            return job.texts, {c: Activation(v, t) for c, v, t in zip(contents, pooled, tokens, strict=True)}

    def close(self) -> None:
        for actor in {*self._load, *(job.actor for job in self._running.values())}:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._kind.remote(self._encoding)
        self._running[actor.ready.remote()] = _Job(actor, None)

    def _assign(self) -> None:
        while self._waiting and self._load and (least := min(self._load.values())) < DEPTH:
            actor = next(actor for actor, load in self._load.items() if load == least)
            texts, tries = self._waiting.popleft()
            self._running[actor.encode.remote(texts)] = _Job(actor, texts, tries)
            self._load[actor] += 1

    def _replace(self, job: _Job, error: Exception) -> None:
        """Another actor in place of one that died, and its batch to whoever is free."""
        if job.texts is None or self._load.pop(job.actor, None) is not None:  # the first that is heard of its death
            self._ray.kill(job.actor)
            self._lost += 1
            self._start()
        if job.texts is not None:
            self._waiting.appendleft((job.texts, job.tries + 1))
        if job.tries + 1 >= TRIES or self._lost > TRIES * self.count:
            problem = f"encoders on the cluster die again and again ({_first(error)})"
            raise ClusterError(problem, mend="look whether memory runs out there: a smaller --batch takes less")
        self._assign()


def _first(error: Exception) -> str:
    """The first line of what an error says; Ray's go on for pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
