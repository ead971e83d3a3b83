"""Activity over time: every segment is counted when it happened, every session stands from its start to its end."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.errors import InvalidInput, NotFound
from memspan.ledger.base import microseconds
from memspan.pictures import timeline
from memspan.pictures.files import line
from memspan.pictures.timeline import MOST_BINS, UNITS, Timeline, draw, floored, lanes, lengths, unit_for

from .pages import HOSTILE, Page, assert_it_keeps_to_itself, read

WHEN = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda time: time.replace(tzinfo=UTC))


def drawn(memory: Memory, folder: Path, **options: Any) -> tuple[Timeline, Page]:
    report = draw(memory, folder / "time.html", **options)
    return report, read(folder / "time.html")


def times_of(*when: datetime) -> np.ndarray:
    return np.array([microseconds(time) for time in when], np.int64)


# ------------------------------------------------------------------------------------------------------------ the bins


@given(WHEN, st.sampled_from(sorted(UNITS)))
def test_a_bin_begins_where_its_unit_of_the_calendar_does(time: datetime, unit: str) -> None:
    hour = time.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    begins = {
        "hour": hour,
        "day": day,
        "month": day.replace(day=1),
        "year": day.replace(day=1, month=1),
    }
    if unit == "week":
        if time.year > 1:
            begins["week"] = day - timedelta(days=day.weekday())
        else:
            return
    assert floored(times_of(time), unit).tolist() == times_of(begins[unit]).tolist()


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (0, "hour"),
        (5, "hour"),
        (30, "day"),
        (200, "day"),
        (400, "week"),
        (3 * 365, "week"),
        (4_000, "month"),
        (20_000, "year"),
    ],
)
def test_the_unit_follows_the_span(span: int, unit: str) -> None:
    first = datetime(2001, 2, 3, tzinfo=UTC)
    assert unit_for(times_of(first, first + timedelta(days=span))) == unit


@given(st.lists(WHEN, min_size=1, max_size=20))
def test_there_are_never_too_many_bins_to_see(when: list[datetime]) -> None:
    times = times_of(*when)
    unit = unit_for(times)
    if unit != "year":
        low, high = floored(times, unit).min(), floored(times, unit).max()
        assert (high - low) / 3_600_000_000 / {"hour": 1, "day": 24, "week": 168, "month": 28 * 24}[
            unit
        ] <= MOST_BINS * 1.2


def test_every_segment_is_counted_in_its_hour(told: Memory, tmp_path: Path) -> None:
    report, page = drawn(told, tmp_path)
    counted = {
        (page.data["first"] + int(hour) * 3_600_000, int(group)): int(count)
        for hour, group, count in zip(
            page.array("hour", "<u4"), page.array("group", "u1"), page.array("count", "<u4"), strict=True
        )
    }
    expected: dict[int, int] = {}
    for segment in told.get_all():
        at = microseconds(segment.time) // 3_600_000_000 * 3_600_000
        expected[at] = expected.get(at, 0) + 1
    found: dict[int, int] = {}
    for (at, _), count in counted.items():
        found[at] = found.get(at, 0) + count
    assert found == expected
    assert report.segments == sum(found.values()) == 50
    assert (report.unit, report.start[:10], report.end[:10]) == ("day", "2024-03-01", "2024-04-20")


def test_what_has_no_time_of_its_own_counts_when_it_was_heard(memory: Memory, tmp_path: Path) -> None:
    memory.add("Said now.")
    (segment,) = memory.get_all()
    report, _ = drawn(memory, tmp_path)
    assert (report.start, report.end, report.unit, report.bins) == (
        segment.time.isoformat(),
        segment.time.isoformat(),
        "hour",
        1,
    )


def test_pages_of_reading_are_joined(told: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(told, tmp_path / "time.html")
    before = (tmp_path / "time.html").read_bytes()
    monkeypatch.setattr(timeline, "PAGE", 7)
    assert draw(told, tmp_path / "time.html") == whole
    assert (tmp_path / "time.html").read_bytes() == before


# -------------------------------------------------------------------------------------------------------- the sessions


def test_a_session_stands_from_its_first_to_its_last_segment(told: Memory, tmp_path: Path) -> None:
    report, page = drawn(told, tmp_path)
    assert report.sessions == report.drawn == 2 + len(HOSTILE)
    at = page.lines("sessions.names").index("ana's talk")
    start, end = (page.array(f"sessions.{name}", "<f8")[at] / 1_000 for name in ("start", "end"))
    assert datetime.fromtimestamp(start, UTC) == datetime(2024, 3, 5, 10, tzinfo=UTC)
    assert datetime.fromtimestamp(end, UTC) == datetime(2024, 3, 5, 12, tzinfo=UTC)
    assert page.array("sessions.turns", "<u4")[at] == 3
    assert page.lines("sessions.users")[at] == "ana"
    assert page.lines("sessions.texts")[at] == "ana says hello"
    assert page.data["groups"][page.array("sessions.group", "u1")[at]][0] == "ana"


def test_a_session_begins_with_what_happened_first_and_not_with_what_was_written_first(
    memory: Memory, tmp_path: Path
) -> None:
    memory.add("Later.", session="s", occurred_at="2024-02-01")
    memory.add("Earlier.", session="s", occurred_at="2024-01-01")
    assert drawn(memory, tmp_path)[1].lines("sessions.texts") == ["Earlier."]


def test_sessions_of_one_name_are_told_apart_by_their_users(memory: Memory, tmp_path: Path) -> None:
    for user in ("ana", "ben"):
        memory.add([{"role": "user", "content": f"{user} is here"}], user_id=user, session="today")
    report, page = drawn(memory, tmp_path)
    assert report.sessions == 2
    assert sorted(page.lines("sessions.users")) == ["ana", "ben"]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**11), st.integers(1, 5_000)), max_size=60))
def test_bars_in_one_lane_do_not_overlap_and_lanes_are_filled_from_above(made: list[tuple[int, int, int]]) -> None:
    made.sort()
    start, long, turns = (np.array([each[part] for each in made], np.int64) for part in range(3))
    lane = lanes(start, start + long, turns)
    if not made:
        assert len(lane) == 0
        return
    pixel = max(int((start + long).max() - start.min()), 3_600_000_000) / 1_000
    ends = start + np.maximum(long, lengths(turns) * pixel)
    for at in range(len(made)):
        busy = {int(lane[other]) for other in range(at) if ends[other] > start[at]}
        assert lane[at] not in busy
        assert set(range(int(lane[at]))) <= busy


def test_of_very_many_sessions_the_largest_are_drawn(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_SESSIONS", 5)
    monkeypatch.setattr(timeline, "STILL_LANES", 3)
    for number in range(12):
        memory.add(
            [{"role": "user", "content": f"{number} {turn}"} for turn in range(number + 1)], session=f"s{number}"
        )
    report, page = drawn(memory, tmp_path)
    assert (report.sessions, report.drawn, page.data["sessions"]["count"]) == (12, 5, 12)
    assert sorted(page.lines("sessions.names")) == ["s10", "s11", "s7", "s8", "s9"]
    still = draw(memory, tmp_path / "time.svg")
    assert 1 <= still.drawn <= 3
    assert f"{still.drawn} largest of 12 sessions" in (tmp_path / "time.svg").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------- the colours


def test_it_is_coloured_by_the_first_field_that_tells_segments_apart(memory: Memory, tmp_path: Path) -> None:
    memory.add("One.")
    assert drawn(memory, tmp_path)[0].groups == {"all": 1}
    memory.add([{"role": "user", "name": "Ana", "content": "Two."}])
    assert drawn(memory, tmp_path)[0].color == "speaker"
    memory.add("Three.", category="Home")
    assert drawn(memory, tmp_path)[0].color == "category"
    memory.add("Four.", user_id="ana")
    assert drawn(memory, tmp_path)[0].groups == {"ana": 1, "no user": 3}
    assert drawn(memory, tmp_path, color="category")[0].groups == {"Home": 1, "no category": 3}
    with pytest.raises(InvalidInput, match="color"):
        draw(memory, tmp_path / "time.html", color="session")


# ------------------------------------------------------------------------------------------------------- less and more


def test_the_page_keeps_to_itself_and_holds_texts_as_data(told: Memory, tmp_path: Path) -> None:
    _, page = drawn(told, tmp_path)
    assert_it_keeps_to_itself(page)
    assert {line(text, 160) for text in HOSTILE} <= set(page.lines("sessions.texts"))
    assert {line(text, 80) for text in HOSTILE} <= set(page.lines("sessions.names"))


def test_the_ends_of_the_calendar_are_drawn(memory: Memory, tmp_path: Path) -> None:
    memory.add("First.", occurred_at="0001-01-01", session="s")
    memory.add("Last.", occurred_at="9999-12-31T23:00:00Z", session="s")
    assert drawn(memory, tmp_path)[0].unit == "year"
    draw(memory, tmp_path / "time.svg")


def test_without_sessions_only_the_counts_are_drawn(memory: Memory, tmp_path: Path) -> None:
    memory.add("Alone.", occurred_at="2024-01-01")
    report, page = drawn(memory, tmp_path)
    assert (report.sessions, page.data["sessions"]["lanes"]) == (0, 0)
    draw(memory, tmp_path / "time.svg")


def test_a_scope_and_a_filter_hold(told: Memory, tmp_path: Path) -> None:
    assert drawn(told, tmp_path, user_id="ana")[0].segments == 3
    assert drawn(told, tmp_path, filters={"category": "Work"})[0].segments == 20
    for scope in ({"namespace": "nobody"}, {"session": "none"}):
        with pytest.raises(NotFound, match="nothing to draw"):
            draw(told, tmp_path / "absent.html", **scope)
    assert not (tmp_path / "absent.html").exists()


def test_it_needs_no_vectors(tmp_path: Path) -> None:
    with Memory(":memory:", encoder=None) as words:
        words.add("Only words.")
        assert drawn(words, tmp_path)[0].segments == 1


def test_a_picture_shows_counts_sessions_and_groups(told: Memory, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "time.png"):
        draw(told, tmp_path / name)
    texts = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    for shown in ("50 segments in default", "segments per day", "6 sessions", "ana  3", "no user  40"):
        assert shown in texts
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG\r\n")
