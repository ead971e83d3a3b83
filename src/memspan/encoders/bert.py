"""The BERT encoder as an ONNX graph for onnxruntime, in fp32 or with int8 weights.

Sources: Devlin et al. 2018 for the network; onnxruntime's ``ContribOperators.md`` for the fused operators (domain
``com.microsoft``). Why int8 is done this way, with what was measured and rejected: ``docs/decisions/0001-onnx-graph.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.graph import MICROSOFT, Graph

Precision = Literal["int8", "fp32"]

VERSION: Final = 1
"""Raise when ``build`` gives another graph for the same weights: cached graphs carry it in their name."""

_BLOCK: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a BERT network: its width, layers, attention heads, and the epsilon of its normalisations."""

    width: int
    layers: int
    heads: int
    epsilon: float


def build(weights: Mapping[str, NDArray[Any]], shape: Shape, precision: Precision) -> bytes:
    """The network as an ONNX model.

    Inputs: ``ids`` int64[n, t], token ids padded on the right; ``lengths`` int32[n], tokens of each row that are not
    padding. Output: ``hidden`` float32[n, t, width], the last hidden state; rows of padding hold nothing of meaning.
    ``weights`` are named as in a BertModel checkpoint. Raises KeyError for a weight that is missing.
    """
    g = Graph()
    ids = g.input("ids", "int64", ["n", "t"])
    lengths = g.input("lengths", "int32", ["n"])

    def weight(name: str) -> NDArray[np.float32]:
        return np.asarray(weights[name], np.float32)

    def normalise(x: str, skip: str, source: str, output: str) -> str:
        scale = g.constant(output + ".scale", weight(source + ".weight"))
        shift = g.constant(output + ".shift", weight(source + ".bias"))
        return g.node("SkipLayerNormalization", [x, skip, scale, shift], output, domain=MICROSOFT, epsilon=shape.epsilon)

    def linear(x: str, sources: list[str], output: str) -> str:
        """x @ W + b, where W and b are those of ``sources`` side by side."""
        w = np.concatenate([weight(s + ".weight") for s in sources])
        b = g.constant(output + ".bias", np.concatenate([weight(s + ".bias") for s in sources]))
        if precision == "fp32":
            product = g.node("MatMul", [x, g.constant(output + ".weight", w.T)], output + ".product")
            return g.node("Add", [product, b], output)
        n, k = w.shape
        blocks = w.reshape(n, k // _BLOCK, _BLOCK)
        step = np.maximum(np.abs(blocks).max(2) / 127, np.float32(1e-12))
        levels = (np.rint(blocks / step[..., None]) + 128).astype(np.uint8)
        inputs = [x, g.constant(output + ".weight", levels), g.constant(output + ".step", step), "", "", b]
        sizes = {"K": k, "N": n, "bits": 8, "block_size": _BLOCK}
        return g.node("MatMulNBits", inputs, output, domain=MICROSOFT, accuracy_level=4, **sizes)

    words = weight("embeddings.word_embeddings.weight")
    if precision == "fp32":
        x = g.node("Gather", [g.constant("words", words), ids], "word")
    else:
        x = g.node("Gather", [g.constant("words", words.astype(np.float16)), ids], "word.half")
        x = g.node("Cast", [x], "word", to=1)
    positions = weight("embeddings.position_embeddings.weight") + weight("embeddings.token_type_embeddings.weight")[0]
    length = g.node("Shape", [ids], "length", start=1, end=2)
    zero = g.constant("zero", np.array([0], np.int64))
    position = g.node("Slice", [g.constant("positions", positions), zero, length], "position")
    x = g.node("Add", [x, position], "embedding")
    scale = g.constant("input.scale", weight("embeddings.LayerNorm.weight"))
    shift = g.constant("input.shift", weight("embeddings.LayerNorm.bias"))
    x = g.node("LayerNormalization", [x, scale, shift], "input", axis=-1, epsilon=shape.epsilon)

    thirds = g.constant("thirds", np.array([shape.width] * 3, np.int64))
    for i in range(shape.layers):
        layer, name = f"encoder.layer.{i}.", f"layer{i}."
        parts = [layer + "attention.self." + part for part in ("query", "key", "value")]
        joined = linear(x, parts, name + "qkv")
        q, k, v = g.nodes("Split", [joined, thirds], [name + part for part in "qkv"], axis=2)
        inputs = [q, k, v, "", lengths]
        y = g.node("MultiHeadAttention", inputs, name + "attention", domain=MICROSOFT, num_heads=shape.heads)
        y = linear(y, [layer + "attention.output.dense"], name + "mixed")
        x = normalise(y, x, layer + "attention.output.LayerNorm", name + "attended")
        y = linear(x, [layer + "intermediate.dense"], name + "wide")
        y = g.node("Gelu", [y], name + "gelu", domain=MICROSOFT)
        y = linear(y, [layer + "output.dense"], name + "narrow")
        x = normalise(y, x, layer + "output.LayerNorm", name + "output")
    hidden = g.node("Identity", [x], "hidden")
    g.output(hidden, "float32", ["n", "t", shape.width])
    return g.to_bytes()
