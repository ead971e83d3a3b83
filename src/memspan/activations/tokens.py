"""Token matrices: what an encoder makes of each token of a text, centred, projected, quantised; and MaxSim over them.

Late interaction (Khattab and Zaharia 2020, ColBERT): a text answers a question as far as each token of the question
finds one like it in the text. The mean of the token vectors of mixed text is subtracted first: what every token shares
tells none apart. Which level is the default, and what each costs, is measured in docs/decisions/0010-activations.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.graph import Graph
from memspan.errors import InvalidInput, NewerStore
from memspan.segmenting import shown

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BITS: Final[Mapping[str, int]] = {"1bit": 1, "4bit": 4, "int8": 8, "f16": 16}
"""Bits a stored dimension takes, by level; at ``"none"`` no token matrices are kept."""

LEVELS: Final = ("none", *BITS)
DEFAULT: Final = "1bit"
OWN: Final = "own-"  # how the id of a basis begins that was fitted to a store
SPREAD: Final = 2.75  # a 4-bit code covers values up to so many standard deviations of a unit vector's entries
REACH: Final = 6.0  # and an 8-bit one up to so many
HALF_NORMAL: Final = np.float32((np.pi / 2) ** 0.5)  # 1 / the mean size of a standard normal value

SHIPPED: Final[Mapping[str, str]] = {"minilm-1": "minilm.safetensors"}
"""Files of the bases that come with memspan, by id; a store names the one it uses, so none is ever removed."""

FITTING: Final[Mapping[str, str]] = {"minilm-int8-53aa5117": "minilm-1", "minilm-fp32-53aa5117": "minilm-1"}
"""Which of them a new store takes, by the encoder's id."""

LATER: Final = b""  # in place of a token matrix that is still to be made, or to be made again


def checked(value: object) -> str:
    """``value`` where it is "auto" or one of ``LEVELS``. Raises InvalidInput naming ``tokens``."""
    if value == "auto" or (isinstance(value, str) and value in LEVELS):
        return str(value)
    raise InvalidInput("tokens", f"{shown(value)} is no level", mend=f"give auto, {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True)
class Activation:
    """What is kept of a text: ``pooled`` float16[dim]; ``tokens``, the bytes of its token matrix, LATER, or None."""

    pooled: NDArray[np.float16]
    tokens: bytes | None = None


@dataclass(frozen=True, slots=True)
class Matrices:
    """Token matrices of rows: ``seqs`` int64[n] ascending; ``sizes`` int64[n] bytes of each; ``codes`` uint8[sum], one
    after the other."""

    seqs: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codes: Bytes


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Where token vectors are centred and projected to: ``mean`` float32[dim], ``axes`` float32[dim, d] or None for the
    encoder's own, all of them.

    ``id`` names it; ``provenance`` says what it was fitted on, when, and with which encoder.
    """

    id: str
    mean: Floats
    axes: Floats | None
    provenance: str

    def dumps(self) -> bytes:
        """As a safetensors file, in float16."""
        from safetensors.numpy import save

        arrays = {"mean": self.mean.astype(np.float16)}
        if self.axes is not None:
            arrays["axes"] = self.axes.astype(np.float16)
        return save(arrays, {"id": self.id, "provenance": self.provenance})

    @classmethod
    def loads(cls, raw: bytes) -> Basis:
        """What ``dumps`` wrote."""
        from safetensors.numpy import load

        arrays = {name: array.astype(np.float32) for name, array in load(raw).items()}
        about = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        return cls(about["id"], arrays["mean"], arrays.get("axes"), about["provenance"])

    @classmethod
    def fit(cls, mean: NDArray[np.float64], squares: NDArray[np.float64], dims: int | None, provenance: str) -> Basis:
        """From token vectors of length 1: their ``mean`` float64[dim], the mean of their outer products ``squares``
        float64[dim, dim]. With ``dims`` the axes span so many principal ones, turned at random: signs along axes of
        unlike weight would count what hardly differs as much as what differs most."""
        chosen = None
        if dims is not None:
            _, axes = np.linalg.eigh(squares - np.outer(mean, mean))
            turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((dims, dims)))
            chosen = np.ascontiguousarray(axes[:, ::-1][:, :dims] @ turn).astype(np.float32)
        digest = hashlib.sha256(mean.tobytes() + (b"" if chosen is None else chosen.tobytes())).hexdigest()
        return cls(f"{OWN}{digest[:12]}", mean.astype(np.float32), chosen, provenance)


def shipped(encoder: str) -> Basis | None:
    """The basis that comes with memspan for the encoder of this id, None where there is none."""
    return basis_named(FITTING[encoder]) if encoder in FITTING else None


def basis_named(id: str) -> Basis:
    """The basis of this id that comes with memspan. Raises NewerStore where this version has none of it."""
    if id not in SHIPPED:
        problem = f"its token activations are projected on {id!r}, which this memspan does not have"
        raise NewerStore(problem, mend="upgrade memspan (pip install -U memspan); the store was not touched")
    return Basis.loads((resources.files("memspan.activations") / SHIPPED[id]).read_bytes())


class TokenCodec:
    """Token activations as they are kept at one ``level`` on one ``basis``, and MaxSim over them."""

    def __init__(self, level: str, basis: Basis) -> None:
        self.level = level
        self.basis = basis
        self.dims = len(basis.mean) if basis.axes is None else basis.axes.shape[1]
        self.width = self.dims * BITS[level] // 8
        """Bytes a token."""
        self._size = np.float32(self.dims**-0.5)  # of an entry of a vector of length 1

    def project(self, tokens: Floats) -> Floats:
        """Token vectors float32[t, dim], of any length, as float32[t, d], rows of length 1 (or 0)."""
        centred = unit(tokens) - self.basis.mean
        return unit(centred if self.basis.axes is None else centred @ self.basis.axes)

    def pack(self, texts: Sequence[Floats]) -> list[bytes]:
        """The token matrix of each text, float32[t_i, dim], as bytes: ``t_i * width`` of them."""
        lengths = [len(tokens) for tokens in texts]
        if not sum(lengths):
            return [b""] * len(texts)
        codes = self._quantise(self.project(np.concatenate(texts)))
        ends = np.cumsum(lengths)
        return [codes[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]

    def _quantise(self, values: Floats) -> Bytes:
        """float32[t, d] of length 1 → uint8[t, width]."""
        if self.level == "1bit":
            return np.packbits(values > 0, axis=1)
        if self.level == "4bit":
            steps: Bytes = np.rint(values / (SPREAD * self._size) * 7.5 + 7.5).clip(0, 15).astype(np.uint8)
            return np.asarray(steps[:, 0::2] << 4 | steps[:, 1::2])
        if self.level == "int8":
            levels: NDArray[np.int8] = np.rint(values / (REACH * self._size) * 127).clip(-127, 127).astype(np.int8)
            return levels.view(np.uint8)
        return values.astype(np.float16).view(np.uint8)

    def best(self, question: Floats, matrices: Matrices) -> Floats:
        """The best cosine of each token of ``question`` float32[q, d] from ``project`` with any token of each of n
        matrices: float32[q, n] in [0, 1]; 0 where a matrix has no tokens. Their mean over q is MaxSim."""
        counts = matrices.sizes // self.width
        some = counts > 0
        best = np.zeros((len(question), len(counts)), np.float32)
        if some.any() and len(question):
            products, scale, shift = self._products(question, matrices.codes.reshape(-1, self.width))
            most = np.maximum.reduceat(products, (np.cumsum(counts) - counts)[some], axis=0)
            best[:, some] = ((most - shift) * scale).T
        return best.clip(0, 1)

    def _products(self, question: Floats, codes: Bytes) -> tuple[NDArray[Any], Floats, Floats]:
        """Numbers [t, q], and float32[q] each of what they are to be less and times to be cosines: of a 1-bit code the
        cosine that is most likely, which its angle to the code tells."""
        none = np.zeros(1, np.float32)
        if self.level == "1bit":  # of bytes, several times faster than of floats; 8 bits a value of the question
            step = np.maximum(np.abs(question).max(axis=1) / 127, np.float32(1e-12))
            levels = np.rint(question / step[:, None]).astype(np.int8)
            inputs = {"bits": np.unpackbits(codes, axis=1), "levels": np.ascontiguousarray(levels.T)}
            (products,) = _bitwise().run(None, inputs)
            # a product with signs is one with bits, doubled, less the sum
            return products, 2 * step * self._size * HALF_NORMAL, levels.sum(axis=1, dtype=np.float32) / 2
        if self.level == "4bit":
            high, low = (codes >> 4).astype(np.float32), (codes & 15).astype(np.float32)
            steps = high @ question[:, 0::2].T + low @ question[:, 1::2].T
            return steps, np.full(1, SPREAD * self._size / 7.5, np.float32), 7.5 * question.sum(axis=1)
        if self.level == "int8":
            values = codes.view(np.int8).astype(np.float32)
            return values @ question.T, np.full(1, REACH * self._size / 127, np.float32), none
        return codes.view(np.float16).astype(np.float32) @ question.T, none + 1, none


@cache
def _bitwise() -> Any:
    """bits uint8[t, d], levels int8[d, q] → int32[t, q]: whole numbers, exact on any processor as no bit exceeds 1."""
    import onnxruntime

    graph = Graph()
    inputs = [graph.input("bits", "uint8", ["t", "d"]), graph.input("levels", "int8", ["d", "q"])]
    graph.output(graph.node("MatMulInteger", inputs, "products"), "int32", ["t", "q"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # it takes less than to wake another thread
    return onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])


def unit(rows: NDArray[np.floating]) -> Floats:
    """float32: each row divided by its length; a row of zeros stays one."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
