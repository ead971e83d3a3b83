"""How features become a score: the shipped rankers as data, missing values, order and range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.fusion import Ranker, fuse, probability, ranker, standardised, table
from memspan.recipes import EVIDENCE, KEYWORD, RECIPES

TREE = [0, 1, 1, 0.5, 0.0, 2.0, -1.0, 1.0, 2.0, 3.0]  # standard "a" above .5? no: plain "b" above 0? yes: b above 2?
MADE = Ranker.of(
    {
        "standard": ["a"],
        "plain": ["b"],
        "trees": [TREE],
        "bias": -1.0,
        "scale": 2.0,
        "certainty": {"rank": 0.5, "b": 0.25},
        "provenance": {},
    }
)


def rows(**features: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values, np.float32) for name, values in features.items()}


def test_a_tree_asks_two_questions_of_each_row() -> None:
    given = np.array([[0.0, -1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 3.0]], np.float32)
    assert MADE.rank_table(given).tolist() == [-1.0, 1.0, 2.0, 3.0]


def test_a_score_falls_with_the_distance_to_the_best_and_rises_with_how_good_the_best_is() -> None:
    features = rows(a=[0.0, 0.0, 3.0], b=[-1.0, 1.0, 3.0])
    logits = MADE.logits(features)
    best = -1.0 + 0.5 * 3.0 + 0.25 * 3.0
    assert logits.tolist() == pytest.approx([best - 2 * 4.0, best - 2 * 2.0, best])
    assert probability(logits).max() == pytest.approx(1 / (1 + np.exp(-best)))


def test_what_a_row_lacks_it_has_as_the_average_row() -> None:
    nan = float("nan")
    known = table(rows(a=[0.0, 2.0, 1.0], b=[4.0, 2.0, 3.0]), ["a"], ["b"])
    assert table(rows(a=[0.0, 2.0, nan], b=[4.0, 2.0, nan]), ["a"], ["b"])[2].tolist() == pytest.approx([0.0, 3.0])
    assert known[2].tolist() == pytest.approx([0.0, 3.0])
    assert table(rows(b=[1.0, nan]), ["a"], ["b", "c"]).tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    assert standardised(np.full(3, np.nan, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_a_row_that_no_model_knows_is_no_answer() -> None:
    assert probability(fuse((KEYWORD,), rows(semantic=[0.9]), 1)).tolist() == [0.0]


@given(st.lists(st.floats(-1, 1, width=32) | st.just(float("nan")), min_size=1, max_size=70))
def test_whatever_the_rows_are_scores_are_in_range_and_the_same_in_any_order(values: list[float]) -> None:
    for name in ("late", "pooled"):
        shipped = ranker(name)
        features = {each: np.array(values, np.float32) for each in shipped.features}
        scores = probability(shipped.logits(features))
        assert scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()
        turned = probability(shipped.logits({each: part[::-1] for each, part in features.items()}))
        assert turned[::-1].tolist() == pytest.approx(scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("name", ["late", "pooled"])
def test_the_shipped_weights_say_where_they_are_from_and_what_they_are_worth(name: str) -> None:
    shipped = ranker(name)
    provenance = shipped.provenance
    assert {"made by", "date", "commit", "sets", "questions", "scores"} <= provenance.keys()
    assert all(len(digest) == 64 for digest in provenance["sets"].values())
    assert provenance["scores"].keys() == provenance["sets"].keys() == provenance["questions"].keys()
    for measured in provenance["scores"].values():
        assert {"other folds", "other sets", "learned from"} <= measured.keys()
    told = {*RECIPES["default"].features, "next"}
    assert shipped.features <= told, "every feature that it wants is one that a search has"
    assert shipped.columns.max() < len(shipped.features)


def test_what_tells_apart_is_part_of_a_recipe_and_can_be_left_out() -> None:
    default = RECIPES["default"]
    assert set(EVIDENCE) <= set(default.parts)
    assert not default.without("maxsim").evidence & {"maxsim", "window", "asked"}
    assert "updates" not in default.without("updates").parts
    assert RECIPES["keyword"].parts == ("rerank",)
