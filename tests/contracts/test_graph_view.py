"""The graph view keeps the contract of views; what it leads to is the same wherever its edges lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memspan.ledger.base import Ledger, Seqs
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import Edge, Scope
from memspan.testing import ViewContract, activations_of, drafts, turns, write
from memspan.views.adjacency import DEGREE
from memspan.views.association import Graph, NearestIn
from memspan.views.base import Scored, Selection, Selections, View
from memspan.views.graph import GraphView
from memspan.views.vectors import VectorView


def nearest_in(ledger: Ledger) -> NearestIn:
    """The nearest rows by the vectors that the contract's ``write`` gives."""
    vectors, selections = VectorView(ledger, None, 64), Selections(ledger)

    def nearest(within: str | Selection, seqs: Seqs, k: int) -> tuple[Seqs, NDArray[np.float32]]:
        chosen = selections.of(Scope(namespace=within)) if isinstance(within, str) else within
        return vectors.nearest(chosen, seqs, k)

    return nearest


def graph(ledger: Ledger) -> Graph:
    if isinstance(ledger, SqliteLedger):
        return GraphView(ledger, None, nearest_in(ledger))
    from memspan.ledger.postgres.ledger import PostgresLedger
    from memspan.views.postgres.graph import PostgresGraph
    from memspan.views.postgres.vectors import PostgresVectors

    assert isinstance(ledger, PostgresLedger)
    vectors = PostgresVectors(ledger, 64)

    def nearest(within: str | Selection, seqs: Seqs, k: int) -> tuple[Seqs, NDArray[np.float32]]:
        chosen = everything(ledger, namespace=within) if isinstance(within, str) else within
        return vectors.nearest(chosen, seqs, k)

    return PostgresGraph(ledger, nearest)


def seeds(*seqs: int) -> Scored:
    return Scored(np.array(seqs, np.int64), np.ones(len(seqs), np.float32))


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "sqlite":
        ledger: Ledger = SqliteLedger(tmp_path / "ledger.db")
    else:
        url = request.getfixturevalue("postgres")
        from memspan.ledger.postgres.ledger import PostgresLedger

        ledger = PostgresLedger(url)
    yield ledger
    ledger.close()


def everything(ledger: Ledger, **scope: str) -> Selection:
    if isinstance(ledger, SqliteLedger):
        return Selections(ledger).of(Scope(**scope))
    from memspan.ledger.postgres.ledger import PostgresLedger
    from memspan.views.postgres.selections import PostgresSelections

    assert isinstance(ledger, PostgresLedger)
    return PostgresSelections(ledger).of(Scope(**scope))


def linked(ledger: Ledger, ids: Sequence[str], *edges: tuple[int, int, float]) -> None:
    for a, b, weight in edges:
        ledger.link("default", Edge(source=ids[a], target=ids[b], kind="related", weight=weight))


@pytest.mark.usefixtures("small_snapshots")
class TestGraphView(ViewContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        yield ledger
        ledger.close()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "views"

    @pytest.fixture
    def view(self, ledger: Ledger, folder: Path) -> View:
        return self.again(ledger, folder)

    def again(self, ledger: Ledger, folder: Path) -> View:
        return GraphView(ledger, folder, nearest_in(ledger))

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        """The neighbourhood of the rows that hold ``text``, themselves the strongest; a row it lost is not there."""
        assert isinstance(view, GraphView)
        rows = view._ledger.fetch(selection.namespace, selection.seqs.tolist())
        return view.pagerank(selection, seeds(*(row.seq for row in rows if text in row.text)))

    @pytest.mark.parametrize("left", [0, 19], ids=["nothing", "the older ones"])
    def test_the_newest_rows_may_be_removed_before_it_is_folded(
        self, ledger: Ledger, view: View, folder: Path, left: int
    ) -> None:
        texts = self.fill(ledger)
        view.compact("default")
        ledger.erase("default", [row.id for row in ledger.listing(Scope(), None, 100, None)[left:]])
        assert view.compact("default")
        assert view.status("default")["rows"] == left
        late = self.fill(ledger, start=50)
        for reader in (view, self.again(ledger, folder)):
            assert [self.best(ledger, reader, text) for text in (*texts[:left], *late)] == [
                [text] for text in (*texts[:left], *late)
            ]


# Expansion


def test_the_activation_of_a_row_is_that_of_its_best_path(ledger: Ledger) -> None:
    ids = write(ledger, *"abcde")
    linked(ledger, ids, (0, 1, 0.1), (0, 2, 1.0), (2, 1, 1.0), (1, 3, 1.0))
    a, b, c, d, _ = (ledger.get("default", id).seq for id in ids)
    reached = graph(ledger).expand(everything(ledger), seeds(a), kinds=("related",), hops=2, decay=0.5)
    found = dict(zip(reached.seqs.tolist(), reached.activation.tolist(), strict=True))
    assert found == pytest.approx({c: 0.5, b: 0.25, d: 0.025})
    paths = {seq: [step.seq for step in reached.path(seq)] for seq in reached.seqs.tolist()}
    # d was reached over b when b was reached at once: the way around over c would be a hop more than was asked for
    assert paths == {c: [a], b: [a, c], d: [a, b]}
    assert dict(zip(reached.seqs.tolist(), reached.hops.tolist(), strict=True)) == {c: 1, b: 2, d: 2}
    assert reached.path(a) == ()


def test_a_row_that_was_reached_stays_reached_when_a_later_hop_has_no_room_for_it(ledger: Ledger) -> None:
    ids = write(ledger, *"abcde")
    linked(ledger, ids, (0, 1, 0.1), (0, 2, 1.0), (2, 1, 0.5), (2, 3, 1.0), (2, 4, 1.0))
    a, b, c, d, e = (ledger.get("default", id).seq for id in ids)
    reached = graph(ledger).expand(everything(ledger), seeds(a), kinds=("related",), hops=2, decay=0.5, most=2)
    assert set(reached.seqs.tolist()) == {b, c, d, e}
    assert [step.seq for step in reached.path(b)] == [a]


def test_seeds_are_reached_among_themselves_only_when_that_is_asked(ledger: Ledger) -> None:
    ids = write(ledger, *"abc")
    linked(ledger, ids, (0, 1, 0.5), (1, 2, 1.0))
    a, b, c = (ledger.get("default", id).seq for id in ids)
    start = Scored(np.array([a, b]), np.array([1.0, 0.4], np.float32))
    view, selection = graph(ledger), everything(ledger)
    assert view.expand(selection, start, kinds=("related",)).seqs.tolist() == [c]
    among = view.expand(selection, start, kinds=("related",), among_seeds=True)
    found = dict(zip(among.seqs.tolist(), among.activation.tolist(), strict=True))
    assert found == pytest.approx({b: 0.5, c: 0.4, a: 0.2})
    assert [step.seq for step in among.path(a)] == [b]


def test_rows_that_are_not_in_the_ledger_lead_nowhere(ledger: Ledger) -> None:
    view = graph(ledger)
    for selection in (everything(ledger), everything(ledger, namespace="nowhere")):
        assert len(view.expand(selection, seeds(1, 10**12)).seqs) == 0
        assert len(view.pagerank(selection, seeds(1, 10**12)).seqs) == 0
        assert [len(part) for part in view.beside(selection, np.array([1, 10**12]), 2)] == [0, 0, 0]
        assert [len(part) for part in view.neighbourhood(selection)] == [0, 0, 0, 0]


# PageRank


def test_pagerank_of_two_rows_is_what_it_is_by_hand(ledger: Ledger) -> None:
    """m(a) = r + (1 - r) m(b) and m(b) = (1 - r) m(a) give 1 : 1 - r, to what twenty steps leave."""
    ids = write(ledger, "a", "b")
    linked(ledger, ids, (0, 1, 0.3))
    a, b = (ledger.get("default", id).seq for id in ids)
    for restart in (0.25, 0.5, 0.9):
        ranked = graph(ledger).pagerank(everything(ledger), seeds(a), kinds=("related",), restart=restart)
        assert ranked.seqs.tolist() == [a, b]
        assert ranked.scores.tolist() == pytest.approx([1.0, 1 - restart], abs=max(4 * (1 - restart) ** 20, 1e-6))


@settings(suppress_health_check=list(HealthCheck))
@given(
    edges=st.dictionaries(
        st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda ends: ends[0] != ends[1]),
        st.sampled_from((0.1, 0.5, 1.0)),
        max_size=14,
    ),
    start=st.dictionaries(st.integers(0, 7), st.sampled_from((0.2, 1.0)), min_size=1, max_size=3),
    restart=st.sampled_from((0.3, 0.5, 0.8)),
)
def test_pagerank_is_the_stationary_walk_that_starts_anew_at_the_seeds(
    edges: dict[tuple[int, int], float], start: dict[int, float], restart: float
) -> None:
    ledger = SqliteLedger(None)
    ids = write(ledger, *"abcdefgh")
    weights = np.zeros((8, 8))
    for (a, b), weight in edges.items():
        linked(ledger, ids, (a, b, weight))
        weights[a, b] += weight
        weights[b, a] += weight
    seqs = np.array([ledger.get("default", id).seq for id in ids])
    anew = np.array([start.get(row, 0.0) for row in range(8)])
    first = Scored(seqs[anew > 0], anew[anew > 0].astype(np.float32))
    ranked = graph(ledger).pagerank(everything(ledger), first, kinds=("related",), hops=7, restart=restart)
    ledger.close()

    anew /= anew.sum()
    out = weights.sum(1)
    walk = np.where(out[:, None] > 0, weights / np.maximum(out, 1e-9)[:, None], anew[None, :])
    mass = np.linalg.solve(np.eye(8) - (1 - restart) * walk.T, restart * anew)
    assert mass.sum() == pytest.approx(1)
    assert set(ranked.seqs.tolist()) == set(seqs[mass > 1e-12].tolist())
    there = np.isin(seqs, ranked.seqs)
    still_to_move = 2 * (1 - restart) ** 20 / mass.max()
    assert ranked.scores.tolist() == pytest.approx((mass[there] / mass.max()).tolist(), abs=max(still_to_move, 1e-6))


def test_pagerank_of_one_tenant_knows_nothing_of_another(ledger: Ledger) -> None:
    for user in ("ana", "ben"):
        write(ledger, "Kyoto in May", "Kyoto in June", "Osaka in June", user_id=user)
    write(ledger, "Kyoto in May", namespace="other")
    mine = everything(ledger, user_id="ana")
    view = graph(ledger)
    ranked = view.pagerank(mine, seeds(int(mine.seqs[0])), kinds=("mentions",), hops=3)
    assert set(ranked.seqs.tolist()) <= set(mine.seqs.tolist())
    ledger.erase_scope(Scope(user_id="ben"), None)
    again = graph(ledger).pagerank(mine, seeds(int(mine.seqs[0])), kinds=("mentions",), hops=3)
    assert (again.seqs.tolist(), again.scores.tolist()) == (ranked.seqs.tolist(), ranked.scores.tolist())


# The same edges from memory and from a file

NAMES = ("Ana", "Ben", "Kyoto", "Lisbon", "Project Iris")
TEXTS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda names: " saw ".join(names) + " today.")


def followed(view: Graph, selection: Selection, kind: str) -> dict[tuple[int, int], float]:
    """Every edge of a kind: (from, to) and its weight."""
    found: dict[tuple[int, int], float] = {}
    for seq in selection.seqs.tolist():
        reached = view.expand(selection, seeds(seq), kinds=(kind,))
        found |= {(seq, to): weight for to, weight in zip(reached.seqs.tolist(), reached.activation, strict=True)}
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    said=st.lists(st.tuples(st.sampled_from("st"), TEXTS), min_size=9, max_size=16),
    late=st.lists(TEXTS, max_size=4),
    gone=st.sets(st.integers(0, 8), max_size=3),
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda ends: ends[0] != ends[1]), max_size=4),
)
def test_folded_or_not_the_edges_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    said: list[tuple[str, str]],
    late: list[str],
    gone: set[int],
    pairs: set[tuple[int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("graph")
    ledger = SqliteLedger(folder / "ledger.db")
    for number, (session, text) in enumerate(said):
        batch = turns(f"{text} {number}", session=session)
        ledger.append("default", batch.drafts, activations=activations_of(batch))
    ids = [row.id for row in ledger.listing(Scope(), None, 100, None)]
    linked(ledger, ids, *((a, b, 0.5) for a, b in pairs))
    ledger.erase("default", [ids[at] for at in gone])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memspan.views.graph.SNAPSHOT_ROWS", 4)
        view = GraphView(ledger, folder / "views", nearest_in(ledger))
        for step in range(2):  # all in memory, then in a file; the second time some rows after the file too
            selection = everything(ledger)
            before = {kind: followed(view, selection, kind) for kind in ("next", "mentions", "related", "similar")}
            assert view.compact("default")
            for folded in (view, GraphView(ledger, folder / "views", nearest_in(ledger))):
                after = {kind: followed(folded, selection, kind) for kind in before}
                for kind in ("next", "mentions", "related"):
                    assert after[kind] == before[kind]
                similar = symmetric(after["similar"], DEGREE)
                known = symmetric(before["similar"], DEGREE if step else 2 * DEGREE)
                if all(len(ends) < DEGREE for ends in (*similar.values(), *known.values())):
                    assert after["similar"] == pytest.approx(before["similar"], abs=1e-3)
            batch = drafts(*late, "Ana saw the end.")
            ledger.append("default", batch.drafts, activations=activations_of(batch))
        assert view.problems("default") == []
    ledger.close()


def symmetric(edges: dict[tuple[int, int], float], most: int) -> dict[int, set[int]]:
    """The similar rows of each, which know each other, but where one of them knows as many as it can."""
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
    for a, b in edges:
        assert a in near.get(b, ()) or len(near.get(b, ())) >= most, (a, b, near)
    return near


def test_the_neighbourhood_has_each_edge_once_also_where_only_one_end_knows_of_it(ledger: Ledger) -> None:
    write(ledger, "kettle", *(f"kettle zq{number}x wv{number}x" for number in range(2 * DEGREE + 4)))
    view, selection = graph(ledger), everything(ledger)
    edges = followed(view, selection, "similar")
    assert any((b, a) not in edges for a, b in edges), "no row knew as many as it can"
    seqs, a, b, weight = view.neighbourhood(selection)
    ends = list(zip(seqs[a].tolist(), seqs[b].tolist(), strict=True))
    assert all(one < other for one, other in ends)
    assert np.all((weight > 0) & (weight <= 1))
    similar = {(min(ends), max(ends)) for ends in edges}
    mentioned = {(min(ends), max(ends)) for ends in followed(view, selection, "mentions")}
    assert sorted(ends) == sorted([*similar, *mentioned])
