"""The behaviour of LangGraph's own stores, each asked the same as its InMemoryStore where both can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph", reason="needs langgraph")

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore
from typing_extensions import TypedDict

from memspan import InvalidInput, Memory
from memspan.integrations.langgraph import MemspanStore

PLACES = [
    ("a", "b", "c"),
    ("a", "b", "d", "e"),
    ("a", "b", "d", "i"),
    ("a", "b", "f"),
    ("a", "c", "f"),
    ("b", "a", "f"),
]


@pytest.fixture
def store(memory: Memory) -> MemspanStore:
    return MemspanStore(memory)


@pytest.fixture(params=["memspan", "langgraph"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStore]:
    """Ours, and LangGraph's own: a test that holds for both tests what LangGraph's users are used to."""
    if request.param == "langgraph":
        yield InMemoryStore()
        return
    with Memory(tmp_path / "store", encoder="hash") as memory:
        yield MemspanStore(memory)


def keys(found: Any) -> set[str]:
    return {item.key for item in found}


def test_what_is_put_is_got_until_it_is_replaced_or_deleted(either: BaseStore) -> None:
    value = {"title": "Trip", "content": " Off to Porto.\n", "stops": [{"city": "Faro", "nights": 2}], "done": None}
    either.put(("trips", "ana"), "one", value)
    item = either.get(("trips", "ana"), "one")
    assert item is not None
    assert (item.namespace, item.key, item.value) == (("trips", "ana"), "one", value)
    assert item.created_at.tzinfo is not None
    either.put(("trips", "ana"), "one", {"content": "Off to Braga."})
    again = either.get(("trips", "ana"), "one")
    assert again is not None
    assert again.value == {"content": "Off to Braga."}
    assert again.updated_at > item.updated_at
    assert either.get(("trips", "ben"), "one") is None
    assert either.get(("trips",), "one") is None
    either.delete(("trips", "ana"), "one")
    either.delete(("trips", "ana"), "never there")
    assert either.get(("trips", "ana"), "one") is None
    assert either.search(("trips",)) == []


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": ""},
        {"text": " \n"},
        {"n": 1, "ok": True, "x": 1.5},
        {"content": {"content": "Ana likes tea.", "tags": ["a"]}, "kind": "Memory"},
        {"data": [1, 2, {"deep": [None]}]},
        {"text": "word " * 3_000, "rows": list(range(2_000))},
        {"rows": [{"name": f"row {n}", "said": "many words " * 5} for n in range(300)]},
    ],
    ids=["nothing", "empty", "blank", "numbers", "nested", "lists", "long text", "long value"],
)
def test_any_json_object_comes_back_as_it_was(either: BaseStore, value: dict[str, Any]) -> None:
    either.put(("any",), "it", value)
    for put in (value, {"text": "another"}, value):
        either.put(("any",), "it", put)
        item = either.get(("any",), "it")
        assert item is not None
        assert item.value == put
        assert [found.value for found in either.search(("any",))] == [put]


def test_a_batch_answers_in_order_reads_before_it_writes_and_keeps_the_last_of_one_key(either: BaseStore) -> None:
    either.put(("test", "foo"), "k1", {"data": "v1"})
    either.put(("test", "bar"), "k2", {"data": "v2"})
    results = either.batch(
        [
            GetOp(("test", "foo"), "k1"),
            PutOp(("test", "foo"), "k1", {"data": "first"}),
            PutOp(("test", "foo"), "k1", {"data": "last"}),
            PutOp(("test", "bar"), "k2", None),
            SearchOp(("test",), filter={"data": "v1"}),
            ListNamespacesOp(match_conditions=(MatchCondition("prefix", ("test", "*")),)),
            GetOp(("test",), "k3"),
        ]
    )
    got, *puts, found, spaces, nothing = results
    assert got.value == {"data": "v1"}  # type: ignore[union-attr]
    assert puts == [None, None, None]
    assert [item.key for item in found] == ["k1"]  # type: ignore[union-attr]
    assert spaces == [("test", "bar"), ("test", "foo")]
    assert nothing is None
    item = either.get(("test", "foo"), "k1")
    assert item is not None
    assert item.value == {"data": "last"}
    assert either.get(("test", "bar"), "k2") is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"color": "red"}, {"1", "2"}),
        ({"color": "red", "score": 3.0}, {"2"}),
        ({"score": {"$gt": 3.0}}, {"1", "3"}),
        ({"score": {"$gte": 3.0, "$lt": 4.5}}, {"2", "3"}),
        ({"score": {"$lte": 3.0}}, {"2"}),
        ({"color": {"$ne": "red"}}, {"3"}),
        ({"color": {"$eq": "green"}}, {"3"}),
        ({"made": {"by": "Ana"}}, {"1"}),
        ({"tags": ["x", "y"]}, {"1"}),
        ({"missing": None}, {"1", "2", "3"}),
        ({"missing": "yes"}, set()),
        ({"text": "red apple"}, {"1"}),
    ],
)
def test_filters_are_those_of_langgraph(either: BaseStore, wanted: dict[str, Any], expected: set[str]) -> None:
    made = {"by": "Ana", "in": 2026}
    either.put(("t",), "1", {"text": "red apple", "color": "red", "score": 4.5, "made": made, "tags": ["x", "y"]})
    either.put(("t",), "2", {"text": "red car", "color": "red", "score": 3.0})
    either.put(("t",), "3", {"text": "green apple", "color": "green", "score": 4.0, "made": {"by": "Ben"}})
    assert keys(either.search(("t",), filter=wanted)) == expected
    assert keys(either.search(("t",), query="apple", filter=wanted)) == expected


def test_an_operator_there_is_not_is_refused(either: BaseStore) -> None:
    either.put(("t",), "1", {"n": 1})
    with pytest.raises(ValueError, match=r"\$near"):
        either.search(("t",), filter={"n": {"$near": 2}})


def test_a_comparison_of_what_is_no_number_matches_nothing(store: MemspanStore) -> None:
    store.put(("t",), "1", {"n": "many"})
    store.put(("t",), "2", {"n": "12"})
    store.put(("t",), "3", {})
    assert keys(store.search(("t",), filter={"n": {"$gt": 3}})) == {"2"}


def test_a_prefix_never_reaches_a_namespace_that_only_begins_alike(either: BaseStore) -> None:
    inside = {("a", "b"), ("a", "b", "c")}
    outside = {("a", "bc"), ("ab",), ("a", "b-c"), ("a", "b/c"), ("a", "B"), ("a", " b")}
    for space in inside | outside:
        either.put(space, "key", {"text": f"said in {space}"})
    for query in (None, "said"):
        assert {item.namespace for item in either.search(("a", "b"), query=query)} == inside
        assert {item.namespace for item in either.search((), query=query, limit=20)} == inside | outside


def test_keys_that_join_alike_are_different_items(either: BaseStore) -> None:
    places = [(("a", "b"), "c"), (("a",), "b/c"), (("a",), "b"), (("a",), "")]
    for number, (space, key) in enumerate(places):
        either.put(space, key, {"text": f"number {number}"})
    found = [either.get(space, key) for space, key in places]
    assert [item.value["text"] for item in found if item] == ["number 0", "number 1", "number 2", "number 3"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"prefix": ("a", "b")},
        {"suffix": ("f",)},
        {"prefix": ("a",), "suffix": ("f",)},
        {"prefix": ("a", "b"), "max_depth": 3},
        {"prefix": ("a", "*", "f")},
        {"suffix": ("*", "f")},
        {"prefix": ("*", "b"), "suffix": ("d", "*")},
        {"max_depth": 1},
        {"prefix": ("a", "b"), "limit": 2},
        {"prefix": ("a", "b"), "limit": 2, "offset": 1},
        {"prefix": ("nowhere",)},
        {"suffix": ("a", "b", "c", "d", "e")},
    ],
)
def test_namespaces_are_listed_as_langgraph_lists_them(store: MemspanStore, asked: dict[str, Any]) -> None:
    own = InMemoryStore()
    for number, space in enumerate(PLACES):
        for each in (store, own):
            each.put(space, f"id {number}", {"data": "value"})
    assert store.list_namespaces(**asked) == own.list_namespaces(**asked)


@pytest.mark.parametrize("space", [(), ("the", "thing.about"), ("some", ""), ("langgraph", "foo"), ("a", 1)])
def test_a_namespace_that_langgraph_refuses_is_refused(store: MemspanStore, space: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(space, "key", {"foo": "bar"})
    with pytest.raises(InvalidNamespaceError):
        asyncio.run(store.aput(space, "key", {"foo": "bar"}))
    if space and space[0] != "langgraph":
        with pytest.raises(InvalidNamespaceError):
            store.batch([PutOp(("good",), "key", {"foo": "bar"}), PutOp(space, "key", {"foo": "bar"})])
        assert store.get(("good",), "key") is None


def test_a_query_finds_the_best_first_with_scores_and_what_it_does_not_find_after_it(store: MemspanStore) -> None:
    store.put(("m",), "tea", {"text": "Ana drinks green tea."})
    store.put(("m",), "boat", {"text": "Ben has a blue boat."})
    store.put(("m",), "hidden", {"text": "Ana drinks green tea in secret."}, index=False)
    found = store.search(("m",), query="what tea does Ana drink?")
    assert [item.key for item in found] == ["tea", "boat", "hidden"]
    assert found[2].score is None
    assert found[0].score is not None
    assert found[1].score is not None
    assert 1 >= found[0].score > found[1].score >= 0
    assert [item.key for item in store.search(("m",), query="tea", limit=1, offset=1)] == ["boat"]
    assert store.search(("m",), query="tea", limit=1)[0].key == "tea"
    assert len(store.search(("m",), query="")) == 3


def test_only_the_fields_that_are_named_are_searched(memory: Memory) -> None:
    store = MemspanStore(memory, fields=["title"])
    store.put(("d",), "one", {"title": "harvest of olives", "body": "boats and sails"})
    store.put(("d",), "two", {"title": "sheep on the hill", "body": "olives"}, index=["body", "notes[*].said"])
    store.put(
        ("d",), "three", {"title": "rain", "notes": [{"said": "sails"}, {"said": "wool"}]}, index=["notes[*].said"]
    )
    assert store.search(("d",), query="sails")[0].key == "three"
    assert {item.key for item in store.search(("d",), query="olives", limit=2)} == {"one", "two"}
    assert store.search(("d",), query="sheep")[0].value is not None
    item = store.get(("d",), "three")
    assert item is not None
    assert item.value["notes"][1] == {"said": "wool"}
    assert memory.search("boats", filters={"metadata.key": "one"})[0].text == "harvest of olives"


def test_a_long_text_is_found_by_its_best_part_and_once(store: MemspanStore) -> None:
    lines = [f"On day {day} nothing happened in the village." for day in range(200)]
    lines[150] = "A zebra named Xerxes escaped from the circus."
    store.put(("log",), "year", {"text": "\n".join(lines)})
    store.put(("log",), "note", {"text": "Bread and cheese."})
    found = store.search(("log",), query="which zebra escaped?")
    assert [item.key for item in found] == ["year", "note"]
    assert found[0].value["text"].splitlines()[150] == lines[150]


def test_an_item_that_is_replaced_is_found_by_what_it_says_now_and_stays_in_the_history(memory: Memory) -> None:
    store = MemspanStore(memory)
    store.put(("m",), "home", {"text": "Ana lives in Rome."})
    created = store.get(("m",), "home")
    store.put(("m",), "home", {"text": "Ana lives in Lisbon."})
    (found,) = store.search(("m",), query="Rome")
    assert found.value == {"text": "Ana lives in Lisbon."}
    assert created is not None
    assert found.created_at == created.created_at
    before = memory.search("Ana lives", as_of=created.updated_at + timedelta(milliseconds=100), k=1)
    texts = {segment.text for segment in memory.get_all(as_of=found.updated_at)} | {hit.text for hit in before}
    assert "Ana lives in Rome." in texts


def test_what_sleep_merges_or_sums_up_is_still_what_was_put(memory: Memory) -> None:
    store = MemspanStore(memory)
    for key in ("one", "two"):
        store.put(("m",), key, {"text": "The spare key of the house hangs behind the blue door in the hall.", "n": key})
    memory.sleep()
    assert {item.value["n"] for item in store.search(("m",))} == {"one", "two"}
    assert store.get(("m",), "one").value["n"] == "one"  # type: ignore[union-attr]


def test_a_time_to_live_ends_an_item_and_a_read_begins_it_anew(memory: Memory) -> None:
    store = MemspanStore(memory, ttl={"default_ttl": 10.0, "refresh_on_read": True})

    def ends() -> datetime:
        (row,) = memory.get_all(filters={"metadata.key": "note"}, include_superseded=True)
        assert row.expires_at is not None
        return row.expires_at

    def age(minutes: float) -> None:
        (row,) = memory.get_all(filters={"metadata.key": "note"}, include_superseded=True)
        memory.update(row.id, expires_at=datetime.now(UTC) + timedelta(minutes=minutes))

    store.put(("m",), "note", {"text": "for now"})
    store.put(("m",), "kept", {"text": "for good"}, ttl=None)
    assert timedelta(minutes=9) < ends() - datetime.now(UTC) <= timedelta(minutes=10)
    age(minutes=1)
    assert store.get(("m",), "note", refresh_ttl=False) is not None
    assert ends() - datetime.now(UTC) < timedelta(minutes=2)
    assert store.get(("m",), "note") is not None
    assert ends() - datetime.now(UTC) > timedelta(minutes=9)
    age(minutes=1)
    assert len(store.search(("m",), query="now")) == 2
    assert ends() - datetime.now(UTC) > timedelta(minutes=9)
    age(minutes=-1)
    assert store.get(("m",), "note") is None
    assert keys(store.search(("m",))) == keys(store.search(("m",), query="for now")) == {"kept"}
    assert store.sweep_ttl() == 1
    store.put(("m",), "note", {"text": "for now"}, ttl=None)
    assert keys(store.search(("m",))) == {"kept", "note"}


def test_an_item_that_expired_can_be_put_again_with_the_same_text(memory: Memory) -> None:
    store = MemspanStore(memory)
    store.put(("m",), "note", {"text": "for now"}, ttl=-1)
    assert store.get(("m",), "note") is None
    store.put(("m",), "note", {"text": "for now"})
    assert store.get(("m",), "note") is not None
    assert store.list_namespaces() == [("m",)]


def test_stores_of_other_namespaces_and_users_are_other_stores(memory: Memory) -> None:
    stores = [MemspanStore(memory), MemspanStore(memory, namespace="acme"), MemspanStore(memory, user_id="other")]
    for number, store in enumerate(stores):
        store.put(("m",), "key", {"text": "the same words", "n": number})
    for number, store in enumerate(stores):
        assert [item.value["n"] for item in store.search(())] == [number]
        assert [item.value["n"] for item in store.search((), query="the same words")] == [number]


def test_a_value_that_is_no_json_is_refused_and_nothing_is_written(store: MemspanStore) -> None:
    with pytest.raises(InvalidInput):
        store.put(("m",), "key", {"text": "fine", "when": {1, 2}})
    assert store.search(()) == []


def test_a_value_is_redacted_as_the_memory_says(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash", redact=lambda text: text.replace("hunter2", "***")) as memory:
        store = MemspanStore(memory)
        store.put(("m",), "key", {"text": "the password is hunter2", "n": 1})
        assert store.get(("m",), "key").value == {"text": "the password is ***", "n": 1}  # type: ignore[union-attr]


def test_a_recalled_context_is_not_stored_again(memory: Memory) -> None:
    memory.add("Ana lives in Lisbon.", user_id="ana")
    recalled = memory.context("Ana", user_id="ana").text
    store = MemspanStore(memory)
    store.put(("m",), "only", {"text": recalled, "n": 1})
    assert store.get(("m",), "only").value == {"text": "", "n": 1}  # type: ignore[union-attr]


async def test_the_asynchronous_calls_say_the_same(store: MemspanStore) -> None:
    await asyncio.gather(*(store.aput(("m", f"u{n % 3}"), f"k{n}", {"text": f"note {n}", "n": n}) for n in range(12)))
    assert (await store.aget(("m", "u1"), "k4")).value["n"] == 4  # type: ignore[union-attr]
    assert len(await store.asearch(("m",), limit=20)) == 12
    assert keys(await store.asearch(("m",), query="note", filter={"n": {"$gte": 10}})) == {"k10", "k11"}
    await store.adelete(("m", "u1"), "k4")
    assert await store.aget(("m", "u1"), "k4") is None
    assert await store.alist_namespaces(max_depth=1) == [("m",)]


def test_a_graph_that_is_compiled_with_it_remembers_across_threads(store: MemspanStore) -> None:
    class State(TypedDict):
        said: str
        recalled: str

    def remember(state: State, *, store: BaseStore) -> dict[str, str]:
        found = store.search(("users", "ana"), query=state["said"], limit=1)
        store.put(("users", "ana"), state["said"], {"text": state["said"]})
        return {"recalled": found[0].value["text"] if found else ""}

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    graph = builder.compile(store=store)
    graph.invoke({"said": "My cat is called Tom.", "recalled": ""})
    answer = graph.invoke({"said": "What is my cat called?", "recalled": ""})
    assert answer["recalled"] == "My cat is called Tom."
