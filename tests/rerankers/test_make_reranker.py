"""Rerankers by name, and what the port says of a wrong answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from memspan.errors import InvalidInput, MissingExtra, RerankerError
from memspan.rerankers import FORMS, make
from memspan.rerankers.base import Reranker, probabilities, scores_of


class Answering:
    """Answers the same whatever it is asked."""

    id = "answering"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        return self.answer


@pytest.mark.parametrize("spec", [None, "none"])
def test_no_reranker_is_none(spec: str | None) -> None:
    assert make(spec) is None


def test_a_reranker_is_given_back_as_it_is() -> None:
    reranker = Answering([])
    assert isinstance(reranker, Reranker)
    assert make(reranker) is reranker


@pytest.mark.parametrize(
    "spec", ["", "onnx", "onnx:", "bert:x", "late:", "late:none", "http:m", "http:@http://h/v1", "http-logits:m@h/v1"]
)
def test_an_unknown_spec_is_refused_by_name(spec: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(spec)
    assert caught.value.argument == "reranker"
    assert caught.value.mend


def test_what_a_spec_names_is_checked_too() -> None:
    with pytest.raises(InvalidInput, match="encoder"):
        make("late:bert")
    with pytest.raises(InvalidInput, match="base_url"):
        make("tei:localhost:80")


def test_the_refusal_lists_what_there_is() -> None:
    with pytest.raises(InvalidInput) as caught:
        make("bert")
    assert all(form in caught.value.mend for form in FORMS.values())


@pytest.mark.parametrize("thing", [7, object(), ["onnx"]])
def test_an_object_that_is_no_reranker_is_refused(thing: object) -> None:
    with pytest.raises(InvalidInput, match="reranker"):
        make(thing)  # type: ignore[arg-type]


def test_naming_rerankers_imports_nothing_heavy() -> None:
    code = (
        "import sys, memspan.rerankers\n"
        "heavy = {'onnxruntime', 'tokenizers', 'httpx', 'sentence_transformers', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"pip install 'memspan\[sentence-transformers\]'"):
        make("cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "shape"),
        ("high", "no row of numbers"),
        ([0.5], "shape"),
        ([[0.5], [0.5]], "shape"),
        ([0.5, float("nan")], "not finite"),
        ([0.5, float("inf")], "not finite"),
        ([0.5, 1.2], "from 0.5 to 1.2"),
        ([-3.0, 0.5], "from -3 to 0.5"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_the_reranker(answer: object, message: str) -> None:
    with pytest.raises(RerankerError, match=f"'answering' .*{message}"):
        scores_of(Answering(answer), "q", ["a", "b"])


def test_the_last_bits_of_a_score_are_forgiven() -> None:
    scores = scores_of(Answering(np.array([-1e-7, 1 + 1e-6])), "q", ["a", "b"])
    assert (scores.dtype, scores.tolist()) == (np.float32, [0, 1])


@pytest.mark.parametrize("logits", [[0.0, 2.0, -1000.0], [[0.0], [2.0], [-1000.0]], [[1, 1], [-1, 1], [1000, 0]]])
def test_logits_become_probabilities(logits: object) -> None:
    np.testing.assert_allclose(probabilities(logits, "it"), [0.5, 1 / (1 + np.exp(-2)), 0], atol=1e-7)


@pytest.mark.parametrize("logits", [[[1.0, 2.0, 3.0]], [float("nan")], 5.0])
def test_logits_that_are_none_are_an_error(logits: object) -> None:
    with pytest.raises(RerankerError, match="'it'"):
        probabilities(logits, "it")
