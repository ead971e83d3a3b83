"""What ``bench recall`` found, for people: tables in Markdown and for a terminal, the latency-quality plot as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from memspan.bench.measures import BUDGETS

MEASURES: Final = (
    ("recall@5", "recall@5"),
    ("recall@10", "recall@10"),
    ("95 %", "recall@10_95"),
    ("nDCG@10", "ndcg@10"),
    ("MRR@10", "mrr@10"),
    ("hit@10", "hit@10"),
    ("all@10", "all@10"),
    *((f"RB@{budget}", f"rb@{budget}") for budget in BUDGETS),
    ("UO", "uo"),
    ("CP@10", "cp@10"),
    ("AUROC", "auroc"),
)
"""Headings of a set's table, and what stands under them; what is nowhere defined in a set has no column there."""

BEGIN: Final = "<!-- recall table: make recall-table -->"
END: Final = "<!-- end of recall table -->"

WIDTH, HEIGHT, MARGIN = 640, 400, 56
COLORS: Final = {"recipe": "#c2410c", "plain": "#64748b"}
FONT: Final = 'font-family="sans-serif" font-size="12"'
INK, SOFT = "#1e293b", "#cbd5e1"

Rows = list[list[str]]


def table(report: Mapping[str, Any]) -> str:
    """Everything in aligned columns."""
    return "\n\n".join(text if rows is None else f"{text}\n{_aligned(rows)}" for text, rows in _parts(report))


def markdown(report: Mapping[str, Any]) -> str:
    """The same in Markdown."""
    return "\n\n".join(text if rows is None else f"{text}\n\n{_pipes(rows)}" for text, rows in _parts(report)) + "\n"


def overview(report: Mapping[str, Any]) -> str:
    """What README shows, in Markdown: recall@10 of every system on every set, and more of the first recipe."""
    return "\n\n".join(map(_pipes, (_every(report), _first(report))))


def between(text: str, report: Mapping[str, Any]) -> str:
    """``text`` with the overview between its markers BEGIN and END. Raises ValueError where it lacks one."""
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:before]}\n\n{overview(report)}\n\n{text[after:]}"


def _parts(report: Mapping[str, Any]) -> Iterator[tuple[str, Rows | None]]:
    first = report["first"]
    yield "recall@10, its mean over the sets, and p50 of a search beyond encoding the question", _every(report)
    if report["ablations"]:
        yield f"What recall@10 of {first} gains by each part, paired, with its 95 % interval", _without(report)
    for name, part in report["sets"].items():
        about = part["data"]
        yield (
            f"{name}: {about['questions']:,} questions about {about['items']:,} items in {about['collections']}; "
            f"last column: recall@10 of {first} less that of the system, paired, 95 %",
            _set(part["results"]),
        )
    for name, where in report["skipped"].items():
        yield f"{name} was skipped, as it is not there: {where}", None
    sampled = sorted(
        {
            name
            for name, part in report["sets"].items()
            if any(one["questions"] < part["results"][first]["questions"] for one in part["results"].values())
        }
    )
    if sampled:
        yield f"In {', '.join(sampled)} the ablations were asked a fixed sample of the questions, see n.", None


def _every(report: Mapping[str, Any]) -> Rows:
    names = _by_item(report)
    rows = [["recall@10", *names, "mean", "p50 ms"]]
    for system in report["mean"]:
        cells = [_share(report["sets"][name]["results"][system]["recall@10"]) for name in names]
        time = report["search"].get(system)
        rows.append([system, *cells, _share(report["mean"][system]), f"{time['p50_ms']:.1f}" if time else ""])
    return rows


def _without(report: Mapping[str, Any]) -> Rows:
    """Of each ablation how much less it finds."""
    names, first = _by_item(report), report["first"]
    rows = [["gain by", *names, "mean"]]
    for system in report["ablations"]:
        gains = [report["sets"][name]["results"][system]["ahead"] for name in names]
        mean = sum(gain["mean"] for gain in gains) / len(gains)
        rows.append([system.removeprefix(f"{first}-"), *map(_gain, gains), _signed(mean)])
    return rows


def _by_item(report: Mapping[str, Any]) -> list[str]:
    return [name for name in report["sets"] if not name.endswith(" by session")]


def _first(report: Mapping[str, Any]) -> Rows:
    first, plain = report["first"], report["plain"]
    rows = [[first, "questions", "recall@5", "recall@10", "95 %", "nDCG@10", *(f"over {name}" for name in plain)]]
    for name, part in report["sets"].items():
        own = part["results"][first]
        numbers = [_share(own["recall@5"]), _share(own["recall@10"]), _range(own["recall@10_95"])]
        gains = [_gain(part["results"][system]["ahead"]) for system in plain]
        rows.append([name, f"{own['questions']:,}", *numbers, _share(own["ndcg@10"]), *gains])
    return rows


def _set(results: Mapping[str, Any]) -> Rows:
    columns = [(head, key) for head, key in MEASURES if any(key in one for one in results.values())]
    rows = [["", "n", *(head for head, _ in columns), "behind by"]]
    for system, one in results.items():
        cells = [_cell(one.get(key)) for _, key in columns]
        rows.append([system, f"{one['questions']:,}", *cells, _gain(one["ahead"]) if "ahead" in one else ""])
    return rows


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _range(value) if isinstance(value, list) else _share(value)


def _share(value: float) -> str:
    """``.806``, ``1.000``"""
    return f"{value:.3f}".removeprefix("0")


def _range(bounds: Sequence[float]) -> str:
    return f"{_share(bounds[0])} to {_share(bounds[1])}"


def _gain(gain: Mapping[str, Any]) -> str:
    return f"{_signed(gain['mean'])} ({_signed(gain['95'][0])} to {_signed(gain['95'][1])})"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_share(abs(value))}"


def _pipes(rows: Rows) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _aligned(rows: Rows) -> str:
    widths = [max(len(cells[at]) for cells in rows) for at in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plot(report: Mapping[str, Any]) -> str:
    """Each recipe and plain system by what a search takes beyond encoding (p50, on a logarithmic axis) and the mean of
    recall@10 over the sets, as SVG."""
    points = [(name, report["search"][name]["p50_ms"], report["mean"][name]) for name in report["search"]]
    times: list[float] = [time for _, time, _ in points]
    recalls: list[float] = [recall for _, _, recall in points]
    left, right = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)) + 1e-9)
    low, high = math.floor(min(recalls) * 20) / 20, math.ceil(max(recalls) * 20 + 1e-9) / 20

    def across(time: float) -> float:
        return MARGIN + (math.log10(time) - left) / max(right - left, 1) * (WIDTH - 2 * MARGIN)

    def up(recall: float) -> float:
        return HEIGHT - MARGIN - (recall - low) / max(high - low, 0.05) * (HEIGHT - 2 * MARGIN)

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(left, right + 1):
        x = across(10**power)
        drawn.append(f'<path d="M{x:.1f} {MARGIN}V{HEIGHT - MARGIN}" stroke="{SOFT}"/>')
        drawn.append(_text(x, HEIGHT - MARGIN + 18, f"{10**power:g}", "middle"))
    for step in range(round((high - low) * 20) + 1):
        y = up(low + step / 20)
        drawn.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="{SOFT}"/>')
        drawn.append(_text(MARGIN - 8, y + 4, _share(low + step / 20)[:3], "end"))
    drawn.append(_text(WIDTH / 2, HEIGHT - 12, "p50 of a search beyond encoding the question, ms", "middle"))
    drawn.append(_text(MARGIN, MARGIN - 20, f"mean recall@10 over {len(_by_item(report))} sets", "start"))
    for place, (name, time, recall) in enumerate(sorted(points, key=lambda point: point[1])):
        color = COLORS["plain" if name in report["plain"] else "recipe"]
        x, y = across(time), up(recall)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"/>')
        drawn.append(_text(x, y - 10 if place % 2 else y + 20, name, "middle"))  # neighbours do not write on each other
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
