"""The tree: every row in one place, found from the root; categories as named, clusters as they grow."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memspan import Memory
from memspan.activations.tokens import Activation
from memspan.drafting import Batch, Common
from memspan.encoders.base import Encoded
from memspan.filtering import parse_filter
from memspan.ledger.base import Seqs, Vectors
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import AsOf, Node, Piece, Scope
from memspan.segmenting import WordTokenizer
from memspan.views.base import Selection, Selections
from memspan.views.labels import Words, label
from memspan.views.tree import TreeView

DIM = 24
TOPICS = 30
EVERYTHING = 10_000  # a beam that no tree here is wide enough for


class Topics:
    """An encoder whose texts begin with a topic, "t7 ...": texts of one topic lie close together."""

    id, dim, window, tokenizer = "topics", DIM, 64, WordTokenizer()

    def encode(self, texts: Sequence[str]) -> Encoded:
        return Encoded(pooled=np.stack([self.vector(text) for text in texts]).astype(np.float32))

    @staticmethod
    def vector(text: str) -> NDArray[np.float32]:
        center = np.random.default_rng(zlib.crc32(text.split()[0].encode())).normal(size=DIM)
        own = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM)
        vector = center + 0.4 * own
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class Watched(SqliteLedger):
    """A ledger that counts the vectors it hands out."""

    handed = 0

    def vectors(self, namespace: str, after: int, limit: int) -> tuple[Seqs, Vectors]:
        seqs, vectors = super().vectors(namespace, after, limit)
        self.handed += len(seqs)
        return seqs, vectors

    def vectors_of(self, namespace: str, seqs: Sequence[int]) -> tuple[Seqs, Vectors]:
        found, vectors = super().vectors_of(namespace, seqs)
        self.handed += len(found)
        return found, vectors


class Store:
    """A memory at ``path``, and tree views of the same store beside it, as another process has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory = Memory(path, encoder=Topics())
        self.ledger = Watched(path / "ledger.db")
        self.tree = self.view()

    def view(self, *, folder: bool = True) -> TreeView:
        return TreeView(self.ledger, self.path / "views" if folder else None, DIM)

    def select(self, **scope: str) -> Selection:
        return Selections(self.ledger).of(Scope(**scope))

    def within(self, *path: str) -> Selection:
        return Selections(self.ledger).of(Scope(), parse_filter({"category": list(path)}))

    def add(self, texts: Sequence[str], category: Sequence[str] = (), user_id: str | None = None) -> tuple[str, ...]:
        turns = [{"role": "user", "content": text} for text in texts]
        return self.memory.add(turns, category=list(category), user_id=user_id).ids

    def nearest(self, selection: Selection, text: str, k: int = 10) -> set[int]:
        seqs, vectors = self.ledger.vectors_of("default", selection.seqs.tolist())
        return set(seqs[np.argsort(-(vectors @ Topics.vector(text)))[:k]].tolist())

    def routed(self, tree: TreeView, *under: str, beam: int = EVERYTHING) -> list[int]:
        return tree.route(self.select(), Topics.vector("t0"), beam, under=under).seqs.tolist()

    def close(self) -> None:
        self.ledger.close()
        self.memory.close()


@contextmanager
def small_nodes(leaf: int = 6, fan: int = 4) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memspan.views.forest.LEAF", leaf)
        patch.setattr("memspan.views.forest.FAN", fan)
        patch.setattr("memspan.views.tree.SNAPSHOT_ROWS", 8)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with small_nodes():
        store = Store(tmp_path / "store")
        yield store
        store.close()


def texts(count: int, start: int = 0) -> list[str]:
    return [f"t{number % TOPICS} number {number}" for number in range(start, start + count)]


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from nodes(child)


def category_counts(root: Node) -> dict[tuple[str, ...], int]:
    return {node.path: node.segments for node in nodes(root) if node.kind == "category"}


# Every row in one place

PATHS: list[tuple[str, ...]] = [(), ("work",), ("work", "plans"), ("work", "plans", "next"), ("home",)]
STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(PATHS), st.integers(1, 20)),
    st.tuples(st.just("delete"), st.integers(0, 10**6), st.integers(1, 15)),
    st.tuples(st.just("move"), st.integers(0, 10**6), st.sampled_from(PATHS)),
    st.tuples(st.just("compact"), st.booleans(), st.none()),
    st.tuples(st.just("look"), st.none(), st.none()),
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, min_size=4, max_size=10))
def test_whatever_happens_each_row_is_in_its_category_once_and_is_found_there(
    steps: list[tuple[str, object, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with small_nodes():
        store = Store(tmp_path_factory.mktemp("tree") / "store")
        known: dict[str, tuple[str, ...]] = {}
        added = 0
        for what, one, other in [*steps, ("add", (), 1)]:
            some = list(known)[int(one) % len(known) :] if known and isinstance(one, int) else []
            if what == "add":
                known |= dict.fromkeys(store.add(texts(other, added), one), one)
                added += other
            elif what == "delete":
                store.memory.erase(some[:other])
                known = {id: path for id, path in known.items() if id not in some[:other]}
            elif what == "move" and some and known[some[0]] != other and other:
                store.memory.update(some[0], category=other)
                known[some[0]] = other
            elif what == "compact":
                store.tree.compact("default", force=bool(one))
            elif what == "look":
                store.routed(store.tree)
        rows = {row.id: row.seq for row in store.memory.get_all(limit=1_000)}
        expected = Counter(path[:depth] for path in known.values() for depth in range(len(path) + 1))
        for tree in (store.tree, store.view(), store.view(folder=False)):
            root = tree.outline(store.select(), depth=40)
            assert category_counts(root) == expected
            for node in nodes(root):
                inner = [child for child in node.children if child.kind == "cluster"]
                assert sum(child.segments for child in node.children) <= node.segments
                assert node.kind == "category" or not inner or sum(c.segments for c in inner) == node.segments
            for path in expected:
                below = sorted(rows[id] for id, at in known.items() if at[: len(path)] == path)
                assert store.routed(tree, *path) == below
        store.close()


def test_compaction_builds_an_equivalent_tree(store: Store) -> None:
    for number, path in enumerate(PATHS):
        store.add(texts(80, 80 * number), path)
    before, selection = store.tree.outline(store.select(), depth=1), store.select()
    assert store.tree.compact("default", force=True)
    for tree in (store.tree, store.view()):
        after = tree.outline(selection, depth=1)
        assert category_counts(after) == category_counts(before)
        for path in PATHS:
            assert store.routed(tree, *path) == store.routed(store.view(folder=False), *path)
        seqs, question = selection.seqs, Topics.vector("t3")
        grown = store.view(folder=False).prior("default", question, seqs)
        assert np.allclose(tree.prior("default", question, seqs), grown, atol=1e-3, equal_nan=True)


def test_a_write_touches_only_its_path(store: Store) -> None:
    store.add(texts(600))
    before = {node.key: node.segments for node in nodes(store.tree.outline(store.select(), depth=20))}
    paths = 0
    for text in texts(10, 600):
        store.add([text])
        root = store.tree.outline(store.select(), depth=20)
        after = {node.key: node.segments for node in nodes(root)}
        if after.keys() == before.keys():  # no leaf was split
            changed = {key for key in after if after[key] != before[key]}
            assert all(after[key] == before[key] + 1 for key in changed)
            at, path = root, {root.key}
            while inner := [child for child in at.children if child.key in changed]:
                (at,) = inner
                path.add(at.key)
            assert path == changed
            assert not at.children
            paths += 1
        before = after
    assert paths > 0


def test_a_write_reads_no_more_vectors_in_a_large_tree_than_in_a_small_one(store: Store) -> None:
    most, tree = [], store.view(folder=False)
    for start in (0, 1_000):
        store.add(texts(1_000 - 60, start))
        store.routed(tree)
        each = []
        for text in texts(60, start + 1_000 - 60):
            store.add([text])
            store.ledger.handed = 0
            store.routed(tree)
            each.append(store.ledger.handed)
        most.append(max(each))
    assert most[0] == most[1] == 1 + 7  # itself, and the leaf of six that it overfills


# Routing


def test_routing_finds_the_nearest_rows_among_few(store: Store) -> None:
    store.add(texts(3_000))
    selection = store.select()
    for build in (False, True):
        if build:
            store.tree.compact("default", force=True)
        recall, cost = [], []
        for topic in range(TOPICS):
            question = f"t{topic} what is it?"
            routed = store.tree.route(selection, Topics.vector(question), 40)
            right = store.nearest(selection, question)
            recall.append(len(right & set(routed.seqs.tolist())) / len(right))
            cost.append(routed.comparisons)
            assert routed.visited > 40
        assert np.mean(recall) >= 0.95
        assert max(cost) < 0.25 * 3_000


def test_a_wider_beam_finds_no_less(store: Store) -> None:
    store.add(texts(1_000))
    selection, question = store.select(), Topics.vector("t5 what?")
    found = [len(store.tree.route(selection, question, beam).seqs) for beam in (1, 4, 16, 64, EVERYTHING)]
    assert found == sorted(found)
    assert found[0] <= 6
    assert found[-1] == 1_000


def test_what_is_counted_is_what_is_compared(store: Store) -> None:
    store.add(texts(30), ["work"])
    store.add(texts(3, 30), ["home"])
    selection = store.select()
    whole = store.tree.route(selection, Topics.vector("t0"), EVERYTHING)
    assert (whole.comparisons, len(whole.seqs), whole.visited) == (33, 33, 1)
    home = store.tree.route(selection, Topics.vector("t0"), 1, under=("home",))
    assert (home.comparisons, len(home.seqs), home.visited) == (1 + 3, 3, 2)
    assert store.tree.route(selection, Topics.vector("t0"), 1, under=("nowhere",)).comparisons == 0


def test_a_selection_of_few_rows_is_not_missed_by_a_narrow_beam(store: Store) -> None:
    store.add(texts(1_500))
    store.add(texts(12, 5_000), ["work"], user_id="ana")
    selection = store.select(user_id="ana")
    for question in ("t0 what?", "t7 what?"):
        routed = store.tree.route(selection, Topics.vector(question), 8)
        assert store.nearest(selection, question, 5) <= set(routed.seqs.tolist())
        assert routed.comparisons < 400
    assert store.tree.route(store.select(user_id="ben"), Topics.vector("t0"), 8).seqs.tolist() == []


def test_rows_of_another_namespace_are_not_there(store: Store) -> None:
    store.add(texts(10))
    store.memory.add("t1 elsewhere", category="secret", namespace="other")
    assert "secret" not in str(store.tree.outline(store.select(), depth=9))
    assert len(store.routed(store.tree)) == 10
    assert store.tree.outline(store.select(namespace="other"), depth=9).segments == 1


def test_a_selection_made_earlier_does_not_get_what_came_since(store: Store) -> None:
    selections = Selections(store.ledger)
    store.add(texts(20))
    earlier = selections.of(Scope())
    store.routed(store.tree)
    store.add(texts(20, 20))
    later = selections.of(Scope())
    assert earlier.lineage is later.lineage
    for selection in (later, earlier, later):
        routed = store.tree.route(selection, Topics.vector("t1"), 3, under=())
        assert np.isin(routed.seqs, selection.seqs).all()
        assert store.tree.outline(selection).segments == len(selection.seqs)


def test_an_earlier_version_is_routed_to_as_of_then_and_not_now(store: Store) -> None:
    (id,) = store.add(["t1 before"], ["old"])
    before = store.memory.get(id)
    store.memory.update(id, "t2 after", category="new")
    then = Selections(store.ledger).of(Scope(), None, AsOf(known=before.recorded_at))
    for tree in (store.tree, store.view()):
        assert tree.route(then, Topics.vector("t1"), 4).seqs.tolist() == [before.seq]
        assert category_counts(tree.outline(then)) == {(): 1, ("old",): 1}
        assert category_counts(tree.outline(store.select())) == {(): 1, ("new",): 1}
        store.tree.compact("default", force=True)


# Rows come without vectors, and go


def unencoded(store: Store, texts: Sequence[str], *path: str) -> dict[bytes, str]:
    batch = Batch(lambda text, media: [Piece(text=text, tokens=3)], Common(scope=Scope(), category=path))
    for text in texts:
        batch.text(text)
    store.ledger.append("default", batch.drafts, activations={})
    return batch.texts


def test_a_row_without_a_vector_counts_in_its_category_and_gets_its_place_when_the_vector_comes(store: Store) -> None:
    store.add(texts(40))
    waiting = unencoded(store, texts(20, 40), "work")
    assert category_counts(store.tree.outline(store.select())) == {(): 60, ("work",): 20}
    assert len(store.routed(store.tree)) == 40
    assert np.isnan(store.tree.prior("default", Topics.vector("t1"), store.within("work").seqs)).all()
    half = len(waiting) // 2
    vectors = [(content, Activation(Topics.vector(text).astype(np.float16))) for content, text in waiting.items()]
    store.ledger.encoded(dict(vectors[:half]))
    assert len(store.routed(store.tree)) == 50
    assert store.tree.compact("default")
    store.ledger.encoded(dict(vectors[half:]))
    for tree in (store.tree, store.view(), store.view(folder=False)):
        assert len(store.routed(tree)) == 60
        assert len(store.routed(tree, "work")) == 20
        assert category_counts(tree.outline(store.select())) == {(): 60, ("work",): 20}
        assert not np.isnan(tree.prior("default", Topics.vector("t1"), store.within("work").seqs)).any()


def test_without_vectors_there_are_categories_and_no_clusters(store: Store) -> None:
    unencoded(store, texts(30), "work", "plans")
    root = store.tree.outline(store.select(), depth=5)
    assert [node.path for node in nodes(root)] == [(), ("work",), ("work", "plans")]
    assert store.tree.route(store.select(), Topics.vector("t1"), 4).seqs.tolist() == []


def test_what_deletion_empties_is_gone(store: Store) -> None:
    store.add(texts(100))
    before = store.tree.route(store.select(), Topics.vector("t1"), 1).comparisons
    ids = store.add(texts(50, 100), ["work", "plans"])
    store.tree.compact("default")
    size = store.tree.size()
    store.memory.erase(ids[:-1])  # which folds what is left
    assert store.tree.route(store.select(), Topics.vector("t1"), EVERYTHING, under=("work",)).comparisons <= 1 + 3 + 1
    assert category_counts(store.tree.outline(store.select())) == {(): 101, ("work",): 1, ("work", "plans"): 1}
    store.memory.erase(ids[-1])
    for tree in (store.tree, store.view()):
        assert category_counts(tree.outline(store.select())) == {(): 100}
        assert store.routed(tree, "work") == []
        if tree is store.tree:
            assert tree.route(store.select(), Topics.vector("t1"), 1).comparisons == before
    assert store.tree.size() < size
    store.memory.erase(namespace="default")
    assert store.tree.outline(store.select()).segments == 0
    assert store.routed(store.tree) == []
    store.add(texts(10, 500))
    assert len(store.routed(store.tree)) == 10


def test_deleted_rows_say_nothing_any_more_of_what_their_category_is_about(store: Store) -> None:
    with small_nodes(leaf=100):
        said = [f"t4 number {number}" for number in range(60)]
        ids = store.add(said, ["work"])
        question, kept = Topics.vector("t4 what?"), np.array([store.memory.get(ids[-1]).seq])
        left = np.sum([Topics.vector(text) for text in said[30:]], axis=0)
        store.tree.prior("default", question, kept)
        store.memory.erase(ids[:30])
        for more in ([], [f"t9 number {number}" for number in range(20)]):
            if more:
                store.add(more, ["work"])
            centroid = left + sum((Topics.vector(text) for text in more), np.zeros(DIM))
            expected = centroid @ question / np.linalg.norm(centroid)
            assert np.allclose(store.tree.prior("default", question, kept), max(expected, 0), atol=2e-3)


# Categories as a prior


def test_the_prior_is_the_cosine_with_the_nearest_centroid_on_the_path(store: Store) -> None:
    groups = {("work",): texts(9), ("work", "plans"): texts(7, 100), ("home",): texts(8, 200), (): texts(5, 300)}
    seqs = {path: [store.memory.get(id).seq for id in store.add(some, path)] for path, some in groups.items()}

    def cosine(question: NDArray[np.float32], *path: str) -> float:
        below = [Topics.vector(text) for at, some in groups.items() if at[: len(path)] == path for text in some]
        mean = np.mean(below, axis=0)
        return max(0.0, float(mean @ question / np.linalg.norm(mean)))

    asked = np.array([seqs[("work",)][0], seqs[("work", "plans")][0], seqs[("home",)][0], seqs[()][0], 10**9])
    nearest = set()
    for question in (Topics.vector("t3 what?"), Topics.vector("t12 what?")):
        work, plans = cosine(question, "work"), cosine(question, "work", "plans")
        nearest.add(plans > work)
        found = store.tree.prior("default", question, asked)
        assert found.dtype == np.float32
        expected = [work, max(work, plans), cosine(question, "home"), np.nan, np.nan]
        assert np.allclose(found, expected, atol=2e-3, equal_nan=True)
    assert nearest == {True, False}
    assert store.tree.prior("empty", question, asked[:2]).tolist() == pytest.approx([np.nan] * 2, nan_ok=True)


# What it looks like


def test_an_outline_shows_categories_by_name_then_clusters_by_size_as_deep_as_asked(store: Store) -> None:
    store.add(texts(60))
    store.add(texts(4, 60), ["work", "plans"])
    store.add(texts(2, 70), ["home"])
    root = store.tree.outline(store.select(), depth=2, examples=2)
    kinds = [(child.kind, child.label) for child in root.children[:2]]
    assert kinds == [("category", "home"), ("category", "work")]
    clusters = root.children[2:]
    assert all(child.kind == "cluster" and child.label and len(child.examples) == 2 for child in clusters)
    assert [child.segments for child in clusters] == sorted((child.segments for child in clusters), reverse=True)
    assert sum(child.segments for child in root.children) == root.segments == 66
    assert [child.path for child in root.children[1].children] == [("work", "plans")]
    assert root.children[0].children == ()  # two rows are one cluster, which would say the same again
    assert store.tree.outline(store.select(), depth=0).children == ()
    assert store.tree.outline(store.select(), ("work", "plans")).segments == 4
    assert store.tree.outline(store.select(), ("nowhere",)) == Node(
        key="nowhere", kind="category", path=("nowhere",), label="nowhere", segments=0
    )
    assert len({node.key for node in nodes(store.tree.outline(store.select(), depth=9))}) == len(
        list(nodes(store.tree.outline(store.select(), depth=9)))
    )


def test_an_outline_counts_only_what_the_selection_holds(store: Store) -> None:
    store.add(texts(20), ["work"], user_id="ana")
    store.add(texts(9, 20), ["home"], user_id="ben")
    assert category_counts(store.tree.outline(store.select(user_id="ben"))) == {(): 9, ("home",): 9}
    assert category_counts(store.tree.outline(store.within("work"))) == {(): 20, ("work",): 20}


WRITTEN = {
    "baking": "Knead the dough, let the sourdough starter rest, bake the loaf in a hot oven number {}",
    "sailing": "Hoist the mainsail, trim the jib and steer the sailboat into the harbour number {}",
    "tennis": "She served an ace, won the second set and the tennis match on clay number {}",
}


def test_a_cluster_is_called_by_its_telling_words_and_stays_so_when_a_few_rows_come(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        said = [text.format(number) for number in range(30) for text in WRITTEN.values()]
        memory.add([{"role": "user", "content": text} for text in said])
        ledger = SqliteLedger(tmp_path / "store" / "ledger.db")
        with small_nodes(leaf=40, fan=4):
            tree = TreeView(ledger, None, 256)
            first = tree.outline(Selections(ledger).of(Scope()))
            assert len(first.children) == 3
            for child in first.children:
                (topic,) = {name for name, text in WRITTEN.items() if child.examples[0].startswith(text[:9])}
                words = child.label.split(", ")
                assert len(words) == 3
                assert all(word in WRITTEN[topic] for word in words)
                assert not {"the", "number", "and"} & set(words)
            memory.add([{"role": "user", "content": WRITTEN["tennis"].format(number)} for number in range(30, 35)])
            again = tree.outline(Selections(ledger).of(Scope()))
            names = {child.key: child.label for child in again.children}
            assert names == {child.key: child.label for child in first.children}
        ledger.close()


def test_a_label_prefers_what_is_rare_elsewhere_and_shows_words_as_they_are_written() -> None:
    some = ["The HTTPServer of asyncio runs", "asyncio runs the HTTPServer", "Running asyncio", "asyncio and https"]
    store = Words.of([*some, *["it runs on and on, running"] * 20])
    assert label(Words.of(some), store).split(", ")[:2] == ["asyncio", "HTTPServer"]
    assert label(Words.of(some), store, 1) == "asyncio"
    assert label(Words.of([]), store) == ""
    assert label(Words.of(["the 42 12:30 ---"]), store) == ""
    assert label(Words.of(["昨日東京で会った", "東京は寒い"]), Words.of(["昨日は寒い"]), 1) == "東京"


# Snapshots


def test_a_tree_of_another_encoder_is_not_used(store: Store) -> None:
    store.add(texts(40))
    store.tree.compact("default")
    assert store.view().problems("default") == []
    store.ledger.put_values({"encoder": "another"}, replace=True)
    tree = store.view()
    assert "another version or encoder" in tree.problems("default")[0]
    assert len(store.routed(tree)) == 40
    assert tree.failure
    assert tree.compact("default")
    assert (tree.failure, tree.problems("default")) == (None, [])


def test_a_tree_that_has_grown_much_is_built_anew_and_one_that_has_not_is_kept(store: Store) -> None:
    reports: list[str] = []
    store.add(texts(40))
    sizes = []
    for added in (10, 300):
        store.tree.compact("default")
        store.add(texts(added, 40 + 10 * len(sizes)))
        reports.clear()
        assert store.tree.compact("default", progress=lambda done, total, what: reports.append(what))
        sizes.append(bool(reports))
    assert sizes == [False, True]


def test_the_background_is_told_when_many_rows_came_after_the_snapshot(store: Store) -> None:
    store.add(texts(7))
    assert not store.tree.due("default")
    store.add(texts(40, 7))
    assert store.tree.due("default")
    store.tree.compact("default")
    assert not store.tree.due("default")
    assert store.tree.status("default") == {"position": 47, "rows": 47, "tail": 0, "failure": None}


def test_namespaces_beyond_what_memory_may_hold_are_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.views.tree.MOST_BYTES", 1)
    for space in ("one", "two", "three"):
        store.memory.add("t1 here", namespace=space)
    for _ in range(2):
        for space in ("one", "two", "three"):
            assert len(store.tree.route(store.select(namespace=space), Topics.vector("t1"), 2).seqs) == 1


def test_a_store_in_memory_has_a_tree_and_no_files() -> None:
    with Memory(":memory:", encoder=Topics()) as memory:
        memory.add("t1 here", category="work")
        memory.compact()
        hit = memory.search("t1 where?", recipe="dsm", explain=True)[0]
        assert hit.category == ("work",)
        assert 0 < hit.channels["category"] <= 1
