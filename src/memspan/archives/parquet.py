"""Parquet: everything as one table, for analysis; needs ``memspan[parquet]``.

A row for each version of a segment, its fields as columns, and a row for everything else, as the line that the format
jsonl writes in the column ``record``; ``kind`` tells them apart. Any tool that reads Parquet can ask it:

    duckdb.sql("SELECT text, category FROM 'memory.parquet' WHERE kind = 'segment' AND ended_at IS NULL")
    pandas.read_parquet("memory.parquet", filters=[("type", "==", "segment")])
    polars.scan_parquet("memory.parquet").filter(pl.col("type") == "segment")

``vector`` is a list of ``dim`` floats, null where there is none; ``np.stack(frame["vector"].dropna())`` is the matrix.
A file is read back here only as it was written: a tool that writes it again leaves out what it says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memspan.archives import jsonl
from memspan.archives.base import LONGEST_ITEM, Contents, Header, Record, Report, aside, attempt, refused
from memspan.errors import MissingExtra
from memspan.ledger.base import instant
from memspan.records import Archived, Version

KEY = b"memspan"  # in the metadata of the schema: the header, as the format jsonl writes it
MARK = b"\x18\x07" + KEY  # how that key lies in the end of a file

SEGMENT, VECTOR = "segment", "vector"
TIMES = ("occurred_at", "recorded_at", "heard_at", "ended_at", "valid_from", "valid_to", "expires_at")
COUNTS = ("version", "position", "repeats", "tokens")
LISTS = ("heading", "category")
COLUMNS = ("type", *jsonl.SEGMENT, "identity", "record")

GROUP_ROWS = 8_192  # rows in a group at most,
GROUP_SIZE = 32 << 20  # and about so many characters and bytes of vectors
BATCH_ROWS = 512  # read at once
MOST_GROUP_ROWS = 1 << 20
LARGEST_GROUP = 2 * LONGEST_ITEM
MOST_ROWS = 1 << 20  # that a file may have whatever its size; beyond, it has a byte for each
SMALL = 64 << 20  # characters that it may hold whatever its size,
SWOLLEN = 200  # and how many times its bytes beyond
TAIL = 1 << 16


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a Parquet file that says it is of memspan; the end of it is looked at."""
    if not head.startswith(b"PAR1"):
        return False
    try:
        with path.open("rb") as file:
            file.seek(-min(TAIL, path.stat().st_size), 2)
            return MARK in file.read(TAIL)
    except OSError:
        return False


def write(path: Path, contents: Contents) -> list[Path]:
    """Write the file. Raises MissingExtra, StoreError."""
    with aside(path) as part:
        said = _written(part, contents, compression="zstd")
        if said > _most(part):  # not packed, then, or no reader would take it for what it is
            _written(part, contents, compression="none", use_dictionary=False)
    return [path]


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput where it is none that memspan wrote, NewerStore, MissingExtra."""
    pa, parquet = _pyarrow()
    try:
        about = parquet.read_metadata(path)
        yield _checked(path, about)
        leaves = [about.schema.column(at) for at in range(about.num_columns)]
        # a text that is there once, and stands in any number of rows, is once in memory
        words = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        reading = {"read_dictionary": words, "pre_buffer": False, "page_checksum_verification": True}
        with parquet.ParquetFile(path, metadata=about, **reading) as file:
            yield from _records(path, file, report)
    except (pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:  # of a damaged file, any of them
        raise refused(path, f"cannot be read: {error}") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet files need pyarrow", mend='pip install "memspan[parquet]"') from error
    return pyarrow, parquet


def _schema(header: Header) -> Any:
    """The columns in their order, with the header in their metadata."""
    pa, _ = _pyarrow()
    types = {
        **dict.fromkeys(COLUMNS, pa.string()),
        **dict.fromkeys(COUNTS, pa.int64()),
        **dict.fromkeys(LISTS, pa.list_(pa.string())),
        **dict.fromkeys(TIMES, pa.timestamp("us", "UTC")),
        "importance": pa.float64(),
    }
    if header.vectors is not None:
        types[VECTOR] = pa.list_(pa.float32(), header.vectors.dim)
    return pa.schema(list(types.items()), metadata={KEY: jsonl.line_of(header).strip()})


def _most(path: Path) -> int:
    """How many characters a file of this size may hold."""
    return max(SMALL, SWOLLEN * path.stat().st_size)


def _said(row: Mapping[str, Any]) -> int:
    """The characters in a row."""
    lists = sum(len(each) for name in LISTS for each in row.get(name) or () if each is not None)
    return lists + sum(len(each) for each in row.values() if isinstance(each, str))


# Writing


def _written(part: Path, contents: Contents, **packing: Any) -> int:
    """Write all records; how many characters they hold."""
    _, parquet = _pyarrow()
    schema, said, held = _schema(contents.header), 0, 0
    width = 0 if contents.header.vectors is None else 4 * contents.header.vectors.dim
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(part, schema, write_page_checksum=True, **packing) as writer:
        for record in contents.records():
            row = _row(record)
            size = _said(row) + width
            if waiting and (len(waiting) == GROUP_ROWS or held + size > GROUP_SIZE):
                writer.write_table(_table(waiting, schema))
                waiting, held = [], 0
            waiting.append(row)
            held += size
            said += size - width
        writer.write_table(_table(waiting, schema))
    return said


def _row(record: Archived) -> dict[str, Any]:
    if not isinstance(record, Version):
        return {"type": jsonl.plain(record)["type"], "record": jsonl.line_of(record).decode().strip()}
    segment = record.segment
    values = {name: getattr(segment, name) for name in jsonl.SEGMENT}
    told = json.dumps(dict(segment.metadata), ensure_ascii=False) if segment.metadata else None
    identity = record.identity.hex() or None
    return {"type": SEGMENT, **values, "metadata": told, "identity": identity, VECTOR: record.pooled}


def _table(rows: Sequence[Mapping[str, Any]], schema: Any) -> Any:
    pa, _ = _pyarrow()
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.name == VECTOR:
            missing = np.array([value is None for value in values], bool)
            matrix = np.zeros((len(rows), field.type.list_size), np.float32)
            for at in np.flatnonzero(~missing):
                matrix[at] = values[at]
            columns.append(pa.FixedSizeListArray.from_arrays(matrix.ravel(), type=field.type, mask=pa.array(missing)))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


# Reading


def _checked(path: Path, about: Any) -> Header:
    """What the file says of itself, where it has all columns, and no more in them than such a file can."""
    pa, _ = _pyarrow()
    schema = about.schema.to_arrow_schema()
    told = (schema.metadata or {}).get(KEY)
    if told is None:
        raise refused(path, "is not a Parquet file that memspan wrote")
    header = jsonl.header_of(jsonl.decoded(told), path.name)
    for field in _schema(header):
        held = schema.field(field.name).type if schema.names.count(field.name) == 1 else None
        if field.name == VECTOR and held is not None and _is_list(held) and held.value_type == pa.float32():
            continue  # where it has another length in a row, it is the row that is wrong
        if held != field.type:
            raise refused(path, f"has {held or 'nothing'} as its column {field.name} instead of {field.type}")
    size = path.stat().st_size
    if about.num_rows > max(MOST_ROWS, size):
        raise refused(path, f"says that it has {about.num_rows:,} rows in {size:,} bytes")
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        parts = sum(group.column(at).total_uncompressed_size for at in range(group.num_columns))
        if group.num_rows > MOST_GROUP_ROWS or max(parts, group.total_byte_size) > LARGEST_GROUP:
            problem = f"has a group of {group.num_rows:,} rows in {parts:,} bytes, more than is read at once"
            raise refused(path, problem)
    return header


def _is_list(type: Any) -> bool:
    pa, _ = _pyarrow()
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def _records(path: Path, file: Any, report: Report) -> Iterator[Archived]:
    names = [name for name in (*COLUMNS, VECTOR) if name in file.schema_arrow.names]
    number, said, most = 0, 0, _most(path)
    for batch in file.iter_batches(BATCH_ROWS, columns=names):
        for values in zip(*(_values(batch.column(name)) for name in names), strict=True):
            row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            said += _said(row)
            if said > most:  # a text that is there once can be that of any number of rows
                raise refused(path, f"holds over {most:,} characters, which is more than such a file can")
            with attempt(report, f"{path.name}[{number}]"):
                yield _record(row)
            number += 1


def _values(column: Any) -> list[Any]:
    """A value for each row of a column: times in microseconds since 1970, lists of numbers as arrays. Texts that are
    not UTF-8 have surrogates, which no text that is kept may have."""
    pa, _ = _pyarrow()
    if pa.types.is_dictionary(column.type):
        places, words = column.indices.to_pylist(), column.dictionary.cast(pa.binary())
        texts = {at: words[at].as_py().decode(errors="surrogateescape") for at in {*places} - {None}}
        return [texts.get(at) for at in places]
    if _is_list(column.type):
        flat = column.flatten()
        each = flat.to_numpy(zero_copy_only=False) if pa.types.is_floating(flat.type) else _values(flat)
        lengths = column.value_lengths().to_pylist()
        ends = np.cumsum([length or 0 for length in lengths], dtype=np.int64).tolist()
        return [None if length is None else each[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def _record(row: dict[str, Any]) -> Archived:
    """Raises InvalidInput, ValueError or OverflowError where it is none."""
    if row.get("type") != SEGMENT:
        return jsonl.record_of(jsonl.decoded(row.get("record", "").encode(errors="surrogateescape")))
    times = {name: instant(row[name]) for name in TIMES if name in row}
    metadata = json.loads(row.get("metadata", "{}"))
    version = jsonl.version_of({**row, **times, "metadata": metadata})
    if (vector := row.get(VECTOR)) is None:
        return version
    with np.errstate(over="ignore"):
        return replace(version, pooled=vector.astype(np.float16))
