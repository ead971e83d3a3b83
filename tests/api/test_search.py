"""What ``search`` and ``get_all`` give back, in which order, and as of when."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from memspan import Hit, InvalidInput, Memory, as_dict

Open = Callable[..., Memory]
CITIES = ("Lisbon", "Berlin", "Kyoto", "Quito", "Oslo", "Nairobi", "Tbilisi", "Hanoi", "Lima", "Perth")


@pytest.fixture
def travels(memory: Memory) -> Memory:
    for i, city in enumerate(CITIES):
        memory.add(f"Ana went to {city} in year {2000 + i}.", user_id="ana", importance=i / 10, metadata={"n": i})
    memory.add("Bob stayed at home.", user_id="bob")
    return memory


def test_the_best_answer_comes_first_with_all_that_is_known_of_it(travels: Memory) -> None:
    hit = travels.search("when did Ana go to Kyoto?", user_id="ana")[0]
    assert isinstance(hit, Hit)
    kept = travels.get(hit.id)
    for field in dataclasses.fields(kept):
        assert getattr(hit, field.name) == getattr(kept, field.name)
    assert hit.text == "Ana went to Kyoto in year 2002."


def test_scores_are_in_0_to_1_and_fall(travels: Memory) -> None:
    for recipe in ("default", "dsm", "flat", "semantic", "keyword"):
        scores = [hit.score for hit in travels.search("Ana in Kyoto or Oslo", k=100, recipe=recipe)]
        assert scores
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


def test_hits_are_frozen(travels: Memory) -> None:
    hit = travels.search("Kyoto", explain=True)[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        hit.text = "something else"  # type: ignore[misc]
    with pytest.raises((TypeError, AttributeError)):
        hit.note = "new"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        travels.search("home", user_id="bob")[0].metadata["new"] = 1  # type: ignore[index]


def test_a_hit_is_plain_json_as_a_dict(travels: Memory) -> None:
    import json

    plain = as_dict(travels.search("Kyoto", explain=True)[0])
    assert json.loads(json.dumps(plain)) == plain
    assert plain["text"] == "Ana went to Kyoto in year 2002."
    assert datetime.fromisoformat(plain["recorded_at"]).tzinfo is not None


@pytest.mark.parametrize("k", [1, 3, 10, 10_000])
def test_at_most_k_hits_come_and_the_first_are_the_same(travels: Memory, k: int) -> None:
    everything = travels.search("Ana went to a city", k=50)
    assert travels.search("Ana went to a city", k=k) == everything[:k]


def test_k_is_filled_although_the_filter_leaves_few(travels: Memory) -> None:
    hits = travels.search("Kyoto Lisbon Berlin", k=3, filters={"n": {"gte": 7}})
    assert sorted(hit.metadata["n"] for hit in hits) == [7, 8, 9]


def test_no_hit_is_below_the_threshold(travels: Memory) -> None:
    hits = travels.search("Ana in Kyoto", k=100)
    for threshold in (0.0, hits[0].score, hits[3].score, 1.0):
        assert travels.search("Ana in Kyoto", k=100, threshold=threshold) == [h for h in hits if h.score >= threshold]


def test_explain_gives_each_channels_part_and_nothing_else_changes(travels: Memory) -> None:
    plain, explained = (travels.search("Ana in Kyoto", explain=explain) for explain in (False, True))
    assert [dataclasses.replace(hit, channels=None, path=()) for hit in explained] == plain
    for hit in explained:
        assert hit.channels is not None
        found = {"semantic", "keyword", "margin", "next", "mentions", "named", "importance"}
        assert set(hit.channels) == found | {"nearby", "echo", "asks", "asked", "speaker", "user"}
        assert all(0 <= part <= 1 for part in hit.channels.values())
        assert hit.channels["importance"] == pytest.approx(hit.importance)


def test_a_recipe_asks_only_its_own_channels(travels: Memory) -> None:
    parts = {"semantic": {"semantic"}, "keyword": {"keyword"}, "flat": {"semantic", "keyword"}}
    for recipe, names in parts.items():
        hits = travels.search("Kyoto", recipe=recipe, explain=True)
        assert {name for hit in hits for name in hit.channels or ()} == names
        assert [hit.path for hit in hits] == [()] * len(hits)
    with pytest.raises(InvalidInput) as caught:
        travels.search("Kyoto", recipe="best")
    assert caught.value.argument == "recipe"
    assert "default" in caught.value.mend


def test_what_only_words_find_surfaces(memory: Memory) -> None:
    for i in range(300):
        memory.add(f"The report of week {i} speaks about sales and costs of the year.")
    memory.add("Ticket XJ-4471 is closed.")
    assert "XJ-4471" in memory.search("what about XJ-4471 in the report of the week?", k=5)[0].text


def test_without_an_encoder_words_find(opened: Open) -> None:
    memory = opened(encoder=None)
    memory.add("The heron eats frogs.")
    memory.add("The bank lends money.")
    (hit,) = memory.search("frogs", explain=True)
    assert hit.text == "The heron eats frogs."
    assert set(hit.channels or ()) == {"keyword", "next", "mentions", "named", "importance"}
    assert memory.stats()["encoder"] is None


def test_one_scope_never_sees_another(travels: Memory) -> None:
    assert {hit.user_id for hit in travels.search("who stayed at home?", k=50, user_id="ana")} == {"ana"}
    assert [hit.text for hit in travels.search("Kyoto", user_id="bob")] == ["Bob stayed at home."]
    assert travels.search("Kyoto", user_id="eve") == []
    assert travels.search("Kyoto", namespace="elsewhere") == []


def test_what_another_tenant_writes_moves_no_score(memory: Memory) -> None:
    for i in range(5):
        memory.add(f"Ana likes river number {i}.", user_id="ana")
    before = memory.search("which river?", user_id="ana", explain=True)
    for i in range(50):
        memory.add(f"Bob crosses the river at bridge {i}.", user_id="bob")
        memory.add(f"A river in namespace {i}.", namespace="other")
    assert memory.search("which river?", user_id="ana", explain=True) == before
    memory.erase(user_id="bob")
    assert memory.search("which river?", user_id="ana", explain=True) == before


def test_what_is_written_is_found_by_the_next_search(memory: Memory) -> None:
    for i in range(20):
        id = memory.add(f"Widget {i} is stored on a shelf.").ids[0]
        assert memory.search(f"widget {i}", k=1)[0].id == id


def test_an_empty_memory_answers_with_nothing(memory: Memory) -> None:
    assert memory.search("anything") == []
    assert memory.get_all() == []
    assert memory.stats()["segments"] == 0


@pytest.mark.parametrize(
    "query", ["???", "the of and", "'); DROP TABLE segments;--", 'AND OR NOT "', "*", "東京", "\x1b[31m"]
)
def test_any_query_with_something_in_it_is_answered(travels: Memory, query: str) -> None:
    assert len(travels.search(query, k=5)) <= 5
    assert len(travels.get_all()) == 11


def test_chinese_japanese_and_korean_words_are_found(memory: Memory) -> None:
    memory.add("我五月搬到了里斯本。")
    memory.add("東京の天気は晴れです。")
    memory.add("나는 서울에 살고 있어요.")
    for query, found in (("里斯本", "里斯本"), ("東京", "東京"), ("서울", "서울")):
        assert found in memory.search(query, k=1, recipe="keyword")[0].text


# As of


def test_as_of_sees_what_was_known_then(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.").ids[0]
    first = memory.get(id).recorded_at
    second = memory.update(id, "Ana lives in Lisbon.").recorded_at
    third = memory.get(memory.add("Ana has a cat.").ids[0]).recorded_at

    def known(at: object) -> set[str]:
        return {hit.text for hit in memory.search("Ana", as_of=at)}  # type: ignore[arg-type]

    assert known(first - timedelta(microseconds=1)) == set()
    assert known(first) == {"Ana lives in Berlin."}
    assert known(second - timedelta(microseconds=1)) == {"Ana lives in Berlin."}
    assert known(second) == {"Ana lives in Lisbon."}
    assert known(third) == known(None) == {"Ana lives in Lisbon.", "Ana has a cat."}
    assert known(first.isoformat()) == {"Ana lives in Berlin."}
    assert known(second.astimezone(UTC).replace(tzinfo=None)) == {"Ana lives in Lisbon."}
    assert known("2999-01-01") == known(None)


def test_as_of_never_brings_back_what_was_deleted(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.").ids[0]
    then = memory.get(id).recorded_at
    memory.update(id, "Ana lives in Lisbon.")
    assert memory.search("Ana", as_of=then)
    memory.erase(id)
    assert memory.search("Ana", as_of=then) == []


def test_as_of_is_about_when_we_heard_it_and_not_about_when_it_happened(memory: Memory) -> None:
    memory.add("The war ended.", occurred_at="1945-05-08")
    assert memory.search("war", as_of="1950-01-01") == []
    assert memory.search("war", filters={"occurred_at": {"lt": "1950-01-01"}})


def test_a_context_as_of_then_says_what_was_known_then(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.").ids[0]
    then = memory.get(id).recorded_at
    memory.update(id, "Ana lives in Lisbon.")
    assert "Berlin" in memory.context("Ana", as_of=then).text
    assert "Berlin" not in memory.context("Ana").text


# Listing


def test_pages_together_are_everything_once_in_order(travels: Memory) -> None:
    everything = travels.get_all()
    pages, after = [], None
    while page := travels.get_all(limit=4, after=after):
        pages += page
        after = page[-1].id
    assert pages == everything
    assert [segment.seq for segment in pages] == sorted(segment.seq for segment in pages)


def test_a_page_goes_on_after_a_segment_that_was_updated(travels: Memory) -> None:
    first = travels.get_all(limit=4)
    travels.update(first[-1].id, "Ana went nowhere.")
    assert [s.text for s in travels.get_all(limit=1, after=first[-1].id)] == []  # the newest of all is last
    assert len(travels.get_all(limit=100)) == 11
