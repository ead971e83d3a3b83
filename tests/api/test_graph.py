"""What ``neighbors`` reaches, what ``link`` states, and what a search makes of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NotFound, as_dict
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.entities import entities
from memspan.records import Edge, Neighbor, Step
from memspan.segmenting import WordTokenizer

Open = Callable[..., Memory]


@pytest.fixture(scope="module")
def shared() -> Iterator[Memory]:
    """For properties: each example has a namespace of its own in it."""
    with Memory(":memory:", encoder="hash") as opened:
        yield opened


_fresh = count()


def space() -> str:
    return f"n{next(_fresh)}"


def said(memory: Memory, *texts: str, session: str = "s", **scope: Any) -> tuple[str, ...]:
    """The ids of these turns of a conversation."""
    return memory.add([{"role": "user", "content": text} for text in texts], session=session, **scope).ids


def texts(found: Sequence[Neighbor]) -> list[str]:
    return [near.text for near in found]


def strengths(found: Sequence[Neighbor]) -> dict[str, float]:
    assert [near.strength for near in found] == sorted((near.strength for near in found), reverse=True)
    assert all(0 < near.strength <= 1 for near in found)
    assert len({near.id for near in found}) == len(found)
    return {near.id: near.strength for near in found}


# Next


def test_next_are_the_turns_before_and_after(memory: Memory) -> None:
    a, b, c, _ = said(memory, "One.", "Two.", "Three.", "Four.")
    found = memory.neighbors(b, "next")
    assert strengths(found) == {c: 1.0, a: 1.0}
    assert {near.path for near in found} == {(Step(id=b, kind="next"),)}
    assert texts(memory.neighbors(a, "next")) == ["Two."]
    kept = memory.get(c)
    assert all(getattr(found[0], name) == getattr(kept, name) for name in ("id", "text", "position", "session"))
    assert as_dict(found[0])["path"] == [{"id": b, "kind": "next", "via": None}]


def test_next_stays_in_its_session_its_scope_and_its_document(memory: Memory) -> None:
    said(memory, "One.", "Two.")
    for scope in ({"session": "t"}, {"user_id": "ana"}, {"agent_id": "a"}, {"run_id": "r"}, {"namespace": "other"}):
        (lone,) = said(memory, "Elsewhere.", **scope)
        assert memory.neighbors(lone, "next", namespace=scope.get("namespace")) == []
    alone = [memory.add(f"A note, number {number}.").ids[0] for number in range(3)]
    assert [memory.neighbors(id, "next") for id in alone] == [[]] * 3
    document = memory.add("A long story about bees and their hives. " * 300).document_id
    assert document is not None
    first, *rest = memory.document(document).segments
    assert len(rest) >= 2
    for near, far in zip([first, *rest], rest, strict=False):
        assert near in strengths(memory.neighbors(far, "next"))
    assert set(strengths(memory.neighbors(first, "next"))) == {rest[0]}


def test_an_update_keeps_its_place_and_a_deletion_leaves_a_gap(memory: Memory) -> None:
    a, b, c = said(memory, "One.", "Two.", "Three.")
    memory.update(b, "Two and a half.")
    assert texts(memory.neighbors(a, "next")) == ["Two and a half."]
    assert set(strengths(memory.neighbors(b, "next"))) == {a, c}
    memory.erase(b)
    assert memory.neighbors(a, "next") == memory.neighbors(c, "next") == []


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(("s", "t", None)), st.sampled_from((None, "ana")), st.integers(1, 3)),
        st.tuples(st.just("note"), st.sampled_from(("s", None)), st.sampled_from((None, "ana")), st.just(1)),
        st.tuples(st.sampled_from(("update", "delete")), st.integers(0, 99), st.none(), st.none()),
    ),
    min_size=4,
    max_size=14,
)


@given(acts=ACTS)
def test_next_is_what_the_places_say_whatever_is_written_changed_and_removed(shared: Memory, acts: list[Any]) -> None:
    namespace = space()
    places: dict[str, tuple[Any, int, bool]] = {}  # id: whose session, where in it, whether it has a place at all
    number = 0
    for act, what, user, turns in acts:
        if act in ("say", "note"):
            batch = [f"{number + turn} of {namespace}" for turn in range(turns)]
            number += turns
            if act == "say":
                messages = [{"role": "user", "content": text} for text in batch]
                ids = shared.add(messages, namespace=namespace, user_id=user, session=what).ids
            else:
                ids = shared.add(batch[0], namespace=namespace, user_id=user, session=what).ids
            for id in ids:
                last = max((at for whose, at, _ in places.values() if whose == (user, what)), default=-1)
                places[id] = ((user, what), last + 1, act == "say" or what is not None)
        elif places:
            id = list(places)[what % len(places)]
            if act == "update":
                number += 1
                shared.update(id, f"{number} changed", namespace=namespace)
            else:
                shared.erase(id, namespace=namespace)
                del places[id]
    for id, (whose, at, placed) in places.items():
        expected = {
            other
            for other, (theirs, there, has) in places.items()
            if has and placed and theirs == whose and abs(there - at) == 1
        }
        assert set(strengths(shared.neighbors(id, "next", namespace=namespace))) == expected


# Mentions


def test_mentions_are_those_who_share_a_name_and_tell_which(memory: Memory) -> None:
    a = memory.add("Ana moved to Lisbon.").ids[0]
    b = memory.add("The weather in Lisbon is mild.").ids[0]
    c = memory.add("Ben met Ana at noon.").ids[0]
    memory.add("Nobody is here.")
    found = memory.neighbors(a, "mentions")
    assert {near.id: near.path for near in found} == {
        b: (Step(id=a, kind="mentions", via="lisbon"),),
        c: (Step(id=a, kind="mentions", via="ana"),),
    }
    memory.update(a, "She moved away.")
    assert memory.neighbors(b, "mentions") == memory.neighbors(a, "mentions") == []


def test_a_name_that_many_share_counts_less_and_one_that_too_many_share_not_at_all(memory: Memory) -> None:
    said(memory, *(f"Kyoto has temple number {number}." for number in range(101)))
    said(memory, *(f"Osaka has castle number {number}." for number in range(50)))
    said(memory, "Nara has deer.", "The deer of Nara bow.")
    first = {text: memory.search(text, k=1, recipe="keyword")[0].id for text in ("Kyoto", "Osaka", "Nara")}
    kyoto, osaka, nara = (memory.neighbors(id, "mentions", limit=200) for id in first.values())
    assert [len(kyoto), len(osaka), len(nara)] == [0, 49, 1]
    assert max(near.strength for near in osaka) < nara[0].strength
    memory.erase(said(memory, "One more about Kyoto, soon gone."))
    assert memory.neighbors(first["Kyoto"], "mentions") == []
    memory.erase([hit.id for hit in memory.search("Kyoto temple", k=1, recipe="keyword")])
    left = memory.search("Kyoto", k=1, recipe="keyword")[0].id
    assert len(memory.neighbors(left, "mentions", limit=200)) == 99


NAMED = st.lists(st.sampled_from(("Ana", "Ben", "Kyoto", "Lisbon", "Iris")), min_size=1, max_size=3, unique=True)


@given(
    told=st.lists(st.tuples(NAMED, st.booleans()), min_size=2, max_size=9),
    changed=st.lists(st.tuples(st.integers(0, 99), NAMED), max_size=3),
    gone=st.lists(st.integers(0, 99), max_size=2),
)
def test_mentions_are_what_the_names_say(
    shared: Memory, told: list[tuple[list[str], bool]], changed: list[tuple[int, list[str]]], gone: list[int]
) -> None:
    """Each pair that shares a name, by the most telling one: over all rows, in the way the graph's docstring says."""
    namespace, most = space(), 5
    written = iter(range(1_000))

    def text(names: list[str], titled: bool) -> str:
        number = next(written)
        return f"{names[0]}\nof {' and '.join(names)}, {number}" if titled else f"{' saw '.join(names)}, {number}."

    rows = {shared.add(text(*each), namespace=namespace).ids[0]: "" for each in told}
    for at, names in changed:
        shared.update(list(rows)[at % len(rows)], text(names, False), namespace=namespace)
    for at in gone:
        if len(rows) > 1:
            shared.erase(id := list(rows)[at % len(rows)], namespace=namespace)
            del rows[id]
    found = {id: entities(shared.get(id, namespace=namespace).text) for id in rows}
    named = {id: {*each.names, *([each.title] if each.title else [])} for id, each in found.items()}
    holders = {name: [id for id in rows if name in named[id]] for name in set().union(*named.values())}

    def weight(name: str, a: str, b: str) -> float:
        if not 1 < len(holders[name]) <= most:
            return 0.0
        rare = math.log1p(len(rows) / len(holders[name])) / math.log1p(len(rows))
        return min(1.0, rare * 2 ** sum(found[id].title == name for id in (a, b)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memspan.views.association.HUB", most)
        for a in rows:
            reached = shared.neighbors(a, "mentions", namespace=namespace)
            best = {b: max((weight(name, a, b) for name in named[a] & named[b]), default=0.0) for b in rows if b != a}
            assert strengths(reached) == pytest.approx({b: value for b, value in best.items() if value})
            for near in reached:
                (step,) = near.path
                assert step.via in named[a] & named[near.id]
                assert weight(step.via, a, near.id) == pytest.approx(near.strength)


# Similar

WORDS = ("kettle", "stove", "river", "boat", "lamp", "table", "green", "loud")


@given(
    told=st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=5), min_size=2, max_size=9, unique_by=tuple),
    changed=st.lists(st.tuples(st.integers(0, 99), st.lists(st.sampled_from(WORDS), min_size=2)), max_size=4),
    gone=st.lists(st.integers(0, 99), max_size=2),
)
def test_similar_are_the_nearest_by_meaning_both_ways(
    shared: Memory, told: list[list[str]], changed: list[tuple[int, list[str]]], gone: list[int]
) -> None:
    """Up to nine segments everyone can know all others: then they are exactly those with a cosine of 0.2 or more."""
    namespace = space()
    rows = [shared.add(" ".join(words), namespace=namespace).ids[0] for words in told]
    rows = list(dict.fromkeys(rows))
    shared.neighbors(rows[0], "similar", namespace=namespace)  # from here on edges are added to those there are
    for number, (at, words) in enumerate(changed):
        shared.update(rows[at % len(rows)], f"{' '.join(words)} {number}x", namespace=namespace)
    for at in gone:
        if len(rows) > 1:
            shared.erase(rows.pop(at % len(rows)), namespace=namespace)
    said = [shared.get(id, namespace=namespace).text for id in rows]
    vectors = HashEncoder().encode(said).pooled
    cosines = vectors @ vectors.T
    for at, id in enumerate(rows):
        found = strengths(shared.neighbors(id, "similar", namespace=namespace))
        for other, cosine in zip(rows, cosines[at].tolist(), strict=True):
            if other != id and abs(cosine - 0.2) > 0.01:
                assert found.get(other, 0.0) == pytest.approx(cosine if cosine > 0.2 else 0.0, abs=2e-3)


@pytest.mark.parametrize("place", ["in memory", "on disk"])
def test_versions_that_were_replaced_take_no_place_among_the_similar(
    opened: Open, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("memspan.views.graph.SNAPSHOT_ROWS", 8)
    memory = opened(*([":memory:"] if place == "in memory" else []))
    stove, table = (memory.add(f"the red kettle on the {place}").ids[0] for place in ("stove", "table"))
    for round in ("asked after each", "folded in after each", "neither"):
        for number in range(20):
            memory.update(table, f"the red kettle on the table, {' '.join(map(str, range(number)))} {round}")
            if round == "asked after each":
                assert set(strengths(memory.neighbors(stove, "similar"))) >= {table}
            elif round == "folded in after each":
                memory.compact()
        floor = memory.add(f"the red kettle on the floor {round}").ids[0]
        assert set(strengths(memory.neighbors(stove, "similar"))) >= {table, floor}
        assert set(strengths(memory.neighbors(floor, "similar"))) >= {table, stove}


def test_where_many_are_alike_those_that_are_left_stay_similar_as_others_go(memory: Memory) -> None:
    ids = [memory.add(f"the cat sat on the mat number {number}").ids[0] for number in range(40)]
    memory.neighbors(ids[-1], "similar")  # from here on edges are known: to rows that cannot know every row like them
    for gone in (ids[:20], ids[20:35]):
        memory.erase(gone)
        for id in ids[35:]:
            assert memory.neighbors(id, "similar")
    memory.erase(ids[36:])
    assert memory.neighbors(ids[35], "similar") == []


@pytest.mark.parametrize("folded", [False, True], ids=["in the tail", "in a snapshot"])
def test_among_many_rows_similar_are_those_that_the_tree_leads_to(
    opened: Open, monkeypatch: pytest.MonkeyPatch, folded: bool
) -> None:
    for name, size in {
        "views.graph.SNAPSHOT_ROWS": 32,
        "views.vectors.SNAPSHOT_ROWS": 32,
        "views.forest.LEAF": 16,
    }.items():
        monkeypatch.setattr(f"memspan.{name}", size)
    topics = ("kettle", "harbour", "violin", "saffron", "glacier", "lantern", "orchard", "compass")
    texts = [f"{topic} {number} of the {topic} and {topics[number % 8]}" for number in range(20) for topic in topics]

    def similar(compared: int) -> dict[str, set[str]]:
        monkeypatch.setattr("memspan.store.COMPARED", compared)
        memory = opened(":memory:" if not folded else None)
        ids = memory.add([{"role": "user", "content": text} for text in texts], session=f"{compared}").ids
        if folded:
            memory.compact()
        found = {
            text: {near.text for near in memory.neighbors(id, "similar", limit=8)}
            for text, id in zip(texts, ids, strict=True)
        }
        memory.erase(session=f"{compared}")
        return found

    exact, led = similar(10_000), similar(50)
    assert np.mean([len(exact[text] & led[text]) / len(exact[text]) for text in texts]) > 0.8
    assert all(any(text.split()[0] in near for near in led[text]) for text in texts)


def test_what_has_no_vector_yet_is_similar_to_nothing_and_later_is(opened: Open) -> None:
    words = opened(encoder=None)
    one, two = (words.add(f"the red kettle on the {place}").ids[0] for place in ("stove", "table"))
    assert words.neighbors(one, "similar") == []
    assert words.rebuild(encoder="hash")["encoder"] == "hash-256"
    assert set(strengths(words.neighbors(one, "similar"))) == {two}


def test_an_interrupted_change_of_the_encoder_changes_nothing_and_a_finished_one_leaves_no_edge_of_the_old_one(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.graph.SNAPSHOT_ROWS", 8)

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with opened(encoder="hash:8") as memory:  # where nearly everything is near to everything
        ids = [memory.add(f"{word} {word[::-1]} {number}").ids[0] for number, word in enumerate(WORDS * 2)]
        memory.compact()
        before = [strengths(memory.neighbors(id, "similar")) for id in ids]
        with pytest.raises(KeyboardInterrupt):
            memory.rebuild(encoder="hash:256", progress=stop)
    with opened(encoder="hash:8") as memory:
        assert [strengths(memory.neighbors(id, "similar")) for id in ids] == before
        memory.rebuild(encoder="hash:256")
        after = [strengths(memory.neighbors(id, "similar")) for id in ids]
        assert after != before
        memory.rebuild()
        anew = [strengths(memory.neighbors(id, "similar")) for id in ids]
        assert [set(near) for near in anew] == [set(near) for near in after]


# Stated


def test_a_link_is_reached_from_both_ends_by_its_relation(memory: Memory) -> None:
    a, b, c = (memory.add(text).ids[0] for text in ("Where to?", "To Porto.", "Or not."))
    assert memory.link(a, b, "reply") == Edge(source=a, target=b, kind="reply", weight=1.0)
    memory.link(c, b, "doubts", 0.25)
    memory.link(b, c, "supersedes", 0.5)
    assert strengths(memory.neighbors(a, "reply")) == pytest.approx({b: 0.9})
    assert strengths(memory.neighbors(b, "reply")) == pytest.approx({a: 0.9})
    assert strengths(memory.neighbors(b, "doubts")) == pytest.approx({c: 0.25})
    assert strengths(memory.neighbors(b, ["doubts", "supersedes", "reply"])) == pytest.approx({a: 0.9, c: 0.45})
    assert memory.neighbors(b, ["doubts", "supersedes"])[0].path == (Step(id=b, kind="supersedes"),)
    assert memory.neighbors(b, "related") == memory.neighbors(a, "doubts") == []


def test_a_link_stated_again_is_one_link_with_the_new_weight(memory: Memory) -> None:
    a, b = (memory.add(text).ids[0] for text in ("One.", "Two."))
    for weight in (0.5, 0.75, 0.25):
        memory.link(a, b, weight=weight)
        assert strengths(memory.neighbors(a, "related")) == pytest.approx({b: weight})
    assert memory.unlink(a, b) == 1
    assert memory.unlink(a, b) == 0
    assert memory.neighbors(a, "related") == []


def test_unlink_takes_back_what_was_stated_in_this_direction(memory: Memory) -> None:
    a, b = (memory.add(text).ids[0] for text in ("One.", "Two."))
    for relation in ("reply", "doubts"):
        memory.link(a, b, relation)
        memory.link(b, a, relation)
    assert memory.unlink(a, b, "reply") == 1
    assert strengths(memory.neighbors(a, "reply")) == pytest.approx({b: 0.9})
    assert memory.unlink(a, b) == 1
    assert memory.unlink(b, a) == 2
    assert memory.neighbors(a, ["reply", "doubts"]) == []
    assert memory.unlink(a, "no id") == memory.unlink("no id", a, "reply") == 0


def test_a_link_holds_for_every_later_version_and_goes_with_either_end(opened: Open) -> None:
    disk = opened()
    a, b, c = (disk.add(text).ids[0] for text in ("One.", "Two.", "Three."))
    disk.link(a, b)
    disk.link(b, c)
    for text in ("Two again.", "Two once more."):
        disk.update(b, text)
    disk.update(a, importance=0.9)
    disk.update(c, category="Numbers")
    assert texts(disk.neighbors(a, "related")) == ["Two once more."]
    assert set(strengths(disk.neighbors(b, "related"))) == {a, c}
    disk.close()
    disk = opened()
    assert texts(disk.neighbors(a, "related")) == ["Two once more."]
    disk.erase(b)
    assert disk.neighbors(a, "related") == disk.neighbors(c, "related") == []
    again = disk.add("Two.").ids[0]
    assert disk.neighbors(again, "related") == []
    assert disk.unlink(a, b) == 0


def test_no_link_leads_into_another_namespace(memory: Memory) -> None:
    here, too = (memory.add(text).ids[0] for text in ("One.", "Two."))
    there = memory.add("One.", namespace="other").ids[0]
    for a, b in ((here, there), (there, here)):
        for namespace in (None, "other"):
            with pytest.raises(NotFound):
                memory.link(a, b, namespace=namespace)
    memory.link(here, too)
    assert memory.unlink(here, too, namespace="other") == 0
    with pytest.raises(NotFound):
        memory.neighbors(here, namespace="other")
    assert memory.neighbors(there, namespace="other") == []
    assert texts(memory.neighbors(here, "related")) == ["Two."]


def test_what_one_memory_writes_and_links_another_on_the_same_store_reaches_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for view in ("lexical", "vectors", "tree", "graph"):
        monkeypatch.setattr(f"memspan.views.{view}.SNAPSHOT_ROWS", 8)
    one, two = opened(), opened()
    ids = list(said(one, *(f"Ana met friend {number}." for number in range(12))))
    for round in range(3):
        a, b = said(one, f"Ben said {round}.", f"Eve answered Ben: {round}.")
        assert set(strengths(two.neighbors(b, "next"))) == {a}
        assert b in strengths(two.neighbors(a, "mentions"))
        two.link(a, ids[0])
        assert a in strengths(one.neighbors(ids[0], "related"))
        assert one.compact()["rewritten"]
        assert set(strengths(two.neighbors(ids[1], "next"))) == {ids[0], ids[2]}
        one.erase(ids.pop())
        assert set(strengths(two.neighbors(ids[-1], "next"))) == {ids[-2]}
        assert [view["failure"] for view in two.stats()["views"].values()] == [None] * 4


@pytest.mark.parametrize(
    ("argument", "call"),
    {
        "relation": [
            lambda m, a, b, kind=kind: m.link(a, b, kind) for kind in ("next", "similar", "", None, 7, "a\0b")
        ],
        "weight": [lambda m, a, b, w=w: m.link(a, b, weight=w) for w in (0, -1, 1.01, math.nan, math.inf, "1", True)],
        "b": [lambda m, a, b: m.link(a, a)],
        "kinds": [lambda m, a, b, k=k: m.neighbors(a, k) for k in ("", [], [""], 7, [7], {"next"}, b"next")],
        "hops": [lambda m, a, b, h=h: m.neighbors(a, hops=h) for h in (0, 5, -1, 1.5, "1", True)],
        "limit": [lambda m, a, b, n=n: m.neighbors(a, limit=n) for n in (0, -1, 10_001, 1.5)],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_meant_is_refused_by_its_name(
    memory: Memory, argument: str, call: list[Callable[[Memory, str, str], object]]
) -> None:
    a, b = said(memory, "One.", "Two.")
    for each in call:
        with pytest.raises(InvalidInput) as caught:
            each(memory, a, b)
        assert caught.value.argument == argument
        assert caught.value.mend
    assert memory.unlink(a, b) == 0


def test_an_id_that_is_not_there_is_not_found(memory: Memory) -> None:
    a, b = said(memory, "One.", "Two.")
    memory.erase(b)
    for missing in (b, "no id", "00000000-0000-7000-8000-000000000000"):
        for call in (lambda id: memory.neighbors(id), lambda id: memory.link(a, id), lambda id: memory.link(id, a)):
            with pytest.raises(NotFound):
                call(missing)


# Further away


def test_a_second_hop_counts_half_and_the_path_says_how(memory: Memory) -> None:
    a, b, c, d = said(memory, "One.", "Two.", "Three.", "Four.")
    memory.link(a, d, weight=0.1)
    found = memory.neighbors(a, ["next", "related"], 2)
    assert strengths(found) == pytest.approx({b: 1.0, c: 0.5, d: 0.1})
    assert {near.id: near.path for near in found} == {
        b: (Step(id=a, kind="next"),),
        c: (Step(id=a, kind="next"), Step(id=b, kind="next")),
        d: (Step(id=a, kind="related"),),
    }
    further = {near.id: near for near in memory.neighbors(a, ["next", "related"], 3)}
    assert further[d].strength == pytest.approx(0.25)
    assert [step.id for step in further[d].path] == [a, b, c]


def test_no_path_is_longer_than_was_asked(memory: Memory) -> None:
    a, b, c, d = (memory.add(text).ids[0] for text in ("One.", "Two.", "Three.", "Four."))
    for near, far, weight in ((a, b, 0.1), (a, c, 1.0), (c, b, 1.0), (b, d, 1.0)):
        memory.link(near, far, weight=weight)
    found = {near.id: [step.id for step in near.path] for near in memory.neighbors(a, "related", 2)}
    assert found == {c: [a], b: [a, c], d: [a, b]}


def test_around_a_ring_each_is_reached_once_and_never_oneself(memory: Memory) -> None:
    ids = [memory.add(f"Stop {number}.").ids[0] for number in range(8)]
    for a, b in zip(ids, [*ids[1:], ids[0]], strict=True):
        memory.link(a, b)
    for hops in (1, 2, 3, 4):
        found = strengths(memory.neighbors(ids[0], "related", hops))
        assert set(found) == {ids[step % 8] for step in range(-hops, hops + 1)} - {ids[0]}
        assert all(found[ids[step]] == 0.5 ** (step - 1) for step in range(1, hops + 1))


def test_the_strongest_are_given_up_to_the_limit(memory: Memory) -> None:
    hub, *spokes = (memory.add(f"Spoke {number}.").ids[0] for number in range(12))
    for number, spoke in enumerate(spokes, 1):
        memory.link(hub, spoke, weight=number / 20)
    for limit in (1, 5, 11, 100):
        assert [near.id for near in memory.neighbors(hub, "related", limit=limit)] == spokes[::-1][:limit]


# What a search makes of it


def test_an_answer_beside_the_words_of_its_question_is_found(memory: Memory) -> None:
    said(memory, "Did you finally buy the kayak?", "Yes, yesterday, a yellow one.", "Great.")
    for number in range(80):
        said(memory, f"Talk about the weather {number}.", session=f"s{number}")
    hits = memory.search("who wanted to buy a kayak?", k=5, explain=True)
    answer = next(hit for hit in hits if hit.text == "Yes, yesterday, a yellow one.")
    assert answer.channels is not None
    assert answer.channels["keyword"] == 0
    assert answer.channels["next"] == hits[0].channels["keyword"]  # type: ignore[index]
    assert answer.path == (Step(id=hits[0].id, kind="next"),)
    without = memory.search("who wanted to buy a kayak?", k=5, recipe="default-next", explain=True)
    assert answer.id not in [hit.id for hit in without]


def test_what_shares_a_name_with_a_strong_hit_is_found(memory: Memory) -> None:
    first = memory.add("The Tagus bridge was designed by Ottmar Krill.").ids[0]
    second = memory.add("Ottmar Krill grew up in a village of the Jura.").ids[0]
    for number in range(80):
        memory.add(f"Rain fell on day {number}.")
    hits = memory.search("who designed the Tagus bridge?", k=3, explain=True)
    assert [hit.id for hit in hits[:2]] == [first, second]
    assert hits[1].path == (Step(id=first, kind="mentions", via="ottmar krill"),)
    assert hits[0].path == (Step(id=second, kind="mentions", via="ottmar krill"),), "not by its own name"
    assert hits[1].channels["mentions"] > hits[0].channels["mentions"] > 0  # type: ignore[index]
    without = memory.search("who designed the Tagus bridge?", k=100, recipe="default-mentions")
    assert next(hit.score for hit in without if hit.id == second) < hits[1].score


def test_rows_that_mention_a_name_of_the_question_are_told_by_how_telling_it_is(memory: Memory) -> None:
    texts = ("Ottmar Krill likes soup.", "Ottmar Krill\nHe was born in the Jura.", "The Jura is old.", "Soup is hot.")
    ids = [memory.add(text).ids[0] for text in texts]
    hits = memory.search("where was Ottmar Krill born?", explain=True)
    parts = {hit.id: hit.channels["named"] for hit in hits if hit.channels is not None}
    rare = math.log1p(4 / 2) / math.log1p(4)
    assert parts == pytest.approx({ids[0]: rare, ids[1]: min(1.0, 2 * rare), ids[2]: 0.0, ids[3]: 0.0})
    hits = memory.search("where was Ottmar Krill born?", recipe="default-named", explain=True)
    assert all("named" not in (hit.channels or {}) for hit in hits)
    for number in range(100):
        memory.add(f"Ottmar Krill, day {number}.")
    assert not any(hit.channels["named"] for hit in memory.search("Ottmar Krill?", explain=True))  # type: ignore[index]


def test_the_graph_is_followed_within_the_scope_the_filters_and_the_time_only(memory: Memory) -> None:
    """Each search answers as if what it may not see had never been written."""
    turns = ("Did Ana buy the kayak?", "Yes, in Lisbon.", "Ana lost the paddle in Lisbon.")
    metadata = [{"n": number} for number in range(3)]

    def tell(where: Memory, user: str, *numbers: int) -> None:
        for number in numbers:
            turn = {"role": "user", "content": turns[number], "metadata": metadata[number]}
            where.add([turn], user_id=user, session="s")

    def answer(where: Memory, **asked: Any) -> list[tuple[str, Any, int]]:
        hits = where.search("the kayak of Ana", explain=True, **asked)
        return [(hit.text, hit.channels, len(hit.path)) for hit in hits]

    tell(memory, "ana", 0, 1, 2)
    tell(memory, "ben", 2, 1)
    memory.add("Ana bought a kayak in Lisbon.", namespace="other")
    with Memory(":memory:", encoder="hash") as alone:
        tell(alone, "ana", 0, 1, 2)
        assert answer(memory, user_id="ana") == answer(alone)
    few = {"n": {"ne": 1}}
    with Memory(":memory:", encoder="hash") as alone:
        tell(alone, "ana", 0)
        alone.add("A turn between.", user_id="ana", session="s")
        tell(alone, "ana", 2)
        alone.erase(alone.get_all()[1].id)
        assert answer(memory, user_id="ana", filters=few) == answer(alone)
    then = memory.get_all(user_id="ana")[-1].recorded_at
    before = answer(memory, user_id="ana", as_of=then)
    memory.update(memory.get_all(user_id="ana")[0].id, "Did Eve sell the paddle?")
    said(memory, "Ana in Lisbon again.", user_id="ana")
    assert answer(memory, user_id="ana", as_of=then) == before
    assert answer(memory, user_id="ana") != before


def test_what_others_say_the_same_leaves_a_users_themes_as_they_are(memory: Memory) -> None:
    pytest.importorskip("graspologic_native")
    said = [f"oak elm ash fir {word}" for word in ("red", "hot", "big", "low", "new", "old")]

    def add(user: str, times: int) -> None:
        for number, text in enumerate(said * times):
            memory.add(text, user_id=user, session=f"{user} {number}")

    add("ana", 1)
    before = memory.themes(user_id="ana")
    assert [theme.segments for theme in before] == [6]
    add("ben", 9)
    assert [(theme.segments, set(theme.ids)) for theme in memory.themes(user_id="ana")] == [(6, set(before[0].ids))]


def test_a_margin_is_what_stands_out_by_meaning(opened: Open) -> None:
    class Angles:
        """A text that ends in a number has that cosine with the question."""

        id, dim, window, tokenizer = "angles", 2, 64, WordTokenizer()

        def encode(self, texts: Sequence[str]) -> Encoded:
            cosines = np.array([float(text.split()[-1]) if text[-1].isdigit() else 1.0 for text in texts])
            return Encoded(np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32))

    memory = opened(":memory:", encoder=Angles())
    for cosine in (0.25, 0.25, 0.25, 0.5):
        memory.add(f"zq{memory.stats()['segments']} {cosine}")
    few = [hit.channels["margin"] for hit in memory.search("who?", explain=True)]  # type: ignore[index]
    assert few == pytest.approx([0.5, 0.25, 0.25, 0.25], abs=1e-3), "as if there was a fifth, far off"
    for cosine in (0.125, 0.25, 0.75):
        memory.add(f"zq{memory.stats()['segments']} {cosine}")
    hits = memory.search("who?", explain=True, recipe="fast")
    margins = [(hit.text.split()[-1], hit.channels["margin"]) for hit in hits]  # type: ignore[index]
    assert [cosine for cosine, _ in margins] == ["0.75", "0.5", "0.25", "0.25", "0.25", "0.25", "0.125"]
    assert [margin for _, margin in margins] == pytest.approx([0.5, 0.25, 0, 0, 0, 0, 0], abs=1e-3)
    assert memory.search("who?")[0].score > memory.search("who?", recipe="semantic")[0].score
