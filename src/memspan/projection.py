"""From the ledger to its views: encode what waits, each distinct text once; compact; rebuild; say how far behind.

``Memory.add`` encodes before it writes, so that a segment and its vector become durable in one transaction. What could
not be encoded then (``wait=False``, a failing encoder, a large document) waits in the ledger's queue: a worker thread
works it off, and so does every search, up to a limit. One process at a time encodes the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np

from memspan.activations.tokens import Activation, TokenCodec
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import EncoderError, MemspanError, StoreError
from memspan.ledger.base import Ledger, Unencoded, Use
from memspan.records import Hit
from memspan.views.base import Progress, View

BATCH = 256
CANARY = "memspan"  # a text no encoder refuses: it tells a refused text from an encoder that is down
LONGEST = 1.01  # length of a vector up to which it is taken as it is: rounding is forgiven
PAUSE = 0.05  # seconds without a write after which the worker begins
LONGEST_BURST = 2.0  # seconds after which it begins all the same
USES = 1_024  # segments returned by searches after which that is written down
TENDED_ROWS = 1_024  # how many rows this process writes between two looks at whether a view should be compacted

log = logging.getLogger("memspan")


class Activator:
    """Makes of texts what the ledger keeps of them; ``codec`` is what their token activations are kept by, None where
    they are not."""

    def __init__(self, encoder: Encoder, codec: TokenCodec | None) -> None:
        self._encoder = encoder
        self._codec = codec

    def encode(self, texts: Sequence[str]) -> Encoded:
        """What the encoder makes of ``texts``, pooled rows of length 1 or 0. Raises EncoderError when it returns
        anything else."""
        encoder, codec = self._encoder, self._codec
        encoded = encoder.encode(texts)
        pooled = np.asarray(encoded.pooled, np.float32)
        if pooled.shape != (len(texts), encoder.dim) or not np.isfinite(pooled).all():
            problem = f"encoder {encoder.id} returned {pooled.shape}, or values that are not finite"
            raise EncoderError(problem, mend=f"it must return finite float32[{len(texts)}, {encoder.dim}]")
        tokens = encoded.tokens if codec is not None else ()
        wrong = [each for each in tokens if each.ndim != 2 or each.shape[1] != encoder.dim]
        if wrong or (len(tokens) and len(tokens) != len(texts)) or not all(np.isfinite(each).all() for each in tokens):
            problem = f"encoder {encoder.id} returned token activations of another shape, or not finite"
            raise EncoderError(problem, mend=f"it must return float32[t, {encoder.dim}] for each text, or none")
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        return Encoded(pooled / np.maximum(lengths, 1) if (lengths > LONGEST).any() else pooled, tokens)

    def activate(self, texts: Sequence[str]) -> list[Activation]:
        """What the ledger keeps of ``texts``. Raises EncoderError, and what the encoder raises."""
        encoded = self.encode(texts)
        pooled = encoded.pooled.astype(np.float16)
        if self._codec is None or not encoded.tokens:
            return [Activation(row) for row in pooled]
        packed = self._codec.pack(encoded.tokens)
        return [Activation(row, tokens or None) for row, tokens in zip(pooled, packed, strict=True)]

    def take(self, texts: Mapping[bytes, str]) -> tuple[dict[bytes, Activation], Exception | None]:
        """Activations of ``texts`` by content, without those that the encoder alone refuses, and why it refused any.
        Raises what the encoder raises when it takes nothing at all."""
        try:
            return dict(zip(texts, self.activate(list(texts.values())), strict=True)), None
        except Exception as error:  # noqa: BLE001 - an encoder may be anyone's code
            self.encode([CANARY])  # raises when it takes nothing at all
            done: dict[bytes, Activation] = {}
            for content, text in texts.items():
                with suppress(Exception):
                    done[content] = self.activate([text])[0]
            return done, error


class Projection:
    """Feeds the views of one store. ``encoder`` is None for a lexical-only memory, ``recorded`` what the store says of
    it; ``codec`` is what token activations are kept by, None where they are not."""

    def __init__(
        self,
        ledger: Ledger,
        encoder: Encoder | None,
        recorded: str,
        views: Sequence[View],
        codec: TokenCodec | None = None,
    ) -> None:
        self.encoder = encoder
        self.codec = codec
        self.recorded = recorded
        self.views = views
        self.failure: str | None = None
        self._ledger = ledger
        self._turn = threading.Lock()
        self._wake = threading.Condition()
        self._asked = self._stopping = False
        self._worker: threading.Thread | None = None
        self._untended: dict[str, int] = {}
        self._due: set[str] = set()
        self._mended: set[str] = set()
        self._refused: set[tuple[str, int]] = set()
        self._uses: dict[str, dict[str, Use]] = {}
        self._told = threading.Lock()

    # Encoding

    def activations(self, namespace: str, texts: Mapping[bytes, str]) -> dict[bytes, Activation]:
        """Activations of contents the namespace has none for yet, by content. A failing encoder gives none.

        The failure is kept for ``stats`` and logged; the texts are written all the same and wait.
        """
        if self.encoder is None:
            return {}
        known = self._ledger.known(namespace, list(texts))
        missing = {content: text for content, text in texts.items() if content not in known}
        if not missing:
            return {}
        try:
            return dict(zip(missing, self.activate(list(missing.values())), strict=True))
        except Exception as error:  # noqa: BLE001 - an encoder may be anyone's code, and must not cost a write
            self._failed(error)
            return {}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """What the encoder makes of ``texts``, pooled rows of length 1 or 0. Raises EncoderError when it returns
        anything else."""
        encoded = self._activator().encode(texts)
        self.failure = None
        return encoded

    def activate(self, texts: Sequence[str]) -> list[Activation]:
        """What the ledger keeps of ``texts``. Raises EncoderError."""
        made = self._activator().activate(texts)
        self.failure = None
        return made

    def _activator(self) -> Activator:
        if self.encoder is None:
            raise EncoderError("this memory has no encoder", mend="open it with encoder='minilm'")
        return Activator(self.encoder, self.codec)

    def catch_up(
        self, namespace: str | None = None, *, limit: int | None = None, progress: Progress | None = None
    ) -> int:
        """Encode what waits, oldest first, at most ``limit`` segments; returns how many were served.

        Ends early when another process is at it: that one goes on. A text that the encoder alone refuses is left
        waiting and passed over by this process. Raises what the encoder raises when it takes nothing at all.
        """
        if self.encoder is None:
            return 0
        served, total = 0, 0
        while (limit is None or served < limit) and self._waiting(namespace, 1):
            with self._turn, self._ledger.turn("encode") as alone:
                batch = self._waiting(namespace, min(BATCH, BATCH if limit is None else limit - served))
                if not batch or not alone:
                    break
                self._encode_batch(batch)
            served += len(batch)
            if progress is not None:
                total = total or len(batch) + self._ledger.count_pending(namespace)
                progress(min(served, total), total, "encoding")
        return served

    def settle(self, namespace: str, *, limit: int | None = None, progress: Progress | None = None) -> None:
        """Catch up with a namespace as far as the encoder allows; a failure is kept and logged, not raised."""
        try:
            self.catch_up(namespace, limit=limit, progress=progress)
        except Exception as error:  # noqa: BLE001 - as in ``vectors``: what was written stays, and waits
            self._failed(error)

    def _encode_batch(self, batch: Sequence[Unencoded]) -> None:
        done = self.activated(batch)
        self._ledger.encoded(done, self.recorded, {row.namespace for row in batch})
        self._refused.update((row.namespace, row.seq) for row in batch if row.content not in done)

    def activated(self, batch: Sequence[Unencoded]) -> dict[bytes, Activation]:
        """Activations of rows by content, without those of texts that the encoder alone refuses. Raises what the
        encoder raises when it takes nothing at all."""
        done, refused = self._activator().take({row.content: row.encoded_text for row in batch})
        self.failure = None
        if refused is not None:
            self._failed(refused)
        return done

    def restore(self, progress: Progress | None = None) -> None:
        """Make token matrices again that were damaged or are gone, from their texts, and those still to be made."""
        if self._ledger.harmed:
            self._ledger.lose()
        refused: set[bytes] = set()
        made, total = 0, 0 if progress is None else self._ledger.activation_bytes()["lost"]
        while self.encoder is not None and self.codec is not None and not self._stopping:
            batch = [row for row in self._ledger.lost(BATCH + len(refused)) if row.content not in refused][:BATCH]
            if not batch:
                return
            done = self.activated(batch)
            self._ledger.encoded(done, self.recorded, {row.namespace for row in batch})
            refused.update(row.content for row in batch if row.content not in done or done[row.content].tokens is None)
            made += len(batch)
            if progress is not None:
                progress(min(made, total), total, "encoding tokens")

    def _waiting(self, namespace: str | None, limit: int) -> list[Unencoded]:
        """Segments that wait, without those that the encoder has refused."""
        rows = self._ledger.pending(namespace, limit + len(self._refused))
        return [row for row in rows if (row.namespace, row.seq) not in self._refused][:limit]

    def _failed(self, error: Exception) -> None:
        message = f"{type(error).__name__}: {error}"
        if message != self.failure:
            log.warning("memspan: the encoder failed, segments wait for their vectors: %s", message)
        self.failure = message

    # In the background

    def written(self, namespace: str, rows: int, *, pending: int) -> None:
        """Tell that ``rows`` were written, ``pending`` of them without a vector: the worker tends to them."""
        self._untended[namespace] = self._untended.get(namespace, 0) + rows
        if self._untended[namespace] >= TENDED_ROWS:
            self._untended[namespace] = 0
            self._due.add(namespace)
        if (pending and self.encoder is not None) or self._due:
            self._ask()

    def used(self, namespace: str, hits: Sequence[Hit]) -> None:
        """Tell that a search returned ``hits``: counted in memory now, written in batches by the worker.

        What a crash loses is a count, never a memory; a store that cannot be written to counts nothing.
        """
        if not hits:
            return
        moment = datetime.now(UTC)
        with self._told:
            uses = self._uses.setdefault(namespace, {})
            for hit in hits:
                times, relevance = (uses[hit.id].times, uses[hit.id].relevance) if hit.id in uses else (0, 0.0)
                uses[hit.id] = Use(times=times + 1, at=moment, relevance=max(relevance, hit.score))
            many = sum(map(len, self._uses.values())) >= USES
        if many:
            self._ask()

    def write_uses(self) -> None:
        """Write down what searches of this process returned since it was last written."""
        with self._told:
            told, self._uses = self._uses, {}
        for namespace, uses in told.items():
            if uses:
                with suppress(StoreError):  # read-only, full or busy: nobody waits for a count
                    self._ledger.used(namespace, uses)

    def mend(self, namespace: str) -> None:
        """Have the worker write a view's snapshot again when it could not be read; searches are right meanwhile."""
        if self._ledger.harmed and not self._asked:
            self._ask()
        if any(view.failure for view in self.views) and namespace not in self._mended:
            self._mended.add(namespace)  # once per process: a disk that cannot be written stays so
            self._due.add(namespace)
            self._ask()

    def _ask(self) -> None:
        with self._wake:
            self._asked = True
            self._wake.notify_all()
            if self._worker is None or not self._worker.is_alive():
                worker = threading.Thread(target=self._work, name="memspan-projection", daemon=True)
                worker.start()
                self._worker = worker

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._asked or self._stopping):
                    self._wake.wait()
                self._await_pause()
                if self._stopping:
                    return
                self._asked = False
            try:
                while not self._stopping and self.catch_up(limit=BATCH):
                    pass
                self.restore()
            except Exception as error:  # noqa: BLE001 - the worker reports and lives on; what waits is durable
                self._failed(error)
            try:  # whether or not the encoder is there
                while self._due and not self._stopping:
                    self.tend(self._due.pop())
                self.write_uses()
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(error)

    def _await_pause(self) -> None:
        """Until nobody has written for a moment: a burst has the cores to itself and is then encoded in few batches."""
        deadline = time.monotonic() + LONGEST_BURST
        while not self._stopping and time.monotonic() < deadline and self._wake.wait(PAUSE):
            pass

    def tend(self, namespace: str) -> None:
        """Compact those views of ``namespace`` whose tail has grown long, and arenas of which much is dead."""
        for view in self.views:
            if self._stopping:  # it is only faster with it, and whoever closes waits
                return
            if view.failure or view.due(namespace):
                self._guarded(view, namespace)
        self._ledger.drop_encodings()
        self._ledger.collect()

    def _guarded(self, view: View, namespace: str) -> None:
        try:
            view.compact(namespace)
        except (MemspanError, OSError) as error:
            view.failure = f"{type(error).__name__}: {error}"
            log.warning("memspan: the %s view could not be compacted: %s", view.name, error)

    def compact(self, namespaces: Sequence[str], *, force: bool = False, progress: Progress | None = None) -> list[str]:
        """Catch up and fold every tail that is worth it; returns what was rewritten as "namespace/view".

        ``force`` builds each view anew from the ledger alone. What the encoder refused before is tried again.
        """
        self._refused.clear()
        self.catch_up(progress=progress)
        self.restore()
        self._ledger.drop_encodings()
        self._ledger.collect()
        return [
            f"{namespace}/{view.name}"
            for namespace in namespaces
            for view in self.views
            if view.compact(namespace, force=force, progress=progress)
        ]

    def status(self, namespaces: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Per view: position, rows in the snapshot, rows in the tail and the last failure, over ``namespaces``."""
        report: dict[str, dict[str, Any]] = {}
        for view in self.views:
            each = [view.status(namespace) for namespace in namespaces]
            report[view.name] = {
                "rows": sum(status["rows"] for status in each),
                "tail": sum(status["tail"] for status in each),
                "bytes": view.size(),
                "failure": view.failure or next((status["failure"] for status in each if status["failure"]), None),
            }
        return report

    def problems(self, namespaces: Sequence[str]) -> list[str]:
        """What is wrong with the views' files: they are rebuilt by the next search or compaction that needs them."""
        return [problem for view in self.views for namespace in namespaces for problem in view.problems(namespace)]

    def close(self) -> None:
        """Let the worker finish what it is at; what still waits is durable and goes on at the next open."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()
        self.write_uses()
