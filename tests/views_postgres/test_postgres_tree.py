"""The tree on PostgreSQL is the embedded one: the same categories, the same clusters, the same word for a score."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memspan import Memory, Node

PATHS = ("Work", "Work / Code", "Work / Code / Core", "Home", "Home / Garden", None)
WORDS = ("beam", "search", "node", "tomato", "water", "spade", "meeting", "salary")
said = st.lists(
    st.tuples(st.sampled_from(PATHS), st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)),
    min_size=2,
    max_size=12,
    unique_by=lambda each: each[1],
)
places = st.integers(0, 99)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few dozen rows make a tree of several levels, and a snapshot."""
    monkeypatch.setattr("memspan.views.tree.SNAPSHOT_ROWS", 8)
    monkeypatch.setattr("memspan.views.forest.LEAF", 4)
    monkeypatch.setattr("memspan.views.forest.FAN", 3)


def suits(memory: Memory, ids: Sequence[str], asked: str, **scope: Any) -> dict[int, float | None]:
    """By number how well its category suits what is asked."""
    number = {id: at for at, id in enumerate(ids)}
    return {
        number[hit.id]: round(hit.channels["category"], 3) if "category" in (hit.channels or {}) else None
        for hit in memory.search(asked, k=50, explain=True, **scope)
        if hit.id in number
    }


def shape(node: Node) -> tuple[Any, ...]:
    return node.kind, node.path, node.label, node.segments, node.examples, tuple(map(shape, node.children))


def fill(memory: Memory, count: int = 40, **scope: Any) -> list[str]:
    texts = [f"{WORDS[at % 8]} {WORDS[at * 5 % 7]} number {at}" for at in range(count)]
    return [memory.add(text, category=PATHS[at % 6], **scope).ids[0] for at, text in enumerate(texts)]


@settings(suppress_health_check=list(HealthCheck), max_examples=8)
@given(turns=said, later=said, gone=st.lists(places, max_size=3), moved=places)
def test_a_category_suits_a_question_as_it_does_embedded(
    pair: tuple[Memory, Memory],
    turns: Sequence[tuple[str | None, str]],
    later: Sequence[tuple[str | None, str]],
    gone: Sequence[int],
    moved: int,
) -> None:
    space, found = uuid.uuid4().hex, []
    for memory in pair:
        ids: list[str] = []
        answers: list[Any] = []
        for batch in (turns, later):
            ids += [memory.add(text, category=path, namespace=space).ids[0] for path, text in batch]
            answers.append(suits(memory, ids, "beam search", namespace=space))
        memory.update(ids[moved % len(ids)], "water the tomato", namespace=space)
        answers.append(suits(memory, ids, "tomato", namespace=space))
        memory.erase(sorted({ids[at % len(ids)] for at in gone}), namespace=space)
        answers.append(suits(memory, ids, "a salary meeting", namespace=space))
        answers.append(shape(memory.tree(namespace=space)))
        found.append(answers)
    assert found[1] == found[0]


def test_what_waits_for_its_vector_counts_once_it_has_one(served: Memory) -> None:
    first = served.add("the beam search keeps nodes", category="Work").ids[0]
    assert suits(served, [first], "tomato")[0] == pytest.approx(0, abs=0.2)
    served.add("water the tomato", category="Work", wait=False)
    served.add("a tomato and a spade", category="Work")
    assert (suits(served, [first], "tomato")[0] or 0) > 0.3
    with Memory(served.address, encoder="hash") as other:
        assert suits(other, [first], "tomato") == suits(served, [first], "tomato")


def test_another_process_weighs_what_this_one_has_just_written_and_taken_away(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as one, Memory(postgres, encoder="hash") as other:
        ids = list(one.add("the beam search keeps nodes", category="Work").ids)
        before = suits(other, ids, "tomato")
        late = one.add("water the tomato", category="Work").ids[0]
        assert suits(other, ids, "tomato") != before
        one.erase(late)
        assert suits(other, ids, "tomato") == before


def test_a_category_suits_as_the_new_encoder_says_after_encoding_anew(served: Memory) -> None:
    ids = fill(served, 12)
    suits(served, ids, "beam")
    served.rebuild(encoder="hash:64")
    with Memory(served.address, encoder="hash:64") as fresh:
        assert suits(fresh, ids, "beam") == suits(served, ids, "beam")


@pytest.mark.usefixtures("small")
def test_the_tree_is_read_from_the_database_by_another_process(served: Memory, postgres: str) -> None:
    fill(served)
    whole = shape(served.tree())
    assert "default/tree" in served.compact()["rewritten"]
    with Memory(postgres, encoder="hash") as other:
        assert shape(other.tree()) == whole
        assert other._projection.status(["default"])["tree"]["rows"] == 40
        more = fill(served, 44)[40:]
        assert len(more) == 4
        assert shape(other.tree()) == shape(served.tree())


@pytest.mark.usefixtures("small")
def test_what_is_erased_is_in_no_snapshot(served: Memory, postgres: str) -> None:
    ids = fill(served)
    served.compact()
    served.erase(ids[:7])
    with psycopg.connect(postgres) as raw:
        files = raw.execute("SELECT file FROM memspan.snapshots WHERE view = 'tree'").fetchall()
        assert set(raw.execute("SELECT DISTINCT file FROM memspan.snapshot_parts").fetchall()) == set(files)
    assert served._projection.status(["default"])["tree"]["rows"] == 33
    served.erase(ids[7:])
    served.compact()
    with psycopg.connect(postgres) as raw:
        assert raw.execute("SELECT count(*) FROM memspan.snapshot_parts").fetchone() == (0,)
