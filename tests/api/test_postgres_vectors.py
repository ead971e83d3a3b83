"""Searches by meaning on PostgreSQL: as exact as the embedded ones, whatever the scope, with a graph and without."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres import database, room

from memspan import Memory
from memspan.records import Hit

ROWS = 1_500
TOPICS = ("travel", "food", "work")
WORDS = [f"{first}{last}" for first in "bdfgklmn" for last in ("ana", "eno", "iru", "osk", "ump", "yth", "ale", "orn")]
CUTS = (0, 700, 1_200, 1_450, 1_497, ROWS)  # how many rows each user has: 700, 500, 250, 47, 3


def said(count: int = ROWS, seed: int = 0) -> list[str]:
    """Texts of words from a few fields each, so that some are near each other."""
    random = np.random.default_rng(seed)
    return [
        f"{' '.join(WORDS[(field * 5 + step) % len(WORDS)] for step in random.integers(0, 9, 6))} n{number}"
        for number, field in enumerate(random.integers(0, 12, count))
    ]


def add_all(memory: Memory, texts: Sequence[str], **about: Any) -> list[str]:
    return list(memory.add([{"role": "user", "content": text} for text in texts], **about).ids)


def fill(memory: Memory) -> None:
    texts = said()
    for user, (start, end) in enumerate(pairwise(CUTS)):
        for topic, name in enumerate(TOPICS):
            add_all(memory, texts[start + topic : end : 3], user_id=f"u{user}", metadata={"topic": name})


@pytest.fixture
def _graphs_early(monkeypatch: pytest.MonkeyPatch) -> None:
    early(monkeypatch)


def early(patch: pytest.MonkeyPatch) -> None:
    """Graphs and walks pay from a few hundred rows on."""
    for name, value in (("GRAPH_ROWS", 200), ("WALK", 10), ("STEP", 1)):
        patch.setattr(f"memspan.views.postgres.vectors.{name}", value)


@pytest.fixture(scope="module")
def both(postgres_server: str) -> Iterator[tuple[Memory, Memory]]:
    """The same in an embedded store and in a database, where it has a graph."""
    with (
        pytest.MonkeyPatch.context() as patch,
        database(postgres_server) as url,
        Memory(":memory:", encoder="hash:64") as embedded,
        Memory(url, encoder="hash:64") as served,
    ):
        early(patch)
        for memory in (embedded, served):
            fill(memory)
        served.compact()
        assert served.stats()["views"]["vectors"]["rows"] == ROWS
        yield embedded, served


def scored(hits: Sequence[Hit]) -> list[float]:
    return [round(hit.channels["semantic"], 3) for hit in hits]


questions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
filters = st.one_of(
    st.none(),
    st.sampled_from(TOPICS).map(lambda topic: {"topic": topic}),
    st.sampled_from(TOPICS).map(lambda topic: {"NOT": {"topic": topic}}),
)


@given(
    question=questions,
    user=st.sampled_from([None, "u0", "u1", "u2", "u3", "u4", "nobody"]),
    filters=filters,
    k=st.sampled_from([1, 5, 10, 50, 200]),
)
def test_a_filtered_search_never_comes_back_short_and_scores_as_an_embedded_one(
    both: tuple[Memory, Memory], question: str, user: str | None, filters: dict[str, Any] | None, k: int
) -> None:
    there, here = (
        memory.search(question, k=k, user_id=user, filters=filters, recipe="semantic", explain=True) for memory in both
    )
    assert len(here) == len(there)
    if user not in (None, "u0", "u1"):  # few rows: all are compared
        assert scored(here) == pytest.approx(scored(there), abs=2e-3)
    assert sum(scored(here)) >= 0.97 * sum(scored(there)) - 0.01


def test_nine_in_ten_of_the_nearest_are_found_in_a_graph(both: tuple[Memory, Memory]) -> None:
    found = []
    for question in said(40, seed=1):
        there, here = ({hit.text for hit in memory.search(question, recipe="semantic")} for memory in both)
        found.append(len(there & here) / len(there))
    assert np.mean(found) > 0.9


def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans of the queries that read vectors' scores from now on."""
    from memspan.ledger.postgres.connections import PostgresConnection

    kept: list[str] = []
    binary = PostgresConnection.binary

    def explained(self: PostgresConnection, sql: str, parameters: Sequence[Any] = (), **more: Any) -> list[Any]:
        kept.append("\n".join(row[0] for row in binary(self, f"EXPLAIN {sql}", parameters, **more)))
        return binary(self, sql, parameters, **more)

    monkeypatch.setattr(PostgresConnection, "binary", explained)
    return kept


@pytest.mark.usefixtures("_graphs_early")
def test_a_large_scope_is_walked_and_a_small_one_compared_whole(
    both: tuple[Memory, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, served = both
    told = plans(monkeypatch)
    served.search("bana beno", user_id="u0", recipe="semantic", k=5)
    assert "Index Scan using vectors_" in told[0]
    told.clear()
    served.search("bana beno", user_id="u4", recipe="semantic", k=5)
    assert told
    assert not any("using vectors_" in plan for plan in told)


@pytest.mark.usefixtures("_graphs_early")
def test_a_walk_that_finds_too_few_is_followed_by_comparing_all(
    both: tuple[Memory, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.postgres.vectors.SPARE", 2**-6)  # it passes one row
    there, here = (memory.search("bana dale", k=20, recipe="semantic", explain=True) for memory in both)
    assert scored(here) == pytest.approx(scored(there), abs=2e-3)
    assert len(here) == 20


def compared_with_embedded(url: str, patch: pytest.MonkeyPatch) -> None:
    """A new store there finds what an embedded one does, in a graph and without."""
    with Memory(url, encoder="hash:64") as served, Memory(":memory:", encoder="hash:64") as embedded:
        for memory in (served, embedded):
            fill(memory)
        served.compact()
        told = plans(patch)
        for user in (None, "u1", "u2", "u4"):
            there, here = (
                memory.search("bana dale", k=10, user_id=user, recipe="semantic", explain=True)
                for memory in (embedded, served)
            )
            assert len(here) == len(there)
            assert sum(scored(here)) >= 0.97 * sum(scored(there))
        assert any("using vectors_" in plan for plan in told)
        assert served.verify()["ok"]


@contextmanager
def emptied(server: str) -> Iterator[str]:
    """The address of a new database without anything in it, which is dropped afterwards."""
    import psycopg

    from memspan.ledger.postgres.connections import database as address

    name = f"memspan_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as raw:
        raw.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield address(server, name)
        raw.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.usefixtures("_graphs_early")
@pytest.mark.parametrize(("half", "iterative"), [(True, False), (False, True), (False, False)])
def test_a_server_that_can_do_less_finds_the_same(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch, half: bool, iterative: bool
) -> None:
    from memspan.ledger.postgres import schema

    asked = schema.capabilities
    monkeypatch.setattr(
        schema,
        "capabilities",
        lambda raw: replace(can := asked(raw), half=can.half and half, iterative=can.iterative and iterative),
    )
    with emptied(postgres_server) as url:
        compared_with_embedded(url, monkeypatch)


@pytest.mark.usefixtures("_graphs_early")
def test_a_real_older_server_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    older = pytest.importorskip("pgserver", reason="pgserver (PostgreSQL 16, pgvector 0.6.2) is not installed")
    place = room()
    server = older.get_server(place, cleanup_mode="delete")
    try:
        with emptied(server.get_uri()) as url:
            compared_with_embedded(url, monkeypatch)
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.usefixtures("_graphs_early")
def test_the_graph_of_one_namespace_is_of_no_use_to_another(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400), namespace="large")
        add_all(memory, said(30), namespace="small")
        assert memory.compact()["rewritten"] == ["large/vectors"]
        told = plans(monkeypatch)
        assert len(memory.search("bana dale", k=50, namespace="small", recipe="semantic")) == 30
        assert told
        assert not any("vectors_" in plan for plan in told)


def test_the_nearest_of_rows_are_those_that_comparing_all_finds(both: tuple[Memory, Memory]) -> None:
    from memspan.ledger.postgres.ledger import PostgresLedger
    from memspan.records import Scope
    from memspan.views.postgres.selections import PostgresSelections
    from memspan.views.postgres.vectors import PostgresVectors

    ledger = PostgresLedger(both[1].address)
    view, selections = PostgresVectors(ledger, 64), PostgresSelections(ledger)
    for user, share in ((None, 0.9), ("u0", 0.9), ("u3", 1.0), ("u4", 1.0)):
        selection = selections.of(Scope(user_id=user))
        asked = selection.seqs[:: max(1, selection.rows // 20)]
        near, cosines = view.nearest(selection, np.append(asked, 10**6), 8)
        _, vectors = ledger.vectors_of("default", selection.seqs.tolist())
        products = vectors[np.searchsorted(selection.seqs, asked)] @ vectors.T
        best = -np.sort(-products, axis=1)[:, : min(8, selection.rows)]
        assert (near[-1] == -1).all()
        assert (near[:-1, best.shape[1] :] == -1).all()
        assert np.isin(near[:-1, : best.shape[1]], selection.seqs).all()
        found = np.isclose(cosines[:-1, : best.shape[1]], best, atol=2e-3)
        assert found.mean() >= share
        score = view.score("default", vectors[0], np.append(asked, 10**6))
        assert score[:-1] == pytest.approx(products[:, 0], abs=1e-5)
        assert np.isnan(score[-1])
    ledger.close()


@pytest.mark.usefixtures("_graphs_early")
def test_what_comes_after_the_graph_is_found_at_once_and_folded_in_later(postgres: str) -> None:
    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400))
        memory.compact()
        memory.add("zwieback in the drawer")
        assert memory.search("zwieback", k=1, recipe="semantic")[0].text == "zwieback in the drawer"
        assert memory.stats()["views"]["vectors"]["tail"] == 1
        assert "default/vectors" in memory.compact()["rewritten"]
        assert memory.stats()["views"]["vectors"]["tail"] == 0
        assert memory.search("zwieback", k=1, recipe="semantic")[0].text == "zwieback in the drawer"
        assert "default/vectors" not in memory.compact()["rewritten"]


@pytest.mark.usefixtures("_graphs_early")
def test_a_graph_answers_as_of_a_time_and_not_of_what_is_gone(postgres: str) -> None:
    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400))
        first, second = add_all(memory, ["zwieback in the drawer", "zwieback on the table"])
        memory.compact()
        then = datetime.now(UTC)
        memory.delete(first)
        question = "zwieback in the drawer"
        was, now = (memory.search(question, k=1, recipe="semantic", as_of=moment)[0] for moment in (then, None))
        assert (was.text, now.text) == ("zwieback in the drawer", "zwieback on the table")
        memory.erase(first)
        assert memory.search(question, k=1, recipe="semantic", as_of=then)[0].id == second


@pytest.mark.usefixtures("_graphs_early")
def test_a_graph_that_was_left_unfinished_is_told_of_done_without_and_made_again(postgres: str) -> None:
    import psycopg

    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400))
        memory.compact()
        best = [hit.text for hit in memory.search("bana dale", recipe="semantic")]
        with psycopg.connect(postgres, autocommit=True) as raw:
            raw.execute("UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid::regclass::text ~ 'vectors_'")
        found = memory.verify()
        assert not found["ok"]
        assert "not whole" in found["problems"][0]
        assert [hit.text for hit in memory.search("bana dale", recipe="semantic")] == best
        assert "default/vectors" in memory.compact()["rewritten"]
        assert memory.verify()["ok"]


@pytest.mark.usefixtures("_graphs_early")
def test_a_namespace_that_has_become_small_and_one_encoded_anew_lose_their_graphs(postgres: str) -> None:
    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400), user_id="ana")
        memory.compact()
        size = memory.stats()["views"]["vectors"]["bytes"]
        assert size > 0
        memory.reencode(encoder="hash:32")
        assert memory.search("bana dale", k=1, recipe="semantic")
        assert 0 < memory.stats()["views"]["vectors"]["bytes"] <= size
        memory.erase(user_id="ana")
        memory.compact()
        assert memory.stats()["views"]["vectors"]["bytes"] == 0


@pytest.mark.usefixtures("_graphs_early")
def test_the_making_of_a_graph_is_told_of(postgres: str) -> None:
    told: list[tuple[int, int, str]] = []
    with Memory(postgres, encoder="hash:64") as memory:
        add_all(memory, said(400))
        memory.rebuild(progress=lambda *step: told.append(step))
    assert (400, 400, "vectors") in told
    assert all(0 < done <= total for done, total, what in told if what == "vectors")


def test_a_scope_is_counted_right_whatever_comes_and_goes(postgres: str) -> None:
    from memspan.filtering import parse_filter
    from memspan.ledger.postgres.ledger import PostgresLedger
    from memspan.records import NOW, AsOf, Scope
    from memspan.views.base import Selections
    from memspan.views.postgres.selections import PostgresSelections

    random = np.random.default_rng(3)
    ledger = PostgresLedger(postgres)
    kept = PostgresSelections(ledger)
    asked = [
        (Scope(user_id=user), filters, then)
        for user in (None, "ana")
        for filters in (None, parse_filter({"kind": "semantic"}), parse_filter({"state": {"ne": "quarantined"}}))
        for then in (NOW, None, AsOf(superseded=True), AsOf(known=datetime.now(UTC)))
    ]
    with Memory(postgres, encoder="hash:64") as memory:
        ids: list[str] = []
        for step in range(30):
            text = f"{said(1, seed=step)[0]} s{step}"
            what = random.integers(0, 7) if len(ids) > 2 else 0
            chosen = ids[random.integers(0, len(ids))] if ids else ""
            if what <= 1:
                kind = "semantic" if step % 3 else "episodic"
                expires = "2020-01-01" if step % 7 == 0 else None
                user = "ana" if step % 2 else "ben"
                ids += memory.add(text, user_id=user, kind=kind, expires_at=expires).ids
            elif what == 2:
                memory.update(chosen, text)
            elif what == 3:
                memory.delete(chosen)
                ids.remove(chosen)
            elif what == 4:
                memory.erase(chosen)
                ids.remove(chosen)
            elif what == 5:
                memory.quarantine(chosen)
            else:
                memory.release(chosen)
            for scope, filters, then in asked:
                counted, listed = kept.of(scope, filters, then), Selections(ledger).of(scope, filters, then)
                assert (counted.rows, counted.total_terms) == (listed.rows, listed.total_terms)
                assert counted.seqs.tolist() == listed.seqs.tolist()
                every = np.arange(1, 80)
                assert counted.inside(every).tolist() == listed.inside(every).tolist()
                some = listed.seqs[::2]
                part = counted.part(some)
                assert (part.rows, part.total_terms) == (len(some), int(listed.terms[::2].sum()))
    ledger.close()
