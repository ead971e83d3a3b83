"""Files that were cut short or damaged, of every format: they end in a clear error, or tell what could not be read."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, MemspanError
from tests.archives.conftest import lived_in

WRITTEN = {"jsonl": "a.jsonl", "cube": "a.memspan", "parquet": "a.parquet", "csv": "csv", "npy": "npy", "hdf5": "a.h5",
           "pickle": "a.pkl", "faiss": "faiss"}  # fmt: skip
TABLES = {
    "mem0": ("history", "id, memory_id, old_memory, new_memory, event, created_at, updated_at"),
    "langgraph": ("store", "prefix, key, value, created_at, updated_at"),
    "records": ("conversation_summaries", "conversation_id, title, timestamp, type, summary"),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with an archive of each format, and a small store to read them into."""
    folder = Path(tempfile.mkdtemp(prefix="memspan-damaged-"))
    with lived_in(folder / "memory") as memory:
        for name, file in WRITTEN.items():
            memory.export_to(folder / file, name)
    for name, (table, columns) in TABLES.items():
        _database(folder / f"{name}.db", table, columns)
    Memory(folder / "store", encoder=None).close()
    yield folder
    shutil.rmtree(folder)


def _database(path: Path, table: str, columns: str) -> None:
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"CREATE TABLE {table} ({columns})")
        made.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * (columns.count(',') + 1))})", columns.split(", "))
        made.commit()


@given(
    file=st.sampled_from([*WRITTEN.values(), *(f"{name}.db" for name in TABLES)]),
    part=st.integers(0, 3),
    at=st.floats(0, 1),
    said=st.binary(max_size=4),
    cut=st.booleans(),
)
def test_a_damaged_file_never_ends_in_anything_but_an_error_that_says_so(
    place: Path, file: str, part: int, at: float, said: bytes, cut: bool
) -> None:
    damaged = place / "damaged" / file
    shutil.rmtree(damaged.parent, ignore_errors=True)
    damaged.parent.mkdir()
    shutil.copytree(place / file, damaged) if (place / file).is_dir() else shutil.copy(place / file, damaged)
    target = sorted(damaged.iterdir())[part % len(list(damaged.iterdir()))] if damaged.is_dir() else damaged
    raw = target.read_bytes()
    where = int(at * len(raw))
    target.write_bytes(raw[:where] + said + (b"" if cut else raw[where + len(said) :]))
    with Memory(place / "store", encoder=None) as memory:
        mend = "nothing to mend"
        try:
            memory.import_from(damaged, dry_run=True)
        except MemspanError as error:
            mend = error.mend
        assert mend


@pytest.mark.parametrize("name", TABLES)
def test_a_table_whose_definition_is_no_text_is_bad_input(place: Path, tmp_path: Path, name: str) -> None:
    raw = (place / f"{name}.db").read_bytes()
    (file := tmp_path / f"{name}.db").write_bytes(raw.replace(b"CREATE TABLE", b"CREATE TABL\xff"))
    with Memory(tmp_path / "store", encoder=None) as memory:
        for format in (None, name):
            with pytest.raises(InvalidInput):
                memory.import_from(file, format)


def test_a_parquet_file_whose_columns_are_no_text_is_bad_input(place: Path, tmp_path: Path) -> None:
    raw = (place / WRITTEN["parquet"]).read_bytes()
    refused = 0
    for word in (b"heading", b"list", b"element", b"speaker"):
        for match in re.finditer(word, raw):
            (file := tmp_path / "a.parquet").write_bytes(raw[: match.start()] + b"\xff" + raw[match.start() + 1 :])
            with Memory(tmp_path / "store", encoder=None) as memory, suppress(InvalidInput):
                memory.import_from(file, "parquet", dry_run=True)
                continue
            refused += 1
    assert refused > 4


def test_vectors_of_enormous_numbers_are_told_and_not_used(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "csv", tmp_path / "csv")
    first, second, *others = (tmp_path / "csv" / "embeddings.csv").read_text().splitlines()
    second = ",".join(["3e38"] * len(second.split(",")))
    (tmp_path / "csv" / "embeddings.csv").write_text("\n".join([first, second, *others]) + "\n")
    with Memory(tmp_path / "store", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "csv")
    assert (done.failed, "instead of 1" in done.problems[0].problem) == (1, True)
