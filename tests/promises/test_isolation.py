"""Nothing ever crosses a scope: not a hit, not a score, not a name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory, NotFound, as_dict
from memspan.records import Segment

WORDS = [
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "inlet",
    "jetty",
    "knoll",
    "ledge",
    "marsh",
    "north",
    "oasis",
]
QUERIES = ("amber birch", "who saw the fjord and the grove", "oasis")


@dataclass
class Tenant:
    """A namespace and a user in it, with what a plain list says is there."""

    namespace: str
    user: str
    ids: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)

    @property
    def scope(self) -> dict[str, str]:
        return {"namespace": self.namespace, "user_id": self.user}


def everything(memory: Memory, tenant: Tenant) -> Iterator[Any]:
    """All that a tenant can see, in every way it can be asked for, to the last bit of a score."""
    for query, recipe in product(QUERIES, ("default", "keyword", "semantic")):
        yield [as_dict(hit) for hit in memory.search(query, k=20, recipe=recipe, explain=True, **tenant.scope)]
        filters = {"NOT": {"importance": {"lt": 0.3}}}
        yield [as_dict(hit) for hit in memory.search(query, k=5, recipe=recipe, filters=filters, **tenant.scope)]
    for query in QUERIES:
        yield as_dict(memory.context(query, budget=150, **tenant.scope))
        yield as_dict(memory.context(query, budget=100_000, **tenant.scope))
    yield [as_dict(segment) for segment in memory.get_all(limit=10_000, **tenant.scope)]
    yield [as_dict(memory.get(id, namespace=tenant.namespace)) for id in tenant.ids]
    yield [[as_dict(event) for event in memory.history(id, namespace=tenant.namespace)] for id in tenant.ids]
    yield [as_dict(memory.document(id, namespace=tenant.namespace)) for id in tenant.documents]


def populate(memory: Memory, choose: random.Random, rounds: int, *, compacting: bool) -> list[Tenant]:
    """Three users in each of two namespaces, writing, changing and removing by turns; the same names in both."""
    tenants = [Tenant(namespace, user) for namespace, user in product(("left", "right"), ("ana", "ben", "cem"))]
    for round in range(rounds):
        tenant = choose.choice(tenants)
        way = choose.random()
        text = " ".join(choose.choices(WORDS, k=choose.randint(2, 8)))
        about: dict[str, Any] = {"importance": choose.choice((0.1, 0.5, 0.9)), **tenant.scope}
        if way < 0.5:
            added = memory.add(text, session=choose.choice((None, "s1")), wait=choose.random() < 0.7, **about)
        elif way < 0.7:
            turns = [{"role": choose.choice(("user", "assistant")), "content": f"{text} {turn}"} for turn in range(3)]
            added = memory.add(turns, session="s2", **about)
        elif way < 0.75:
            added = memory.add(f"{text}. The {tenant.user} of round {round} said so. " * 150, **about)
            if added.document_id is not None:
                tenant.documents.append(added.document_id)
        elif way < 0.87 and tenant.ids:
            memory.update(choose.choice(tenant.ids), f"{text} changed {round}", namespace=tenant.namespace)
            continue
        elif tenant.ids:
            gone = memory.get(tenant.ids.pop(choose.randrange(len(tenant.ids))), namespace=tenant.namespace)
            if gone.document_id is None:
                assert memory.erase(gone.id, namespace=tenant.namespace).segments == 1
            else:
                tenant.ids.append(gone.id)
            continue
        else:
            continue
        tenant.ids += [id for id in added.ids if id not in tenant.ids]
        if compacting and round % 40 == 39:
            memory.compact()
    memory.compact()
    return tenants


def removals() -> dict[str, Callable[[Memory, Tenant], int]]:
    return {
        "by scope": lambda memory, tenant: memory.erase(**tenant.scope).segments,
        "by filter": lambda memory, tenant: (
            memory.erase(namespace=tenant.namespace, filters={"user_id": tenant.user}).segments
        ),
        "by id": lambda memory, tenant: memory.erase(tenant.ids, namespace=tenant.namespace).segments,
        "by session": lambda memory, tenant: sum(
            memory.erase(filters={"session": session}, **tenant.scope).segments for session in (None, "s1", "s2")
        ),
    }


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=() if how in ("by scope", "by id") else pytest.mark.soak) for how in removals()]
)
@pytest.mark.parametrize("rounds", [70, pytest.param(110, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "snapshots",
    [True, pytest.param(False, marks=pytest.mark.soak)],
    ids=["with snapshots", "without snapshots"],
)
def test_deleting_one_tenant_leaves_all_others_as_they_were_to_the_bit(
    tmp_path: Path, request: pytest.FixtureRequest, how: str, snapshots: bool, rounds: int
) -> None:
    if snapshots:
        request.getfixturevalue("small_snapshots")
    choose = random.Random(f"{how} {snapshots}")
    with Memory(tmp_path / "store", encoder="hash") as memory:
        tenants = populate(memory, choose, rounds, compacting=snapshots)
        victim = tenants.pop(choose.randrange(len(tenants)))
        before = [list(everything(memory, tenant)) for tenant in tenants]
        assert removals()[how](memory, victim) == len(victim.ids) > 0
        assert [list(everything(memory, tenant)) for tenant in tenants] == before
        assert memory.get_all(**victim.scope) == []
        assert memory.search(QUERIES[0], **victim.scope) == []
        assert memory.verify()["ok"]
        memory.compact()
        if not snapshots:
            assert [list(everything(memory, tenant)) for tenant in tenants] == before
        assert memory.verify()["ok"]
    with Memory(tmp_path / "store") as memory:
        if not snapshots:
            assert [list(everything(memory, tenant)) for tenant in tenants] == before


def test_what_others_write_moves_no_score(memory: Memory) -> None:
    choose = random.Random(5)
    tenants = populate(memory, choose, 120, compacting=False)
    quiet = tenants.pop(0)
    before = list(everything(memory, quiet))
    for round in range(30):
        tenant = choose.choice(tenants)
        memory.add(" ".join(choose.choices(WORDS, k=6)) + f" {round}", **tenant.scope)
        memory.update(choose.choice(tenant.ids), f"amber birch {round}", namespace=tenant.namespace)
        memory.feedback(QUERIES[round % 3], choose.choice(tenant.ids), round % 2 == 0, namespace=tenant.namespace)
    assert list(everything(memory, quiet)) == before


@pytest.mark.usefixtures("small_snapshots")
@pytest.mark.parametrize(
    ("rounds", "every"), [(90, 2), pytest.param(110, 1, marks=pytest.mark.soak)], ids=["some tenants", "all tenants"]
)
def test_nothing_of_another_scope_comes_back_whatever_is_asked(memory: Memory, rounds: int, every: int) -> None:
    choose = random.Random(6)
    tenants = populate(memory, choose, rounds, compacting=True)
    now = memory.get_all(namespace="left", limit=10_000)[-1].recorded_at
    asked: list[dict[str, Any]] = [
        {},
        {"explain": True},
        {"as_of": now},
        {"filters": {"OR": [{"user_id": {"ne": "nobody"}}, {"user_id": None}]}},
        {"filters": {"NOT": {"user_id": "ana"}}},
        {"filters": {"user_id": {"in": ["ana", "ben", "cem"]}}},
        {"as_of": now, "filters": {"text": {"contains": "amber"}}},
    ]
    for tenant, query, recipe, more in product(tenants[::every], QUERIES, ("default", "keyword", "semantic"), asked):
        for hit in memory.search(query, k=200, recipe=recipe, **tenant.scope, **more):
            assert (hit.namespace, hit.user_id) == (tenant.namespace, tenant.user)
    for tenant in tenants:
        for others in ({"namespace": tenant.namespace}, {"user_id": tenant.user}):
            seen: list[Segment] = [*memory.search("amber", k=200, **others), *memory.get_all(limit=10_000, **others)]
            expected = {
                (other.namespace, other.user)
                for other in tenants
                if other.namespace == others.get("namespace", memory.namespace)
                and other.user == others.get("user_id", other.user)
            }
            assert {(segment.namespace, str(segment.user_id)) for segment in seen} <= expected
        cited = {id for citation in memory.context("amber", **tenant.scope).citations for id in citation.ids}
        assert cited <= set(tenant.ids)


def test_an_id_of_another_namespace_names_nothing(memory: Memory) -> None:
    tenants = populate(memory, random.Random(7), 120, compacting=False)
    for tenant in tenants:
        elsewhere = "right" if tenant.namespace == "left" else "left"
        for id in tenant.ids[:5]:
            for act in (
                memory.get,
                memory.history,
                memory.neighbors,
                lambda id, namespace: memory.feedback("x", id, namespace=namespace),
                lambda id, namespace: memory.update(id, "x", namespace=namespace),
            ):
                with pytest.raises(NotFound):
                    act(id, namespace=elsewhere)
            with pytest.raises(NotFound):
                memory.get_all(namespace=elsewhere, after=id)
            assert memory.erase(id, namespace=elsewhere).segments == 0
            assert memory.get(id, namespace=tenant.namespace).id == id
        for document in tenant.documents:
            with pytest.raises(NotFound):
                memory.document(document, namespace=elsewhere)
        assert memory.erase(namespace=elsewhere, filters={"id": {"in": tenant.ids[:900]}}).segments == 0
    assert sum(len(tenant.ids) for tenant in tenants) == memory.stats()["segments"]


def test_the_same_words_in_two_scopes_are_two_memories(memory: Memory) -> None:
    scopes: list[dict[str, str]] = [
        {"namespace": "left"},
        {"namespace": "right"},
        {"namespace": "left", "user_id": "ana"},
        {"namespace": "left", "agent_id": "ana"},
        {"namespace": "left", "run_id": "ana"},
        {"namespace": "left", "session": "ana"},
        {"namespace": "left", "user_id": "ana", "session": "ana"},
    ]
    ids = [memory.add("amber birch cedar", idempotency_key="once", **scope).ids[0] for scope in scopes[:2]]
    ids += [memory.add("amber birch cedar", **scope).ids[0] for scope in scopes[2:]]
    assert len(set(ids)) == len(scopes)
    assert [memory.add("amber birch cedar", **scope).ids[0] for scope in scopes] == ids
    assert memory.erase(namespace="left", user_id="ana", session="ana").segments == 1
    assert {hit.id for hit in memory.search("amber", namespace="left", k=20)} == {*ids} - {ids[1], ids[6]}
    assert memory.erase(namespace="left").segments == 5
    assert [hit.id for hit in memory.search("amber", namespace="right", k=20)] == [ids[1]]
    assert [hit.score for hit in memory.search("amber birch cedar", namespace="right", recipe="semantic")] != []


def test_a_filter_means_the_same_after_one_that_only_looks_equal(memory: Memory) -> None:
    """1 and True are equal in Python and are not equal in metadata."""
    number = memory.add("amber one", metadata={"flag": 1}).ids[0]
    boolean = memory.add("amber two", metadata={"flag": True}).ids[0]
    assert [hit.id for hit in memory.search("amber", filters={"flag": 1})] == [number]
    assert [hit.id for hit in memory.search("amber", filters={"flag": True})] == [boolean]
    assert [hit.id for hit in memory.search("amber", filters={"flag": 1.0})] == [number]


def test_a_filter_on_repeats_sees_a_repeat_at_the_next_search(memory: Memory) -> None:
    again = {"filters": {"repeats": {"gte": 1}}}
    id = memory.add("amber").ids[0]
    assert memory.search("amber", **again) == []
    memory.add("amber")
    assert [hit.id for hit in memory.search("amber", **again)] == [id]
