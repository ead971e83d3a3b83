"""Latent Memory's folder of ``embeddings.npy`` and ``metadata.json``.

The header of the array (NumPy's NEP 1) is read here: it may name plain numbers only, and what it says is compared with
the size of the file before anything is done with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memspan.archives.base import Contents, Record, Report
from memspan.archives.rows import Matrix, Vector, is_folder, read_folder, write_folder
from memspan.errors import InvalidInput
from memspan.segmenting import shown

NAME = "embeddings.npy"
HEADER = 128  # bytes of ours
LONGEST_HEADER = 4096
_MAGIC = b"\x93NUMPY"
_NUMBERS = re.compile(r"[<>|=]?[fiu][1248]")


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is embeddings.npy with metadata.json beside it, or a folder with both."""
    return is_folder(path, NAME)


def write(path: Path, contents: Contents) -> list[Path]:
    """Write a folder."""
    return write_folder(path, contents, NAME, put)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a folder. Raises InvalidInput, NewerStore."""
    return read_folder(path, NAME, matrix_of, report)


def put(file: IO[bytes], dim: int, vectors: Iterable[Vector]) -> None:
    """Write vectors float32[dim]."""
    file.write(_header(0, dim))
    count = 0
    for count, vector in enumerate(vectors, 1):  # noqa: B007 - how many there were
        file.write(vector.astype("<f4").tobytes())
    file.seek(0)
    file.write(_header(count, dim))


def _header(count: int, dim: int) -> bytes:
    start = _MAGIC + b"\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    said = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {dim}), }}"
    return start + said.encode().ljust(HEADER - 11) + b"\n"


def matrix_of(path: Path) -> Matrix:
    """The matrix in a file, mapped. Raises InvalidInput where it is none, or the file has another size."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    wide = head[6:7] != b"\x01"
    start = 12 if wide else 10
    length = int.from_bytes(head[8:start], "little")
    said = head[start : start + length]
    if not head.startswith(_MAGIC) or len(said) < length:
        raise _none(path, "it has no header of an array")
    try:
        about = ast.literal_eval(said.decode("latin-1").strip())
        kind, across, shape = about["descr"], about["fortran_order"], about["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise _none(path, "its header is damaged") from error
    if not isinstance(kind, str) or not _NUMBERS.fullmatch(kind) or kind.endswith("f1"):
        raise _none(path, f"it holds {shown(kind)}, not plain numbers")
    if not isinstance(shape, tuple) or not all(type(each) is int and each >= 0 for each in shape):
        raise _none(path, f"it has the shape {shown(shape)}")
    numbers: NDArray[Any] = np.zeros((0, 0), kind)
    matrix = Matrix.of(path.name, shape, lambda a, b: numbers[a:b])
    stated, here = matrix.count * matrix.dim * numbers.itemsize, path.stat().st_size - start - length
    if stated != here:
        raise _none(path, f"its header says {stated:,} bytes, and it has {here:,}")
    if matrix.count:
        numbers = np.memmap(path, kind, "r", start + length, shape, "F" if across else "C")
    return matrix


def _none(path: Path, reason: str) -> InvalidInput:
    return InvalidInput("path", f"{path.name} is no matrix: {reason}", mend="make it again with numpy.save")
