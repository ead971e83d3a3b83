"""The BERT encoder as an ONNX graph for onnxruntime, in fp32 or with int8 weights.

Sources: Devlin et al. 2018 for the network; onnxruntime's ``ContribOperators.md`` for the fused operators (domain
``com.microsoft``). Why int8 is done this way, what was measured and rejected: ``docs/decisions/0001-onnx-graph.md``.
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

_PEAK: Final = 4.0
_GELU_LEAST: Final = 0.17
"""GELU is nowhere below -0.17, so what it gives, moved up by that, fits an unsigned byte whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a BERT network: its width, layers, attention heads, and the epsilon of its normalisations."""

    width: int
    layers: int
    heads: int
    epsilon: float


def build(
    weights: Mapping[str, NDArray[Any]],
    shape: Shape,
    *,
    peaks: NDArray[np.float32] | None = None,
    probe: bool = False,
) -> bytes:
    """The network as an ONNX model; in int8 when ``peaks`` are given, else in fp32.

    Inputs: ``ids`` int64[n, t], token ids padded on the right; ``lengths`` int32[n], tokens of each row that are not
    padding. Output: ``hidden`` float32[n, t, width], the last hidden state; rows of padding hold nothing of meaning.

    ``weights`` are named as in a BertModel checkpoint; a missing one raises KeyError. ``peaks`` float32[2 * layers,
    width]: the largest magnitude each channel reaches before the attention and before the feed-forward part of each
    layer, in order; a model built with ``probe`` gives them for its input as a second output, ``peaks``.

    In int8 every matrix product takes bytes: weights by column, activations by row (each token on its own, so that a
    text's vector does not depend on what else is in the batch). A few channels of BERT reach magnitudes ten times
    those of the rest and would leave the rest few levels: they are divided by a power of two, and their weights
    multiplied by it (Xiao et al. 2023, SmoothQuant, for those channels only).
    """
    g = Graph()
    ids = g.input("ids", "int64", ["n", "t"])
    lengths = g.input("lengths", "int32", ["n"])

    def weight(name: str) -> NDArray[np.float32]:
        return np.asarray(weights[name], np.float32)

    def normalise(x: str, bias: str, skip: str, source: str, output: str) -> str:
        inputs = [x, skip, *_normalisation(source, output), bias]
        return g.node("SkipLayerNormalization", inputs, output, domain=MICROSOFT, epsilon=shape.epsilon)

    def _normalisation(source: str, output: str) -> list[str]:
        scale = g.constant(output + ".scale", weight(source + ".weight"))
        return [scale, g.constant(output + ".shift", weight(source + ".bias"))]

    def linear(x: str, sources: list[str], output: str, row: int | None = None, least: float = 0.0) -> tuple[str, str]:
        """The names of x @ W and of b, where W and b are those of ``sources`` side by side.

        ``row`` of the peaks belongs to x; ``least`` > 0 tells that x is nowhere below ``-least``.
        """
        w = np.concatenate([weight(source + ".weight") for source in sources]).T
        b = np.concatenate([weight(source + ".bias") for source in sources])
        if peaks is None:
            product = g.node("MatMul", [x, g.constant(output + ".weight", w)], output)
            return product, g.constant(output + ".bias", b)
        if row is not None:
            power = np.exp2(np.ceil(np.log2(np.maximum(peaks[row] / _PEAK, 1)))).astype(np.float32)
            w = w * power[:, None]
            x = g.node("Mul", [x, g.constant(output + ".damp", 1 / power)], output + ".damped")
        step = np.maximum(np.abs(w).max(axis=0) / 127, np.float32(1e-12))
        levels = np.rint(w / step).astype(np.int8)
        if least:
            x = g.node("Add", [x, g.constant(output + ".least", np.float32(least))], output + ".raised")
            b = b - least * (levels * step).sum(axis=0, dtype=np.float32)
            size, unit, zero = x, 1 / 255, 0
        else:
            size, unit, zero = g.node("Abs", [x], output + ".size"), 1 / 127, 128
        size = g.node("ReduceMax", [size], output + ".largest", axes=[-1], keepdims=1)
        x = g.node("Div", [x, size], output + ".even")
        units = g.constant(output + ".unit", np.float32(unit)), g.constant(output + ".zero", np.uint8(zero))
        x = g.node("QuantizeLinear", [x, *units], output + ".bytes")
        matrix = g.constant(output + ".weight", levels), g.constant(output + ".step", step)
        inputs = [x, matrix[0], units[0], matrix[1], units[1]]
        product = g.node("MatMulIntegerToFloat", inputs, output + ".product", domain=MICROSOFT)
        return g.node("Mul", [product, size], output), g.constant(output + ".bias", b)

    words = weight("embeddings.word_embeddings.weight")
    if peaks is None:
        x = g.node("Gather", [g.constant("words", words), ids], "word")
    else:
        x = g.node("Gather", [g.constant("words", words.astype(np.float16)), ids], "word.half")
        x = g.node("Cast", [x], "word", to=1)
    positions = weight("embeddings.position_embeddings.weight") + weight("embeddings.token_type_embeddings.weight")[0]
    length = g.node("Shape", [ids], "length", start=1, end=2)
    zero = g.constant("zero", np.array([0], np.int64))
    position = g.node("Slice", [g.constant("positions", positions), zero, length], "position")
    x = g.node("Add", [x, position], "embedding")
    inputs = [x, *_normalisation("embeddings.LayerNorm", "input")]
    x = g.node("LayerNormalization", inputs, "input", axis=-1, epsilon=shape.epsilon)

    thirds = g.constant("thirds", np.array([shape.width] * 3, np.int64))
    probed: list[str] = []
    for i in range(shape.layers):
        layer, name = f"encoder.layer.{i}.", f"layer{i}."
        probed.append(x)
        y, bias = linear(x, [f"{layer}attention.self.{part}" for part in _QKV], name + "qkv", row=2 * i)
        q, k, v = g.nodes("Split", [y, thirds], [name + part for part in _QKV], axis=2)
        inputs = [q, k, v, bias, lengths]
        y = g.node("MultiHeadAttention", inputs, name + "attention", domain=MICROSOFT, num_heads=shape.heads)
        y, bias = linear(y, [layer + "attention.output.dense"], name + "mixed")
        x = normalise(y, bias, x, layer + "attention.output.LayerNorm", name + "attended")
        probed.append(x)
        y, bias = linear(x, [layer + "intermediate.dense"], name + "wide", row=2 * i + 1)
        y = g.node("BiasGelu", [y, bias], name + "gelu", domain=MICROSOFT)
        y, bias = linear(y, [layer + "output.dense"], name + "narrow", least=_GELU_LEAST)
        x = normalise(y, bias, x, layer + "output.LayerNorm", name + "output")
    g.output(g.node("Identity", [x], "hidden"), "float32", ["n", "t", shape.width])
    if probe:
        for i, tap in enumerate(probed):
            size = g.node("Abs", [tap], f"probe{i}.size")
            probed[i] = g.node("ReduceMax", [size], f"probe{i}", axes=[0], keepdims=0)
            probed[i] = g.node("ReduceMax", [probed[i]], f"probe{i}.peak", axes=[0], keepdims=1)
        g.output(g.node("Concat", probed, "peaks", axis=0), "float32", [2 * shape.layers, shape.width])
    return g.to_bytes()


_QKV: Final = ("query", "key", "value")
