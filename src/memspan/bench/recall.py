"""Recall of evidence on every data set: the recipes, each channel left out in turn, and the plain systems beside them.

A collection is a store of its own, made through ``Memory.add``; the query is the question alone; no model answers or
judges anything. All systems rank the same segments of the same store, an item is as good as its best segment. A recipe
ranks its candidates, some 130 segments, a plain system everything. Texts are never printed or written: ids, ranks and
numbers only.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from memspan.bench import sets
from memspan.bench.embeddings import Cached
from memspan.bench.measures import encoder_of, machine, milliseconds, ranks_of, within_budgets
from memspan.bench.places import places
from memspan.bench.plain import Plain, rows_of, systems_of
from memspan.bench.standings import Answered, Placed, means, standings
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput, MemspanError
from memspan.memory import Memory
from memspan.recipes import RECIPES, RERANK, TUNING, recipe_named
from memspan.records import Query, Scope
from memspan.retrieval import Ranked
from memspan.segmenting import WordTokenizer

Progress = Callable[[int, int, str], None]
Tell = Callable[["Task | None", int], None]

FIRST: Final = "default"
SHOWN: Final = (FIRST, "fast", "deep")  # recipes measured where nobody names others, as far as there are
SAMPLE: Final = 50  # questions of a set that are asked without each part in turn; of a larger set every n-th
TIMED: Final = 5  # questions of a collection with which searches are timed
TOGETHER: Final = 8  # questions that MaxSim looks at together
K: Final = 10
EVERY: Final = "all"


@dataclass(frozen=True, slots=True)
class Plan:
    """How every collection is measured. ``encoder`` is a spec, or one that only this process has. ``scratch``: where
    stores are made, unless ``store`` names a server."""

    encoder: str | Encoder | None
    cache: Path | None
    recipes: tuple[str, ...]
    ablations: tuple[str, ...]
    scratch: Path
    store: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A collection to measure. ``sampled``: the places of the questions that are asked with the ablations too."""

    set: str
    collection: sets.Collection
    sampled: frozenset[int]


@dataclass(slots=True)
class Measured:
    """What came of a task: its questions, and for each system the seconds of searches beyond encoding."""

    answered: list[Answered] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    encoded: int = 0


def run(
    data: str | Path,
    names: Sequence[str] = (EVERY,),
    *,
    recipes: Sequence[str] | None = None,
    ablate: bool = True,
    encoder: str | Encoder | None = None,
    cache: str | Path | None = None,
    jobs: int = 1,
    ranks: str | Path | None = None,
    store: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on the sets ``names`` in the folder ``data``; a report of plain values, ready for JSON.

    ``names`` are those of ``sets.names(data)``, or NAME-pooled; "all" is all of the former. A set that is not there is
    skipped by name. ``recipes``: the first is the one that others are compared with; None are the shipped ones.
    ``ablate``: the first recipe is also asked without each of its parts in turn. ``encoder`` is a spec, an Encoder, or
    None for the configured one. ``cache``: a file that keeps embeddings by content, see ``bench.embeddings``. ``jobs``:
    processes that share the collections. ``ranks`` names a file that gets a JSON line for each question: set,
    collection, question (its place there), kind, and for each system the rank of each gold id (null: not found).
    ``store``: the address of a server, ``postgresql://...``, on which the stores are databases that are dropped again.

    Raises InvalidInput naming ``names``, ``name`` (of a set), ``data``, ``recipe``, ``cache``, ``jobs``, ``ranks`` or
    ``store``, EncoderError, StoreError.
    """
    measured_on, started = machine(), time.perf_counter()
    chosen = tuple(recipes or (name for name in SHOWN if name in RECIPES))
    for name in chosen:
        recipe_named(name)
    model = encoder_of(encoder)
    if jobs < 1 or (jobs > 1 and encoder is not None and not isinstance(encoder, str)):
        problem = f"{jobs} processes cannot share this encoder" if jobs > 1 else f"{jobs} is no number of processes"
        raise InvalidInput("jobs", problem, mend="give 1")
    spec = encoder if jobs == 1 or model is None else getattr(model, "spec", None)
    without = ablations(chosen[0]) if ablate else ()
    file = None if cache is None else Path(cache)
    if model is not None and file is not None:
        Cached(model, file).close()  # a file that cannot be used is told before anything is done
    found, skipped = _found(Path(data), names)
    tasks = [task for each in found for task in _tasks(each)]
    with tempfile.TemporaryDirectory(prefix="memspan-recall-") as scratch:
        plan = Plan(spec or model, file, chosen, without, Path(scratch), store)
        measured = _measured(tasks, plan, jobs, progress or (lambda done, total, what: None))
    if ranks is not None:
        _write(Path(ranks), tasks, measured)
    report: dict[str, Any] = {
        "benchmark": "recall of evidence, each collection its own store, the query is the question alone",
        "first": chosen[0],
        "recipes": list(chosen),
        "ablations": list(without),
        "plain": list(systems_of(model)),
        "encoder": None if model is None else model.id,
        "sets": {},
    }
    for each in found:
        results = [one for task, one in zip(tasks, measured, strict=True) if task.set == each.name]
        answered = [question for one in results for question in one.answered]
        report["sets"][each.name] = {"data": _about(each), "results": standings(answered, chosen[0], without)}
        if any(question.ask.sessions for question in answered):
            by_session = standings(answered, chosen[0], without, by_session=True)
            report["sets"][f"{each.name} by session"] = {"data": _about(each), "results": by_session}
    systems = [*chosen, *report["plain"]]
    every = {name: [second for one in measured for second in one.seconds.get(name, ())] for name in systems}
    report |= {
        "mean": means([report["sets"][each.name]["results"] for each in found], systems),
        "search": {name: milliseconds(seconds) for name, seconds in every.items() if seconds},
        "skipped": skipped,
        "jobs": jobs,
        "encoded": sum(one.encoded for one in measured),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": measured_on,
    }
    return report


def ablations(recipe: str) -> tuple[str, ...]:
    """The names of ``recipe`` without each of its parts in turn."""
    parts = recipe_named(recipe).parts
    return tuple(f"{recipe}-{part}" for part in parts if part not in (RERANK, TUNING))  # what a bench does not have


def _found(data: Path, names: Sequence[str]) -> tuple[list[sets.Set], dict[str, str]]:
    """The sets that are there; of each other one where to get it."""
    if not data.is_dir():
        raise InvalidInput("data", f"there is no folder {data}", mend="name the folder that holds the sets' folders")
    wanted = dict.fromkeys(name for given in names for name in (sets.names(data) if given == EVERY else (given,)))
    if not wanted:
        raise InvalidInput("names", "names no set", mend=f"use {EVERY}, or some of {', '.join(sets.NAMES)}")
    found: list[sets.Set] = []
    skipped: dict[str, str] = {}
    for name in wanted:
        try:
            found.append(sets.load(name, data))
        except sets.Absent as error:
            skipped[name] = error.mend
    if not found:
        raise InvalidInput("data", f"{data} holds none of {', '.join(wanted)}", mend=next(iter(skipped.values())))
    return found, skipped


def _tasks(each: sets.Set) -> Iterator[Task]:
    total = sum(len(collection.asks) for collection in each.collections)
    step = max(1.0, total / SAMPLE)
    sampled = {int(number * step) for number in range(min(total, SAMPLE))}
    before = 0
    for collection in each.collections:
        here = range(before, before + len(collection.asks))
        yield Task(each.name, collection, frozenset(place - before for place in here if place in sampled))
        before += len(collection.asks)


def _about(each: sets.Set) -> dict[str, Any]:
    return {
        "sha256": each.sha256,
        "collections": len(each.collections),
        "items": sum(len(collection.items) for collection in each.collections),
        "questions": sum(len(collection.asks) for collection in each.collections),
        "not_answerable": sum(len(collection.unanswered) for collection in each.collections)
        + sum(not ask.answerable for collection in each.collections for ask in collection.asks),
    }


def _write(file: Path, tasks: Sequence[Task], measured: Sequence[Measured]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8") as lines:
            for task, one in zip(tasks, measured, strict=True):
                for number, answered in enumerate(one.answered):
                    told = {
                        "set": task.set,
                        "collection": task.collection.id,
                        "question": number,
                        "kind": answered.ask.kind,
                        "ranks": {
                            name: dict(zip(answered.ask.gold, placed.ranks, strict=True))
                            for name, placed in answered.placed.items()
                        },
                        "top": {name: round(placed.top, 5) for name, placed in answered.placed.items()},
                    }
                    lines.write(json.dumps(told) + "\n")
    except OSError as error:
        raise InvalidInput("ranks", f"{file} cannot be written ({error.strerror})", mend="name another file") from error


# One collection


class Asked(Memory):
    """A memory that also tells how a recipe ranks all of its candidates, without counting them as used."""

    def ranked(self, question: str, recipe: str) -> Ranked:
        """All candidates of a search for ten hits."""
        query = Query(text=question, scope=Scope(namespace=self.namespace), k=K, recipe=recipe)
        return self._retrieval.ranked(query)

    def ranking(self, question: str, recipe: str) -> tuple[list[int], float]:
        """The seqs of all candidates, best first, and the score of the first, or 0."""
        ranked = self.ranked(question, recipe)
        return ranked.seqs.tolist(), float(ranked.scores[0]) if len(ranked.seqs) else 0.0


class Bench:
    """What a process measures collections with."""

    def __init__(self, plan: Plan) -> None:
        model = encoder_of(plan.encoder)
        self._plan = plan
        self._encoder = None if model is None else Cached(model, plan.cache)
        self._tokenizer = WordTokenizer() if model is None else model.tokenizer

    def measure(self, task: Task, tell: Callable[[int], None] = lambda done: None) -> Measured:
        """Every question of a collection put to every system. ``tell`` hears how many are done."""
        collection, plan = task.collection, self._plan
        measured = Measured()
        before = 0 if self._encoder is None else self._encoder.encoded
        tokens = dict(
            zip(
                (item.id for item in collection.items),
                self._tokenizer.count([item.rendered for item in collection.items]),
                strict=True,
            )
        )
        session = {item.id: item.session or "" for item in collection.items}
        with (
            places(plan.store, "memspan-recall-", plan.scratch) as room,
            Asked(room.new("store"), encoder=self._encoder) as memory,
        ):
            sets.remember(memory, collection)
            item_of = {row.seq: str(row.metadata["item"]) for row in rows_of(memory)}
            plain = Plain(memory, self._encoder)
            asks = [*collection.asks, *collection.unanswered]
            if self._encoder is not None:
                self._encoder.encode([ask.text for ask in asks])
            for number, ask in enumerate(asks):
                tell(number)
                if number % TOGETHER == 0:
                    plain.prepare([each.text for each in asks[number : number + TOGETHER]])
                ablated = plan.ablations if number in task.sampled or not ask.gold else ()
                placed = {}
                for recipe in (*plan.recipes, *ablated):
                    seqs, top = memory.ranking(ask.text, recipe)
                    placed[recipe] = _placed(ask, [item_of[seq] for seq in seqs], top, tokens, session)
                for system in plain.systems:
                    items, top = plain.ranking(system, ask.text)
                    placed[system] = _placed(ask, items, top, tokens, session)
                measured.answered.append(Answered(ask, placed))
            for ask in asks[:TIMED]:
                for recipe in plan.recipes:
                    with _timed(measured.seconds, recipe):
                        memory.search(ask.text, k=K, recipe=recipe)
                for system in plain.systems:
                    with _timed(measured.seconds, system):
                        plain.ranking(system, ask.text)
        if self._encoder is not None:
            measured.encoded = self._encoder.encoded - before
            self._encoder.forget()
        return measured


def _placed(
    ask: sets.Ask, ranked: Sequence[str], top: float, tokens: Mapping[str, int], session: Mapping[str, str]
) -> Placed:
    items = list(dict.fromkeys(ranked))
    if not ask.gold:
        return Placed((), (), (), top)
    sessions = list(dict.fromkeys(session[id] for id in items)) if ask.sessions else []
    return Placed(
        tuple(ranks_of(items, ask.gold)),
        tuple(ranks_of(sessions, ask.sessions)),
        within_budgets(items, ask.gold, tokens),
        top,
    )


@contextmanager
def _timed(seconds: dict[str, list[float]], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - started)


# All of them, by one process or several


def _measured(tasks: Sequence[Task], plan: Plan, jobs: int, progress: Progress) -> list[Measured]:
    """What came of each task, in their order. ``progress`` counts questions."""
    sizes = [len(task.collection.asks) + len(task.collection.unanswered) for task in tasks]
    total, done = sum(sizes), 0
    measured: dict[int, Measured] = {}

    def tell(task: Task | None, more: int) -> None:
        progress(done + more, total, f"{task.set} {task.collection.id}" if task else "")

    for number, one in _alone(tasks, plan, tell) if jobs == 1 else _shared(tasks, plan, jobs, tell):
        measured[number] = one
        done += sizes[number]
    tell(None, 0)
    return [measured[number] for number in range(len(tasks))]


def _alone(tasks: Sequence[Task], plan: Plan, tell: Tell) -> Iterator[tuple[int, Measured]]:
    bench = Bench(plan)
    for number, task in enumerate(tasks):
        yield number, bench.measure(task, partial(tell, task))


def _shared(tasks: Sequence[Task], plan: Plan, jobs: int, tell: Tell) -> Iterator[tuple[int, Measured]]:
    """Each task's number and what came of it, as it is done by one of several processes; the longest are begun first.

    ``tell`` is called about every second, and may raise to end it.
    """
    length = [sum(len(item.text) for item in task.collection.items) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda number: -length[number])
    before = set(multiprocessing.active_children())
    with _one_core() as cores:
        pool = ProcessPoolExecutor(
            min(jobs, len(tasks)), multiprocessing.get_context("spawn"), initializer=_begin, initargs=(plan, cores)
        )
        waiting: dict[Future[Measured], int] = {pool.submit(_work, tasks[number]): number for number in order}
    try:
        last: Task | None = None
        while waiting:
            tell(last, 0)
            for future in wait(waiting, timeout=1, return_when=FIRST_COMPLETED).done:
                number = waiting.pop(future)
                last = tasks[number]
                yield number, future.result()
    except BrokenProcessPool as error:
        mend = "see if there is memory left, or give --jobs 1"
        raise MemspanError("a process of the bench ended early", mend=mend) from error
    finally:
        pool.shutdown(wait=not waiting, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before if waiting else ():
            child.terminate()
            child.join()


@contextmanager
def _one_core() -> Iterator[frozenset[int]]:
    """Processes that start meanwhile see one core, so that their libraries take one thread each. Gives all cores that
    this process may use, none where the system does not tell."""
    if not hasattr(os, "sched_setaffinity"):
        yield frozenset()
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield frozenset(cores)
    finally:
        os.sched_setaffinity(0, cores)


_bench: Bench | None = None


def _begin(plan: Plan, cores: frozenset[int]) -> None:
    """In a new process: load what takes threads while it sees one core, and then use any."""
    import faiss  # noqa: F401 - loaded for that reason
    import onnxruntime  # noqa: F401

    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the process that a person started
    _bench = Bench(plan)
    if cores:
        os.sched_setaffinity(0, cores)


def _work(task: Task) -> Measured:
    assert _bench is not None  # noqa: S101 - the process began with it
    return _bench.measure(task)
