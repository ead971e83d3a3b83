"""How strong a memory still is: what holds for any use of it, and FSRS's own word for each card."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from fsrs import Card, Rating, Scheduler
from hypothesis import given
from hypothesis import strategies as st

from memspan import cli
from memspan.bench import forgetting as simulation
from memspan.errors import InvalidInput, MissingExtra
from memspan.forgetting import CURVES, DAY, REVIEWS, Ebbinghaus, ForgettingCurve, Fsrs, curve_named, strength
from memspan.kinds import KINDS, USUAL_KIND
from memspan.ledger.base import Standing

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEARD = datetime(2026, 3, 1, 12, tzinfo=UTC)

curves = st.sampled_from([make() for make in CURVES.values()])
kinds = st.sampled_from(list(KINDS))
importances = st.floats(0, 1)
days = (st.floats(0, 4000) | st.floats(0, 3)).map(lambda day: round(day, 3))
recalls = st.lists(days, max_size=12).map(sorted)


def standing(
    recalled: Sequence[Sequence[float]],
    importance: float | Sequence[float] = 0.5,
    kinds: Sequence[str] | None = None,
    *,
    heard: float = 0.0,
) -> Standing:
    """Segments heard on day ``heard``, each recalled so many days after; 1970 began then."""
    rows = len(recalled)
    return Standing(
        importance=np.broadcast_to(np.array(importance, np.float64), (rows,)),
        heard_at=np.full(rows, -1e6 * DAY),  # when it happened: a memory is as old as it is known
        stored_at=np.full(rows, heard * DAY),
        accesses=np.array([len(each) for each in recalled], np.float64),
        accessed_at=np.array([(heard + each[-1]) * DAY if each else 0.0 for each in recalled]),
        relevance=np.full(rows, 0.5),
        categorised=np.zeros(rows),
        kinds=tuple(kinds or ["episodic"] * rows),
    )


def left(
    curve: ForgettingCurve, day: float, recalled: Sequence[float] = (), importance: float = 0.5, kind: str = "episodic"
) -> float:
    """What is left on ``day`` of one segment that was heard on day 0."""
    (one,) = strength(standing([recalled], importance, [kind]), day * DAY, curve)
    return float(one)


# What holds for any curve, any kind and any use


@given(curves, kinds, importances, recalls, days, days)
def test_strength_is_a_share_that_never_rises_while_nobody_asks(
    curve: ForgettingCurve, kind: str, importance: float, recalled: list[float], wait: float, more: float
) -> None:
    last = recalled[-1] if recalled else 0.0
    at_once = left(curve, last, recalled, importance, kind)
    soon = left(curve, last + wait, recalled, importance, kind)
    later = left(curve, last + wait + more, recalled, importance, kind)
    assert at_once == 1 >= soon >= later >= 0


@given(curves, kinds, importances, recalls, days, days)
def test_a_recall_makes_a_memory_no_weaker_then_or_ever_after(
    curve: ForgettingCurve, kind: str, importance: float, recalled: list[float], wait: float, more: float
) -> None:
    again = (recalled[-1] if recalled else 0.0) + wait
    without = left(curve, again + more, recalled, importance, kind)
    assert left(curve, again + more, [*recalled, again], importance, kind) >= without * (1 - 1e-12)


@given(curves, kinds, recalls, importances, importances, days)
def test_the_more_important_is_never_the_weaker(
    curve: ForgettingCurve, kind: str, recalled: list[float], one: float, other: float, wait: float
) -> None:
    day = (recalled[-1] if recalled else 0.0) + wait
    less, more = sorted((one, other))
    assert left(curve, day, recalled, less, kind) <= left(curve, day, recalled, more, kind) * (1 + 1e-12)


@given(curves, st.lists(st.tuples(kinds, importances, recalls), max_size=30))
def test_a_segment_is_as_strong_among_others_as_alone(
    curve: ForgettingCurve, segments: list[tuple[str, float, list[float]]]
) -> None:
    day = 5000.0
    kinds, importances, recalled = zip(*segments, strict=True) if segments else ((), (), ())
    together = strength(standing(recalled, importances, kinds), day * DAY, curve)
    alone = [left(curve, day, recalls, importance, kind) for kind, importance, recalls in segments]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("name", CURVES)
def test_what_is_used_gains_and_what_matters_lasts(name: str) -> None:
    curve = curve_named(name)
    never, once = left(curve, 90), left(curve, 90, [7.0])
    weekly, massed = left(curve, 90, list(range(7, 90, 7))), left(curve, 90, [7 + at / 100 for at in range(12)])
    assert never < once < massed < weekly
    assert left(curve, 90, importance=0) < never < left(curve, 90, importance=1)


@pytest.mark.parametrize("name", CURVES)
def test_core_memory_never_fades_and_a_fact_outlasts_an_episode(name: str) -> None:
    curve = curve_named(name)
    assert left(curve, 36_500, kind="core") == left(curve, 36_500, [3.0, 90.0, 90.1], kind="core") == 1
    order = ("working", "episodic", "semantic", "procedural", "core")
    strengths = [left(curve, 30, kind=kind) for kind in order]
    assert strengths == sorted(strengths)
    assert len(set(strengths)) == len(strengths)


@pytest.mark.parametrize("name", CURVES)
def test_recalls_of_one_afternoon_count_as_one(name: str) -> None:
    curve = curve_named(name)
    assert left(curve, 60, [0.1]) == left(curve, 60, [0.0, 0.02, 0.05, 0.07, 0.1])
    assert left(curve, 60, [1.5]) == left(curve, 60, [1.4, 1.45, 1.5])


@pytest.mark.parametrize("name", CURVES)
def test_a_segment_that_is_gone_has_no_strength_and_one_from_the_future_is_whole(name: str) -> None:
    known = standing([(), (), ()], [math.nan, 0.5, 0.5], heard=100)
    found = strength(known, 40 * DAY, curve_named(name))
    assert math.isnan(found[0])
    assert found[1:].tolist() == [1, 1]
    assert strength(standing([]), 0.0, curve_named(name)).shape == (0,)


def test_an_unknown_curve_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"curve: there is no 'linear'.*ebbinghaus, fsrs"):
        curve_named("linear")


# Ebbinghaus, as in MemoryBank


@given(st.integers(0, 40), days)
def test_each_day_of_recall_adds_the_first_stability_once_more(times: int, wait: float) -> None:
    recalled = [float(day) for day in range(1, times + 1)]
    expected = math.exp(-round(times + wait - times, 9) / (KINDS[USUAL_KIND].stability * (1 + times)))
    assert left(Ebbinghaus(), times + wait, recalled) == pytest.approx(expected, rel=1e-9)


def test_an_episode_nobody_asks_for_has_faded_after_90_days_and_ebbinghaus_is_the_usual_curve() -> None:
    assert left(Ebbinghaus(), 89) > Ebbinghaus.faded > left(Ebbinghaus(), 90)
    assert strength(standing([()]), 90 * DAY).tolist() == [left(Ebbinghaus(), 90)]


# FSRS, card by card by its own library


def card_by_card(scheduler: Scheduler, recalled: Sequence[float], importance: float, day: float) -> float:
    card, _ = scheduler.review_card(Card(card_id=1), Rating(1 + min(3, int(4 * importance))), HEARD)
    for each in recalled:
        card, _ = scheduler.review_card(card, Rating.Good, HEARD + timedelta(days=each))
    return scheduler.get_card_retrievability(card, HEARD + timedelta(days=day))


@given(importances, st.integers(0, REVIEWS), st.integers(1, 60), st.integers(0, 5000))
def test_fsrs_says_what_its_library_says_of_recalls_that_are_whole_days_apart(
    importance: float, times: int, gap: int, wait: int
) -> None:
    recalled = [gap * (at + 1) for at in range(times)]
    day = times * gap + wait
    expected = card_by_card(Scheduler(), recalled, importance, day)
    assert left(Fsrs(), day, recalled, importance) == pytest.approx(expected, rel=1e-9)


@given(importances, st.integers(0, 5000))
def test_fsrs_says_what_its_library_says_of_a_recall_on_the_same_day(importance: float, wait: int) -> None:
    expected = card_by_card(Scheduler(), [0.25], importance, wait + 0.25)
    assert left(Fsrs(), wait + 0.25, [0.25], importance) == pytest.approx(expected, rel=1e-9)


def test_fsrs_takes_parameters_of_ones_own() -> None:
    own = (*Scheduler().parameters[:-1], 0.5)
    recalled = [10, 20, 30]
    expected = card_by_card(Scheduler(parameters=own), recalled, 0.5, 90)
    assert left(Fsrs(own), 90, recalled) == pytest.approx(expected, rel=1e-9)
    assert left(Fsrs(), 90, recalled) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("parameters", [(), (1.0,) * 20, (-1.0,) * 21])
def test_parameters_that_are_none_of_fsrs_are_refused(parameters: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match="parameters"):
        Fsrs(parameters)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsrs", None)
    with pytest.raises(MissingExtra, match=r"memspan\[fsrs\]"):
        curve_named("fsrs")
    with pytest.raises(MissingExtra, match=r"memspan\[fsrs\]"):
        simulation.run()


# The page


def test_the_page_shows_what_the_simulation_says() -> None:
    report = simulation.run()
    page = (DOCS / "forgetting.md").read_text(encoding="utf-8")
    assert simulation.between(page, report) == page, "python bench/forgetting_page.py"
    assert (DOCS / "forgetting.svg").read_text(encoding="utf-8") == simulation.plot(report)


def test_the_page_tells_of_every_kind_what_the_table_says() -> None:
    page = (DOCS / "forgetting.md").read_text(encoding="utf-8")
    lines = page[page.index("| kind |") :].split("\n\n")[0].splitlines()[2:]
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    places = {"first": "always, first, at most {:.0%} of it", "found": "where it is found", "last": "last"}
    for row, kind in zip(told, KINDS.values(), strict=True):
        lasts = [
            "for ever" if time is None else f"{time:g} day{'s' if time > 1 else ''}"
            for time in (kind.stability if math.isfinite(kind.stability) else None,)
        ]
        ttl = "" if kind.ttl is None else f"{kind.ttl / timedelta(days=1):g} day"
        place = places[kind.place].format(kind.share).replace("%", " %")
        assert row == [kind.name, kind.about, *lasts, ttl, "yes" if kind.prunable else "no", place]
        assert kind.always == (kind.place == "first")


def test_the_command_prints_the_table_and_draws_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "forgetting.svg"
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "forgetting", "--plot", str(drawn)])
    assert ended.value.code == 0
    assert drawn.read_text(encoding="utf-8") == (DOCS / "forgetting.svg").read_text(encoding="utf-8")
    assert "never recalled" in capsys.readouterr().out
