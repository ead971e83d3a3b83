"""Latent Memory's folder of ``embeddings.csv`` and ``metadata.json``.

The table has the numbers of its columns in its first line, as pandas writes it, and nine digits of each value, which is
every bit of a float32. Texts stand in the JSON alone: no spreadsheet takes one for a formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from memspan.archives.base import Contents, Record, Report
from memspan.archives.rows import MOST_DIMENSIONS, Matrix, Vector, is_folder, read_folder, unusable, write_folder
from memspan.errors import InvalidInput
from memspan.reports import Problem

NAME = "embeddings.csv"
LONGEST_LINE = 64 * MOST_DIMENSIONS  # bytes


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is embeddings.csv with metadata.json beside it, or a folder with both."""
    return is_folder(path, NAME)


def write(path: Path, contents: Contents) -> list[Path]:
    """Write a folder."""
    return write_folder(path, contents, NAME, put)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a folder. Raises InvalidInput, NewerStore."""
    return read_folder(path, NAME, matrix_of, report)


def put(file: IO[bytes], dim: int, vectors: Iterable[Vector]) -> None:
    """Write vectors float32[dim]."""
    file.write(",".join(map(str, range(dim))).encode() + b"\n")
    line = ",".join(["%.9g"] * dim) + "\n"
    for vector in vectors:
        file.write((line % tuple(vector.tolist())).encode())


def matrix_of(path: Path) -> Matrix:
    """The matrix in a file. Raises InvalidInput where its first line is not 0, 1, 2, ..."""
    with path.open("rb") as file:
        lines = _lines(file, path.name)
        columns = next(lines, (1, b""))[1].removeprefix(b"\xef\xbb\xbf").strip().split(b",")
        dim = len(columns)
        if dim > MOST_DIMENSIONS or columns != [b"%d" % at for at in range(dim)]:
            mend = f"it must name up to {MOST_DIMENSIONS:,} columns 0,1,2,... as pandas does"
            raise InvalidInput("path", f"the first line of {path.name} is not that of embeddings", mend=mend)
        count = sum(1 for _ in lines)

    def vectors(report: Report) -> Iterator[Vector | None]:
        with path.open("rb") as file:
            lines = _lines(file, path.name)
            next(lines)
            for number, line in lines:
                yield _vector(line, dim, f"{path.name}:{number}", report)

    return Matrix(name=path.name, count=count, dim=dim, vectors=vectors)


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers from 1."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InvalidInput("path", f"{name}:{number} is too long for a vector", mend="it was damaged")
        if line.strip():
            yield number, line


def _vector(line: bytes, dim: int, where: str, report: Report) -> Vector | None:
    cells = line.split(b",")
    if len(cells) != dim:
        report(Problem(where=where, problem=f"has {len(cells):,} numbers instead of {dim:,}: it was not used"))
        return None
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(cell) for cell in cells], np.float64).astype(np.float32)
    except ValueError:
        report(Problem(where=where, problem="holds something that is no number: the vector was not used"))
        return None
    if not np.isfinite(vector).all():
        report(unusable(where))
        return None
    return vector
