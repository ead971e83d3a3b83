"""The activity in a memory over time: how much was said when, and each session from its start to its end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspan.errors import NotFound
from memspan.ledger.base import instant, microseconds
from memspan.memory import Memory
from memspan.pictures import files, groups
from memspan.pictures.files import INK, RULE, SOFT, line, packed, packed_lines
from memspan.pictures.groups import FIELDS, Grouping
from memspan.records import Segment
from memspan.views.base import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = 10_000  # segments read at once
BY = ("user", "category", "speaker")  # in the order in which one is chosen
UNITS = {"hour": "h", "day": "D", "week": "W", "month": "M", "year": "Y"}
MOST_BINS = 240  # of the finest unit that is taken
MOST_SESSIONS = 20_000  # in a page; those with the most turns
STILL_LANES = 160  # of sessions in a static picture
WORDS = 160  # characters of what a session begins with
WIDE = 1_000  # pixels across which a bar is at least BAR + STEP * log2(turns) long
BAR, STEP = 3.0, 2.0
HOUR, DAY = 3_600_000_000, 86_400_000_000  # microseconds
EARLIEST, LATEST = -719_162.0, 2_932_896.0  # days since 1970 that a calendar has
Times = NDArray[np.int64]
"""int64[n]: microseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What ``draw`` wrote: ``segments`` counted in ``bins`` of one ``unit`` from ``start`` to ``end`` (ISO 8601), and
    ``drawn`` of the ``sessions``; how many segments there are of each group by ``color``."""

    path: str
    bytes: int
    segments: int
    unit: str
    bins: int
    start: str
    end: str
    sessions: int
    drawn: int
    color: str
    groups: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class Activity:
    """What was read, a segment after another: when, in which session (-1: none), and its value of each field."""

    times: list[int] = field(default_factory=list)
    session_of: list[int] = field(default_factory=list)
    values: dict[str, list[tuple[str, ...] | None]]
    number: dict[tuple[str | None, ...], int] = field(default_factory=dict)
    begins: list[Segment] = field(default_factory=list)

    def add(self, segment: Segment) -> None:
        at = -1
        if segment.session is not None:
            whose = (segment.user_id, segment.agent_id, segment.run_id, segment.session)
            at = self.number.setdefault(whose, len(self.begins))
            short = replace(segment, text=line(segment.text, WORDS), metadata={})
            if at == len(self.begins):
                self.begins.append(short)
            elif (segment.time, segment.seq) < (self.begins[at].time, self.begins[at].seq):
                self.begins[at] = short
        self.times.append(microseconds(segment.time))
        self.session_of.append(at)
        for name, values in self.values.items():
            values.append(FIELDS[name](segment))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sessions:
    """Sessions by their start: Times ``start`` and ``end``, ``turns`` int64[n], the ``group`` of most of their
    segments uint8[n], the ``lane`` int64[n] each is drawn in, and the segment each begins with."""

    start: Times
    end: Times
    turns: NDArray[np.int64]
    group: NDArray[np.uint8]
    lane: NDArray[np.int64]
    begins: Sequence[Segment]

    def largest(self, most: int) -> Sessions:
        """The ``most`` sessions with the most turns, in lanes of their own."""
        if len(self.turns) <= most:
            return self
        kept = np.sort(np.argsort(-self.turns, kind="stable")[:most])
        start, end, turns = self.start[kept], self.end[kept], self.turns[kept]
        begins = [self.begins[at] for at in kept]
        return Sessions(
            start=start, end=end, turns=turns, group=self.group[kept], lane=lanes(start, end, turns), begins=begins
        )


def draw(
    memory: Memory,
    path: str | os.PathLike[str],
    *,
    color: str | None = None,
    namespace: str | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    run_id: str | None = None,
    session: str | None = None,
    filters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Timeline:
    """Draw when the segments of a scope happened, and its sessions, into the file ``path``, replacing it.

    A page (.html) that works offline, or a picture (.svg, .png). A segment without a time of its own counts when it was
    heard. ``color`` is "user", "category" or "speaker", None the first by which segments differ. The same memory gives
    the same file. Pictures need ``memspan[pictures]``. Raises InvalidInput, MissingExtra, NotFound when there is
    nothing to draw, StoreError; then no file was written.
    """
    file = files.target(path)
    by = groups.one_of("color", color, BY)
    scope: dict[str, Any] = {
        "namespace": namespace,
        "user_id": user_id,
        "agent_id": agent_id,
        "run_id": run_id,
        "session": session,
        "filters": filters,
    }
    activity = read(memory, scope, (by,) if by else BY, progress)
    if not activity.times:
        raise NotFound("there is nothing to draw in this scope", mend='store something first (memspan add "...")')
    times = np.array(activity.times, np.int64)
    by = by or groups.telling(activity.values)
    grouping = groups.by_value(by, activity.values[by]) if by else groups.all_alike(len(times))
    every = sessions_of(activity, times, grouping)
    unit = unit_for(times)
    title = files.titled(len(times), len(times), namespace or memory.namespace)
    if files.is_page(file):
        shown = every.largest(MOST_SESSIONS)
        raw = page(times, grouping, shown, len(every.turns), title)
    else:
        shown = every
        while shown.lane.max(initial=0) >= STILL_LANES:
            shown = shown.largest(len(shown.turns) * 2 // 3)
        raw = still(file.suffix[1:].lower(), times, unit, grouping, shown, len(every.turns), title)
    files.put(file, raw)
    return Timeline(
        path=str(file),
        bytes=len(raw),
        segments=len(times),
        unit=unit,
        bins=len(np.unique(floored(times, unit))),
        start=instant(int(times.min())).isoformat(),
        end=instant(int(times.max())).isoformat(),
        sessions=len(every.turns),
        drawn=len(shown.turns),
        color=grouping.field,
        groups={group.label: group.count for group in grouping.groups},
    )


def read(memory: Memory, scope: Mapping[str, Any], fields: Sequence[str], progress: Progress | None) -> Activity:
    """Every segment of a scope, a page at a time."""
    total = memory.tree(depth=1, examples=0, **scope).segments
    activity, after = Activity(values={name: [] for name in fields}), None
    while rows := memory.get_all(**scope, limit=PAGE, after=after):
        after = rows[-1].id
        for row in rows:
            activity.add(row)
        if progress is not None:
            progress(len(activity.times), max(total, len(activity.times)), "reading")
    return activity


def sessions_of(activity: Activity, times: Times, grouping: Grouping) -> Sessions:
    """The sessions of what was read."""
    of = np.array(activity.session_of, np.int64)
    inside, count, kinds = of >= 0, len(activity.begins), len(grouping.groups)
    start, end = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(start, of[inside], times[inside])
    np.maximum.at(end, of[inside], times[inside])
    said = np.bincount(of[inside] * kinds + grouping.of[inside], minlength=count * kinds).reshape(count, kinds)
    turns, group = said.sum(axis=1), said.argmax(axis=1).astype(np.uint8)
    order = np.argsort(start, kind="stable")
    start, end, turns = start[order], end[order], turns[order]
    return Sessions(
        start=start,
        end=end,
        turns=turns,
        group=group[order],
        lane=lanes(start, end, turns),
        begins=[activity.begins[at] for at in order],
    )


def lanes(start: Times, end: Times, turns: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: the highest lane that is free when a session starts, for sessions in the order of their starts.

    Each takes as long as its bar is drawn.
    """
    if not len(start):
        return np.zeros(0, np.int64)
    ends = start + np.maximum(end - start, lengths(turns) * max(int(end.max() - start.min()), HOUR) / WIDE)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    taken = []
    for begin, until in zip(start.tolist(), ends.tolist(), strict=True):
        while busy and busy[0][0] <= begin:
            heappush(free, heappop(busy)[1])
        taken.append(heappop(free) if free else len(busy))
        heappush(busy, (until, taken[-1]))
    return np.array(taken, np.int64)


def lengths(turns: NDArray[np.int64]) -> NDArray[np.float64]:
    """How long bars are at least, in pixels: a session that took no time still shows how much was said."""
    return BAR + STEP * np.log2(np.maximum(turns, 1))


def unit_for(times: Times) -> str:
    """The finest unit of which no more than MOST_BINS lie between the first and the last time."""
    first, last = np.array([times.min(), times.max()])
    for unit, code in UNITS.items():
        ends = np.array([first, last]).astype("datetime64[us]").astype(f"datetime64[{code}]").astype(np.int64)
        if ends[1] - ends[0] < MOST_BINS:
            return unit
    return "year"


def floored(times: Times, unit: str) -> Times:
    """When the hour, day, week (from Monday), month or year of each time began."""
    if unit == "week":
        days = times // DAY
        return (days - (days + 3) % 7) * DAY
    return times.astype("datetime64[us]").astype(f"datetime64[{UNITS[unit]}]").astype("datetime64[us]").astype(np.int64)


# The page


def page(times: Times, grouping: Grouping, sessions: Sessions, count: int, title: str) -> bytes:
    """The timeline as one HTML file, with the counts by the hour: it makes the bins for what is looked at."""
    kinds = len(grouping.groups)
    first = int(times.min()) // HOUR
    cells, counts = np.unique((times // HOUR - first) * kinds + grouping.of, return_counts=True)
    data = {
        "title": title,
        "by": grouping.field,
        "groups": [[group.label, group.count, group.color] for group in grouping.groups],
        "first": first * (HOUR // 1_000),
        "last": (int(times.max()) // HOUR + 1) * (HOUR // 1_000),
        "most": MOST_BINS,
        "bar": [BAR, STEP],
        "hour": packed((cells // kinds).astype(np.uint32)),
        "group": packed((cells % kinds).astype(np.uint8)),
        "count": packed(counts.astype(np.uint32)),
        "sessions": {
            "count": count,
            "lanes": int(sessions.lane.max(initial=-1)) + 1,
            "start": packed(sessions.start / 1_000),
            "end": packed(sessions.end / 1_000),
            "turns": packed(sessions.turns.astype(np.uint32)),
            "group": packed(sessions.group),
            "lane": packed(sessions.lane.astype(np.uint32)),
            "names": packed_lines(line(each.session or "", 80) or "unnamed" for each in sessions.begins),
            "users": packed_lines(line(each.user_id or "", 60) for each in sessions.begins),
            "texts": packed_lines(each.text for each in sessions.begins),
        },
    }
    return files.page("timeline.html", data)


# The static picture


def still(kind: str, times: Times, unit: str, grouping: Grouping, sessions: Sessions, count: int, title: str) -> bytes:
    """The timeline as "svg" or "png". Raises MissingExtra."""
    starts = floored(times, unit)
    bins, at = np.unique(starts, return_inverse=True)
    kinds = len(grouping.groups)
    counts = np.bincount(at * kinds + grouping.of, minlength=len(bins) * kinds).reshape(len(bins), kinds)
    wide = {"hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 28 * DAY, "year": 365 * DAY}[unit] / DAY
    low, high = float(bins[0]) / DAY, float(bins[-1]) / DAY + wide
    margin = max((high - low) * 0.015, (1 - (high - low)) / 2)
    shown = max(low - margin, EARLIEST), min(high + margin, LATEST)

    def paint(figure: Figure) -> None:
        from matplotlib import dates
        from matplotlib.collections import PolyCollection
        from matplotlib.ticker import MaxNLocator

        tall = len(sessions.turns) > 0
        top = figure.add_axes((0.06, 0.56 if tall else 0.08, 0.72, 0.34 if tall else 0.82))
        base = np.zeros(len(bins))
        for number, group in enumerate(grouping.groups):
            label = f"{line(group.label, 32)}  {group.count:,}"
            place: Any = {"bottom": base, "width": wide * 0.94, "align": "edge", "linewidth": 0}
            top.bar(bins / DAY, counts[:, number], color=group.color, label=label, **place)
            base = base + counts[:, number]
        top.set_ylabel(f"segments per {unit}")
        top.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        top.grid(axis="y", color=RULE, linewidth=0.6)
        top.set_axisbelow(True)
        top.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title=grouping.field, alignment="left")
        every = [top]
        calendar: Any = dates  # which has no types
        if tall:
            bottom = figure.add_axes((0.06, 0.06, 0.72, 0.42))
            begin = sessions.start / DAY
            long = lengths(sessions.turns) * max(high - low, 1 / 24) / WIDE
            end = np.maximum(sessions.end / DAY, begin + long)
            over, under = sessions.lane + 0.1, sessions.lane + 0.9
            corners = np.stack(
                [np.stack(each, axis=1) for each in ((begin, over), (end, over), (end, under), (begin, under))], axis=1
            )
            colors = np.array([group.color for group in grouping.groups])[sessions.group]
            bottom.add_collection(PolyCollection(list(corners), facecolors=colors.tolist(), linewidths=0))
            bottom.set_ylim(max(float(sessions.lane.max()) + 1, 12.0), 0)
            bottom.set_yticks([])
            some = "" if len(sessions.turns) == count else f"{len(sessions.turns):,} largest of "
            bottom.set_ylabel(f"{some}{count:,} {'session' if count == 1 else 'sessions'}")
            every.append(bottom)
        for axes in every:
            axes.set_xlim(*shown)
            axes.xaxis_date()
            locator = calendar.AutoDateLocator(maxticks=9)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(calendar.ConciseDateFormatter(locator))
            axes.spines[["top", "right", "left"]].set_visible(False)
        figure.text(0.06, 0.945, line(title, 100), fontsize=11, color=INK, weight="bold")
        figure.text(0.97, 0.945, "UTC", fontsize=8, color=SOFT, ha="right")

    return files.still(kind, (12, 7.2), paint)
