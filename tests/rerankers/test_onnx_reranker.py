"""Cross-encoders as ONNX files, with a small real one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from memspan.errors import InvalidInput, ModelNotFound, RerankerError
from memspan.rerankers import make
from memspan.rerankers.onnx import OnnxReranker
from memspan.testing import RerankerContract

from . import tiny

PAIRS = [
    ("Where does Ana live?", "Ana: I live in Lisbon now, where it is warm."),
    ("Where does Ana live?", "The stock market fell for the third day in a row"),
    ("where is the spare key", "The spare key hangs behind the blue door."),
    ("key", "k"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("model"))


class TestOnnxReranker(RerankerContract):
    tolerance = 1e-5

    @pytest.fixture
    def reranker(self, folder: Path) -> OnnxReranker:
        return OnnxReranker(folder)


class TestOnnxRerankerOfTwoClasses(RerankerContract):
    tolerance = 1e-5

    @pytest.fixture
    def reranker(self, tmp_path: Path) -> OnnxReranker:
        return OnnxReranker(tiny.make(tmp_path, classes=2, kind="int32"), window=32, threads=1)


@pytest.mark.parametrize(("query", "text"), PAIRS)
@pytest.mark.parametrize("classes", [1, 2])
def test_a_score_is_the_sigmoid_of_what_the_network_says_of_the_pair(
    tmp_path: Path, query: str, text: str, classes: int
) -> None:
    (score,) = OnnxReranker(tiny.make(tmp_path, classes=classes)).rerank(query, [text])
    assert score == pytest.approx(tiny.by_hand(query, text), abs=1e-5)


def test_what_answers_is_told_from_what_does_not(folder: Path) -> None:
    yes, no = OnnxReranker(folder).rerank("Where does Ana live?", [PAIRS[0][1], PAIRS[1][1]])
    assert yes > 0.5 > no


def test_a_text_is_cut_and_never_the_question_before_it(folder: Path) -> None:
    reranker = OnnxReranker(folder, window=16)
    text = "the blue door " * 30
    question = "spare key behind"
    assert reranker.rerank(question, [text]) == reranker.rerank(question, [text + "spare key behind"])
    assert reranker.rerank(question, [text]) < reranker.rerank(question, ["spare key behind " + text])
    long = "spare key " * 50
    assert reranker.rerank(long, ["key spare"]) > 0.99


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({}, 64),
        ({"max_position_embeddings": 4096}, 512),
        ({"max_position_embeddings": 50, "model_type": "xlm-roberta", "pad_token_id": 1}, 48),
    ],
)
def test_the_window_is_what_the_model_has_positions_for(tmp_path: Path, config: dict[str, object], window: int) -> None:
    assert OnnxReranker(tiny.make(tmp_path, config=config)).window == window


def test_the_tokenizer_may_say_that_it_is_less(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 40}')
    assert OnnxReranker(tmp_path).window == 40


@pytest.mark.parametrize("inside", ["", "onnx"])
def test_the_graph_lies_where_exports_put_it_and_may_be_named_itself(tmp_path: Path, inside: str) -> None:
    folder = tiny.make(tmp_path / "small", inside=inside)
    whole = OnnxReranker(folder)
    assert (whole.id, whole.spec) == ("onnx-small", f"onnx:{folder}")
    single = make(f"onnx:{folder / inside / 'model.onnx'}")
    assert isinstance(single, OnnxReranker)
    assert single.id == "onnx-small-model"
    again = make(single.spec)
    assert again is not None
    for reranker in (single, again):
        assert np.array_equal(reranker.rerank(*PAIRS[0][:1], [PAIRS[0][1]]), whole.rerank(PAIRS[0][0], [PAIRS[0][1]]))


def test_making_one_does_not_load_the_network(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    reranker = OnnxReranker(tmp_path)
    assert reranker.rerank("nothing to read", []).shape == (0,)
    with pytest.raises(RerankerError, match=r"cannot load .*model\.onnx"):
        reranker.rerank("q", ["t"])


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path, missing: str) -> None:
    tiny.make(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelNotFound, match=rf"lacks {missing}; .*hf download"):
        make(f"onnx:{tmp_path}")


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json"])
def test_a_file_that_is_no_such_file_is_named(tmp_path: Path, file: str) -> None:
    tiny.make(tmp_path)
    (tmp_path / file).write_text("{")
    with pytest.raises(RerankerError, match=file):
        OnnxReranker(tmp_path)


@pytest.mark.parametrize(
    ("how", "message"), [({"name": "pixels"}, "its inputs are .*pixels"), ({"classes": 3}, r"shape \[1, 3\]")]
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, how: dict[str, object], message: str) -> None:
    with pytest.raises(RerankerError, match=message):
        OnnxReranker(tiny.make(tmp_path, **how)).rerank("q", ["t"])  # type: ignore[arg-type]


def test_a_window_too_small_for_a_pair_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="window"):
        OnnxReranker(folder, window=4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_uses_a_session_of_its_own(folder: Path) -> None:
    reranker = OnnxReranker(folder, threads=1)
    before = reranker.rerank(*_asked())
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(reranker.rerank(*_asked()), before) else 1)
    assert os.waitpid(child, 0)[1] == 0


def _asked() -> tuple[str, list[str]]:
    return PAIRS[0][0], [text for _, text in PAIRS]
