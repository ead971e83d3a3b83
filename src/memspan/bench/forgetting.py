"""What is left of a memory over 90 days by how it is used, by both curves of forgetting: simulated, not measured.

What each curve gets is what a ledger would know on that day: how often so far, and when last. Beside FSRS stands what
the library itself makes of every single recall, card by card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.errors import MissingExtra
from memspan.forgetting import CURVES, DAY, ForgettingCurve, Fsrs, curve_named, strength
from memspan.ledger.base import Standing

DAYS: Final = 90
TIMES: Final = np.arange(2 * DAYS + 1) / 2  # days that are drawn
TOLD: Final = (1, 7, 30, DAYS)
LONGEST: Final = 20 * 365  # days, in which it is looked for when a memory has faded

BEGIN: Final = "<!-- forgetting table: python bench/forgetting_page.py -->"
END: Final = "<!-- end of forgetting table -->"

PANEL, HEIGHT, MARGIN, FOOT = 440, 400, 48, 72
FONT: Final = 'font-family="sans-serif" font-size="12"'
INK, SOFT, FADED = "#1e293b", "#cbd5e1", "#b91c1c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A memory of one kind and importance, recalled so many days after it was heard; how it is drawn."""

    name: str
    recalls: tuple[float, ...] = ()
    importance: float = 0.5
    kind: str = "episodic"
    color: str
    dash: str = ""


_WEEKLY = tuple(float(day) for day in range(7, DAYS, 7))
PATTERNS: Final = (
    Pattern(name="never recalled", color="#64748b"),
    Pattern(name="once, after a week", recalls=(7.0,), color="#0369a1"),
    Pattern(name="every week", recalls=_WEEKLY, color="#15803d"),
    Pattern(name="as often, all on day 7", recalls=tuple(7 + at / 100 for at in range(len(_WEEKLY))), color="#c2410c"),
    Pattern(name="never, importance 1", importance=1.0, color="#64748b", dash="6 3"),
    Pattern(name="never, importance 0", importance=0.0, color="#64748b", dash="2 3"),
    Pattern(name="never, a fact", kind="semantic", color="#7e22ce", dash="6 3"),
)


def run() -> dict[str, Any]:
    """Simulate; a report of plain values, ready for JSON. Raises MissingExtra without ``fsrs``."""
    curves: dict[str, Any] = {}
    for name in CURVES:
        curve = curve_named(name)
        curves[name] = {"faded_below": curve.faded, "patterns": {each.name: _told(curve, each) for each in PATTERNS}}
    for each in PATTERNS:
        curves[Fsrs.name]["patterns"][each.name]["card_by_card"] = _card_by_card(each)
    patterns = {
        each.name: {"recalls": list(each.recalls), "importance": each.importance, "kind": each.kind}
        for each in PATTERNS
    }
    return {"days": TIMES.tolist(), "patterns": patterns, "curves": curves}


def _told(curve: ForgettingCurve, pattern: Pattern) -> dict[str, Any]:
    """Its strength at TIMES and on the days TOLD, and after how many whole days it has faded for good."""
    gone = int(np.flatnonzero(_strengths(curve, pattern, np.arange(LONGEST)) >= curve.faded)[-1]) + 1
    told = _rounded(_strengths(curve, pattern, np.array(TOLD)))
    return {
        "strength": _rounded(_strengths(curve, pattern, TIMES)),
        "days": {str(day): value for day, value in zip(TOLD, told, strict=True)},
        "faded_after": gone if gone < LONGEST else None,
    }


def _strengths(curve: ForgettingCurve, pattern: Pattern, days: NDArray[Any]) -> NDArray[np.float64]:
    """On each of ``days`` since it was heard, by what a ledger knows then."""
    recalls = np.array(pattern.recalls)
    so_far = np.searchsorted(recalls, days, side="right")
    known = Standing(
        importance=np.full(len(days), pattern.importance),
        heard_at=np.zeros(len(days)),
        stored_at=np.zeros(len(days)),
        accesses=so_far.astype(np.float64),
        accessed_at=np.concatenate([[0.0], recalls])[so_far] * DAY,
        relevance=np.full(len(days), 0.5),
        categorised=np.zeros(len(days)),
        kinds=(pattern.kind,) * len(days),
    )
    return strength(known, days * DAY, curve)


def _card_by_card(pattern: Pattern) -> float | None:
    """What the library ``fsrs`` says of day 90, told of each recall; None for another kind, which it does not know."""
    try:
        from fsrs import Card, Rating, Scheduler
    except ImportError as error:
        raise MissingExtra("the FSRS curve needs fsrs", mend='pip install "memspan[fsrs]"') from error
    if pattern.kind != "episodic":
        return None
    heard = datetime(2026, 1, 1, tzinfo=UTC)
    scheduler = Scheduler()
    card, _ = scheduler.review_card(Card(), Rating(1 + min(3, int(4 * pattern.importance))), heard)
    for day in pattern.recalls:
        card, _ = scheduler.review_card(card, Rating.Good, heard + timedelta(days=day))
    return round(scheduler.get_card_retrievability(card, heard + timedelta(days=DAYS)), 4)


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def table(report: Mapping[str, Any]) -> str:
    """The report for people, in aligned columns."""
    rows = _rows(report)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(report: Mapping[str, Any]) -> str:
    """The same in Markdown."""
    rows = _rows(report)
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *lines])


def between(text: str, report: Mapping[str, Any]) -> str:
    """``text`` with the table between its markers BEGIN and END. Raises ValueError where it lacks one."""
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n\n{markdown(report)}\n\n{text[after:]}"


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    told = [f"day {day}" for day in TOLD]
    rows = [["recalled", "curve", *told, "card by card", "faded after"]]
    for pattern in report["patterns"]:
        for name, curve in report["curves"].items():
            one = curve["patterns"][pattern]
            exact, gone = one.get("card_by_card"), one["faded_after"]
            cells = [f"{value:.2f}" for value in one["days"].values()]
            after = f"over {LONGEST // 365} years" if gone is None else f"{gone:,} days"
            rows.append([pattern, name, *cells, "" if exact is None else f"{exact:.2f}", after])
    return rows


def plot(report: Mapping[str, Any]) -> str:
    """Strength over 90 days, a panel for each curve and a line for each pattern, as SVG."""
    curves = report["curves"]
    width = PANEL * len(curves)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + FOOT}" {FONT}>',
        f'<rect width="{width}" height="{HEIGHT + FOOT}" fill="#ffffff"/>',
    ]
    for place, (name, curve) in enumerate(curves.items()):
        drawn += _panel(PANEL * place, name, curve, report["days"])
    columns = -(-len(PATTERNS) // 2)
    for at, pattern in enumerate(PATTERNS):
        x, y = MARGIN + at % columns * (width - 2 * MARGIN) / columns, HEIGHT + 16 + at // columns * 24
        drawn += [f'<path d="M{x:.0f} {y}h28" {_stroke(pattern)}/>', _text(x + 36, y + 4, pattern.name, "start")]
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _panel(left: int, name: str, curve: Mapping[str, Any], days: Sequence[float]) -> list[str]:
    def across(day: float) -> float:
        return left + MARGIN + day / DAYS * (PANEL - 1.5 * MARGIN)

    def up(value: float) -> float:
        return HEIGHT - MARGIN - value * (HEIGHT - 2 * MARGIN)

    drawn = [_text(across(0), MARGIN - 16, f"{name}: strength by days since it was heard", "start")]
    drawn.append(_text(across(DAYS), MARGIN - 16, f"faded below {curve['faded_below']:g}", "end", FADED))
    for day in range(0, DAYS + 1, 15):
        drawn.append(f'<path d="M{across(day):.0f} {up(0)}V{up(1)}" stroke="{SOFT}" stroke-width="0.5"/>')
        drawn.append(_text(across(day), up(0) + 18, str(day), "middle"))
    for tenth in range(0, 11, 2):
        drawn.append(f'<path d="M{across(0)} {up(tenth / 10):.1f}H{across(DAYS)}" stroke="{SOFT}" stroke-width="0.5"/>')
        drawn.append(_text(across(0) - 8, up(tenth / 10) + 4, f"{tenth / 10:g}", "end"))
    below = up(curve["faded_below"])
    drawn.append(f'<path d="M{across(0)} {below:.1f}H{across(DAYS)}" stroke="{FADED}" stroke-width="0.8"/>')
    for pattern in PATTERNS:
        values = curve["patterns"][pattern.name]["strength"]
        points = " ".join(f"{across(day):.1f},{up(value):.1f}" for day, value in zip(days, values, strict=True))
        drawn.append(f'<polyline points="{points}" fill="none" {_stroke(pattern)}/>')
    return drawn


def _stroke(pattern: Pattern) -> str:
    dash = f' stroke-dasharray="{pattern.dash}"' if pattern.dash else ""
    return f'stroke="{pattern.color}" stroke-width="1.6"{dash}'


def _text(x: float, y: float, text: str, anchor: str, color: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'
