"""The graphs we write by hand are ONNX, to the reference implementation of ONNX."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from memspan.encoders import bert
from memspan.encoders.graph import Graph
from memspan.encoders.running import exact_bytes

SHAPE = bert.Shape(width=16, layers=2, heads=4, epsilon=1e-12)


def weights(vocabulary: int = 50, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A random BertModel of SHAPE."""
    random = np.random.default_rng(seed)
    d = SHAPE.width

    def draw(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, shape).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": draw(vocabulary, d),
        "embeddings.position_embeddings.weight": draw(32, d),
        "embeddings.token_type_embeddings.weight": draw(2, d),
        "embeddings.LayerNorm.weight": 1 + draw(d),
        "embeddings.LayerNorm.bias": draw(d),
    }
    for i in range(SHAPE.layers):
        for part, n, k in (
            *((f"attention.self.{part}", d, d) for part in ("query", "key", "value")),
            ("attention.output.dense", d, d),
            ("intermediate.dense", 4 * d, d),
            ("output.dense", d, 4 * d),
        ):
            found[f"encoder.layer.{i}.{part}.weight"] = draw(n, k)
            found[f"encoder.layer.{i}.{part}.bias"] = draw(n)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"encoder.layer.{i}.{part}.weight"] = 1 + draw(d)
            found[f"encoder.layer.{i}.{part}.bias"] = draw(d)
    return found


def run(model: bytes, ids: NDArray[np.int64], lengths: list[int]) -> list[NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, exact_bytes(onnxruntime.SessionOptions()))
    found: list[NDArray[np.float32]] = session.run(None, {"ids": ids, "lengths": np.array(lengths, np.int32)})
    return found


def by_the_paper(w: dict[str, NDArray[np.float32]], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """BERT's last hidden state of one text, in plain numpy."""

    def normal(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + SHAPE.epsilon)
        return x * w[name + ".weight"] + w[name + ".bias"]

    def dense(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ w[name + ".weight"].T.astype(np.float64) + w[name + ".bias"]

    erf = np.vectorize(math.erf)
    x = w["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)] + w["embeddings.token_type_embeddings.weight"][0]
    x = normal(x, "embeddings.LayerNorm")
    for i in range(SHAPE.layers):
        layer = f"encoder.layer.{i}."
        q, k, v = (
            dense(x, f"{layer}attention.self.{part}").reshape(len(ids), SHAPE.heads, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = dense(mixed.transpose(1, 0, 2).reshape(len(ids), -1), layer + "attention.output.dense")
        x = normal(x + mixed, layer + "attention.output.LayerNorm")
        wide = dense(x, layer + "intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
        x = normal(x + dense(wide, layer + "output.dense"), layer + "output.LayerNorm")
    return x


PEAKS = np.full((2 * SHAPE.layers, SHAPE.width), 3.0, np.float32)


@pytest.mark.parametrize("options", [{}, {"probe": True}, {"peaks": PEAKS}], ids=["fp32", "probe", "int8"])
def test_the_model_passes_the_checker_and_shape_inference(options: dict[str, object]) -> None:
    model = onnx.load_from_string(bert.build(weights(), SHAPE, **options))  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert [i.name for i in model.graph.input] == ["ids", "lengths"]
    assert model.graph.output[0].name == "hidden"
    assert {o.domain: o.version for o in model.opset_import} == {"": 17, "com.microsoft": 1}


def test_fp32_is_bert_as_the_paper_draws_it() -> None:
    ids = np.array([[3, 14, 15, 9, 2]])
    (hidden,) = run(bert.build(weights(), SHAPE), ids, [5])
    np.testing.assert_allclose(hidden[0], by_the_paper(weights(), ids[0]), atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"peaks": PEAKS}], ids=["fp32", "int8"])
def test_padding_and_neighbours_change_nothing(options: dict[str, object]) -> None:
    model = bert.build(weights(), SHAPE, **options)  # type: ignore[arg-type]
    (alone,) = run(model, np.array([[3, 14, 15]]), [3])
    (padded,) = run(model, np.array([[7, 1, 8, 2, 8], [3, 14, 15, 0, 0]]), [5, 3])
    np.testing.assert_allclose(padded[1, :3], alone[0], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_int8_stays_near_fp32(seed: int) -> None:
    w = weights(seed=seed)
    ids = np.random.default_rng(seed).integers(0, 50, (20, 16))
    exact, peaks = run(bert.build(w, SHAPE, probe=True), ids, [16] * 20)
    (near,) = run(bert.build(w, SHAPE, peaks=peaks), ids, [16] * 20)
    assert np.linalg.norm(near - exact) < 0.05 * np.linalg.norm(exact)


def test_the_probe_gives_the_largest_magnitude_of_each_channel() -> None:
    w = weights()
    w["embeddings.LayerNorm.weight"][5] = 0
    w["embeddings.LayerNorm.bias"][5] = -40
    _, peaks = run(bert.build(w, SHAPE, probe=True), np.array([[3, 14, 15]]), [3])
    assert peaks.shape == (2 * SHAPE.layers, SHAPE.width)
    assert peaks[0, 5] == 40
    assert (peaks > 0).all()


def test_a_missing_weight_is_named() -> None:
    w = weights()
    del w["encoder.layer.1.output.dense.bias"]
    with pytest.raises(KeyError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        bert.build(w, SHAPE)


NUMBERS = st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int32, np.int64])


@given(NUMBERS.flatmap(lambda t: arrays.arrays(t, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))))
def test_a_constant_comes_back_as_it_was_given(array: NDArray[np.generic]) -> None:
    graph = Graph()
    graph.constant("x", array)
    (tensor,) = onnx.load_from_string(graph.to_bytes()).graph.initializer
    back = onnx.numpy_helper.to_array(tensor)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
)
def test_attributes_come_back_as_they_were_given(whole: int, real: float, word: str, wholes: list[int]) -> None:
    graph = Graph()
    graph.node("Op", ["x", "", "y"], "z", whole=whole, real=real, word=word, wholes=wholes)
    (node,) = onnx.load_from_string(graph.to_bytes({"made": "by hand"})).graph.node
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name != "wholes"}
    assert found == {"whole": whole, "real": real, "word": word.encode()}
    assert [list(a.ints) for a in node.attribute if a.name == "wholes"] == [wholes]
    assert list(node.input) == ["x", "", "y"]
