"""``Memory.timeline``: how much happened when, and what, in the order of time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspan import InvalidInput, Memory

DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in range(1, 11)]


@pytest.fixture
def dated(memory: Memory) -> Memory:
    for day in reversed(DAYS):
        memory.add(f"It happened on day {day.day}.", occurred_at=day, user_id="ana" if day.day % 2 else "ben")
    return memory


def test_what_happened_is_counted_and_told_in_the_order_of_time(dated: Memory) -> None:
    told = dated.timeline(bins=3, limit=4)
    assert (told.start, told.segments, told.counts) == (DAYS[0], 10, (3, 3, 4))
    assert [row.time for row in told.page] == DAYS[:4]
    assert [row.time for row in dated.timeline(skip=8).page] == DAYS[8:]


def test_a_part_of_the_time_is_counted_from_its_start_up_to_its_end(dated: Memory) -> None:
    told = dated.timeline(start=DAYS[2], end=DAYS[6], bins=2)
    assert (told.start, told.end, told.segments, told.counts) == (DAYS[2], DAYS[6], 4, (2, 2))
    assert dated.timeline(start="2030-01-01", bins=2).counts == (0, 0)


def test_only_what_is_in_scope_and_seen_by_searches_is_counted(dated: Memory) -> None:
    gone = dated.timeline(limit=1).page[0].id
    dated.delete(gone)
    assert dated.timeline(bins=0, user_id="ana").segments == 4
    assert dated.timeline(bins=0, filters={"user_id": "ben"}).segments == 5
    assert dated.timeline(namespace="another", bins=2).counts == (0, 0)


def test_what_nobody_dated_counts_when_it_was_heard_whatever_became_of_it_since(memory: Memory) -> None:
    (id,) = memory.add("Nobody said when.").ids
    heard = memory.get(id).time
    memory.update(id, importance=0.9)
    told = memory.timeline(bins=1)
    assert (told.start, told.counts) == (heard, (1,))


def test_the_last_moment_of_the_calendar_is_counted(memory: Memory) -> None:
    memory.add("The end.", occurred_at=datetime.max.replace(tzinfo=UTC))
    memory.add("The beginning.", occurred_at=datetime.min.replace(tzinfo=UTC))
    assert memory.timeline(bins=10_000).segments == sum(memory.timeline(bins=10_000).counts) == 2


@settings(max_examples=25)
@given(
    st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20),
    st.integers(1, 50),
)
def test_every_segment_is_in_one_part_and_on_one_page(times: list[datetime], bins: int) -> None:
    with Memory(":memory:", encoder=None) as memory:
        for number, time in enumerate(times):
            memory.add(f"number {number}", occurred_at=time)
        told = memory.timeline(bins=bins, limit=len(times))
        assert sum(told.counts) == told.segments == len(times)
        assert [row.time for row in told.page] == sorted(row.time for row in told.page)
        pages = [memory.timeline(bins=0, limit=3, skip=skip).page for skip in range(0, len(times), 3)]
        assert [row.id for page in pages for row in page] == [row.id for row in told.page]


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"bins": -1}, "bins"),
        ({"bins": 10_001}, "bins"),
        ({"limit": 0}, "limit"),
        ({"skip": -1}, "skip"),
        ({"start": "yesterday-ish"}, "start"),
        ({"start": "2026-03-02", "end": "2026-03-01"}, "end"),
    ],
)
def test_a_wrong_argument_is_named(dated: Memory, wrong: dict[str, object], argument: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        dated.timeline(**wrong)  # type: ignore[arg-type]
    assert caught.value.argument == argument
