"""Latent Memory's pickle: {"embeddings": array, "metadata": list}, and "history", a list, with everything else.

A pickle is a program. Those of strangers are read safely here (see ``memspan.archives.unpickling``), of all that a
pickle can name only how NumPy 1 and 2 make arrays of plain numbers; but other readers run them, so hand one on only to
who has reason to trust you. It is held in memory as a whole, both ways.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.archives import jsonl
from memspan.archives.base import Contents, Header, Record, Report, aside
from memspan.archives.rows import Matrix, agree, dim_of, history_of, records, rows_of, there
from memspan.archives.unpickling import Names, Refused, Stand, refusal, unpickled
from memspan.errors import InvalidInput
from memspan.records import Archived
from memspan.segmenting import shown

PROTOCOL = 4
_KINDS: Final = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """What a file holds: ``metadata`` and ``history`` as they are there, not yet looked at."""

    embeddings: NDArray[Any]
    metadata: Sequence[object]
    history: Sequence[object]


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is named as a pickle, or begins as one of protocol 2 to 5 does."""
    named = path.suffix.lower() in (".pkl", ".pickle") and path.is_file()
    return named or head.startswith((b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"))


def write(path: Path, contents: Contents) -> list[Path]:
    """Write a file."""
    history: list[dict[str, Any]] = []

    def keep(record: Header | Archived) -> None:
        history.append(jsonl.plain(record))

    rows, vectors = [], []
    for row, vector in rows_of(contents, keep):
        rows.append(row)
        vectors.append(vector)
    data = {"embeddings": np.array(vectors, np.float32).reshape(-1, dim_of(contents)), "metadata": rows}
    put(path, data if contents.compat else {**data, "history": history})
    return [path]


def put(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file of this."""
    with aside(path) as part, part.open("wb") as file:
        pickle.dump(data, file, PROTOCOL)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput, which names what was refused, and NewerStore."""
    held = opened(path)
    matrix = matrix_of(path, held)
    agree(matrix, "metadata", len(held.metadata))
    rows = ((f"{path.name}[{number}]", row) for number, row in enumerate(held.metadata))
    history = ((f"{path.name}: history[{number}]", value) for number, value in enumerate(held.history))
    yield from records(rows, matrix, history_of(history, report), report)


def opened(path: Path) -> Pickled:
    """What a file holds. Raises InvalidInput."""
    if not there(path).stat().st_size:
        raise InvalidInput("path", f"{path.name} is empty", mend="name another file")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            data = unpickled(raw, NAMES)
        embeddings = data.get("embeddings") if isinstance(data, dict) else None
        if not isinstance(embeddings, Numbers) or not isinstance(data.get("metadata"), list):
            problem = f'{path.name} is no {{"embeddings": array, "metadata": list}}'
            raise InvalidInput("path", problem, mend="name another file, or another --format")
        matrix = embeddings.array()
    except Refused as error:
        mend = "make it again with plain containers and NumPy arrays of plain numbers alone"
        raise InvalidInput("path", f"{path.name} {error}", mend=mend) from error
    history = data.get("history", [])
    return Pickled(
        embeddings=matrix,
        metadata=data["metadata"],
        history=history if isinstance(history, list) else [],
    )


def matrix_of(path: Path, held: Pickled) -> Matrix:
    """Its embeddings. Raises InvalidInput."""
    return Matrix.of(path.name, held.embeddings.shape, lambda a, b: held.embeddings[a:b])


class Kind(Stand):
    """A kind of plain numbers; its byte order comes after it. Raises Refused."""

    def __init__(self, name: object = None, *_: object) -> None:
        if not isinstance(name, str) or name not in _KINDS:
            raise refusal(f"numpy.dtype({shown(name)})")
        self.name, self.order = name, "<"

    def take(self, state: Any) -> None:
        order, *fields = state[1:5]
        if order not in ("<", ">", "|", "=") or any(each is not None for each in fields):
            raise refusal("a numpy.dtype of several fields")
        self.order = order


class Numbers(Stand):
    """An array, its shape, kind and bytes as they are told, here or by its state. Nothing is made of it before
    ``array``."""

    def __init__(self, raw: object = None, kind: object = None, shape: object = None, across: object = False) -> None:
        self.raw, self.kind, self.shape, self.across = raw, kind, shape, across

    def take(self, state: Any) -> None:
        _, self.shape, self.kind, self.across, self.raw = state

    def array(self) -> NDArray[Any]:
        """The array, when its shape and kind agree with its bytes. Raises Refused."""
        if not isinstance(self.kind, Kind):
            raise refusal(f"an array of {type(self.kind).__name__}")
        kind = np.dtype(self.kind.order + self.kind.name)
        shape, raw = self.shape, self.raw
        if not isinstance(shape, tuple) or not all(type(each) is int and each >= 0 for each in shape):
            raise refusal(f"an array of the shape {shown(shape)}")
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != prod(shape) * kind.itemsize:
            held = len(raw) if isinstance(raw, (bytes, bytearray)) else 0
            raise refusal(f"an array of the shape {shown(shape)} of {kind} in {held:,} bytes")
        try:
            return np.frombuffer(raw, kind).reshape(shape, order="F" if self.across in (True, "F") else "C")
        except (ValueError, OverflowError) as error:  # of no numbers in any number of columns
            raise refusal(f"an array of the shape {shown(shape)}") from error


def _without_state(*_: object) -> Numbers:
    return Numbers()


def _ndarray(*_: object) -> None:
    """What arrays are made of is only ever handed on."""
    raise refusal("an array that numpy.ndarray makes")


def _encoded(text: object = None, encoding: object = None) -> bytes:
    """How the protocols before 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise refusal("_codecs.encode of something else than bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


NAMES: Final[Names] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _without_state for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Numbers for core in ("core", "_core")},
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
"""How NumPy 1 and 2 make an array, from its shape or from its buffer, and a kind of numbers; the bytes of a text."""
