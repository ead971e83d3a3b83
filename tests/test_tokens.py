"""Token activations: what is kept of them at each level, and MaxSim over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memspan.activations.tokens import BITS, FITTING, Basis, Matrices, TokenCodec, shipped, unit

Floats = NDArray[np.float32]
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def basis(dim: int = 96, dims: int = 128, seed: int = 0) -> Basis:
    random = np.random.default_rng(seed)
    mean = random.standard_normal(dim).astype(np.float32) / 40
    return Basis("made-up", mean, random.standard_normal((dim, dims)).astype(np.float32), "made up")


def vectors(*lengths: int, dim: int = 96, seed: int = 1) -> list[Floats]:
    random = np.random.default_rng(seed)
    return [random.standard_normal((length, dim)).astype(np.float32) * 3 for length in lengths]


def matrices(codec: TokenCodec, texts: list[Floats]) -> Matrices:
    packed = codec.pack(texts)
    sizes = np.array([len(each) for each in packed], np.int64)
    return Matrices(np.arange(len(texts)), sizes, np.frombuffer(b"".join(packed), np.uint8))


def exactly(codec: TokenCodec, question: Floats, texts: list[Floats]) -> Floats:
    """The best cosines by the definition, one text at a time."""
    each = [(question @ codec.project(text).T).max(axis=1, initial=0) for text in texts]
    return np.stack(each, axis=1).clip(0, 1)


@pytest.mark.parametrize(("level", "error"), [("f16", 0.002), ("int8", 0.02), ("4bit", 0.12), ("1bit", 0.4)])
@given(lengths=LENGTHS, asked=st.integers(1, 9))
@settings(max_examples=15)
def test_the_best_cosines_are_those_of_the_definition_as_far_as_the_level_goes(
    level: str, error: float, lengths: list[int], asked: int
) -> None:
    codec = TokenCodec(level, basis())
    texts = vectors(*lengths)
    question = codec.project(vectors(asked, seed=2)[0])
    best = codec.best(question, matrices(codec, texts))
    assert best.shape == (asked, len(lengths))
    assert np.abs(best - exactly(codec, question, texts)).max() < error
    assert not best[:, np.array(lengths) == 0].any()


@pytest.mark.parametrize("level", BITS)
def test_a_text_is_kept_in_as_many_bytes_as_its_level_says_and_finds_itself(level: str) -> None:
    codec = TokenCodec(level, basis())
    assert codec.width == {"1bit": 16, "4bit": 64, "int8": 128, "f16": 256}[level]
    texts = vectors(*[12] * 50)
    kept = matrices(codec, texts)
    assert kept.sizes.tolist() == [12 * codec.width] * 50
    for at in (0, 17, 49):
        scores = codec.best(codec.project(texts[at]), kept).mean(axis=0)
        assert scores.argmax() == at
        assert 0.7 < scores[at] <= 1


def test_length_and_batch_of_a_text_change_nothing_of_what_is_kept() -> None:
    codec = TokenCodec("1bit", basis())
    one, two = vectors(5, 9)
    assert codec.pack([one, two]) == codec.pack([one * 7]) + codec.pack([two])
    assert codec.pack([]) == []
    assert codec.pack([np.zeros((0, 96), np.float32)]) == [b""]


def test_a_basis_comes_back_from_its_bytes() -> None:
    written = basis()
    read = Basis.loads(written.dumps())
    assert (read.id, read.provenance) == (written.id, written.provenance)
    assert read.axes is not None
    assert written.axes is not None
    assert np.abs(read.axes - written.axes).max() < 0.01
    again = Basis.loads(read.dumps())
    assert again.axes is not None
    assert (again.mean == read.mean).all()
    assert (again.axes == read.axes).all()


def test_a_fitted_basis_has_the_axes_along_which_the_tokens_differ_most() -> None:
    random = np.random.default_rng(0)
    rows = unit(random.standard_normal((4_000, 32)) * np.r_[[9.0] * 4, [0.3] * 28] + 2)
    fitted = Basis.fit(rows.mean(axis=0, dtype=np.float64), (rows.T @ rows / len(rows)).astype(np.float64), 4, "here")
    assert fitted.axes is not None
    left = (rows - fitted.mean) @ fitted.axes
    assert left.var(axis=0).sum() > 0.8 * rows.var(axis=0).sum()
    assert fitted.id.startswith("own-")
    assert fitted.provenance == "here"


@pytest.mark.parametrize("encoder", FITTING)
def test_what_is_shipped_says_where_it_comes_from_and_fits_its_encoder(encoder: str) -> None:
    basis: Any = shipped(encoder)
    assert basis.mean.shape == (384,)
    assert TokenCodec("1bit", basis).width == 48
    assert len(basis.provenance) > 40


def test_an_encoder_without_one_has_none_shipped() -> None:
    assert shipped("hash-256") is None
