"""Words on PostgreSQL: the scores of the embedded memory, whoever else writes, however many rows there are."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memspan import Memory

WORDS = (
    *("harbour", "ferry", "lisbon", "zwieback", "wi-fi", "camelCase", "ran", "running", "3.14", "the"),
    *("Ærøskøbing", "über", "наука", "東京都庁", "ภาษาไทย", "한국어", "e\u0301te\u0301", "مدرسة", "ΑΘΗΝΑ", "🦜"),
)
USERS = ("ana", "ben", None)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
asked = st.lists(st.sampled_from((*WORDS, "nobody", "said")), min_size=1, max_size=30).map(" ".join)


@pytest.fixture
def embedded() -> Iterator[Memory]:
    with Memory(":memory:", encoder="none") as memory:
        yield memory


@pytest.fixture
def served(postgres: str) -> Iterator[Memory]:
    with Memory(postgres, encoder="none") as memory:
        yield memory


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A selection is large from 100 rows on, so that a few hundred go the way of millions."""
    for name, value in {"EXACT": 100, "SAMPLE": 100, "BUDGET": 100, "SHARE": 4, "LEAST": 50}.items():
        monkeypatch.setattr(f"memspan.views.postgres.lexical.{name}", value)


def say(memory: Memory, texts: Sequence[str], **scope: Any) -> list[str]:
    """Add each text; their ids."""
    return list(memory.add([{"role": "user", "content": text} for text in texts], **scope).ids)


def found(memory: Memory, query: str, k: int = 256, **scope: Any) -> list[tuple[str, float]]:
    """What is found by words: each text with the share of the best score."""
    hits = memory.search(query, k=k, recipe="keyword", explain=True, **scope)
    return [(hit.text, hit.channels["keyword"]) for hit in hits]


def alike(first: Sequence[tuple[str, float]], second: Sequence[tuple[str, float]]) -> None:
    assert [score for _, score in first] == pytest.approx([score for _, score in second], abs=1e-5)
    assert sorted(text for text, _ in first) == sorted(text for text, _ in second)


def prose(rows: int, seed: int = 1) -> list[str]:
    """Texts as people write them: few words stand in most of them, most words in few."""
    choose = random.Random(seed)
    vocabulary = [f"{'bcdfghkmnp'[n // 10 % 10]}o{'bcdfghkmnp'[n % 10]}{n // 100}x" for n in range(2000)]
    weights = [1 / (rank + 2) for rank in range(len(vocabulary))]
    return [" ".join([*choose.choices(vocabulary, weights, k=12), f"n{row}"]) for row in range(rows)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(st.tuples(texts, st.sampled_from(USERS), st.integers(0, 2)), min_size=1, max_size=30),
    gone=st.sets(st.integers(0, 29), max_size=8),
    query=asked,
    user=st.sampled_from(USERS),
    filters=st.sampled_from((None, {"n": 1}, {"n": {"in": [0, 2]}}, {"NOT": [{"n": 1}]})),
)
def test_words_find_the_same_rows_with_the_same_scores_as_in_the_embedded_memory(
    served: Memory,
    embedded: Memory,
    said: list[tuple[str, str | None, int]],
    gone: set[int],
    query: str,
    user: str | None,
    filters: dict[str, Any] | None,
) -> None:
    namespace = uuid.uuid4().hex
    answers = []
    for memory in (embedded, served):
        ids = [
            memory.add(text, user_id=owner, metadata={"n": n}, namespace=namespace).ids[0] for text, owner, n in said
        ]
        memory.delete(list({ids[at] for at in gone if at < len(ids)}), namespace=namespace)
        answers.append(found(memory, query, user_id=user, filters=filters, namespace=namespace))
    alike(*answers)


def test_thirty_words_find_256_rows_with_the_scores_of_the_embedded_memory(served: Memory, embedded: Memory) -> None:
    said = prose(400)
    query = " ".join([*said[7].split(), *said[90].split(), *said[200].split()][:30])
    for memory in (served, embedded):
        say(memory, said)
    assert len(found(served, query)) == 256
    alike(found(served, query), found(embedded, query))


def test_words_that_nobody_said_find_nothing(served: Memory) -> None:
    assert found(served, "zwieback") == []
    say(served, ["the ferry to lisbon", "🦜 🦜"])
    assert found(served, "zwieback 🦜") == []
    assert found(served, "🦜") == []


@pytest.mark.usefixtures("sampled")
def test_among_many_rows_the_best_are_found_with_nearly_the_scores_of_the_embedded_memory(
    served: Memory, embedded: Memory
) -> None:
    said = prose(1_500)
    for memory in (served, embedded):
        say(memory, said[:1000], user_id="ana")
        say(memory, said[1000:], user_id="ben")
    for scope in ({}, {"user_id": "ana"}, {"filters": {"user_id": "ana"}}):
        for text in said[::50]:
            query = " ".join(text.split()[:8])
            ours, theirs = found(served, query, k=20, **scope), found(embedded, query, k=20, **scope)
            assert len({text for text, _ in ours[:10]} & {text for text, _ in theirs}) >= 9
            assert [score for _, score in ours[:10]] == pytest.approx([score for _, score in theirs[:10]], rel=0.15)


@pytest.mark.usefixtures("sampled")
def test_words_that_nearly_every_row_holds_find_the_newest_of_those_that_hold_them_all(served: Memory) -> None:
    say(served, [f"harbour ferry n{row}" for row in range(400)])
    say(served, [f"harbour n{row}" for row in range(400, 600)])
    assert [text for text, _ in found(served, "ferry", k=3)] == [f"harbour ferry n{row}" for row in (399, 398, 397)]
    assert [text for text, _ in found(served, "harbour ferry", k=1)] == ["harbour ferry n399"]
    assert len(found(served, "harbour", k=50)) == 50


@pytest.mark.usefixtures("sampled")
def test_a_rare_word_does_not_hide_the_rows_that_hold_a_common_one(served: Memory) -> None:
    say(served, [f"harbour n{row}" for row in range(400)])
    served.add("zwieback")
    best, *others = found(served, "zwieback harbour", k=40)
    assert best[0] == "zwieback"
    assert len(others) == 39


@pytest.mark.parametrize("rows", [60, 600])
@pytest.mark.usefixtures("sampled")
def test_what_other_users_and_namespaces_write_or_delete_never_moves_a_score(postgres: str, rows: int) -> None:
    said = prose(rows)
    queries = [" ".join(text.split()[:6]) for text in said[::29]]
    with Memory(postgres, encoder="none") as memory:
        say(memory, said, user_id="ana")
        before = [found(memory, query, k=20, user_id="ana") for query in queries]
        others = say(memory, prose(300, seed=2), user_id="ben") + say(memory, said[:100], user_id="cem")
        say(memory, prose(300, seed=3), namespace="elsewhere")
        assert [found(memory, query, k=20, user_id="ana") for query in queries] == before
        memory.delete(others[::2])
        memory.erase(others[1::2])
        assert [found(memory, query, k=20, user_id="ana") for query in queries] == before
    with Memory(postgres) as memory:  # which knows nothing of these selections yet
        assert [found(memory, query, k=20, user_id="ana") for query in queries] == before


@pytest.mark.parametrize("rows", [60, 300])
@pytest.mark.usefixtures("sampled")
def test_words_are_found_as_of_a_time_in_what_was_known_then(served: Memory, rows: int) -> None:
    said = prose(rows)
    ids = say(served, said)
    query = " ".join(said[3].split()[:6])
    before, then = found(served, query, k=10), datetime.now(UTC)
    served.update(ids[3], text="something else")
    served.delete(ids[4:20])
    assert found(served, query, k=10, as_of=then) == before
    assert said[3] not in [text for text, _ in found(served, query, k=10)]
    assert served.verify()["ok"]


def test_a_rare_word_among_many_rows_is_looked_up_in_the_index(postgres: str) -> None:
    with Memory(postgres, encoder="none") as memory:
        say(memory, prose(3_000))
        memory.compact()  # after which the server knows how many rows there are
        assert found(memory, "n1234", k=3)[0][0].endswith("n1234")
    with psycopg.connect(postgres, autocommit=True) as raw:
        theirs = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'memspan'"
        )
        while raw.execute(theirs).fetchone() != (0,):  # a connection tells what it did when it ends
            pass
        sql = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'lexical_words'"
        assert raw.execute(sql).fetchone() == (1,)


def test_the_index_holds_no_text_and_shares_no_word_between_namespaces(served: Memory, postgres: str) -> None:
    for namespace in ("one", "other"):
        served.add("zwieback in the harbour", namespace=namespace)
    with psycopg.connect(postgres) as raw:
        rows = raw.execute("SELECT words, occurrences FROM memspan.lexical").fetchall()
    assert not set(rows[0][0]) & set(rows[1][0])
    assert not any(b"zwieback" in occurrences for _, occurrences in rows)


def test_words_of_an_older_analyser_are_reported_and_indexed_again_by_compact(postgres: str) -> None:
    with Memory(postgres, encoder="none") as memory:
        say(memory, ["The ferry to Lisbon leaves at noon.", "zwieback"])
    with psycopg.connect(postgres) as raw:  # what an analyser without stems would have left
        raw.execute("UPDATE memspan.store SET value = '0' WHERE key = 'analyser'")
        raw.execute("UPDATE memspan.lexical SET words = '{1}', occurrences = '\\x0100000000000000'")
    with Memory(postgres) as memory:
        assert "version 0" in memory.stats()["views"]["lexical"]["failure"]
        assert any("version 0" in problem for problem in memory.verify()["problems"])
        assert found(memory, "leaving ferries") == []
        memory.compact()
        assert memory.stats()["views"]["lexical"]["failure"] is None
        assert memory.verify()["ok"]
        assert len(found(memory, "leaving ferries")) == 1


def test_an_index_that_says_another_scope_than_the_ledger_is_reported_and_mended(postgres: str) -> None:
    with Memory(postgres, encoder="none") as memory:
        memory.add("the ferry", user_id="ana")
        with psycopg.connect(postgres) as raw:
            raw.execute("UPDATE memspan.lexical SET user_id = 'ben'")
        assert found(memory, "ferry", user_id="ben") == []
        assert any("another scope" in problem for problem in memory.verify()["problems"])
        memory.rebuild()
        assert memory.verify()["ok"]
        assert len(found(memory, "ferry", user_id="ana")) == 1
