"""Latent Memory's HDF5 file: the dataset ``embeddings`` and the table ``metadata``, one row for each segment.

The table has the columns conversation_id, summary and timestamp as UTF-8 texts of any length, and ``record``: all else
of the segment as JSON. The dataset ``history`` has JSON lines of what is no current segment. With ``compat`` the table
has the three columns of the original alone, and as long as there: 10, 200 and 20 bytes. What is longer is cut between
characters, of an id its last ten characters are kept, which are its random ones, and a time is written without a zone.

A file may ask for more than it holds. What could lead out of it (links, external storage, virtual datasets, filters
that are loaded from elsewhere) is refused, sizes are compared with those of the file, and rows are read few at a time.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.archives import jsonl
from memspan.archives.base import Contents, Header, Record, Report, aside
from memspan.archives.rows import KEYS, Matrix, Vector, agree, dim_of, history_of, records, rows_of, there
from memspan.errors import InvalidInput, MissingExtra
from memspan.records import Archived

EMBEDDINGS, METADATA, HISTORY, RECORD = "embeddings", "metadata", "history", "record"
COMPAT = (("conversation_id", "S10"), ("summary", "S200"), ("timestamp", "S20"))
STEP = 256  # rows written or read at once
LARGEST_CHUNK = 16 << 20  # bytes
HELD = 256 << 20  # bytes that texts read at once may have, were each as long as the file
FOLDED = 1100  # how many times smaller than it is deflate makes what is all the same, and a little
FILTERS = (1, 2, 3, 32000)  # deflate, shuffle, fletcher32, lzf: those that come with h5py


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is an HDF5 file."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


# Writing


def write(path: Path, contents: Contents) -> list[Path]:
    """Write a file. Raises MissingExtra."""
    h5py = _h5py()
    with aside(path) as part, h5py.File(part, "w") as file:
        text = h5py.string_dtype()
        waiting: list[str] = []
        history = None if contents.compat else _growing(file, HISTORY, (), text)

        def keep(record: Header | Archived) -> None:
            waiting.append(jsonl.line_of(record).decode().rstrip("\n"))
            if len(waiting) == STEP:
                _extend(history, np.array(waiting, object))
                waiting.clear()

        put_rows(file, dim_of(contents), rows_of(contents, keep), compat=contents.compat)
        if waiting:
            _extend(history, np.array(waiting, object))
    return [path]


def put(path: Path, dim: int, rows: Iterable[tuple[Mapping[str, Any], Vector]]) -> None:
    """Write a file of rows and their vectors float32[dim]. Raises MissingExtra."""
    h5py = _h5py()
    with aside(path) as part, h5py.File(part, "w") as file:
        put_rows(file, dim, iter(rows), compat=False)


def put_rows(file: Any, dim: int, rows: Iterator[tuple[Mapping[str, Any], Vector]], *, compat: bool) -> None:
    """Write both datasets to an open file, some rows at a time."""
    text = _h5py().string_dtype()
    kind = np.dtype(list(COMPAT) if compat else [(name, text) for name in (*KEYS, RECORD)])
    embeddings = _growing(file, EMBEDDINGS, (dim,), np.dtype("<f4"))
    metadata = _growing(file, METADATA, (), kind)
    while some := list(islice(rows, STEP)):
        _extend(embeddings, np.array([vector for _, vector in some], np.float32))
        _extend(metadata, np.array([_cut(row) if compat else _columns(row) for row, _ in some], kind))


def _growing(file: Any, name: str, row: tuple[int, ...], kind: np.dtype[Any]) -> Any:
    return file.create_dataset(name, (0, *row), kind, maxshape=(None, *row), chunks=(STEP, *row))


def _extend(dataset: Any, rows: NDArray[Any]) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows


def _columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    others = {name: value for name, value in row.items() if name not in KEYS}
    return *(str(row[name]) for name in KEYS), json.dumps(others, ensure_ascii=False, allow_nan=False)


def _cut(row: Mapping[str, Any]) -> tuple[bytes, ...]:
    moment = datetime.fromisoformat(row["timestamp"]).astimezone(UTC)
    said = (row["conversation_id"][-10:], row["summary"], moment.strftime("%Y-%m-%d %H:%M:%S"))
    lengths = (int(kind[1:]) for _, kind in COMPAT)
    return tuple(
        text.encode()[:length].decode(errors="ignore").encode() for text, length in zip(said, lengths, strict=True)
    )


# Reading


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput, MissingExtra, NewerStore."""
    with opened(path) as file:
        matrix = matrix_of(path, file)
        count, rows = table_of(path, file)
        agree(matrix, METADATA, count)
        lines = _values(path, _dataset(path, file, HISTORY), None) if HISTORY in file else ()
        history = ((f"{path.name}: {HISTORY}[{at}]", _json(line)) for at, (line,) in enumerate(lines))
        named = ((f"{path.name}[{number}]", row) for number, row in enumerate(rows))
        yield from records(named, matrix, history_of(history, report), report)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, to be read. Raises InvalidInput, MissingExtra."""
    h5py = _h5py()
    with _whole(path):
        file = h5py.File(there(path), "r")
    with file:
        yield file


def matrix_of(path: Path, file: Any) -> Matrix:
    """Its embeddings. Raises InvalidInput."""
    dataset = _dataset(path, file, EMBEDDINGS)
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        raise _refused(path, EMBEDDINGS, f"holds {dataset.dtype}, not plain numbers")

    def part(start: int, stop: int) -> NDArray[Any]:
        with _whole(path):
            found: NDArray[Any] = dataset[start:stop]
        return found

    return Matrix.of(path.name, dataset.shape, part)


def table_of(path: Path, file: Any) -> tuple[int, Iterator[dict[str, Any] | None]]:
    """How many rows of metadata it has, and each of them; None where what we add to one is not JSON. Raises
    InvalidInput."""
    dataset = _dataset(path, file, METADATA)
    missing = [name for name in KEYS if name not in (dataset.dtype.names or ())]
    if missing or dataset.ndim != 1:
        raise _refused(path, METADATA, f"is no table with the columns {', '.join(KEYS)}")
    names = [*KEYS, *([RECORD] if RECORD in dataset.dtype.names else [])]
    return len(dataset), (_row(names, texts) for texts in _values(path, dataset, names))


def _row(names: list[str], texts: tuple[str, ...]) -> dict[str, Any] | None:
    row: dict[str, Any] = dict(zip(names, texts, strict=True))
    if RECORD in row:
        others = _json(row.pop(RECORD))
        return others | row if isinstance(others, dict) else None
    return row


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _values(path: Path, dataset: Any, names: list[str] | None) -> Iterator[tuple[str, ...]]:
    """The texts of each row of a dataset: of these columns, or the row itself."""
    h5py = _h5py()
    kinds = [dataset.dtype] if names is None else [dataset.dtype.fields[name][0] for name in names]
    if dataset.ndim != 1 or any(h5py.check_string_dtype(kind) is None for kind in kinds):
        raise _refused(path, dataset.name, "has something else than texts in it")
    free = [h5py.check_string_dtype(kind).length is None for kind in kinds]
    step = max(1, min(STEP, HELD // path.stat().st_size, LARGEST_CHUNK // dataset.dtype.itemsize))
    columns = dataset if names is None else dataset.fields(names)
    held = path.stat().st_size
    for start in range(0, len(dataset), step):
        with _whole(path):
            some = columns[start : start + step].tolist()
        for row in some:
            texts = (row,) if names is None else row
            held -= sum(len(text) for text, counted in zip(texts, free, strict=True) if counted)
            if held < 0:  # texts of any length are stored as they are, so many rows point to one
                raise _refused(path, dataset.name, "has more text than there is in the file")
            yield tuple(map(_text, texts))


def _text(raw: bytes) -> str:
    """A text of a fixed length may end within a character, of which nothing is kept."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw)


def _dataset(path: Path, file: Any, name: str) -> Any:
    """The dataset of this name, if all of it lies in the file and takes no more memory than that has. Raises
    InvalidInput."""
    h5py = _h5py()
    with _whole(path):
        link = file.get(name, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise _refused(path, name, "is a link to somewhere else")
        dataset = None if link is None else file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise _refused(path, name, "is not there" if link is None else "is no dataset")
        made = dataset.id.get_create_plist()
        if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
            raise _refused(path, name, "has its data in other files")
        for at in range(made.get_nfilters()):
            if (code := made.get_filter(at)[0]) not in FILTERS:
                raise _refused(path, name, f"needs the filter {code}, which could be any program")
        stated = prod(dataset.shape) * dataset.dtype.itemsize
        stored, here = dataset.id.get_storage_size(), path.stat().st_size
        chunk = prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if chunk > LARGEST_CHUNK or dataset.dtype.itemsize > LARGEST_CHUNK:
            raise _refused(path, name, f"is kept in pieces of over {LARGEST_CHUNK >> 20} MiB")
        if stored > here or stated > FOLDED * stored:
            raise _refused(path, name, f"says it has {stated:,} bytes, and {min(stored, here):,} are there")
    return dataset


def _refused(path: Path, name: str, reason: str) -> InvalidInput:
    mend = f"it needs datasets {EMBEDDINGS!r} and {METADATA!r} that lie in the file itself"
    return InvalidInput("path", f"{path.name}: {name.lstrip('/')} {reason}", mend=mend)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What h5py raises on a damaged file, as InvalidInput."""
    try:
        yield
    except InvalidInput:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"{path.name} is no HDF5 file that can be read ({str(error)[:200]})"
        raise InvalidInput("path", problem, mend="it was cut short, or damaged") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("HDF5 files need h5py", mend='pip install "memspan[hdf5]"') from error
    return h5py
