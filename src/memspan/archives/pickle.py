"""Latent Memory's pickle: {"embeddings": array, "metadata": list}, and "history", a list, with everything else.

A pickle is a program. Those of strangers are read safely here (see ``memspan.archives.unpickling``), but by no other
reader, so hand one on only to who has reason to trust you. It is held in memory as a whole, both ways.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.archives import jsonl
from memspan.archives.base import Contents, Header, Record, Report, aside
from memspan.archives.rows import Matrix, agree, dim_of, history_of, records, rows_of, there
from memspan.archives.unpickling import Numbers, refusing, unpickled
from memspan.errors import InvalidInput
from memspan.records import Archived

PROTOCOL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """What a file holds: ``metadata`` and ``history`` as they are there, not yet looked at."""

    embeddings: NDArray[Any]
    metadata: Sequence[object]
    history: Sequence[object]


def recognises(path: Path, head: bytes) -> bool:
    named = path.suffix.lower() in (".pkl", ".pickle") and path.is_file()
    return named or (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"))


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
    data = unpickled(there(path))
    embeddings = data.get("embeddings") if isinstance(data, dict) else None
    if not isinstance(embeddings, Numbers) or not isinstance(data.get("metadata"), list):
        problem = f'{path.name} is no {{"embeddings": array, "metadata": list}}'
        raise InvalidInput("path", problem, mend="name another file, or another --format")
    history = data.get("history", [])
    with refusing(path):
        array = embeddings.array()
    return Pickled(embeddings=array, metadata=data["metadata"], history=history if isinstance(history, list) else [])


def matrix_of(path: Path, held: Pickled) -> Matrix:
    return Matrix.of(path.name, held.embeddings.shape, lambda a, b: held.embeddings[a:b])
