"""Which colour a segment gets: the most frequent values of one field have one each, the others are grey together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput
from memspan.ledger.base import instant
from memspan.pictures.files import line
from memspan.records import Segment
from memspan.segmenting import shown

# Told apart on light and on dark paper; the first nine are those of Observable 10.
COLORS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#b3b637")
SCALE = ("#3f5bd6", "#6a55d0", "#9250c4", "#b64bb0", "#d24a92", "#e55672", "#f06e52", "#f59335")  # early to late
OTHER, NONE = "#8d919b", "#b9bcc4"

Value = Callable[[Segment], "tuple[str, ...] | None"]
FIELDS: Mapping[str, Value] = {
    "category": lambda segment: segment.category or None,
    "session": lambda segment: None if segment.session is None else (segment.session,),
    "speaker": lambda segment: None if (name := segment.speaker or segment.role) is None else (name,),
    "user": lambda segment: None if segment.user_id is None else (segment.user_id,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What one colour stands for, and how many segments have it."""

    label: str
    count: int
    color: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grouping:
    """The groups by ``field``, largest first, then "other" and those without a value; ``of`` uint8[n]: of each segment
    its group."""

    field: str
    groups: tuple[Group, ...]
    of: NDArray[np.uint8]


def one_of(argument: str, name: str | None, known: Sequence[str]) -> str | None:
    """``name`` where it is one of those known, or None. Raises InvalidInput."""
    if name is None or name in known:
        return name
    raise InvalidInput(argument, f"there is no {shown(name)}", mend=f"use one of {', '.join(known)}")


def telling(values: Mapping[str, Sequence[tuple[str, ...] | None]]) -> str | None:
    """The first field whose values differ, or None."""
    return next((field for field, each in values.items() if len(set(each)) > 1), None)


def by_value(field: str, values: Sequence[tuple[str, ...] | None]) -> Grouping:
    """Groups by paths of names: as deep as there are colours for all of them, or else by their first names."""
    counts = Counter(value for value in values if value is not None)
    deepest = max((len(value) for value in counts), default=1)
    depth = next((d for d in range(deepest, 1, -1) if len({value[:d] for value in counts}) <= len(COLORS)), 1)
    merged: Counter[tuple[str, ...]] = Counter()
    for value, count in counts.items():
        merged[value[:depth]] += count
    ranked = sorted(merged.items(), key=lambda item: (-item[1], item[0]))
    first, rest = ranked[: len(COLORS)], ranked[len(COLORS) :]
    groups = [
        Group(label=line(" / ".join(name), 60) or "unnamed", count=count, color=color)
        for (name, count), color in zip(first, COLORS, strict=False)
    ]
    number = {name: at for at, (name, _) in enumerate(first)}
    if rest:
        number |= dict.fromkeys((name for name, _ in rest), len(groups))
        groups.append(Group(label=f"{len(rest):,} others", count=sum(count for _, count in rest), color=OTHER))
    if (without := len(values) - counts.total()) > 0:
        groups.append(Group(label=f"no {field}", count=without, color=NONE))
    of = np.fromiter(
        (len(groups) - 1 if value is None else number[value[:depth]] for value in values), np.uint8, len(values)
    )
    return Grouping(field=field, groups=tuple(groups), of=of)


def by_time(times: NDArray[np.int64]) -> Grouping:
    """Up to eight periods with about as many segments each, coloured from early to late. ``times``: microseconds."""
    edges = np.unique(np.quantile(times, np.arange(1, len(SCALE)) / len(SCALE)))
    names, of = np.unique(np.searchsorted(edges, times, side="left"), return_inverse=True)
    short = int(times.max() - times.min()) < 3 * 86_400_000_000
    groups = []
    for at in range(len(names)):
        inside = times[of == at]
        ends = [instant(int(each)).isoformat(" ") for each in (inside.min(), inside.max())]
        spans = [end[5:16] if short else end[:10] for end in ends]
        color = SCALE[round(at * (len(SCALE) - 1) / max(len(names) - 1, 1))]
        groups.append(Group(label=" – ".join(dict.fromkeys(spans)), count=len(inside), color=color))
    return Grouping(field="time", groups=tuple(groups), of=of.astype(np.uint8))


def all_alike(count: int) -> Grouping:
    """One group of everything."""
    return Grouping(
        field="none", groups=(Group(label="all", count=count, color=COLORS[0]),), of=np.zeros(count, np.uint8)
    )
