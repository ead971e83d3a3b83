"""What a reranker promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from memspan.rerankers.base import Reranker

_QUESTION = "Where does Ana live?"
_TEXTS = (
    "Ana moved to Lisbon in May.",
    "Ana: I live in Lisbon now, and I like it.",
    "The stock market fell for the third day in a row, and nobody could say why it had.",
    "昨日、友達と新しいレストランに行きました。",
    "ok",
    "def f(x): return x + 1  # 🎉",
)


def check(condition: object, message: str) -> None:
    """Fails with ``message``; under ``python -O`` an assert in a module that pytest does not rewrite says nothing."""
    if not condition:
        pytest.fail(message, pytrace=True)


class RerankerContract:
    """What every reranker promises. ``tolerance``: the largest difference a neighbour in the batch may make."""

    tolerance = 1e-4

    @pytest.fixture
    def reranker(self) -> Reranker:
        raise pytest.UsageError("override the fixture `reranker`")

    def ask(self, reranker: Reranker, *texts: str, question: str = _QUESTION) -> NDArray[np.float32]:
        """Its scores, after shape, type and range were checked."""
        scores = reranker.rerank(question, texts)
        check(isinstance(scores, np.ndarray), f"a {type(scores).__name__} instead of an array")
        check(scores.shape == (len(texts),) and scores.dtype == np.float32, f"{scores.shape} {scores.dtype}")
        check(np.isfinite(scores).all(), "scores that are not finite")
        check(((scores >= 0) & (scores <= 1)).all(), f"scores outside 0 to 1: {scores}")
        return scores

    def test_it_is_a_reranker_with_a_name_that_stays(self, reranker: Reranker) -> None:
        check(isinstance(reranker, Reranker), "it lacks something of memspan.rerankers.base.Reranker")
        before = reranker.id
        self.ask(reranker, *_TEXTS)
        check(before and before == reranker.id, f"its id was {before!r} and is {reranker.id!r}")

    def test_it_gives_one_score_for_each_text(self, reranker: Reranker) -> None:
        self.ask(reranker, *_TEXTS)
        self.ask(reranker, _TEXTS[0])

    def test_no_texts_give_no_scores(self, reranker: Reranker) -> None:
        self.ask(reranker)

    def test_the_same_text_gets_the_same_score_each_time(self, reranker: Reranker) -> None:
        first, again = self.ask(reranker, *_TEXTS), self.ask(reranker, *_TEXTS)
        check(np.array_equal(first, again), f"they differ by {np.abs(first - again).max()}")
        one, _, same = self.ask(reranker, _TEXTS[0], _TEXTS[2], _TEXTS[0])
        check(abs(one - same) <= self.tolerance, f"a text got {one} and {same}")

    def test_scores_stand_in_the_order_of_the_texts_and_do_not_depend_on_neighbours(self, reranker: Reranker) -> None:
        together = self.ask(reranker, *_TEXTS)
        backwards = self.ask(reranker, *_TEXTS[::-1])[::-1]
        alone = np.concatenate([self.ask(reranker, text) for text in _TEXTS])
        for other in (backwards, alone):
            difference = np.abs(together - other).max()
            check(difference <= self.tolerance, f"they differ by {difference}")

    def test_more_texts_than_any_batch_are_scored(self, reranker: Reranker) -> None:
        scores = self.ask(reranker, *(f"text number {number} of many" for number in range(100)))
        single = self.ask(reranker, "text number 99 of many")
        check(abs(scores[99] - single[0]) <= self.tolerance, f"the last got {scores[99]}, alone {single[0]}")

    def test_very_long_texts_and_questions_are_cut_to_what_it_reads(self, reranker: Reranker) -> None:
        self.ask(reranker, "many words in a row " * 20_000, "x" * 100_000, "short")
        self.ask(reranker, *_TEXTS, question="why is that so " * 5_000)

    @pytest.mark.parametrize("text", ["", " ", "\ud800 alone", "a\x00b", "\u202e\ufeff\u200bq", "🎉" * 300])
    def test_strange_texts_are_scored(self, reranker: Reranker, text: str) -> None:
        self.ask(reranker, text, "word")
        self.ask(reranker, "word", question=text or "?")

    def test_threads_may_share_it(self, reranker: Reranker) -> None:
        alone = self.ask(reranker, *_TEXTS)
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda _: reranker.rerank(_QUESTION, _TEXTS), range(8)))
        check(all(np.abs(row - alone).max() <= self.tolerance for row in rows), "they got different scores")
