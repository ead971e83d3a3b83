"""The measures by hand-computed examples, and the speed run end to end."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.bench import speed
from memspan.bench.measures import (
    auroc,
    averages,
    both_stated,
    interval,
    intervals,
    measures,
    milliseconds,
    ranks_of,
    updated,
    within_budgets,
)
from memspan.errors import InvalidInput

RANKS = st.lists(st.none() | st.integers(2, 60), min_size=1, max_size=8, unique_by=lambda rank: rank or object())


def test_a_question_is_scored_as_computed_by_hand() -> None:
    one = measures([1, 7, None, 12])
    assert one["recall@5"] == 1 / 4
    assert one["recall@10"] == 2 / 4
    assert one["recall@50"] == 3 / 4
    assert one["hit@10"] == 1
    assert one["all@10"] == 0
    assert one["mrr@10"] == 1
    ideal = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    assert one["ndcg@10"] == pytest.approx((1 + 1 / math.log2(8)) / ideal)


def test_evidence_below_the_tenth_place_counts_for_nothing_at_ten() -> None:
    one = measures([11, None])
    assert one == dict.fromkeys(one, 0.0) | {"recall@50": 0.5}


def test_more_than_ten_gold_items_can_still_reach_an_ndcg_of_one() -> None:
    one = measures(list(range(1, 13)))
    assert one["ndcg@10"] == pytest.approx(1)
    assert one["recall@10"] == 10 / 12
    assert one["all@10"] == 0


def test_a_question_without_gold_is_refused() -> None:
    with pytest.raises(ValueError, match="without gold"):
        measures([])


@given(RANKS)
def test_every_measure_is_between_zero_and_one_and_never_falls_when_ranks_improve(ranks: list[int | None]) -> None:
    one = measures(ranks)
    assert all(0 <= value <= 1 + 1e-9 for value in one.values())
    better = measures([None if rank is None else rank - 1 for rank in ranks])
    assert all(better[name] >= one[name] for name in one)


def test_measures_are_averaged_over_questions() -> None:
    total = averages([[1], [None], [2, None], [3, 4]])
    assert total["questions"] == 4
    assert total["recall@10"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert total["all@10"] == 2 / 4


def test_the_bootstrap_interval_is_repeatable_and_shrinks_with_more_questions() -> None:
    few, many = interval([0.0, 1.0] * 20), interval([0.0, 1.0] * 2_000)
    assert few == interval([0.0, 1.0] * 20)
    assert many[1] - many[0] < few[1] - few[0]
    assert many[0] < 0.5 < many[1]
    assert interval([0.3] * 7) == pytest.approx((0.3, 0.3))
    low, high = interval([1, 0, 0.5, 1])
    assert low < 2.5 / 4 < high


def test_samples_of_one_size_have_the_intervals_each_has_alone() -> None:
    samples = [[0.0, 1.0] * 20, [0.25] * 40, [float(place % 3) for place in range(40)]]
    for together, sample in zip(intervals(samples), samples, strict=True):
        assert together == pytest.approx(interval(sample))


def test_durations_are_told_in_milliseconds() -> None:
    assert milliseconds([0.001] * 99 + [1.0]) == {"p50_ms": 1.0, "p95_ms": 1.0, "p99_ms": pytest.approx(10.99)}


def test_ranks_are_places_counted_from_one() -> None:
    assert ranks_of(["b", "a", "b", "c"], ["a", "b", "z"]) == [2, 1, None]


def test_a_budget_holds_the_gold_of_the_longest_prefix_that_fits_it() -> None:
    tokens = {"a": 500, "b": 12, "c": 1, "d": 3_000, "e": 600}
    assert within_budgets(["a", "b", "c", "d", "e"], ["b", "c", "d", "z"], tokens) == (1 / 4, 2 / 4, 2 / 4, 3 / 4)
    assert within_budgets(["d", "e"], ["e"], tokens) == (0, 0, 0, 1)
    assert within_budgets(["d", "e", "a"], ["a"], tokens) == (0, 0, 0, 0), "4,100 tokens"
    assert within_budgets([], ["a"], tokens) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("originals", "updates", "won"),
    [
        ([2], [1], 1),
        ([1], [2], 0),
        ([3, 5], [9, 2], 1),
        ([3, 1], [2], 0),
        ([None], [10], 1),
        ([None], [11], 0),
        ([None], [None], 0),
        ([4], [4], 0),
    ],
)
def test_an_update_counts_when_it_is_found_above_every_original(
    originals: list[int | None], updates: list[int | None], won: int
) -> None:
    assert updated(originals, updates) == won


def test_a_contradiction_counts_when_both_statements_are_among_the_first_ten() -> None:
    assert both_stated([1], [10]) == 1
    assert both_stated([11, 3], [None, 2]) == 1
    assert both_stated([1], [11]) == 0
    assert both_stated([None], [1]) == 0


def test_the_auroc_is_how_often_an_answer_scores_above_none() -> None:
    assert auroc([0.9, 0.8], [0.1]) == 1
    assert auroc([0.1], [0.9, 0.8]) == 0
    assert auroc([0.5], [0.5]) == 0.5
    assert auroc([0.9, 0.2], [0.1, 0.5]) == 3 / 4


def test_the_texts_of_the_speed_run_are_real_distinct_and_always_the_same() -> None:
    found = speed.texts(3_000)
    assert len(set(found)) == 3_000
    assert found == speed.texts(3_000)
    assert all(20 <= len(text) <= 1_000 and len(text.split()) >= 4 for text in found)
    asked = speed.queries(found, 50)
    assert len(asked) == 50
    assert all(1 <= len(query.split()) <= 8 for query in asked)


def test_too_few_segments_to_measure_are_refused() -> None:
    with pytest.raises(InvalidInput, match="segments"):
        speed.run(segments=10, encoder="hash")


def test_the_speed_run_measures_everything_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, less in (("STARTS", 1), ("SAMPLE", 64), ("QUERIES", 10), ("WARMING", 1)):
        monkeypatch.setattr(speed, name, less)
    report = speed.run(segments=1_000, encoder="hash")
    assert report["segments"] == 1_000
    assert set(report["bars"]) == set(speed.BARS) - {speed.RATIO}, "hashing is no model to be compared with"
    assert report["small"]["resident_mb"] > 10
    assert report["large"]["bytes_per_segment"] > 100
    assert json.loads(json.dumps(report)) == report
