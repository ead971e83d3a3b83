"""Views are disposable: whatever becomes of their files, a search stays right and nothing that was written is lost."""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from memspan import Memory
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.errors import EncoderError
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import Hit, Scope
from memspan.testing import write
from memspan.views.base import Scored, Selections
from memspan.views.graph import GraphView
from memspan.views.tree import TreeView
from memspan.views.vectors import VectorView

WORDS = [
    a + b for a in ("bir", "kof", "lum", "nad", "pov", "rug", "tem", "vig") for b in ("do", "ka", "mu", "po", "ta")
]
ROWS = 240
QUERIES = ("birdo kofka", "lummu nadpo pova", "rugta temdo vigka birmu")
VIEWS = ("lexical", "vectors", "tree", "graph")

pytestmark = pytest.mark.usefixtures("small_snapshots")


class WatchedEncoder(HashEncoder):
    """Counts how often each text is encoded, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: Counter[str] = Counter()
        self.broken: Callable[[str], bool] = lambda text: False

    def encode(self, texts: Sequence[str]) -> Encoded:
        if any(map(self.broken, texts)):
            raise EncoderError("out of order", mend="wait")
        self.encoded.update(texts)
        return super().encode(texts)


def filled(path: Path, rows: int = ROWS, seed: int = 1) -> Memory:
    """A store of random texts of three users, its views folded into snapshots but for the last 20 rows."""
    choose = random.Random(seed)
    memory = Memory(path, encoder="hash")
    for start, stop in ((0, rows - 20), (rows - 20, rows)):
        for user in range(3):
            memory.add(
                [
                    {
                        "role": "user",
                        "content": f"{' '.join(choose.choices(WORDS, k=6))} {step}",
                        "metadata": {"n": step},
                    }
                    for step in range(start, stop)
                    if step % 3 == user
                ],
                user_id=f"user{user}",
            )
        if start == 0:
            assert set(memory.compact()["rewritten"]) == {f"default/{view}" for view in VIEWS}
    return memory


def answers(memory: Memory, **scope: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in memory.search(query, k=10, **scope)] for query in QUERIES]


def files(memory: Memory) -> list[Path]:
    assert memory.path is not None
    return sorted((memory.path / "views").glob("*.safetensors"))


def alike(first: Sequence[Hit], second: Sequence[Hit], tolerance: float = 0.02) -> None:
    """The same hits, but for those whose scores are so close that 8 bits cannot tell them apart."""
    assert [hit.score for hit in first] == pytest.approx([hit.score for hit in second], abs=tolerance)
    assert len({hit.id for hit in first} & {hit.id for hit in second}) >= len(first) - 2


@contextmanager
def not_mended(memory: Memory) -> Iterator[None]:
    """Meanwhile nothing can compact: what is damaged stays so."""
    assert memory.path is not None
    with ExitStack() as locks:
        for view in VIEWS:
            locks.enter_context(FileLock(memory.path / f"{view}.lock"))
        yield


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    file.write_bytes(bytes(raw))


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "removed": Path.unlink,
    "cut short": truncate,
    "changed in one byte": flip,
    "emptied": empty,
}


@pytest.mark.parametrize("while_open", [True, False], ids=["while open", "while closed"])
def test_without_the_views_directory_every_search_finds_the_same(tmp_path: Path, while_open: bool) -> None:
    memory = filled(tmp_path / "store")
    before = {recipe: [memory.search(q, recipe=recipe) for q in QUERIES] for recipe in ("keyword", "semantic")}
    if not while_open:
        memory.close()
    shutil.rmtree(tmp_path / "store" / "views")
    if not while_open:
        memory = Memory(tmp_path / "store")
    assert len(memory.verify()["problems"]) == len(VIEWS), "all missing files are named"
    for query, keyword, semantic in zip(QUERIES, before["keyword"], before["semantic"], strict=True):
        assert memory.search(query, recipe="keyword") == keyword
        alike(memory.search(query, recipe="semantic"), semantic)
    memory.compact()
    assert memory.verify()["ok"]
    assert [view["failure"] for view in memory.stats()["views"].values()] == [None] * 4
    assert len(files(memory)) == len(VIEWS)
    memory.close()
    with Memory(tmp_path / "store") as again:
        assert [again.search(query, recipe="keyword") for query in QUERIES] == before["keyword"]
        assert [view["failure"] for view in again.stats()["views"].values()] == [None] * 4


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_snapshot_is_reported_and_mended_while_searches_stay_right(tmp_path: Path, how: str) -> None:
    memory = filled(tmp_path / "store")
    keyword = [memory.search(query, recipe="keyword") for query in QUERIES]
    semantic = [memory.search(query, recipe="semantic") for query in QUERIES]
    memory.close()
    for file in files(memory):
        DAMAGE[how](file)
    with Memory(tmp_path / "store") as memory:
        assert memory.verify()["ok"] is False
        assert len(memory.verify()["problems"]) == len(VIEWS)
        with not_mended(memory):
            memory.add("a zwieback said meanwhile", user_id="user0")
            assert [hit.text for hit in memory.search("zwieback", k=1)] == ["a zwieback said meanwhile"]
            for query, by_meaning in zip(QUERIES, semantic, strict=True):
                alike(memory.search(query, recipe="semantic"), by_meaning)
                assert memory.search(query, recipe="dsm"), "which asks every view"
            assert all(view["failure"] for view in memory.stats()["views"].values())
        memory.compact()
        assert memory.verify() == {"ok": True, "segments": ROWS + 1, "problems": []}
        assert [view["failure"] for view in memory.stats()["views"].values()] == [None] * 4
        memory.erase(memory.search("zwieback", k=1)[0].id)
        assert [memory.search(query, recipe="keyword") for query in QUERIES] == keyword


def test_folding_the_tail_into_a_snapshot_does_not_move_a_keyword_score(tmp_path: Path) -> None:
    memory = filled(tmp_path / "store")
    keyword = [memory.search(query, recipe="keyword", k=50) for query in QUERIES]
    semantic = [memory.search(query, recipe="semantic") for query in QUERIES]
    assert memory.stats()["views"]["lexical"]["tail"] == 20
    memory.compact()
    assert memory.stats()["views"]["lexical"]["tail"] == 0
    assert [memory.search(query, recipe="keyword", k=50) for query in QUERIES] == keyword
    for query, before in zip(QUERIES, semantic, strict=True):
        alike(memory.search(query, recipe="semantic"), before)
    memory.rebuild()
    assert [memory.search(query, recipe="keyword", k=50) for query in QUERIES] == keyword
    memory.close()


def test_compacting_what_is_compact_writes_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as memory:
        memory.delete([segment.id for segment in memory.get_all(limit=7)])
        assert len(memory.compact()["rewritten"]) == len(VIEWS)
        assert memory.compact()["rewritten"] == []


@pytest.mark.parametrize("keeps", [4, 15, 38])
def test_a_selective_filter_finds_exactly_what_an_exact_scan_finds(tmp_path: Path, keeps: int) -> None:
    with filled(tmp_path / "store") as memory:
        memory.compact()
        chosen = {"n": {"in": random.Random(keeps).sample(range(ROWS), keeps)}}
        rows = [segment for segment in memory.get_all(limit=1000) if segment.metadata["n"] in chosen["n"]["in"]]
        vectors = HashEncoder().encode([row.text for row in rows]).pooled
        for query in QUERIES:
            cosines = vectors @ HashEncoder().encode([query]).pooled[0]
            hits = memory.search(query, k=keeps, recipe="semantic", filters=chosen, explain=True)
            assert {hit.id for hit in hits} == {row.id for row in rows}
            exact = {row.id: cosine for row, cosine in zip(rows, cosines, strict=True)}
            found = [hit.channels["semantic"] for hit in hits if hit.channels is not None]
            assert found == pytest.approx([max(exact[hit.id], 0) for hit in hits], abs=0.02)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_what_is_added_without_waiting_is_found_by_words_and_by_meaning(memory: Memory) -> None:
    added = memory.add("the zwieback lies in the upper drawer", wait=False)
    assert added.pending == 1
    assert [hit.id for hit in memory.search("zwieback", recipe="keyword")] == list(added.ids)
    memory.compact()
    assert [hit.id for hit in memory.search("upper drawers", recipe="semantic")] == list(added.ids)
    assert memory.stats()["pending"] == 0


def test_a_failing_encoder_costs_no_write_and_its_vectors_come_later(tmp_path: Path) -> None:
    encoder = WatchedEncoder()
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        encoder.broken = lambda text: True
        added = memory.add("the zwieback lies in the upper drawer")
        assert (added.added, added.pending) == (1, 1)
        assert "out of order" in memory.stats()["encoder"]["failure"]
        assert [hit.id for hit in memory.search("zwieback")] == list(added.ids)
        assert "out of order" in memory.stats()["search_failure"]
        assert memory.verify()["ok"], "waiting is not damage"
        encoder.broken = lambda text: False
        assert [hit.id for hit in memory.search("upper drawers", recipe="semantic")] == list(added.ids)
        stats = memory.stats()
        assert (stats["pending"], stats["search_failure"], stats["encoder"]["failure"]) == (0, None, None)


def test_what_an_encoder_did_not_get_to_before_the_store_was_closed_is_encoded_after(tmp_path: Path) -> None:
    encoder = WatchedEncoder()
    encoder.broken = lambda text: True
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        memory.add([{"role": "user", "content": f"shelf {step}"} for step in range(30)])
        assert memory.stats()["pending"] == 30
    encoder.broken = lambda text: False
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        memory.compact()
        assert memory.stats()["pending"] == 0
        assert memory.verify()["ok"]


def test_a_query_the_encoder_fails_on_is_answered_by_keywords(tmp_path: Path) -> None:
    encoder = WatchedEncoder()
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        ids = memory.add("the zwieback lies in the upper drawer").ids
        encoder.broken = lambda text: text.startswith("where")
        assert [hit.id for hit in memory.search("where is the zwieback")] == list(ids)
        assert "out of order" in memory.stats()["search_failure"]
        assert [hit.id for hit in memory.search("the zwieback")] == list(ids)
        assert memory.stats()["search_failure"] is None


def test_each_distinct_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = WatchedEncoder()
    texts = [f"note {step % 10}" for step in range(40)]
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        for step, text in enumerate(texts):
            memory.add(text, user_id=f"user{step // 10}", wait=step % 3 != 0)
            if step % 7 == 0:
                memory.compact()
        memory.add([{"role": "user", "content": text} for text in texts], session="all at once")
        memory.compact()
        memory.rebuild()
        assert memory.stats()["segments"] == 80
    assert encoder.encoded == Counter(set(texts))


def test_a_text_shared_by_two_users_keeps_its_vector_when_one_of_them_goes(tmp_path: Path) -> None:
    encoder = WatchedEncoder()
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        memory.add("the zwieback lies in the upper drawer", user_id="ana")
        kept = memory.add("the zwieback lies in the upper drawer", user_id="ben").ids
        other = memory.add("the zwieback lies in the upper drawer", namespace="elsewhere").ids
        memory.erase(user_id="ana")
        encoder.broken = lambda text: "lies in" in text
        assert [hit.id for hit in memory.search("upper drawers", recipe="semantic")] == list(kept)
        assert memory.erase(user_id="ben").segments == 1
        hits = memory.search("upper drawers", recipe="semantic", namespace="elsewhere")
        assert [hit.id for hit in hits] == list(other)
        assert memory.verify()["ok"]


@pytest.mark.parametrize("rows", [3, 60], ids=["in the tail", "in snapshots"])
def test_what_was_deleted_is_nowhere_on_disk_after_compact(tmp_path: Path, rows: int) -> None:
    secret = "qxzzyvork"
    with Memory(tmp_path / "store", encoder="hash") as memory:
        kept = memory.add([{"role": "user", "content": f"shelf {step} holds jars"} for step in range(rows)]).ids
        gone = [memory.add(f"{secret} {step}", metadata={secret: secret}, category=secret).ids[0] for step in range(4)]
        gone += memory.add(f"{secret} by key", idempotency_key="key").ids
        gone += memory.add([{"role": "user", "name": secret, "content": f"a long {secret} story. " * 900}]).ids
        changed = memory.add(f"{secret} at first").ids[0]
        memory.update(changed, "harmless now")
        memory.compact()
        vector = HashEncoder().encode([f"{secret} 0"]).pooled.astype(np.float16).tobytes()
        on_disk = b"".join(file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
        assert secret.encode() in on_disk
        assert vector in on_disk
        assert memory.erase([*gone, changed]).segments == len(gone) + 1
        memory.compact()
        assert [segment.id for segment in memory.get_all(limit=100)] == list(kept)
        on_disk = b"".join(file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
        assert secret.encode() not in on_disk
        assert vector not in on_disk
        assert memory.verify()["ok"]


class Watched(SqliteLedger):
    """Does something else the moment it is next asked to read."""

    meanwhile: Callable[[], None] | None = None

    def reading(self) -> Any:
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return super().reading()


@pytest.mark.parametrize(
    "which", ["selections", "vectors", "tree", "tree outline", "graph", "beside", "naming", "themes"]
)
def test_who_waits_to_read_keeps_nobody_who_reads_from_a_view(which: str) -> None:
    """In memory reading is a lock, and a fork waits for readers: so a view's own lock is only taken within reading."""
    ledger = Watched(None)
    write(ledger, "the red kettle of Ana", "the blue kettle of Ana")
    selections = Selections(ledger)
    selection = selections.of(Scope())
    vectors, tree = VectorView(ledger, None, 64), TreeView(ledger, None, 64)
    graph = GraphView(ledger, None, lambda namespace, seqs, k: vectors.nearest(selections.of(Scope()), seqs, k))
    question = HashEncoder(64).encode(["a kettle"]).pooled[0]
    asked: dict[str, Callable[[], object]] = {
        "selections": lambda: selections.of(Scope()),
        "vectors": lambda: vectors.search(selection, question, 2),
        "tree": lambda: tree.route(selection, question, 2),
        "tree outline": lambda: tree.outline(selection),
        "graph": lambda: graph.expand(selection, Scored(selection.seqs[:1], np.ones(1, np.float32))),
        "beside": lambda: graph.beside(selection, selection.seqs),
        "naming": lambda: graph.naming(selection, ["ana"]),
        "themes": lambda: graph.neighbourhood(selection),
    }

    def another() -> None:
        with ledger.reading():
            asked[which]()

    def meanwhile() -> None:
        thread = threading.Thread(target=another, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "each waits for the other"

    ledger.meanwhile = meanwhile
    asked[which]()
    assert ledger.meanwhile is None
    ledger.close()


@pytest.mark.parametrize("on_disk", [True, False], ids=["on disk", "in memory"])
def test_what_comes_and_goes_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    monkeypatch.setattr("memspan.views.base.SLACK", 100)
    with Memory(tmp_path / "store" if on_disk else ":memory:", encoder="hash") as memory:
        for day in range(12):
            memory.add([{"role": "user", "content": f"Ana {day} {turn}"} for turn in range(40)], session=f"day {day}")
            assert memory.neighbors(memory.get_all()[0].id)
            memory.search("Ana", recipe="dsm")
            memory.erase(session=f"day {day}")
            memory.search("Ana", recipe="dsm")
            memory.compact()
        kept = memory.add("Ana came.").ids[0]
        assert memory.search("Ana", recipe="dsm")[0].id == kept
        vectors, tree, graph = (
            view._states["default"] for view in memory._projection.views if view.name in ("vectors", "tree", "graph")
        )
        assert max(vectors.used, tree.forest.rows, len(graph.seqs)) < 250
