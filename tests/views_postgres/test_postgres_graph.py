"""The graph on PostgreSQL leads where the embedded one leads, as strongly, in every scope and as of every time."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memspan import Hit, Memory, Neighbor

NAMES = ("Ana", "Ben", "Kyoto", "Lisbon", "Project Iris", "2023-05-08", "Zanzibar")
KINDS = ("next", "mentions", "similar", "reply", None)
CHANNELS = ("next", "mentions", "named", "graph")
said = st.lists(
    st.tuples(
        st.sampled_from(("ana", "ben", None)),
        st.sampled_from(("monday", "friday", None)),
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(" saw ".join),
        st.booleans(),
    ),
    min_size=2,
    max_size=9,  # so many can all be similar to one another
    unique_by=lambda each: each[2],
)
places = st.integers(0, 99)


def told(memory: Memory, space: str, turns: Sequence[tuple[str | None, str | None, str, bool]]) -> list[str]:
    """Write what was said; the ids."""
    ids = []
    for user, session, text, document in turns:
        scope = {"namespace": space, "user_id": user}
        if document:
            ids += memory.add_document(f"# {text}\n\nThey saw {text}.\n\n## More\n\nAnd so on.", **scope).ids
        else:
            message = {"role": "user", "name": "Ana", "content": text}
            ids += memory.add([message], session=session, metadata={"long": len(text) > 20}, **scope).ids
    return ids


def led(memory: Memory, ids: Sequence[str], found: Sequence[Neighbor]) -> dict[int, tuple[float, Any]]:
    """Where it leads to, by number: how strongly, and over what."""
    number = {id: at for at, id in enumerate(ids)}
    return {
        number[near.id]: (near.strength, [(number[step.id], step.kind, step.via) for step in near.path])
        for near in found
        if near.id in number
    }


def parts(ids: Sequence[str], hits: Sequence[Hit]) -> dict[int, Mapping[str, Any]]:
    """What counted for each hit, by number."""
    number = {id: at for at, id in enumerate(ids)}
    return {
        number[hit.id]: {name: value for name, value in (hit.channels or {}).items() if name in CHANNELS}
        for hit in hits
    }


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same, numbers as near as sums of float32 in another order are."""
    if isinstance(one, float):
        return abs(one - other) < 2e-3
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


@settings(
    suppress_health_check=list(HealthCheck), max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
@given(
    turns=said, links=st.lists(st.tuples(places, places), max_size=3), gone=st.lists(places, max_size=2), again=places
)
def test_it_leads_where_the_embedded_graph_leads(
    pair: tuple[Memory, Memory],
    turns: Sequence[tuple[str | None, str | None, str, bool]],
    links: Sequence[tuple[int, int]],
    gone: Sequence[int],
    again: int,
) -> None:
    space, found = uuid.uuid4().hex, []
    for memory in pair:
        ids = told(memory, space, turns)
        for a, b in links:
            if ids[a % len(ids)] != ids[b % len(ids)]:
                memory.link(ids[a % len(ids)], ids[b % len(ids)], "reply", weight=0.5, namespace=space)
        before = datetime.now(UTC)
        memory.update(ids[again % len(ids)], "Now it is Kyoto, not Lisbon.", namespace=space)
        memory.delete(sorted({ids[at % len(ids)] for at in gone}), namespace=space)
        left = [id for id in ids if id not in {ids[at % len(ids)] for at in gone}]
        answers: list[Any] = []
        for id in left:
            for kind in KINDS:
                hops = 1 if kind else 2
                answers.append(led(memory, ids, memory.neighbors(id, kind, hops, limit=50, namespace=space)))
        for asked, recipe in (("Who saw Ana and Kyoto?", "default"), ("What of Iris in Zanzibar?", "dsm")):
            for scope in (
                {},
                {"user_id": "ana"},
                {"user_id": "ben", "session": "monday"},
                {"filters": {"long": True}},
                {"as_of": before},
            ):
                hits = memory.search(asked, k=50, recipe=recipe, explain=True, namespace=space, **scope)
                answers.append(parts(ids, hits))
        found.append(answers)
    assert alike(found[1], found[0]), (found[1], found[0])


def test_a_name_that_too_many_rows_mention_leads_nowhere(
    pair: tuple[Memory, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.association.HUB", 3)
    monkeypatch.setattr("memspan.views.association.MOST_HELD", 6)
    space, found = uuid.uuid4().hex, []
    for memory in pair:
        many = [memory.add(f"Today we spoke with Zanzibar about item {at}.", namespace=space).ids[0] for at in range(8)]
        few = [memory.add(f"Today we spoke with Kyoto about item {at}.", namespace=space).ids[0] for at in range(3)]
        memory.add("We spoke with Kyoto in secret.", user_id="ben", namespace=space)
        found.append([led(memory, few, memory.neighbors(id, "mentions", namespace=space)) for id in (*many, *few)])
        assert not any(found[-1])
        memory.quarantine(memory.get_all(user_id="ben", namespace=space)[0].id, namespace=space)
        found[-1].append(led(memory, few, memory.neighbors(few[0], "mentions", namespace=space)))
    assert alike(found[1], found[0]), (found[1], found[0])
    assert set(found[1][-1]) == {1, 2}


def test_what_another_user_says_of_a_name_does_not_make_it_a_hub_for_one(
    served: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.association.HUB", 2)
    monkeypatch.setattr("memspan.views.association.MOST_HELD", 4)
    for number in range(9):
        served.add(f"Kyoto, said Ben, {number} times.", user_id="ben")
    served.add("The train to Kyoto leaves at noon.", user_id="ana")
    served.add("A letter about tea and bamboo.", user_id="ana")
    (first, *_) = served.search("when to Kyoto?", user_id="ana", explain=True)
    assert first.text.startswith("The train")
    assert (first.channels or {})["named"] > 0


def test_two_processes_see_each_others_rows_names_and_removals_at_once(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as one, Memory(postgres, encoder="hash") as other:
        a = one.add("Ana flew to Lisbon.").ids[0]
        assert other.neighbors(a, "mentions") == []
        b = other.add("Lisbon has hills.").ids[0]
        assert [near.id for near in one.neighbors(a, "mentions")] == [b]
        other.update(b, "Porto has hills.")
        assert one.neighbors(a, "mentions") == []
        c = one.add("A boat left Lisbon.").ids[0]
        assert [near.id for near in other.neighbors(a, "mentions")] == [c]
        other.erase(c)
        assert one.neighbors(a, "mentions") == []


def test_what_is_erased_leaves_no_name_behind(served: Memory, postgres: str) -> None:
    gone = served.add([{"role": "user", "content": f"Ana saw Kyoto and Lisbon, {at}."} for at in range(5)]).ids
    served.update(gone[0], "Ana saw Oslo.")
    kept = served.add("Ben saw Oslo.").ids
    served.delete(gone[1])
    served.erase(gone[:1])
    served.erase(gone[2:])
    with psycopg.connect(postgres) as raw:
        rows = raw.execute("SELECT DISTINCT seq FROM memspan.names").fetchall()
        seqs = raw.execute("SELECT seq FROM memspan.segments").fetchall()
    assert set(rows) == set(seqs)
    assert served.verify()["ok"]
    assert served.neighbors(kept[0], "mentions") == []


def test_names_that_are_lost_are_found_again_in_the_texts(served: Memory, postgres: str) -> None:
    a, b = (served.add(text).ids[0] for text in ("Ana flew to Lisbon.", "Lisbon has hills."))
    with psycopg.connect(postgres) as raw:
        raw.execute("DELETE FROM memspan.names")
    assert served.neighbors(a, "mentions") == []
    assert "default/graph" in served.rebuild()["rewritten"]
    assert [near.id for near in served.neighbors(a, "mentions")] == [b]


def test_a_name_of_another_scope_than_its_segment_is_a_problem(served: Memory, postgres: str) -> None:
    served.add("Ana flew to Lisbon.", user_id="ana")
    with psycopg.connect(postgres) as raw:
        raw.execute("UPDATE memspan.names SET user_id = 'ben' WHERE title = FALSE")
    assert any("another scope" in problem for problem in served.verify()["problems"])
    served.rebuild()
    assert served.verify()["ok"]


def test_themes_are_those_of_the_embedded_memory(pair: tuple[Memory, Memory]) -> None:
    pytest.importorskip("graspologic_native")
    texts = [f"The {thing} of {name} is {at}." for name in ("Kyoto", "Lisbon") for at, thing in enumerate(
        ("harbour", "castle", "market", "river"))]  # fmt: skip
    space, found = uuid.uuid4().hex, []
    for memory in pair:
        for at, text in enumerate(texts):
            memory.add(text, user_id="ana" if at % 4 else "ben", namespace=space)
        found.append(
            [
                (theme.label, theme.segments, [memory.get(id, namespace=space).text for id in theme.ids])
                for scope in ({}, {"user_id": "ana"})
                for theme in memory.themes(namespace=space, **scope)
            ]
        )
    assert alike(found[1], found[0]), (found[1], found[0])
    assert found[1]
