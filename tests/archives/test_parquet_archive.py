"""Parquet: everything goes out as a table and comes back, and a file that is no such table costs no memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from memspan import InvalidInput, Memory, NewerStore
from memspan.archives import parquet

from .conftest import in_little_memory, lived_in, out
from .test_jsonl_archive import JSON, TEXTS


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("parquet")
    with lived_in(directory / "a") as memory:
        memory.export_to(directory / "a.parquet")
        memory.export_to(directory / "a.jsonl")
    return directory / "a.parquet"


@pytest.fixture
def table(exported: Path) -> pa.Table:
    return pq.read_table(exported)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), pa.field(name, values.type), values)


def test_everything_comes_back_with_its_vectors(tmp_path: Path, exported: Path) -> None:
    with Memory(tmp_path / "b", encoder="hash") as other:
        done = other.import_from(exported)
        assert (done.format, done.failed, done.there, done.pending) == ("parquet", 0, 0, 0)
        assert done.vectors > 0
        assert out(other, tmp_path / "b.jsonl") == exported.with_suffix(".jsonl").read_bytes()
        assert out(other, tmp_path / "b.parquet") == exported.read_bytes()
        assert other.verify()["ok"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, JSON, max_size=2)), max_size=6, unique_by=lambda each: each[0]))
def test_whatever_is_said_comes_back(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, Any]]) -> None:
    directory = tmp_path_factory.mktemp("any")
    with Memory(":memory:", encoder="hash") as memory, Memory(":memory:", encoder="hash") as other:
        for text, metadata in said:
            memory.add(text, metadata=metadata)
        memory.export_to(directory / "a.parquet")
        assert other.import_from(directory / "a.parquet").failed == 0
        assert out(other, directory / "b.jsonl") == out(memory, directory / "a.jsonl")


def test_a_memory_without_an_encoder_has_no_vectors(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="none") as memory:
        memory.add("only words")
        memory.export_to(tmp_path / "a.parquet")
    assert "vector" not in pq.read_schema(tmp_path / "a.parquet").names
    with Memory(tmp_path / "b", encoder="hash") as other:
        assert other.import_from(tmp_path / "a.parquet").added == 1


def test_columns_are_what_their_names_say(exported: Path, table: pa.Table) -> None:
    with Memory(exported.parent / "a", encoder="hash") as memory:
        segments = {segment.id: segment for segment in memory.get_all(limit=100)}
    current = table.filter((pc.field("type") == "segment") & pc.is_null(pc.field("ended_at"))).to_pylist()
    assert {row["id"] for row in current} == segments.keys()
    for row in current:
        segment = segments[row["id"]]
        for name in ("text", "version", "user_id", "session", "speaker", "importance", "position", "occurred_at"):
            assert row[name] == getattr(segment, name)
        assert tuple(row["category"]) == segment.category
        assert abs(np.linalg.norm(row["vector"]) - 1) < 1e-2
    kinds = set(table.column("type").to_pylist())
    assert kinds == {"segment", "document", "link", "judgement", "usage", "tombstone"}


def test_it_is_written_and_read_in_groups(
    tmp_path: Path, exported: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 2)
    with Memory(exported.parent / "a", encoder="hash") as memory:
        memory.export_to(tmp_path / "a.parquet")
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == -(-len(table) // 3)
    with Memory(tmp_path / "b", encoder="hash") as other:
        assert other.import_from(tmp_path / "a.parquet").failed == 0
        assert out(other, tmp_path / "b.jsonl") == exported.with_suffix(".jsonl").read_bytes()


def test_what_can_be_packed_to_nothing_is_written_so_that_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SMALL", 10_000)
    monkeypatch.setattr(parquet, "SWOLLEN", 20)
    with Memory(tmp_path / "a", encoder="none") as memory, Memory(tmp_path / "b", encoder="none") as other:
        for number in range(8):
            memory.add("word " * 1_000, metadata={"filling": "x" * 100_000}, session=str(number))
        memory.export_to(tmp_path / "a.parquet")
        assert (tmp_path / "a.parquet").stat().st_size > 800_000
        assert other.import_from(tmp_path / "a.parquet").failed == 0


# -------------------------------------------------------------------------------------------------- one row that is bad


def _not_finite(rows: list[Any]) -> list[Any]:
    return [[float("nan")] * 256, *rows[1:]]


def _too_large(rows: list[Any]) -> list[Any]:
    return [[1e30] * 256, *rows[1:]]


def _too_short(rows: list[Any]) -> list[Any]:
    return [[1.0] * 3, *rows[1:]]


def _with_a_hole(rows: list[Any]) -> list[Any]:
    return [[None] + [0.5] * 255, *rows[1:]]


@pytest.mark.parametrize("change", [_not_finite, _too_large, _too_short, _with_a_hole])
def test_a_vector_that_is_none_costs_only_itself(
    tmp_path: Path, exported: Path, table: pa.Table, change: Callable[[list[Any]], list[Any]]
) -> None:
    rows = table.column("vector").to_pylist()
    first = next(at for at, row in enumerate(rows) if row is not None)
    changed = pa.array(rows[:first] + change(rows[first:]), pa.list_(pa.float32()))
    pq.write_table(with_column(table, "vector", changed), tmp_path / "a.parquet")
    with Memory(tmp_path / "b", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.parquet")
        assert (done.failed, done.pending, done.added) == (1, 0, done.read)
        assert "vector" in done.problems[0].problem
        assert out(memory, tmp_path / "b.jsonl") == exported.with_suffix(".jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "nonsense"), ("type", None), ("id", "1"), ("text", None), ("text", " "), ("metadata", "{"),
        ("metadata", "[1]"), ("version", -1), ("importance", float("nan")), ("recorded_at", None),
        ("recorded_at", 2**62), ("category", ["a"] * 100), ("heading", [None]), ("identity", "zz"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_told_and_left_out(tmp_path: Path, table: pa.Table, name: str, value: Any) -> None:
    at = next(number for number, kind in enumerate(table.column("type").to_pylist()) if kind == "segment")
    column = table.column(name)
    values = column.cast(pa.int64()).to_pylist() if pa.types.is_timestamp(column.type) else column.to_pylist()
    values[at] = value
    changed = pa.array(values, pa.int64() if pa.types.is_timestamp(column.type) else column.type).cast(column.type)
    pq.write_table(with_column(table, name, changed), tmp_path / "a.parquet")
    with Memory(tmp_path / "b", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.parquet")
        assert [problem.where for problem in done.problems] == [f"a.parquet[{at}]"]
        assert done.read == table.column("type").to_pylist().count("segment") - 1


def test_a_text_that_is_not_utf8_is_told_and_left_out(tmp_path: Path, table: pa.Table) -> None:
    texts = table.column("text").to_pylist()
    at = next(number for number, text in enumerate(texts) if text)
    raw = [None if text is None else text.encode() for text in texts]
    raw[at] = b"\xff\xfe bytes"
    broken = pa.array(raw, pa.binary()).view(pa.string())
    pq.write_table(with_column(table, "text", broken), tmp_path / "a.parquet")
    with Memory(tmp_path / "b", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.parquet")
        assert [problem.where for problem in done.problems] == [f"a.parquet[{at}]"]
        assert "surrogate" in done.problems[0].problem


# -------------------------------------------------------------------------------------------------------- hostile files


def refused(file: Path, match: str, error: type[Exception] = InvalidInput) -> None:
    with Memory(":memory:", encoder="hash") as memory:
        with pytest.raises(error, match=match):
            memory.import_from(file, "parquet")
        assert not memory.get_all()


def test_a_parquet_file_of_somebody_else_is_not_recognised(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    assert not parquet.recognises(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    refused(tmp_path / "a.parquet", "not a Parquet file that memspan wrote")


@pytest.mark.parametrize("name", ["type", "text", "recorded_at", "vector", "record"])
def test_a_column_that_is_missing_or_of_another_type_is_told(tmp_path: Path, table: pa.Table, name: str) -> None:
    pq.write_table(table.drop_columns(name), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", f"nothing as its column {name}")
    pq.write_table(with_column(table, name, pa.array([True] * len(table))), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", f"bool as its column {name}")


def test_a_later_format_is_refused_by_name(tmp_path: Path, table: pa.Table) -> None:
    told = {b"memspan": b'{"type": "memspan", "format": 99}'}
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "99", NewerStore)


@pytest.mark.parametrize("header", [b"", b"{}", b"\xff", b'{"type": "memspan", "format": 1, "vectors": {"dim": 3}}'])
def test_a_header_that_is_none_is_refused(tmp_path: Path, table: pa.Table, header: bytes) -> None:
    pq.write_table(table.replace_schema_metadata({b"memspan": header}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", ".")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, exported: Path, share: float) -> None:
    raw = exported.read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw[: int(len(raw) * share)])
    refused(tmp_path / "a.parquet", "cannot be read")


@pytest.mark.parametrize("name", ["id", "text", "vector.list.element"])
def test_damage_in_its_pages_is_told(tmp_path: Path, exported: Path, name: str) -> None:
    group = pq.read_metadata(exported).row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    column = columns[name]
    start = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    raw = bytearray(exported.read_bytes())
    raw[start + column.total_compressed_size - 1] ^= 1
    (tmp_path / "a.parquet").write_bytes(raw)
    refused(tmp_path / "a.parquet", "cannot be read")


def bomb(table: pa.Table, text: str, rows: int) -> pa.Table:
    """So many rows, each a segment with this text, which is in the file once."""
    segment = table.filter(pc.field("type") == "segment").slice(0, 1)
    many = segment.take(pa.array(np.zeros(rows, np.int64)))
    return with_column(
        many,
        "text",
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text])).cast("string")
        if len(text) * rows < 1 << 28
        else pa.array([text] * rows),
    )


def test_a_text_that_is_there_once_and_stands_in_very_many_rows_is_refused(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SMALL", 1 << 20)
    table = table.drop_columns("vector").replace_schema_metadata(
        {b"memspan": b'{"type": "memspan", "format": 1, "namespace": "n"}'}
    )
    pq.write_table(bomb(table, "x" * 200_000, 1_200), tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    given: list[int] = []
    with in_little_memory(16 << 20), pytest.raises(InvalidInput, match="more than such a file can"):
        given.extend(1 for _ in parquet.read(tmp_path / "a.parquet", pytest.fail))
    assert given
    assert pa.total_allocated_bytes() - before < 16 << 20


def test_a_group_too_large_to_be_read_is_refused_by_what_the_end_of_the_file_says(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 1_000)
    refused(exported, "more than is read at once")


def test_rows_that_take_no_room_are_refused_when_they_are_too_many(tmp_path: Path, table: pa.Table) -> None:
    table = table.drop_columns("vector").replace_schema_metadata(
        {b"memspan": b'{"type": "memspan", "format": 1, "namespace": "n"}'}
    )
    empty = pa.table({field.name: pa.nulls(3_000_000, field.type) for field in table.schema}, schema=table.schema)
    pq.write_table(empty, tmp_path / "a.parquet", row_group_size=1_000_000)
    refused(tmp_path / "a.parquet", "3,000,000 rows")
