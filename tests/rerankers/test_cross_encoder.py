"""Cross-encoders by the extra ``sentence-transformers``, with a small BERT of random weights; they run where it is
installed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from memspan.errors import RerankerError
from memspan.rerankers import make
from memspan.rerankers.cross_encoder import CrossEncoderReranker
from memspan.rerankers.onnx import OnnxReranker
from memspan.testing import RerankerContract

from . import tiny

pytest.importorskip("sentence_transformers", reason="the extra sentence-transformers is not installed")

pytestmark = pytest.mark.filterwarnings("default")  # torch warns of itself

QUESTION = "where is the spare key"
TEXTS = [*tiny.SAID, "ok", "The blue door. " * 40]


def saved(folder: Path, classes: int = 1) -> Path:
    """A BertForSequenceClassification of random weights, as sentence-transformers saves one."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = tiny.tokenizer()
    words.no_padding()
    words.no_truncation()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=classes,
        initializer_range=0.5,
        pad_token_id=0,
    )
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **named,
    ).save_pretrained(folder)
    return folder


def exported(folder: Path) -> Path:
    """``folder`` with the network in it as ONNX beside its weights."""
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    one = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        model,
        (one, one, one),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "n", 1: "t"} for name in names} | {"logits": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> CrossEncoderReranker:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return CrossEncoderReranker(str(folder), device="cpu")


class TestCrossEncoderReranker(RerankerContract):
    @pytest.fixture
    def reranker(self, loaded: CrossEncoderReranker) -> CrossEncoderReranker:
        return loaded


def test_a_spec_makes_it(folder: Path, loaded: CrossEncoderReranker) -> None:
    made = make(f"cross-encoder:{folder}")
    assert isinstance(made, CrossEncoderReranker)
    assert made.spec == loaded.spec
    np.testing.assert_allclose(made.rerank(QUESTION, TEXTS), loaded.rerank(QUESTION, TEXTS), atol=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
def test_its_onnx_export_gives_the_same_scores(tmp_path: Path, classes: int) -> None:
    pytest.importorskip("onnx")
    folder = exported(saved(tmp_path, classes))
    by_torch = CrossEncoderReranker(str(folder), device="cpu").rerank(QUESTION, TEXTS)
    by_onnx = OnnxReranker(folder).rerank(QUESTION, TEXTS)
    assert np.ptp(by_torch) > 0.01
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4)


def test_a_model_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RerankerError, match="cannot load"):
        make(f"cross-encoder:{tmp_path}")
