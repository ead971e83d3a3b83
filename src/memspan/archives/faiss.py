"""Latent Memory's folder of ``faiss_index.bin`` and ``metadata.json``: a flat index of FAISS, by inner product.

A flat index is a header and a matrix (``write_index_header`` and ``write_index`` in faiss/impl/index_write.cpp). Both
are written and read here, so that an export holds a vector at a time, and no file of a stranger's reaches FAISS, which
trusts what it reads. Other kinds of indexes are refused: they hold codes or links, not vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from memspan.archives.base import Contents, Record, Report
from memspan.archives.rows import Matrix, Vector, is_folder, read_folder, write_folder
from memspan.errors import InvalidInput
from memspan.segmenting import shown

NAME = "faiss_index.bin"
_HEADER = struct.Struct("<4siqqq?iQ")  # kind, dim, vectors, twice unused, trained, metric, floats
_UNUSED = 1 << 20
_FLAT = (b"IxFI", b"IxF2", b"IxFl")  # by inner product, by L2, and as it was called before


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is faiss_index.bin with metadata.json beside it, or a folder with both."""
    return is_folder(path, NAME)


def write(path: Path, contents: Contents) -> list[Path]:
    """Write a folder."""
    return write_folder(path, contents, NAME, put)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a folder. Raises InvalidInput, NewerStore."""
    return read_folder(path, NAME, matrix_of, report)


def put(file: IO[bytes], dim: int, vectors: Iterable[Vector]) -> None:
    """Write vectors float32[dim] as an index by inner product."""
    count = 0
    file.write(bytes(_HEADER.size))
    for count, vector in enumerate(vectors, 1):  # noqa: B007 - how many there were
        file.write(vector.astype("<f4").tobytes())
    file.seek(0)
    file.write(_HEADER.pack(b"IxFI", dim, count, _UNUSED, _UNUSED, True, 0, count * dim))


def matrix_of(path: Path) -> Matrix:
    """The vectors of a flat index, mapped. Raises InvalidInput where it is none, or the file has another size."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if head[:4] not in _FLAT:
        problem = f"{path.name} is no flat index of FAISS but begins with {shown(head[:4])}"
        raise InvalidInput("path", problem, mend="only an IndexFlatIP or IndexFlatL2 holds its vectors")
    if len(head) < _HEADER.size:
        raise InvalidInput("path", f"{path.name} ends within its header", mend="it was cut short; make it again")
    _, dim, count, _, _, _, _, floats = _HEADER.unpack(head)
    numbers = np.zeros((0, 0), "<f4")
    matrix = Matrix.of(path.name, (count, dim), lambda a, b: numbers[a:b])
    here = path.stat().st_size - _HEADER.size
    if not count * dim == floats == here / 4:
        problem = f"{path.name} says {count:,} vectors of {dim:,} numbers and {floats:,} in all, and has {here:,} bytes"
        raise InvalidInput("path", problem, mend="it was cut short, or damaged; make it again")
    if count:
        numbers = np.memmap(path, "<f4", "r", _HEADER.size, (count, dim))
    return matrix
