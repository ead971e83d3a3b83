"""A memory as Latent Memory keeps it: a matrix with a row for each segment, and as many rows of metadata beside it.

    {"conversation_id": id, "summary": text, "timestamp": when it happened, everything else that JSON lines have of it}

The matrix is float32[segments, dim]: each row the pooled vector, of length 1 as exactly as float16 holds it, or zeros
where a segment has none yet. What is no current segment (older versions, documents, links, judgements, use,
tombstones) is the history, in the form of JSON lines with their header first. With it nothing is lost; with ``compat``
it is left out, and the metadata has the three keys alone, as in the scripts of ronniross/latent-memory.

In a folder the metadata are ``metadata.json`` and the history is ``history.jsonl``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.archives import jsonl
from memspan.archives.base import Contents, Header, Item, Record, Report, aside, attempt, elements
from memspan.errors import InvalidInput
from memspan.records import Archived, Filing, Version
from memspan.reports import Problem
from memspan.segmenting import parse_time, shown

KEYS = ("conversation_id", "summary", "timestamp")
METADATA, HISTORY = "metadata.json", "history.jsonl"
MOST_DIMENSIONS = 1 << 16
BLOCK = 4 << 20  # bytes of vectors held at once
UNEVEN = 0.01  # how far from 1 the length of a vector of ours may be

Row = Mapping[str, Any]
Vector = NDArray[np.float32]
Put = Callable[[IO[bytes], int, Iterable[Vector]], None]
"""Writes vectors, each float32[dim], to an open file."""


# Writing


def rows_of(contents: Contents, keep: Callable[[Header | Archived], None]) -> Iterator[tuple[dict[str, Any], Vector]]:
    """Each current segment as its metadata and its vector; everything else, the header first, is given to ``keep``."""
    dim = dim_of(contents)
    if not contents.compat:
        keep(contents.header)
    for record in contents.records():
        if isinstance(record, Version) and record.segment.ended_at is None:
            pooled = np.zeros(dim, np.float16) if record.pooled is None else record.pooled
            yield _row(record, contents.compat), pooled.astype(np.float32)
        elif not contents.compat:
            keep(record)


def dim_of(contents: Contents) -> int:
    """The dimensions of its vectors, 0 where it has none."""
    return 0 if contents.header.vectors is None else contents.header.vectors.dim


def _row(version: Version, compat: bool) -> dict[str, Any]:
    segment = version.segment
    said = (segment.id, segment.text, segment.time.isoformat())
    row = dict(zip(KEYS, said, strict=True))
    if not compat:
        plain = jsonl.segment_plain(version)
        row |= {name: value for name, value in plain.items() if name not in ("id", "text")}
    return row


def write_folder(path: Path, contents: Contents, name: str, put: Put) -> list[Path]:
    """Write the matrix as the file ``name``, the metadata and the history into the folder ``path``, in one pass."""
    names = [name, METADATA, *([] if contents.compat else [HISTORY])]
    with aside(path) as part:
        part.mkdir()
        with ExitStack() as files:
            matrix, metadata, *history = (files.enter_context((part / each).open("wb")) for each in names)
            put(matrix, dim_of(contents), _beside(contents, metadata, *history))
    left = path / HISTORY
    if contents.compat and left.is_file():  # of another export: it would be taken for what is no longer in these rows
        with left.open("rb") as file:
            ours = jsonl.recognises(left, file.read(64))
        if ours:
            left.unlink()
    return [path / each for each in names]


def _beside(contents: Contents, metadata: IO[bytes], *history: IO[bytes]) -> Iterator[Vector]:
    """The vectors, whose metadata and whatever stands between them are written as they are taken."""

    def keep(record: Header | Archived) -> None:
        for file in history:
            file.write(jsonl.line_of(record))

    separator = b"[\n"
    for row, vector in rows_of(contents, keep):
        metadata.write(separator + json.dumps(row, allow_nan=False).encode())
        separator = b",\n"
        yield vector
    metadata.write(b"\n]\n" if separator == b",\n" else b"[]\n")


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """``count`` vectors of ``dim`` numbers in the file ``name``. ``vectors(report)`` gives each as float32[dim], or
    None where it is none, which is reported."""

    name: str
    count: int
    dim: int
    vectors: Callable[[Report], Iterator[Vector | None]]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], part: Callable[[int, int], NDArray[Any]]) -> Matrix:
        """Of numbers that lie in order: ``part(a, b)`` gives rows ``a`` to ``b``. Raises InvalidInput for a shape that
        is none of a matrix."""
        if len(shape) != 2 or not 0 < shape[1] <= MOST_DIMENSIONS or shape[0] < 0:
            problem = f"{name} has the shape {shown(shape)}"
            mend = f"it must be a matrix: rows of 1 to {MOST_DIMENSIONS:,} numbers"
            raise InvalidInput("path", problem, mend=mend)
        count, dim = shape
        step = max(1, BLOCK // (8 * dim))

        def vectors(report: Report) -> Iterator[Vector | None]:
            for start in range(0, count, step):
                with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
                    block = np.array(part(start, min(start + step, count)), np.float32)
                wrong = set(np.nonzero(~np.isfinite(block))[0].tolist())
                for at, row in enumerate(block):
                    if at in wrong:
                        report(unusable(f"{name}[{start + at}]"))
                    yield None if at in wrong else row

        return cls(name=name, count=count, dim=dim, vectors=vectors)


def unusable(where: str) -> Problem:
    """That a vector is none."""
    return Problem(where=where, problem="the vector holds NaN or infinite numbers, and was not used")


def is_folder(path: Path, name: str) -> bool:
    """Whether ``path`` is a folder with the file ``name`` and metadata, or that file."""
    folder = path.parent if path.name == name else path
    return (folder / name).is_file() and (folder / METADATA).is_file()


def read_folder(path: Path, name: str, matrix_of: Callable[[Path], Matrix], report: Report) -> Iterator[Record]:
    """The records of a folder, or of the one in which the file ``path`` lies. Raises InvalidInput, NewerStore."""
    folder = path if path.is_dir() else path.parent
    matrix = matrix_of(there(path / name if path.is_dir() else path))
    with ExitStack() as files:
        counting, metadata = (files.enter_context(there(folder / METADATA).open("rb")) for _ in range(2))
        agree(matrix, METADATA, sum(1 for _ in elements(counting, METADATA)))
        history: Iterator[Record] = iter(())
        if (folder / HISTORY).is_file():
            lines = files.enter_context((folder / HISTORY).open("rb"))
            history = jsonl.read_lines(lines, HISTORY, report)
        rows = ((f"{METADATA}[{number}]", value) for number, value in elements(metadata, METADATA))
        yield from records(rows, matrix, history, report)


def there(path: Path) -> Path:
    """The path of a file. Raises InvalidInput where there is none: what is no file may never end."""
    if not path.is_file():
        raise InvalidInput(
            "path", f"there is no file {path}", mend="name the folder that holds it, or another --format"
        )
    return path


def agree(matrix: Matrix, name: str, count: int) -> None:
    """Raises InvalidInput where there are not as many vectors as rows of metadata."""
    if matrix.count != count:
        problem = f"{matrix.name} has {matrix.count:,} vectors and {name} {count:,} rows"
        raise InvalidInput("path", problem, mend="they are not of one export; make it again")


def records(
    rows: Iterable[tuple[str, object]], matrix: Matrix | None, history: Iterator[Record], report: Report
) -> Iterator[Record]:
    """What rows of metadata, each with where it stands, the vectors and the history are: records, documents before
    their segments, what refers to these last."""
    header = next(history, Header(namespace="default"))
    about = header.vectors if isinstance(header, Header) else None
    if about is not None and matrix is not None and about.dim != matrix.dim:
        problem = f"{matrix.name} has vectors of {matrix.dim:,} numbers, and its history says {about.dim:,}"
        raise InvalidInput("path", problem, mend="they are not of one export; make it again")
    yield header
    later: list[Record] = []
    for record in history:
        if not isinstance(record, (Filing, Version)):
            later.append(record)
            break
        yield record
    seen: Counter[str] = Counter()
    vectors = repeat(None) if matrix is None else matrix.vectors(report)
    for (where, row), vector in zip(rows, vectors, strict=False):
        with attempt(report, where):
            if not isinstance(row, Mapping):
                raise InvalidInput("row", f"is a {type(row).__name__}, not an object")
            if row.get("type") == "segment" and "recorded_at" in row:
                version = jsonl.version_of({**row, "id": row.get("conversation_id"), "text": row.get("summary")})
                yield version if about is None else replace(version, pooled=_pooled(vector, where, report))
            else:
                yield _item(row, seen)
    yield from later
    yield from history


def _pooled(vector: Vector | None, where: str, report: Report) -> NDArray[np.float16] | None:
    if vector is None or not vector.any():
        return None
    length = float(np.linalg.norm(vector.astype(np.float64)))  # of which no square overflows
    if abs(length - 1) > UNEVEN:
        report(Problem(where=where, problem=f"its vector has the length {length:.3g} instead of 1, and was not used"))
        return None
    return vector.astype(np.float16)


def _item(row: Row, seen: Counter[str]) -> Item:
    """A conversation that somebody else summed up."""
    given, timestamp = row.get("conversation_id"), row.get("timestamp")
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise InvalidInput("conversation_id", f"{shown(given)} is no id")
    session = arguments.name("conversation_id", str(given)) or ""
    seen[session] += 1
    occurred_at = _moment(timestamp)
    others = {name: value for name, value in row.items() if name not in KEYS}
    if timestamp is not None and occurred_at is None:
        others["timestamp"] = timestamp
    return Item(
        key=session if seen[session] == 1 else f"{session}#{seen[session]}",
        text=row.get("summary"),  # type: ignore[arg-type]  # looked at when it is taken over, as all of an item
        session=session,
        occurred_at=occurred_at,
        metadata=others,
    )


def _moment(timestamp: object) -> datetime | None:
    """The time that a timestamp says, None where it says none, as "March 28th, 11am" does not."""
    with suppress(InvalidInput):
        return parse_time(timestamp, "timestamp")
    with suppress(ValueError, TypeError):  # as the scripts write it, which do not pad the day: 2025-04-1 10:00:00
        return datetime.strptime(timestamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)  # type: ignore[arg-type]
    return None


def history_of(values: Iterable[tuple[str, object]], report: Report) -> Iterator[Record]:
    """The records in the JSON values of a history, each with where it stands. Raises InvalidInput, NewerStore."""
    headed = False
    for where, value in values:
        if not headed:
            yield jsonl.header_of(value if isinstance(value, Mapping) else {}, where)
            headed = True
            continue
        with attempt(report, where):
            if not isinstance(value, Mapping):
                raise InvalidInput("record", f"is a {type(value).__name__}, not an object")
            yield jsonl.record_of(value)
