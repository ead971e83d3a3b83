"""The embeddings and metadata of conversations to files, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan import arguments
from memspan.archives import csv, faiss, hdf5, npy, pickle
from memspan.archives.base import aside, elements
from memspan.archives.rows import KEYS, Matrix, Put, agree, there
from memspan.errors import InvalidInput
from memspan.reports import Problem

if TYPE_CHECKING:
    from faiss import IndexFlat

PathLike = str | os.PathLike[str]
Metadata = list[dict[str, Any]]

INDEX, METADATA = "faiss_index.bin", "metadata.json"
_MATRICES: Mapping[str, tuple[Put, Callable[[Path], Matrix]]] = {
    ".csv": (csv.put, csv.matrix_of),
    ".npy": (npy.put, npy.matrix_of),
}
_HDF5, _PICKLES = (".h5", ".hdf5"), (".pkl", ".pickle")


def save_data(
    embeddings: ArrayLike,
    metadata: Iterable[object],
    embeddings_file: PathLike = "embeddings.npy",
    metadata_file: PathLike = METADATA,
) -> None:
    """Write embeddings float32[n, dim] and n rows of metadata, each a dict or (conversation_id, summary, timestamp).

    The suffix of ``embeddings_file`` says how: .csv or .npy, with the metadata as JSON in ``metadata_file``; .h5,
    .hdf5, .pkl or .pickle, with both in one file. Values that are not JSON, such as dates, are written as text. Raises
    InvalidInput, MissingExtra, NotWritable; then nothing was written.
    """
    path = arguments.path(embeddings_file)
    matrix, beside = checked(embeddings), _plain(metadata)
    rows = json.loads(beside)
    if len(matrix) != len(rows):
        problem = f"has {len(rows):,} rows for {len(matrix):,} embeddings"
        raise InvalidInput("metadata", problem, mend="give one for each, in the same order")
    suffix = path.suffix.lower()
    if suffix in _HDF5:
        try:
            hdf5.put(path, matrix.shape[1], zip(rows, matrix, strict=True))
        except ValueError as error:
            problem = f"holds what HDF5 cannot keep ({error})"
            raise InvalidInput("metadata", problem, mend="remove NUL characters and lone surrogates") from error
    elif suffix in _PICKLES:
        pickle.put(path, {"embeddings": matrix, "metadata": rows})
    elif suffix in _MATRICES:
        with aside(path) as part, aside(arguments.path(metadata_file)) as other:
            with part.open("wb") as file:
                _MATRICES[suffix][0](file, matrix.shape[1], matrix)
            other.write_text(beside, encoding="utf-8")
    else:
        raise _unknown(path)


def load_data(
    embeddings_file: PathLike = "embeddings.npy", metadata_file: PathLike = METADATA
) -> tuple[NDArray[np.float32], Metadata]:
    """The embeddings float32[n, dim] and the metadata in files that ``save_data`` or the scripts wrote.

    Raises InvalidInput where they do not hold that, do not agree, or hold a vector that is not finite; MissingExtra.
    """
    path = arguments.path(embeddings_file)
    suffix = path.suffix.lower()
    if suffix in _HDF5:
        with hdf5.opened(path) as file:
            matrix, (_, rows) = hdf5.matrix_of(path, file), hdf5.table_of(path, file)
            return _agreed(matrix, path, list(rows))
    if suffix in _PICKLES:
        held = pickle.opened(path)
        return _agreed(pickle.matrix_of(path, held), path, held.metadata)
    if suffix in _MATRICES:
        return _agreed(_MATRICES[suffix][1](there(path)), *_listed(metadata_file))
    raise _unknown(path)


def load_index(index_file: PathLike = INDEX, metadata_file: PathLike = METADATA) -> tuple[IndexFlat, Metadata]:
    """A flat index of FAISS, and the metadata in ``metadata_file``: JSON, or an HDF5 file or a pickle of both.

    Raises InvalidInput where the index is of another kind, or holds other than it says; MissingExtra.
    """
    path, beside = arguments.path(index_file), arguments.path(metadata_file)
    matrix, suffix = faiss.matrix_of(there(path)), beside.suffix.lower()
    held = load_data(beside)[1] if suffix in _HDF5 + _PICKLES else _listed(beside)[1]
    vectors, metadata = _agreed(matrix, beside, held)
    with path.open("rb") as file:
        by_distance = file.read(4) == b"IxF2"
    return index_of(vectors, by_distance=by_distance), metadata


def index_of(vectors: NDArray[np.float32], *, by_distance: bool = False) -> IndexFlat:
    """A flat index over vectors float32[n, dim], by inner product or by distance (L2)."""
    from faiss import IndexFlatIP, IndexFlatL2

    index = (IndexFlatL2 if by_distance else IndexFlatIP)(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def checked(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Embeddings as float32[n, dim]. Raises InvalidInput naming them where they are none, or not finite."""
    try:
        with np.errstate(over="ignore"):
            matrix = np.ascontiguousarray(embeddings, np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidInput("embeddings", f"are no numbers ({error})", mend="give an array float32[n, dim]") from error
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise InvalidInput("embeddings", f"have the shape {matrix.shape}", mend="give an array float32[n, dim]")
    if not np.isfinite(matrix).all():
        raise InvalidInput("embeddings", "hold NaN or infinite numbers", mend="leave such conversations out")
    return matrix


def _agreed(matrix: Matrix, path: Path, rows: Sequence[object]) -> tuple[NDArray[np.float32], Metadata]:
    agree(matrix, path.name, len(rows))
    vectors = np.empty((matrix.count, matrix.dim), np.float32)
    for at, vector in enumerate(_all(matrix)):
        vectors[at] = vector
    return vectors, [_row(row, f"{path.name}[{at}]") for at, row in enumerate(rows)]


def _all(matrix: Matrix) -> Iterator[NDArray[np.float32]]:
    """Every vector. Raises InvalidInput for the first that is none."""
    told: list[Problem] = []
    for vector in matrix.vectors(told.append):
        if vector is None:
            mend = "make it again, or import it with memspan, which encodes such texts again"
            raise InvalidInput("path", f"{told[0].where}: {told[0].problem}", mend=mend)
        yield vector


def _listed(metadata_file: PathLike) -> tuple[Path, list[Any]]:
    path = there(arguments.path(metadata_file))
    with path.open("rb") as file:
        return path, [value for _, value in elements(file, path.name)]


def _plain(metadata: Iterable[object]) -> str:
    """Rows as JSON, in ASCII: the scripts read it in whatever encoding the system has."""
    rows = [_row(row, f"metadata[{at}]") for at, row in enumerate(metadata)]
    try:
        return json.dumps(rows, indent=2, default=str, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        mend = "use texts, finite numbers, lists and dicts"
        raise InvalidInput("metadata", f"holds what is no JSON ({error})", mend=mend) from error


def _row(row: object, argument: str) -> dict[str, Any]:
    """A row of metadata as a dict that has the three keys. Raises InvalidInput."""
    if isinstance(row, np.void):  # of a structured array, as the scripts read HDF5
        row = tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in row.tolist())
    if isinstance(row, tuple) and len(row) == len(KEYS):
        row = dict(zip(KEYS, row, strict=True))
    if not isinstance(row, Mapping):
        mend = f"give a dict with {', '.join(KEYS)}"
        raise InvalidInput(argument, f"is a {type(row).__name__}", mend=mend)
    missing = [name for name in KEYS if name not in row]
    if missing:
        raise InvalidInput(argument, f"has no {missing[0]}", mend=f"each row has {', '.join(KEYS)}")
    return dict(row)


def _unknown(path: Path) -> InvalidInput:
    suffixes = ", ".join([*_MATRICES, *_HDF5, *_PICKLES])
    return InvalidInput(
        "embeddings_file", f"the name {path.name!r} says no format", mend=f"end it in one of {suffixes}"
    )
