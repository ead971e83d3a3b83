"""Filters mean what ``memspan.filtering`` says, held against a model of a few lines over plain Python values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidFilter, InvalidInput, Memory, Segment
from memspan.filtering import OPERATORS, category_path

ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
COLUMNS = (
    *("id", "user_id", "agent_id", "run_id", "session", "document_id", "role", "speaker", "source", "text"),
    *("importance", "position", "version", "tokens", "repeats", "occurred_at", "recorded_at", "category"),
)


# The model


def passes(segment: Segment, filters: Mapping[str, Any]) -> bool:
    return all(_part(segment, name, wanted) for name, wanted in filters.items())


def _part(segment: Segment, name: str, wanted: Any) -> bool:
    if name == "AND":
        return all(passes(segment, part) for part in wanted)
    if name == "OR":
        return any(passes(segment, part) for part in wanted)
    if name == "NOT":
        return not any(passes(segment, part) for part in ([wanted] if isinstance(wanted, Mapping) else wanted))
    asked = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
    return all(_holds(name, _value(segment, name), verb, operand) for verb, operand in asked.items())


def _value(segment: Segment, name: str) -> Any:
    if name in COLUMNS:
        return getattr(segment, name)
    value: Any = segment.metadata
    for step in name.removeprefix("metadata.").split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _holds(name: str, value: Any, verb: str, wanted: Any) -> bool:
    if verb in ("ne", "nin"):
        return not _holds(name, value, {"ne": "eq", "nin": "in"}[verb], wanted)
    if verb == "in":
        return any(_holds(name, value, "eq", item) for item in wanted)
    if name == "category":
        if verb == "contains":
            return any(wanted.casefold() in step.casefold() for step in value)
        path = category_path(wanted)
        return value[: len(path)] == path if path else not value
    if verb == "contains" and isinstance(value, list):
        return any(_same(item, wanted) for item in value)
    if verb == "contains":
        return isinstance(value, str) and isinstance(wanted, str) and wanted.casefold() in value.casefold()
    if verb == "eq":
        return _same(value, wanted)
    return value is not None and _kind(value) == _kind(wanted) and ORDER[verb](value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    return _kind(value) == _kind(wanted) and not isinstance(value, (list, dict)) and value == wanted


def _kind(value: Any) -> str:
    return {bool: "flag", int: "number", float: "number", str: "text"}.get(type(value), type(value).__name__)


# Random segments and random filters

WORDS = ["", "a", "A", "b", "ab", "Straße", "strasse", "é", "1", "true", "null", "%", "_", "'", '"', "x.y", "東", "1.0"]
NAMES = ["ana", "Ana", "bob", "1", "é"]
NUMBERS = [0, 1, -1, 2, 0.0, 0.5, 1.0, 0.1, 1e300, 5e-324, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63)]
KEYS = ["a", "ä b", "0"]
STEPS = ["A", "B", "a", "AB", "C D"]
TIMES = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=i) for i in range(3)]

ALIKE = [None, True, False, 0, 1, 1.0, "", "1", "true", "a", "A"]
scalars = (
    st.sampled_from(ALIKE) | st.sampled_from([*NUMBERS, *WORDS]) | st.floats(allow_nan=False, allow_infinity=False)
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=2)),
    max_leaves=5,
)
metadata = st.dictionaries(st.sampled_from(KEYS), nested, max_size=3)
categories = st.lists(st.sampled_from(STEPS), max_size=3)
maybe_name = st.none() | st.sampled_from(NAMES)
segments = st.fixed_dictionaries(
    {
        "text": st.sampled_from(["Hello there", "hello", "Bye", "STRASSE", "50% off_"]),
        "user_id": maybe_name,
        "session": maybe_name,
        "category": categories,
        "importance": st.sampled_from([0, 0.1, 0.5, 1]),
        "metadata": metadata,
        "occurred_at": st.none() | st.sampled_from(TIMES),
        "role": st.sampled_from([None, "user", "assistant"]),
        "speaker": maybe_name,
    }
)


def _asked(values: st.SearchStrategy[Any], *verbs: str) -> st.SearchStrategy[Any]:
    """A plain value, or some operators with what they take."""
    taken = {
        **dict.fromkeys(("eq", "ne"), values),
        **{verb: st.lists(values, max_size=3) for verb in ("in", "nin")},
        **{verb: values.filter(lambda v: v is not None and not isinstance(v, bool)) for verb in ORDER},
        "contains": values.filter(lambda v: v is not None),
    }
    chosen = verbs or tuple(OPERATORS)
    one = st.sampled_from(chosen).flatmap(lambda verb: st.fixed_dictionaries({verb: taken[verb]}))
    two = st.tuples(one, one).map(lambda pair: {**pair[0], **pair[1]})
    return values | one | two


EXACT = ("eq", "ne", "in", "nin")
texts = st.none() | st.sampled_from([*NAMES, *WORDS, "user", "assistant", "Hello there"])
paths = st.one_of(st.sampled_from(KEYS), st.lists(st.sampled_from(KEYS), min_size=1, max_size=2).map(".".join))
conditions = st.one_of(
    st.tuples(st.sampled_from(["user_id", "session", "role", "speaker", "source", "text"]), _asked(texts)),
    st.tuples(paths | paths.map("metadata.{}".format), _asked(scalars)),
    st.tuples(
        st.sampled_from(["importance", "position", "version", "tokens", "repeats"]),
        _asked(st.sampled_from([0, 1, 0.1, 0.5, 2, -1]), *EXACT, *ORDER),
    ),
    st.tuples(
        st.just("occurred_at"),
        _asked(st.none() | st.sampled_from(TIMES), *EXACT, *ORDER),
    ),
    st.tuples(
        st.just("category"),
        _asked(st.none() | categories.map(" / ".join) | categories.map(" > ".join), *EXACT)
        | st.sampled_from([*STEPS, "c"]).map(lambda text: {"contains": text}),
    ),
).map(lambda pair: {pair[0]: pair[1]})
filters = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["AND", "OR", "NOT"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda p: {p[0]: p[1]}
        ),
        inner.map(lambda part: {"NOT": part}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Memory]:
    with Memory(":memory:", encoder=None) as opened:
        yield opened


_fresh = count()


def filled(memory: Memory, rows: list[dict[str, Any]]) -> str:
    """A namespace of its own that holds these rows."""
    namespace = f"n{next(_fresh)}"
    for row in rows:
        given = {name: value for name, value in row.items() if name not in ("text", "role", "speaker")}
        message = {"role": row["role"], "name": row["speaker"], "content": row["text"]}
        memory.add([message] if row["role"] else row["text"], namespace=namespace, **given)
    return namespace


@given(st.lists(segments, min_size=1, max_size=6), st.lists(filters, min_size=1, max_size=8))
def test_get_all_finds_exactly_what_the_model_finds(
    shared: Memory, rows: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> None:
    namespace = filled(shared, rows)
    everything = shared.get_all(namespace=namespace)
    for wanted in asked:
        expected = [segment.text for segment in everything if passes(segment, wanted)]
        assert [segment.text for segment in shared.get_all(namespace=namespace, filters=wanted)] == expected, wanted


def test_every_value_against_every_operator_and_value(memory: Memory) -> None:
    flat = [*ALIKE, *NUMBERS, *WORDS]
    kept = [*flat, [], {}, [1], [True], ["a"], ["A", None], [0.5, "1"], [[1]], [[]], ["[1]"], "[1]", "{}", {"a": 1}]
    for number, value in enumerate(kept):
        memory.add(f"Value {number}.", metadata={"v": value})
    memory.add("No value.", metadata={"w": 1})
    memory.add("No metadata.")
    everything = memory.get_all(limit=1_000)
    for verb in OPERATORS:
        for wanted in flat:
            if (wanted is None and verb not in EXACT) or (isinstance(wanted, bool) and verb in ORDER):
                continue
            asked = {"v": {verb: [wanted, "?"] if verb in ("in", "nin") else wanted}}
            expected = [segment.text for segment in everything if passes(segment, asked)]
            assert [segment.text for segment in memory.get_all(limit=1_000, filters=asked)] == expected, asked


@given(st.lists(segments, min_size=1, max_size=6), filters)
def test_search_context_and_delete_all_see_the_same(
    shared: Memory, rows: list[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    namespace = filled(shared, rows)
    everything = shared.get_all(namespace=namespace)
    expected = {segment.id for segment in everything if passes(segment, wanted)}
    query = "hello there bye strasse 50 off"
    found = {hit.id for hit in shared.search(query, k=100, namespace=namespace, filters=wanted)}
    assert found == expected
    context = shared.context(query, budget=10_000, namespace=namespace, filters=wanted)
    assert {id for citation in context.citations for id in citation.ids} == expected
    assert shared.erase(namespace=namespace, filters=wanted).segments == len(expected)
    assert {segment.id for segment in shared.get_all(namespace=namespace)} == {s.id for s in everything} - expected


@given(metadata, st.sampled_from(["eq", "gt", "lte", "contains"]), scalars)
def test_not_is_exactly_the_rest(shared: Memory, about: dict[str, Any], verb: str, wanted: Any) -> None:
    if verb != "eq" and (wanted is None or (verb != "contains" and isinstance(wanted, bool))):
        return
    namespace = f"n{next(_fresh)}"
    shared.add("Only this.", namespace=namespace, metadata=about)
    condition = {"a": {verb: wanted}}
    kept = [shared.get_all(namespace=namespace, filters=f) for f in (condition, {"NOT": condition})]
    assert sorted(map(len, kept)) == [0, 1]


# Ids, times, categories


def test_a_step_of_a_path_is_a_name_and_no_place_in_a_list(memory: Memory) -> None:
    memory.add("a list", metadata={"a": ["x"]})
    memory.add("a name", metadata={"a": {"0": "x"}})
    assert [row.text for row in memory.get_all(filters={"metadata.a.0": "x"})] == ["a name"]
    assert [row.text for row in memory.get_all(filters={"metadata.a.0": None})] == ["a list"]


def test_numbers_of_both_kinds_are_asked_for_in_one_list(memory: Memory) -> None:
    for importance in (0.0, 0.1, 0.5, 1.0):
        memory.add(f"of {importance}", importance=importance)
    found = memory.get_all(filters={"importance": {"in": [0.1, 1]}})
    assert [row.importance for row in found] == [0.1, 1.0]


def test_ids_and_documents_can_be_asked_for(memory: Memory) -> None:
    one, two = memory.add("One.").ids[0], memory.add("Two.").ids[0]
    long = memory.add("A sentence of this long document. " * 400)
    assert [s.id for s in memory.get_all(filters={"id": one})] == [one]
    assert [s.id for s in memory.get_all(filters={"id": {"in": [two, "nonsense", one.upper()]}})] == [one, two]
    assert [s.id for s in memory.get_all(filters={"document_id": None})] == [one, two]
    assert [s.id for s in memory.get_all(filters={"document_id": long.document_id})] == list(long.ids)
    assert memory.get_all(filters={"id": "nonsense"}) == []
    assert len(memory.get_all(filters={"id": {"ne": "nonsense"}})) == 2 + len(long.ids)


def test_a_category_holds_everything_below_it_and_nothing_beside_it(memory: Memory) -> None:
    for path in ("Software", "Software / Core", "Software / Core / Index", "Software Tools", "Soft", None):
        memory.add(f"In {path}.", category=path)

    def under(category: object) -> list[str]:
        return [segment.text for segment in memory.get_all(filters={"category": category})]

    assert under("Software") == ["In Software.", "In Software / Core.", "In Software / Core / Index."]
    assert under("Software > Core") == under(["Software", "Core"]) == under("Software/Core/") == under("Software")[1:]
    assert under({"in": ["Soft", ["Software", "Core", "Index"]]}) == ["In Software / Core / Index.", "In Soft."]
    assert under({"ne": "Software"}) == ["In Software Tools.", "In Soft.", "In None."]
    assert under({"nin": ["Software", "Soft", None]}) == ["In Software Tools."]
    assert under(None) == ["In None."]
    assert under({"contains": "TOOL"}) == ["In Software Tools."]
    assert under("Core") == []


def test_times_compare_as_moments_however_they_are_written(memory: Memory) -> None:
    for hour in (13, 14, 15):
        memory.add(f"At {hour}.", occurred_at=datetime(2026, 5, 30, hour, tzinfo=UTC))
    memory.add("At no time.")
    moment = datetime(2026, 5, 30, 14, tzinfo=UTC)

    def at(field: str, condition: object) -> list[str]:
        return [segment.text for segment in memory.get_all(filters={field: condition})]

    for same in (
        moment,
        moment.replace(tzinfo=None),
        moment.astimezone(timezone(timedelta(hours=-5))),
        "2026-05-30T14:00:00Z",
        "2026-05-30T16:00:00+02:00",
        "2026-05-30 14:00",
        moment.timestamp(),
    ):
        assert at("occurred_at", same) == at("occurred_at", {"in": [same]}) == ["At 14."]
        assert at("occurred_at", {"gt": same}) == ["At 15."]
        assert at("occurred_at", {"lte": same}) == ["At 13.", "At 14."]
        assert at("occurred_at", {"ne": same}) == ["At 13.", "At 15.", "At no time."]
    assert at("occurred_at", None) == ["At no time."]
    first = memory.get_all()[0].recorded_at
    assert at("recorded_at", {"lte": first}) == ["At 13."]
    assert at("recorded_at", {"gt": "2999-01-01"}) == []


def test_a_time_in_metadata_compares_as_the_iso_text_it_is_kept_as(memory: Memory) -> None:
    moment = datetime(2026, 5, 30, 14, tzinfo=UTC)
    memory.add("Due.", metadata={"due": moment.isoformat()})
    assert memory.get_all(filters={"due": moment})
    assert memory.get_all(filters={"due": {"lt": moment + timedelta(days=1)}})
    assert not memory.get_all(filters={"due": {"gt": moment}})


def test_a_metadata_key_with_the_name_of_a_column_is_reached_by_its_path(memory: Memory) -> None:
    memory.add("One.", importance=0.2, metadata={"importance": 9, "id": "mine", "metadata": {"text": "deep"}})
    assert memory.get_all(filters={"metadata.importance": 9, "importance": 0.2, "metadata.id": "mine"})
    assert memory.get_all(filters={"metadata.metadata.text": "deep"})
    assert not memory.get_all(filters={"importance": 9})


def test_the_same_filter_with_1_and_with_true_is_not_the_same_search(memory: Memory) -> None:
    memory.add("The first flag.", metadata={"flag": 1})
    memory.add("The second flag.", metadata={"flag": True})
    for wanted, found in ((1, "The first flag."), (True, "The second flag."), (1.0, "The first flag.")):
        assert [hit.text for hit in memory.search("flag", filters={"flag": wanted})] == [found]
        assert [hit.text for hit in memory.search("flag", filters={"flag": {"in": [wanted]}})] == [found]


# Large


@pytest.mark.parametrize("field", ["user_id", "n", "category", "id", "importance"])
def test_ten_thousand_values_are_taken_and_more_are_refused(memory: Memory, field: str) -> None:
    id = memory.add("Kept.", user_id="u1", metadata={"n": "u1"}, category="u1", importance=1).ids[0]
    kind: Callable[[int], Any] = float if field == "importance" else "u{}".format
    values = [id, *map(kind, range(9_999))] if field == "id" else [kind(i) for i in range(10_000)]
    assert len(memory.get_all(filters={field: {"in": values}})) == 1
    assert memory.get_all(filters={field: {"nin": values}}) == []
    assert len(memory.search("kept", filters={field: {"in": values}})) == 1
    with pytest.raises(InvalidFilter, match="10,001 values"):
        memory.get_all(filters={"OR": [{field: {"in": values}}, {field: {"in": values[:1]}}]})


def test_five_hundred_conditions_are_taken_and_more_are_refused(memory: Memory) -> None:
    memory.add("Kept.", metadata={"n": 499}, category="C")
    for field in ("n", "category", "speaker"):
        many: list[dict[str, Any]] = [{field: str(i)} for i in range(499)]
        for kind in ("OR", "NOT"):
            assert len(memory.get_all(filters={kind: [*many, {"n": 499 if kind == "OR" else 5}]})) == 1
        with pytest.raises(InvalidFilter, match="501 conditions"):
            memory.get_all(filters={"AND": [*many, {"n": 1}, {"n": 2}]})


def test_sixteen_levels_are_taken_and_more_are_refused(memory: Memory) -> None:
    memory.add("Kept.", metadata={"n": 1})
    deep: dict[str, Any] = {"n": 1}
    for _ in range(16):
        deep = {"NOT": deep}
    assert len(memory.get_all(filters=deep)) == 1
    for _ in range(100_000):
        deep = {"AND": [deep]}
    with pytest.raises(InvalidFilter, match="nested deeper than 16 levels"):
        memory.get_all(filters=deep)


# Wrong


@pytest.mark.parametrize(
    ("wrong", "argument", "words"),
    [
        ("speaker", "filters", "str"),
        ([("speaker", "Ana")], "filters", "list"),
        ({"speaker": {"like": "A%"}}, "filters.speaker", "unknown operator 'like'"),
        ({"speaker": {"$eq": "A"}}, "filters.speaker", "unknown operator '$eq'"),
        ({"speaker": {"EQ": "A"}}, "filters.speaker", "unknown operator 'EQ'"),
        ({"speaker": {1: "A"}}, "filters.speaker", "unknown operator 1"),
        ({"speaker": {}}, "filters.speaker", "no operator"),
        ({"speaker": 5}, "filters.speaker", "not a string"),
        ({"speaker": ["Ana"]}, "filters.speaker", "list"),
        ({"speaker": {"in": "Ana"}}, "filters.speaker", "in needs a list"),
        ({"speaker": {"nin": None}}, "filters.speaker", "nin needs a list"),
        ({"speaker": {"contains": None}}, "filters.speaker", "contains needs a value"),
        ({"importance": "high"}, "filters.importance", "not a number"),
        ({"importance": True}, "filters.importance", "not a number"),
        ({"importance": None}, "filters.importance", "not a number"),
        ({"importance": float("nan")}, "filters.importance", "nan"),
        ({"importance": {"gt": float("inf")}}, "filters.importance", "inf"),
        ({"importance": {"contains": 0}}, "filters.importance", "contains"),
        ({"occurred_at": "yesterday"}, "filters.occurred_at", "'yesterday' is no time"),
        ({"occurred_at": {"gt": None}}, "filters.occurred_at", "gt needs"),
        ({"occurred_at": {"contains": "2026"}}, "filters.occurred_at", "contains"),
        ({"recorded_at": {"in": ["now"]}}, "filters.recorded_at", "'now' is no time"),
        ({"id": {"gt": "0"}}, "filters.id", "gt"),
        ({"document_id": {"contains": "0"}}, "filters.document_id", "contains"),
        ({"category": 5}, "filters.category", "int"),
        ({"category": ["A", 5]}, "filters.category", "list"),
        ({"category": {"gt": "A"}}, "filters.category", "gt"),
        ({"category": {"contains": ["A"]}}, "filters.category", "contains"),
        ({"category": ["\ud800"]}, "filters.category", "surrogate"),
        ({"category": ["a\0"]}, "filters.category", "NUL"),
        ({"topic": b"x"}, "filters.topic", "bytes"),
        ({"topic": {"eq": {"deep": 1}}}, "filters.topic", "dict"),
        ({"topic": {"gt": True}}, "filters.topic", "gt needs"),
        ({"topic": 2**63}, "filters.topic", "64 bits"),
        ({"topic": 10**5000}, "filters.topic", "64 bits"),
        ({"topic": "\ud800"}, "filters.topic", "surrogate"),
        ({"topic": {"in": ["a\0b"]}}, "filters.topic", "NUL"),
        ({"": 1}, "filters", "key"),
        ({1: 1}, "filters", "key 1"),
        ({10**5000: 1}, "filters", "key"),
        ({"a..b": 1}, "filters.a..b", "path"),
        ({".": 1}, "filters..", "path"),
        ({'a"b': 1}, 'filters.a"b', "path"),
        ({"a\\b": 1}, "filters.a\\b", "path"),
        ({"a\0b": 1}, "filters.a\0b", "path"),
        ({"\ud800": 1}, "filters.\ud800", "path"),
        ({"AND": {"a": 1}}, "filters.AND", "list"),
        ({"OR": []}, "filters.OR", "list"),
        ({"OR": "a"}, "filters.OR", "list"),
        ({"NOT": b"ab"}, "filters.NOT", "list"),
        ({"OR": [{"a": 1}, {}]}, "filters.OR", "empty"),
        ({"OR": [{"a": 1}, None]}, "filters", "NoneType"),
        ({"OR": [{"a": 1}, {"b": {"like": 1}}]}, "filters.b", "unknown operator"),
    ],
    ids=count(),
)
def test_a_filter_that_cannot_be_understood_is_refused_by_its_place(
    memory: Memory, wrong: Any, argument: str, words: str
) -> None:
    memory.add("Kept.")
    for call in (
        lambda: memory.get_all(filters=wrong),
        lambda: memory.search("kept", filters=wrong),
        lambda: memory.context("kept", filters=wrong),
        lambda: memory.erase(user_id="ana", filters=wrong),
    ):
        with pytest.raises(InvalidFilter) as caught:
            call()
        assert isinstance(caught.value, InvalidInput)
        assert caught.value.argument == argument
        assert words in caught.value.problem
        assert caught.value.mend
    assert len(memory.get_all()) == 1


SPELLS = (
    "'; DROP TABLE segments; --",
    "x' OR '1'='1",
    '" OR 1=1 --',
    "a) OR (1=1",
    "') OR json_extract(metadata, '$",
    "$.a",
    "a[0]",
    "a[#-1]",
    "*",
    "a b) --",
    "text UNION SELECT value FROM store",
    "?1",
    ":x",
    "%",
)


@pytest.mark.parametrize("spell", SPELLS)
def test_nothing_in_a_filter_is_ever_run(memory: Memory, spell: str) -> None:
    memory.add("Mine.", user_id="ana", metadata={"a": ["x"], "b": "y"})
    memory.add("Theirs.", namespace="other", metadata={spell: spell})
    before = memory.stats()["versions"]
    for wanted in (
        {spell: "x"},
        {f"metadata.{spell}": 1},
        {"user_id": spell},
        {"text": {"contains": spell}},
        {"category": spell},
        {"b": {"in": [spell]}},
        {"a": {"contains": spell}},
        {"id": spell},
    ):
        try:
            assert memory.get_all(filters=wanted) == [], wanted
        except InvalidFilter:
            continue
    for name in ("user_id", "session", "namespace"):
        assert memory.get_all(**{name: spell}) == []
        assert memory.search("mine", **{name: spell}) == []
    assert memory.erase(user_id=spell).segments == 0
    assert memory.stats()["versions"] == before
    if '"' not in spell and "." not in spell:
        assert [s.text for s in memory.get_all(namespace="other", filters={spell: spell})] == ["Theirs."]
