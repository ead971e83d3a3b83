"""What later rows, deletions, renames and times do to what was there before: to scores, neighbors, times and scopes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import InvalidInput, Memory, as_dict
from memspan.cli import main
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.entities import entities

Open = Callable[..., Memory]
USE = {"recency", "frequency", "relevance"}  # what a search itself changes, or the time that passes


def parts(memory: Memory, query: str, **asked: Any) -> dict[str, dict[str, float]]:
    """What each hit's score is made of, but for its use."""
    hits = memory.search(query, k=50, explain=True, **asked)
    return {hit.id: {name: value for name, value in (hit.channels or {}).items() if name not in USE} for hit in hits}


def scores(memory: Memory, query: str) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in memory.search(query, k=50)]


def ids_near(memory: Memory, id: str, kind: str) -> set[str]:
    return {near.id for near in memory.neighbors(id, kind, limit=100)}


# Rows that come after a snapshot


@pytest.mark.usefixtures("small_snapshots")
def test_a_name_that_very_many_rows_mention_does_not_become_telling_when_a_few_more_do(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.association.HUB", 3)
    monkeypatch.setattr("memspan.views.association.MOST_HELD", 6)
    memory = opened()
    for number in range(10):
        memory.add(f"Today we spoke with Zanzibar about item {number}.")
    memory.compact()
    later = [memory.add(text).ids[0] for text in ("Somebody saw Zanzibar again.", "A letter from Zanzibar came.")]
    for _ in range(2):
        assert ids_near(memory, later[0], "mentions") == set()
        hits = memory.search("what did Zanzibar sign?", k=20, explain=True)
        assert {(hit.channels or {})["named"] for hit in hits} == {0.0}
        assert {(hit.channels or {})["mentions"] for hit in hits} == {0.0}
        memory.compact()


@pytest.mark.usefixtures("small_snapshots")
def test_a_row_nearly_the_same_is_similar_to_one_that_knows_many_weaker_ones(opened: Open) -> None:
    memory = opened()
    first = memory.add("red apple green pear yellow plum").ids[0]
    pairs = ("red apple", "green pear", "yellow plum", "red pear", "green plum", "yellow apple")
    for number in range(24):
        memory.add(f"{pairs[number % 6]} w{number}x{number * 7} z{number * 13}q")
        memory.neighbors(first, "similar")  # from here on each new row is made known to those there are
    twin = memory.add("red apple green pear yellow plum!").ids[0]
    for _ in range(2):
        for each in (memory, opened()):
            assert each.neighbors(first, "similar")[0].id == twin
            assert each.neighbors(twin, "similar")[0].id == first
        memory.compact()


@pytest.mark.embedded("folds rows into files")
@pytest.mark.usefixtures("small_snapshots")
def test_rows_that_had_no_vector_when_they_were_folded_in_find_similar_ones_once_they_have(opened: Open) -> None:
    opened().close()
    words = opened(encoder=None)
    ids = [words.add(f"the quick brown fox jumps over lazy dog {number}").ids[0] for number in range(10)]
    assert "default/graph" in words.compact()["rewritten"]
    words.close()
    memory = opened()
    memory.search("fox")
    assert memory.stats()["pending"] == 0
    assert all(memory.neighbors(id, "similar") for id in ids)
    memory.add("the quick brown fox again")
    memory.compact()
    assert all(memory.neighbors(id, "similar") for id in ids)
    assert all(opened().neighbors(id, "similar") for id in ids)


@pytest.mark.usefixtures("small_snapshots")
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("folded", [True, False], ids=["in a snapshot", "in the tail"])
def test_a_row_whose_nearest_ones_were_all_deleted_finds_others(opened: Open, folded: bool, times: int) -> None:
    memory = opened()
    first = memory.add("red apple green pear yellow plum").ids[0]
    for number in range(24):
        memory.add(f"red apple green pear yellow plum {number}")
    for fruit in ("tart", "cake", "juice", "pie", "salad"):
        memory.add(f"red apple with pear {fruit}")
    if folded:
        memory.compact()
    for _ in range(times):
        memory.erase(sorted(ids_near(memory, first, "similar")))
    assert ids_near(memory, first, "similar")
    assert ids_near(opened(), first, "similar")


# Rows that go


def test_rows_that_were_deleted_say_nothing_of_the_category_they_were_in(opened: Open) -> None:
    memory = opened()
    memory.add("sailing boats in the harbour", category="C")
    alone = parts(memory, "sailing boats"), scores(memory, "sailing boats")
    gone = [memory.add(f"cheese number {number} tastes of smoke", category="C").ids[0] for number in range(4)]
    assert parts(memory, "sailing boats") != alone[0]
    memory.erase(gone)
    for _ in range(2):
        for each in (memory, opened()):
            assert (parts(each, "sailing boats"), scores(each, "sailing boats")) == alone
        memory.rebuild()


# When it was


class Clock:
    """What the ledger takes for the time."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> int:
        return round(self.at.timestamp()) * 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sixty days ago, until it is set."""
    clock = Clock(datetime.now(UTC).replace(microsecond=0) - timedelta(days=60))
    for module in ("archiving", "changing", "feeding", "log", "recording", "rows", "where"):
        monkeypatch.setattr(f"memspan.ledger.{module}.now", clock)
    return clock


CHANGES: dict[str, Callable[[Memory, str], object]] = {
    "its category is renamed": lambda memory, id: memory.move_category("Old", "New"),
    "its category is taken away": lambda memory, id: memory.move_category("Old", None),
    "it becomes more important": lambda memory, id: memory.update(id, importance=0.9),
    "it is said again as it was": lambda memory, id: memory.update(id, memory.get(id).text),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_memory_keeps_its_time_whatever_else_changes_about_it(opened: Open, clock: Clock, change: str) -> None:
    memory, heard = opened(), clock.at
    id = memory.add("The mill wheel is broken.", category="Old", importance=0.2).ids[0]
    clock.at += timedelta(days=20)
    memory.add("The baker came.")
    for version, act in enumerate((CHANGES[change], lambda memory, id: memory.update(id, metadata={"seen": 1})), 2):
        clock.at += timedelta(days=20)
        act(memory, id)
        for each in (memory, opened()):
            segment, hit = each.get(id), each.search("mill wheel", k=1, recipe="dsm", explain=True)[0]
            assert (segment.version, segment.recorded_at) == (version, clock.at)
            assert segment.time == hit.time == heard
            assert segment.heard_at == hit.heard_at == heard
            assert (hit.channels or {})["recency"] == pytest.approx(0.25, abs=0.01)
    context = memory.context("mill wheel", budget=400).text
    assert context.index("The mill wheel") < context.index("The baker")


def test_another_text_is_heard_when_it_is_told(opened: Open, clock: Clock) -> None:
    memory, heard = opened(), clock.at
    id = memory.add("The mill wheel is broken.").ids[0]
    clock.at += timedelta(days=20)
    memory.add("The baker came.")
    clock.at += timedelta(days=10)
    told = clock.at
    memory.update(id, "The mill wheel is whole again.")
    clock.at += timedelta(days=30)
    memory.update(id, importance=0.9)
    for each in (memory, opened()):
        segment, hit = each.get(id), each.search("mill wheel", k=1, recipe="dsm", explain=True)[0]
        assert segment.time == hit.time == told
        assert (segment.heard_at, segment.recorded_at) == (told, clock.at)
        assert [event.at for event in each.history(id)] == [heard, told, clock.at]
        assert (hit.channels or {})["recency"] == pytest.approx(0.5, abs=0.01)
    context = memory.context("mill wheel", budget=400).text
    assert context.index("The baker") < context.index("The mill wheel")


# As of a time


@pytest.mark.parametrize("recipe", ["default", "dsm"])
def test_a_search_as_of_a_time_does_not_ask_what_came_into_a_category_later(
    memory: Memory, clock: Clock, recipe: str
) -> None:
    memory.add("The blue boat lies in the harbour.", category="Boats")
    memory.add("Something about cheese.", category="Food")
    then = clock.at
    clock.at += timedelta(days=1)
    query = "sailing vessels in the harbour"
    before = parts(memory, query, recipe=recipe, as_of=then)
    assert len(before) == 2
    memory.add("sailing vessels in the harbour", category="Food")
    memory.move_category("Boats", "Food")
    assert parts(memory, query, recipe=recipe, as_of=then) == before


def test_a_search_as_of_a_time_follows_no_link_that_was_stated_later(memory: Memory, clock: Clock) -> None:
    boats = [memory.add(f"The blue boat lies in harbour {number}.").ids[0] for number in range(12)]
    cheese = memory.add("Nothing but gouda").ids[0]
    then = clock.at
    clock.at += timedelta(days=1)
    asked = {"query": "the boat in the harbour", "recipe": "dsm"}
    before = parts(memory, as_of=then, **asked)
    assert before[cheese]["graph"] == 0
    memory.link(boats[-1], cheese)
    assert parts(memory, as_of=then, **asked) == before
    assert parts(memory, as_of=clock.at, **asked)[cheese]["graph"] == parts(memory, **asked)[cheese]["graph"] == 0.5


# Writes that meet


def test_a_category_is_renamed_though_one_of_its_rows_is_deleted_meanwhile(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, other = opened(), opened()
    ids = [memory.add(f"note {number}", category="A / B").ids[0] for number in range(3)]
    ledger = type(memory._ledger)
    revise = ledger.revise

    def late(*arguments: Any, **named: Any) -> Any:
        other.erase(ids[1])
        return revise(*arguments, **named)

    monkeypatch.setattr(ledger, "revise", late)
    assert memory.move_category("A", "C") == 2
    assert {segment.id: segment.category for segment in memory.get_all()} == dict.fromkeys(ids[::2], ("C", "B"))


def test_a_segment_is_not_linked_to_itself_however_its_id_is_written(memory: Memory) -> None:
    a, b = (memory.add(text).ids[0] for text in ("One thing.", "Another."))
    for same in (a.upper(), f"{{{a}}}", f"urn:uuid:{a}", a.replace("-", "")):
        for ends in ((a, same), (same, a), (same, same)):
            with pytest.raises(InvalidInput) as caught:
                memory.link(*ends)
            assert caught.value.argument == "b"
        assert memory.link(same, b).source == a
    assert [near.id for near in memory.neighbors(a, "related")] == [b]


# Texts and vectors as nobody expects them


@pytest.mark.parametrize("unit", ["1.", "12/", "aaaa-", "aaaa-b"])
def test_names_are_found_in_a_time_that_grows_with_the_text(unit: str) -> None:
    def seconds(characters: int) -> float:
        text = (unit * characters)[: characters - 2] + "1x"
        taken = []
        for _ in range(5):
            start = time.process_time()
            entities(text)
            taken.append(time.process_time() - start)
        return min(taken)

    assert seconds(20_000) < 24 * seconds(2_500), "8 times as much, or 64 times where it grew with the square"


def test_vectors_that_are_too_long_are_taken_by_their_direction(opened: Open) -> None:
    class Long(HashEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.id, self.spec = "long", None

        def encode(self, texts: Sequence[str]) -> Encoded:
            return Encoded(super().encode(texts).pooled * np.float32(1e6))

    texts = [f"text {number} about {('cats', 'dogs')[number % 2]} {number * 31}" for number in range(20)]
    long, usual = opened(":memory:", encoder=Long()), opened(":memory:")
    for memory in (long, usual):
        memory.add([{"role": "user", "content": text} for text in texts])
    for recipe in ("semantic", "default", "dsm"):
        found, expected = (memory.search("dogs 31", k=20, recipe=recipe) for memory in (long, usual))
        assert [hit.text for hit in found] == [hit.text for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-3)
        assert all(0 <= hit.score <= 1 for hit in found)
    near = [
        {each.text: each.strength for each in memory.neighbors(memory.get_all()[1].id, "similar")}
        for memory in (long, usual)
    ]
    assert near[0] == pytest.approx(near[1], abs=1e-2)
    assert long.tree().segments == 20
    assert long.verify()["ok"]


def test_a_score_does_not_jump_as_a_fifth_row_comes_that_has_nothing_to_do_with_it(memory: Memory) -> None:
    for text in ("I moved to Lisbon in May.", "Porto is also nice", "Cheese is good", "Rain again today"):
        memory.add(text)
    best = memory.search("Lisbon")[0]
    memory.add("Quite unrelated words here")
    again = memory.search("Lisbon")[0]
    assert again.id == best.id
    assert abs(again.score - best.score) < 0.2


# Who is asked for


@pytest.mark.embedded("opens it by its path")
def test_the_themes_on_the_command_line_are_those_of_the_user_asked_for(
    opened: Open, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("graspologic_native")
    memory = opened()
    for user, what in (("ana", "the violin sonata of the orchestra"), ("ben", "the beans in the garden bed")):
        for number in range(6):
            memory.add(f"{what}, part {number}", user_id=user, category="even" if number % 2 == 0 else "odd")
    narrower = {"user_id": "ben", "filters": {"category": "odd"}}
    asked = {("--user", "ana"): memory.themes(user_id="ana"), (): memory.themes()}
    asked["--user", "ben", "--filter", '{"category": "odd"}'] = memory.themes(**narrower)
    assert [sum(theme.segments for theme in themes) for themes in asked.values()] == [6, 12, 3]
    for options, themes in asked.items():
        with pytest.raises(SystemExit) as ended:
            main(["themes", "--json", "--store", str(path), *options])
        assert not ended.value.code
        assert json.loads(capsys.readouterr().out)["themes"] == json.loads(json.dumps(list(map(as_dict, themes))))
