"""A small real cross-encoder, made on the spot: it asks of each piece of the question how like it the text's likest is.

Exported as sentence-transformers exports one: ``model.onnx`` from ids, mask and types to logits, ``tokenizer.json``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from memspan.encoders.graph import Graph

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SAID = (
    "Ana moved to Lisbon in May and lives there now.",
    "Where does Ana live? Where is the spare key, and what is behind the blue door?",
    "The spare key hangs behind the blue door. The key of the sonata is minor.",
    "The stock market fell for the third day in a row, and nobody could say why it had.",
    "The quick brown fox jumps over the lazy dog; many words number one or two, abcdefghijklmnopqrstuvwxyz 0123456789.",
)
STEEP, MIDDLE = 12.0, 0.4
"""logit = STEEP * (likeness in [0, 1] - MIDDLE)."""


def tokenizer() -> Tokenizer:
    """Whole words of what is SAID, and any other by its letters."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])
    pieces |= dict.fromkeys(word for text in SAID for word in re.findall(r"\w+", text.lower()))
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    made.enable_padding(length=7)  # what is stored in the file must not matter
    made.enable_truncation(5)
    return made


def words(vocabulary: int) -> NDArray[np.float32]:
    """A vector of length 1 for each piece, of zeros for the special ones."""
    drawn = np.random.default_rng(0).standard_normal((vocabulary, 64))
    drawn[: len(SPECIAL)] = 0
    return (drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def graph(table: NDArray[np.float32], *, classes: int = 1, kind: str = "int64", name: str = "token_type_ids") -> bytes:
    """The network. ``classes`` 2 has "not relevant" and "relevant"."""
    g = Graph()
    ids, mask, types = (g.input(each, kind, ["n", "t"]) for each in ("input_ids", "attention_mask", name))
    axes = {axis: g.constant(f"axis{axis}", np.array([axis], np.int64)) for axis in (1, 2)}
    kept = g.node("Cast", [mask], "kept", to=1)
    second = g.node("Mul", [kept, g.node("Cast", [types], "types", to=1)], "second")
    told = g.constant("told", np.abs(table).sum(axis=1).astype(bool).astype(np.float32))
    first = g.node("Mul", [g.node("Sub", [kept, second], "rest"), g.node("Gather", [told, ids], "telling")], "first")
    x = g.node("Gather", [g.constant("words", table), ids], "x")
    likeness = g.node("MatMul", [x, g.node("Transpose", [x], "turned", perm=[0, 2, 1])], "likeness")
    likeness = g.node("Mul", [likeness, g.node("Unsqueeze", [second, axes[1]], "seen")], "among")
    best = g.node("ReduceMax", [likeness], "best", axes=[2], keepdims=0)
    total = g.node("ReduceSum", [g.node("Mul", [best, first], "found"), axes[1]], "total", keepdims=1)
    count = g.node("ReduceSum", [first, axes[1]], "count", keepdims=1)
    some = g.node("Max", [count, g.constant("one", np.float32(1))], "some")
    mean = g.node("Sub", [g.node("Div", [total, some], "mean"), g.constant("middle", np.float32(MIDDLE))], "over")
    if classes == 1:
        g.node("Mul", [mean, g.constant("steep", np.float32(STEEP))], "logits")
    else:
        half = np.linspace(-STEEP / 2, STEEP / 2, classes, dtype=np.float32)[None]
        g.node("MatMul", [mean, g.constant("steep", half)], "logits")
    g.output("logits", "float32", ["n", classes])
    return g.to_bytes()


def make(folder: Path, *, inside: str = "", config: dict[str, object] | None = None, **how: object) -> Path:
    """``folder``, with a model in it, the graph in the folder ``inside`` it."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64, **(config or {})}))
    (folder / inside / "model.onnx").write_bytes(graph(words(made.get_vocab_size()), **how))  # type: ignore[arg-type]
    return folder


def by_hand(query: str, text: str) -> float:
    """What the network says of a pair, of which nothing is cut, worked out without it."""
    made = tokenizer()
    made.no_truncation()
    made.no_padding()
    table = words(made.get_vocab_size())
    asked, said = (table[made.encode(each, add_special_tokens=False).ids] for each in (query, text))
    best = np.maximum((asked @ said.T).max(axis=1), 0)
    likeness = best.sum() / max(np.abs(asked).sum(axis=1).astype(bool).sum(), 1)
    return float(1 / (1 + np.exp(-STEEP * (likeness - MIDDLE))))
