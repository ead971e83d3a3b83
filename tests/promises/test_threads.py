"""Threads and processes at once, interruptions, other encoders: what is shared between them stays whole."""

from __future__ import annotations

import pkgutil
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import EncoderError, EncoderMismatch, Memory
from memspan.channels import TreeChannel
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import Query
from memspan.retrieval import Retrieval
from memspan.views import graph
from memspan.views.base import Selection

LONG = 30.0  # seconds that nobody waits unless something is wrong
WORDS = ("red", "green", "blue", "apple", "pear", "plum", "fox", "dog", "cat", "river", "stone", "cloud", "boat")

pytestmark = pytest.mark.usefixtures("small_snapshots")

Act = Callable[[Memory], object]
ACTS: dict[str, Act] = {
    "searches": lambda memory: memory.search("alpha", recipe="dsm"),
    "looks at the tree": lambda memory: memory.tree(),
    "walks the graph": lambda memory: memory.neighbors(memory.get_all(limit=1)[0].id),
}


def by_meaning(memory: Memory, query: str, **asked: Any) -> list[str]:
    """The ids of everything found by meaning, best first, each once."""
    found = [hit.id for hit in memory.search(query, k=1000, recipe="semantic", **asked)]
    assert len(set(found)) == len(found)
    return found


def suiting(memory: Memory, query: str) -> dict[str, float]:
    """How well the category of each row suits a query: it follows from all rows that the tree has in it."""
    hits = memory.search(query, k=100, explain=True)
    return {hit.id: hit.channels["category"] for hit in hits if hit.channels is not None}


def cosine_with_itself(memory: Memory, text: str, id: str) -> float:
    """How near the vector that is kept for a segment is to the one its text has now."""
    hits = memory.search(text, k=1000, recipe="semantic", explain=True)
    return next(hit.channels["semantic"] for hit in hits if hit.id == id and hit.channels is not None)


def known(memory: Memory) -> dict[str, Any]:
    """What the views make of a store: how much they hold, who is near to whom, what is found."""
    ids = [segment.id for segment in memory.get_all(limit=1000)]
    edges = {(id, kind): memory.neighbors(id, kind, limit=1000) for id in ids for kind in ("next", "mentions")}
    near = {id: {each.id: round(each.strength, 2) for each in memory.neighbors(id, "similar")} for id in ids}
    return {
        "tree": memory.tree(depth=3, examples=0),
        "edges": {key: {each.id: round(each.strength, 4) for each in found} for key, found in edges.items()},
        "near": near,
        "found": [by_meaning(memory, query) for query in ("red apple", "boat on the river")],
        "suiting": suiting(memory, "red apple"),
    }


class Doors(HashEncoder):
    """Stops at a text that ``holds`` until it is let through."""

    def __init__(self) -> None:
        super().__init__(64)
        self.id, self.spec = "doors-64", None
        self.holds: Callable[[str], bool] = lambda text: False
        self.reached, self.through = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str]) -> Encoded:
        if any(map(self.holds, texts)):
            self.reached.set()
            assert self.through.wait(LONG)
        return super().encode(texts)


class Turned(HashEncoder):
    """As many dimensions as another, and nothing else in common."""

    def __init__(self) -> None:
        super().__init__(64)
        self.id, self.spec = "turned-64", None

    def encode(self, texts: Sequence[str]) -> Encoded:
        return Encoded(-np.roll(super().encode(texts).pooled, 7, axis=1))


@contextmanager
def aside(act: Callable[[], object], *, until: threading.Event, let_on: threading.Event) -> Iterator[Any]:
    """Another thread does ``act``, has come as far as ``until``, and goes on after the body; what became of it."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(act)
        try:
            assert until.wait(LONG)
            yield done
        finally:
            let_on.set()


@contextmanager
def older(memory: Memory, act: Act) -> Iterator[Any]:
    """Another thread's transaction begins before the body; in it, it does ``act`` after the body."""
    begun, let_on = threading.Event(), threading.Event()

    def read() -> object:
        with memory._ledger.reading():
            memory._ledger.value("encoder")  # a transaction begins with what it reads first
            begun.set()
            assert let_on.wait(LONG)
            return act(memory)

    with aside(read, until=begun, let_on=let_on) as done:
        yield done
    done.result()


# Older and newer moments at once


@pytest.mark.parametrize("then", ACTS)
def test_a_row_that_waits_is_not_forgotten_by_who_reads_in_an_older_moment(tmp_path: Path, then: str) -> None:
    path = tmp_path / "store"
    with Memory(path, encoder="hash") as memory, Memory(path, encoder=None) as queue:
        first = [memory.add(f"alpha {number}", category="C").ids[0] for number in range(3)]
        for act in ACTS.values():
            act(memory)
        with older(memory, ACTS[then]):
            waits = queue.add("omega alpha waits", category="C").ids[0]
            memory.neighbors(first[0])
            memory.tree()
        memory.compact()
        assert memory.stats()["pending"] == 0
        assert by_meaning(memory, "omega alpha waits")[0] == waits
        assert set(by_meaning(memory, "alpha")) == {waits, *first}
        assert {near.id for near in memory.neighbors(waits, "similar")} == set(first)
        with Memory(path) as fresh:
            assert suiting(memory, "omega") == pytest.approx(suiting(fresh, "omega")), "all rows are in the tree"


def test_a_row_whose_vector_came_between_two_moments_takes_the_place_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with Memory(path, encoder="hash") as memory, Memory(path, encoder=None) as queue:
        rows = memory.add([{"role": "user", "content": f"alpha {number}"} for number in range(70)]).ids
        by_meaning(memory, "alpha")
        waits = queue.add("alpha alpha").ids[0]
        with older(memory, lambda memory: memory.neighbors(rows[0])):
            assert by_meaning(memory, "alpha")[0] == waits
        assert len(memory.search("alpha", k=71, recipe="semantic")) == 71


def test_who_reads_in_an_older_moment_does_not_ask_for_a_snapshot_that_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SqliteLedger, "tidy", lambda self: None)  # it waits for readers, for a while
    read: list[str] = []
    names_in = graph.names_in
    monkeypatch.setattr(graph, "names_in", lambda text: read.append(text) or names_in(text))
    with Memory(tmp_path / "store", encoder="hash") as memory:
        ids = [memory.add(f"Ana saw alpha {number}").ids[0] for number in range(20)]
        memory.compact()
        memory.search("alpha", recipe="dsm")
        read.clear()
        with older(memory, lambda memory: memory.search("alpha 7", k=1, recipe="dsm")) as done:
            ids.append(memory.add("Ana saw alpha again").ids[0])
            memory.compact()
            memory.search("alpha", recipe="dsm")
        assert [hit.id for hit in done.result()] == [ids[7]]
        assert [view["failure"] for view in memory.stats()["views"].values()] == [None] * 4
        assert read == []
        assert set(by_meaning(memory, "alpha")) == set(ids)
        assert {near.id for near in memory.neighbors(ids[0], "mentions", limit=50)} == set(ids[1:])
        assert memory.tree().segments == 21


def test_rows_added_in_the_middle_of_searches_are_all_found_by_meaning_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halfway, go_on, here = threading.Semaphore(0), threading.Semaphore(0), threading.current_thread()
    through_the_tree = TreeChannel.search

    def halting(*asked: Any) -> Any:
        found = through_the_tree(*asked)  # the first to look; the others come after, in the same moment
        if threading.current_thread() is not here:
            halfway.release()
            assert go_on.acquire(timeout=LONG)
        return found

    monkeypatch.setattr(TreeChannel, "search", halting)
    with Memory(tmp_path / "store", encoder="hash") as memory, ThreadPoolExecutor(1) as pool:
        ids = [memory.add("alpha at first").ids[0]]
        for number in range(12):
            search = pool.submit(memory.search, "alpha", recipe="dsm")
            assert halfway.acquire(timeout=LONG)
            try:
                ids += memory.add(f"alpha {number}", wait=False).ids
                memory.neighbors(ids[0])
            finally:
                go_on.release()
            assert len({hit.id for hit in search.result(LONG)}) >= min(10, number + 1)
        assert set(by_meaning(memory, "alpha")) == set(ids)
        assert {hit.id for hit in memory.search("alpha", k=13, recipe="semantic")} == set(ids)
        assert memory.stats()["pending"] == 0
        assert memory.tree().segments == 13


# Another encoder


@pytest.mark.parametrize("which", ["the same Memory", "another Memory"])
@pytest.mark.parametrize("act", ["add", "update"])
def test_what_was_being_encoded_while_the_store_got_another_encoder_is_encoded_by_that_or_refused_whole(
    tmp_path: Path, act: str, which: str
) -> None:
    path, doors = tmp_path / "store", Doors()
    doors.holds = lambda text: "meanwhile" in text
    with Memory(path, encoder=doors) as old, Memory(path, encoder=Doors()) as other:
        id = old.add("alpha first of all").ids[0]
        changing = old if which == "the same Memory" else other

        def write() -> object:
            return old.add("alpha said meanwhile") if act == "add" else old.update(id, "alpha said meanwhile")

        with aside(write, until=doors.reached, let_on=doors.through) as written:
            changing.rebuild(encoder="hash:32")
        if changing is old:
            written.result(LONG)
            said = {"add": ["alpha first of all", "alpha said meanwhile"], "update": ["alpha said meanwhile"]}[act]
        else:  # told to use the old encoder, it cannot go on
            with pytest.raises(EncoderMismatch):
                written.result(LONG)
            said = ["alpha first of all"]
        assert [segment.text for segment in changing.get_all()] == said
        assert changing.stats()["pending"] == 0
        changing.add("alpha said later")
        assert len(by_meaning(changing, "alpha")) == len(said) + 1
        assert changing.search("alpha", recipe="dsm")
        assert changing.tree().segments == len(said) + 1
        assert changing.rebuild()["encoder"] == "hash-32"
        assert changing.verify()["ok"]


def test_what_waits_for_another_memory_gets_vectors_of_the_new_encoder_only(tmp_path: Path) -> None:
    path, doors = tmp_path / "store", Doors()
    texts = [f"alpha number {number}" for number in range(20)]
    with Memory(path, encoder=Doors()) as changing:
        with Memory(path, encoder=doors) as old:
            doors.holds = lambda text: text in texts
            try:
                for text in texts:
                    old.add(text, wait=False)
                assert doors.reached.wait(LONG)  # its worker is at it
                changing.rebuild(encoder=Turned())
            finally:
                doors.through.set()
            with pytest.raises(EncoderMismatch):
                old.search("alpha")
        changing.compact()
        assert changing.stats()["pending"] == 0
        for segment in changing.get_all():
            assert cosine_with_itself(changing, segment.text, segment.id) == pytest.approx(1.0, abs=1e-2)
        assert len(by_meaning(changing, "alpha")) == len(texts)
        assert changing.tree().segments == len(texts)
        assert changing.rebuild()["encoder"] == "turned-64"


class Failing(HashEncoder):
    """Takes nothing."""

    def __init__(self, returned: Encoded | None = None) -> None:
        super().__init__(64)
        self.id, self.spec = "failing-64", None
        self.returned = returned

    def encode(self, texts: Sequence[str]) -> Encoded:
        if self.returned is None:
            raise EncoderError("no connection", mend="wait")
        return self.returned


@pytest.mark.parametrize(
    "failing",
    [Failing(), Failing(Encoded(np.zeros((1, 8), np.float32))), Failing(Encoded(np.full((1, 64), np.nan, np.float32)))],
    ids=["raises", "has another length than it says", "is not finite"],
)
def test_a_new_encoder_that_does_not_work_costs_a_store_nothing(tmp_path: Path, failing: Failing) -> None:
    path = tmp_path / "store"
    with Memory(path, encoder="hash") as memory:
        ids = [memory.add(f"alpha {number}").ids[0] for number in range(10)]
        memory.compact()
        found = by_meaning(memory, "alpha 7")
        with pytest.raises(EncoderError):
            memory.rebuild(encoder=failing)
        assert memory.stats()["pending"] == 0
        assert by_meaning(memory, "alpha 7") == found
        ids += memory.add("alpha 10").ids
    with Memory(path) as memory:
        assert memory.stats()["encoder"]["id"] == "hash-256"
        assert set(by_meaning(memory, "alpha")) == set(ids)
        assert memory.verify()["ok"]


# Interruptions


@contextmanager
def interrupted(target: str, *, after: bool = False) -> Iterator[None]:
    """The first call of ``target`` is broken off, before it has done anything or ``after`` it has done all."""
    module, name = target.rsplit(".", 1)
    holder: Any = pkgutil.resolve_name(module)
    whole, broken = getattr(holder, name), threading.Event()

    def break_off(*arguments: Any) -> Any:
        stop, _ = not broken.is_set(), broken.set()
        done = None if stop and not after else whole(*arguments)
        if stop:
            raise KeyboardInterrupt
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holder, name, break_off)
        with pytest.raises(KeyboardInterrupt):
            yield


def said(rows: int, seed: int) -> list[dict[str, str]]:
    choose = random.Random(seed)
    return [{"role": "user", "content": f"{' '.join(choose.choices(WORDS, k=5))} {row}"} for row in range(rows)]


@pytest.mark.parametrize(
    "target",
    ["views.forest.Forest.place", "views.forest.Forest.remove", "views.adjacency.place_of"],
    ids=["rows are in the tree without vectors", "rows are to leave the tree", "a row is half in the graph"],
)
def test_what_was_interrupted_halfway_is_right_at_the_next_call(tmp_path: Path, target: str) -> None:
    path = tmp_path / "store"
    with Memory(path, encoder="hash") as memory:  # of nine rows each can know all others
        gone = memory.add(said(4, 1), category="A").ids[0]
        known(memory)
        memory.add(said(5, 2), category="A")
        memory.erase(gone)
        with interrupted(f"memspan.{target}"):
            known(memory)
        assert memory.tree().segments == memory.stats()["segments"] == 8
        with Memory(path) as fresh:
            assert known(memory) == known(fresh)


def test_vectors_that_were_in_when_their_reading_was_interrupted_are_held_once(memory: Memory) -> None:
    memory.add(said(1, 1))
    by_meaning(memory, "red apple")
    memory.add(said(69, 2))
    with interrupted("memspan.views.vectors._State.insert", after=True):
        by_meaning(memory, "red apple")
    assert len(memory.search("red apple", k=70, recipe="semantic")) == memory.stats()["segments"] == 70


# Who waits for whom


def test_a_search_does_not_wait_for_a_rebuild_that_reads_every_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on, names_in = threading.Event(), threading.Event(), graph.names_in

    def slowly(text: str) -> tuple[str, ...]:
        reading.set()
        assert go_on.wait(LONG)
        return names_in(text)

    with Memory(tmp_path / "store", encoder="hash") as memory, ThreadPoolExecutor(1) as pool:
        memory.add([{"role": "user", "content": f"Ana saw Lisbon {number} times"} for number in range(20)])
        memory.add("Ben saw the boat.")
        memory.compact()
        monkeypatch.setattr(graph, "names_in", slowly)
        with aside(memory.rebuild, until=reading, let_on=go_on) as rebuilt:
            hits = pool.submit(memory.search, "who saw the boat?", k=1)
            assert [hit.text for hit in hits.result(LONG / 4)] == ["Ben saw the boat."]
            assert not rebuilt.done()
        assert len(rebuilt.result()["rewritten"]) == 4


def test_what_waits_for_an_encoder_that_is_down_keeps_the_worker_from_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, written = threading.Event(), threading.Event()
    used = SqliteLedger.used

    class Encoder(HashEncoder):
        def encode(self, texts: Sequence[str]) -> Encoded:
            if down.is_set():
                raise EncoderError("out of order", mend="wait")
            return super().encode(texts)

    def tell(*arguments: Any) -> None:
        used(*arguments)
        written.set()

    with Memory(tmp_path / "store", encoder=Encoder()) as memory:
        memory.add([{"role": "user", "content": f"Ana saw Lisbon {number} times"} for number in range(20)])
        monkeypatch.setattr("memspan.projection.TENDED_ROWS", 1)
        monkeypatch.setattr("memspan.projection.USES", 1)
        monkeypatch.setattr(SqliteLedger, "used", tell)
        down.set()
        memory.add("Ben saw the boat.")
        hit = memory.search("boat", k=1)[0]
        assert written.wait(LONG / 4)
        views = memory.stats()["views"]
        assert memory.stats()["pending"] == 1
        assert {name: (view["rows"], view["tail"]) for name, view in views.items() if name != "vectors"} == {
            "lexical": (21, 0),
            "tree": (21, 0),
            "graph": (21, 0),
        }
        assert views["vectors"]["rows"] == 20
        frequency = {each.id: each.channels["frequency"] for each in memory.search("boat", recipe="dsm", explain=True)}
        assert frequency[hit.id] > 0


@pytest.mark.parametrize("recipe", ["semantic", "default"])
def test_what_another_deletes_in_the_middle_of_a_search_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    with Memory(tmp_path, encoder="hash") as memory, Memory(tmp_path, encoder="hash") as other:
        for number in range(10):
            memory.add(f"note {number} of many")
        red = memory.add("the red kettle", user_id="ana").ids[0]
        memory.compact()
        select = Retrieval.select

        def late(retrieval: Retrieval, query: Query) -> Selection:
            chosen = select(retrieval, query)
            other.erase(red)
            return chosen

        monkeypatch.setattr(Retrieval, "select", late)
        assert memory.search("kettle", user_id="ana", recipe=recipe) == []
