"""The schema is a row of numbered, hashed files; every way to the newest one ends in the same place."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from memspan import Memory, NewerStore, StoreCorrupt, StoreError
from memspan.ledger import schema
from memspan.ledger.schema import Migration

pytestmark = pytest.mark.embedded("of the file that SQLite keeps")

Open = Callable[..., Memory]

NEXT = """
CREATE TABLE notes (number INTEGER PRIMARY KEY, note TEXT NOT NULL);
INSERT INTO notes (note) SELECT text FROM segments;
ALTER TABLE segments ADD COLUMN mood TEXT;
"""


def extra(monkeypatch: pytest.MonkeyPatch, *sql: str) -> None:
    """As if this memspan knew these migrations too."""
    known = schema.migrations("sqlite")
    more = [Migration(known[-1].number + i, f"extra_{i}", text) for i, text in enumerate(sql, 1)]
    monkeypatch.setattr(schema, "migrations", lambda dialect: [*known, *more])


def dump(path: Path, *, schema_only: bool = False) -> list[object]:
    ledger = sqlite3.connect(path / "ledger.db")
    tables = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    created = ledger.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    versions = [ledger.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id", "encoding")]
    plain = [name for name in tables if not name.startswith(("lexical_", "sqlite_"))]
    rows = [] if schema_only else [ledger.execute(f"SELECT * FROM {name}").fetchall() for name in plain]
    ledger.close()
    return [created, versions, rows]


def version(path: Path) -> int:
    ledger = sqlite3.connect(path / "ledger.db")
    (number,) = ledger.execute("PRAGMA user_version").fetchone()
    ledger.close()
    return int(number)


def made(opened: Open) -> list[str]:
    with opened() as memory:
        return [memory.add(f"Fact number {i}.", user_id="ana").ids[0] for i in range(10)]


# The files


def test_migrations_are_numbered_without_gaps_and_named() -> None:
    folder = resources.files("memspan.ledger") / "sql" / "sqlite"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", name) for name in names)
    known = schema.migrations("sqlite")
    assert [migration.number for migration in known] == list(range(1, len(names) + 1))
    assert [f"{m.number:04d}_{m.name}.sql" for m in known] == names


def test_a_migration_has_no_transaction_of_its_own() -> None:
    for migration in schema.migrations("sqlite"):
        outside = re.sub(r"(?s)CREATE TRIGGER.*?\nEND;", "", migration.sql)
        assert not re.search(r"(?im)^\s*(BEGIN|COMMIT|ROLLBACK|PRAGMA|VACUUM|ATTACH)\b", outside)


def test_a_store_records_which_migrations_made_it(opened: Open, path: Path) -> None:
    made(opened)
    ledger = sqlite3.connect(path / "ledger.db")
    recorded = ledger.execute("SELECT number, name, sha256 FROM migrations ORDER BY number").fetchall()
    ledger.close()
    assert recorded == [(m.number, m.name, m.sha256) for m in schema.migrations("sqlite")]
    assert version(path) == recorded[-1][0]


def test_the_line_ends_of_a_checkout_do_not_change_a_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = schema.migrations("sqlite")
    folder = tmp_path / "sql" / "sqlite"
    folder.mkdir(parents=True)
    for migration in known:
        name = f"{migration.number:04d}_{migration.name}.sql"
        (folder / name).write_bytes(migration.sql.replace("\n", "\r\n").encode())
    monkeypatch.setattr(schema.resources, "files", lambda package: tmp_path)
    assert [migration.sha256 for migration in schema.migrations("sqlite")] == [m.sha256 for m in known]


# Upgrading


def test_a_fresh_store_is_the_same_as_a_migrated_one(
    opened: Open, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(opened)
    extra(monkeypatch, NEXT, "CREATE INDEX notes_note ON notes (note);")
    opened().close()
    opened(tmp_path / "fresh").close()
    assert dump(path, schema_only=True) == dump(tmp_path / "fresh", schema_only=True)


def test_a_migration_keeps_everything_and_a_backup_of_before_is_written(
    opened: Open, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(opened)
    with opened() as memory:
        told = [memory.get_all(), memory.search("fact number 3", explain=True)]
    before = dump(path)
    extra(monkeypatch, NEXT)
    with opened() as memory:
        assert [memory.get_all(), memory.search("fact number 3", explain=True)] == told
        assert memory.verify() == {"ok": True, "segments": 10, "problems": []}
        assert memory.add("Fact of the new schema.").added == 1
        assert memory.stats()["schema"] == version(path)
    (backup,) = path.glob("ledger.db.before-*")
    assert backup.name == f"ledger.db.before-{version(path):04d}"
    monkeypatch.undo()  # the memspan of before
    with pytest.raises(NewerStore):
        opened()
    restored = tmp_path / "restored"
    restored.mkdir()
    (restored / "ledger.db").write_bytes(backup.read_bytes())
    assert dump(restored) == before
    with opened(restored) as memory:
        assert [segment.id for segment in memory.get_all()] == ids
        assert memory.verify()["ok"]


def test_a_store_of_a_newer_memspan_is_refused_untouched(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(opened)
    extra(monkeypatch, NEXT)
    with opened() as memory:
        memory.compact()
    monkeypatch.undo()  # the memspan of before
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    for _ in range(2):
        with pytest.raises(NewerStore) as caught:
            opened()
        assert "upgrade memspan" in caught.value.mend
        assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_a_backup_of_before_that_was_cut_off_is_made_again(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(opened)
    name = f"ledger.db.before-{version(path) + 1:04d}"
    (path / f"{name}.part").write_bytes(b"half")
    extra(monkeypatch, NEXT)
    with opened() as memory:
        assert [segment.id for segment in memory.get_all()] == ids
    assert [file.name for file in path.glob("*before*")] == [name]


def test_a_place_where_no_backup_of_before_can_be_written_leaves_the_store_as_it_was(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(opened)
    before = dump(path)
    (path / f"ledger.db.before-{version(path) + 1:04d}.part").mkdir()  # where nothing can be written
    extra(monkeypatch, NEXT)
    with pytest.raises(StoreError) as caught:
        opened()
    assert caught.value.mend
    assert dump(path) == before


def test_a_fresh_store_writes_no_backup(opened: Open, path: Path) -> None:
    made(opened)
    assert list(path.glob("*before*")) == []


@pytest.mark.parametrize("sql", ["CREATE TABLE segments (a);", "CREATE TABLE half (a); DROP TABLE nowhere;"])
def test_a_failing_migration_leaves_the_store_as_it_was(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    ids = made(opened)
    before = dump(path)
    extra(monkeypatch, sql)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            opened()
        assert caught.value.mend
        assert dump(path) == before
    monkeypatch.undo()
    with opened() as memory:
        assert [segment.id for segment in memory.get_all()] == ids
        assert memory.verify()["ok"]


def test_of_several_migrations_the_good_ones_stay_when_a_later_one_fails(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(opened)
    start = version(path)
    extra(monkeypatch, NEXT, "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError):
        opened()
    assert version(path) == start + 1
    monkeypatch.undo()
    extra(monkeypatch, NEXT, "CREATE INDEX notes_note ON notes (note);")
    with opened() as memory:
        assert memory.verify()["ok"]
    assert version(path) == start + 2


def test_a_migration_that_was_changed_after_it_was_applied_is_noticed(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(opened)
    extra(monkeypatch, NEXT)
    opened().close()
    monkeypatch.undo()
    extra(monkeypatch, NEXT + "-- a later thought\n")
    before = (path / "ledger.db").read_bytes()
    with pytest.raises(StoreCorrupt, match="migrations"):
        opened()
    assert (path / "ledger.db").read_bytes() == before


OPENING = """
import sys
from memspan import Memory
from memspan.ledger import schema

known = schema.migrations("sqlite")
more = [schema.Migration(known[-1].number + 1, "extra", sys.argv[2])] if sys.argv[2] else []
schema.migrations = lambda dialect: [*known, *more]
applied = []
once = schema.migrate
schema.migrate = lambda *arguments: applied.extend(once(*arguments))
sys.stdin.readline()  # all at once
with Memory(sys.argv[1], encoder="hash") as memory:
    memory.add(f"Said by {sys.argv[3]}.")
print(*applied)
"""


@pytest.mark.parametrize("existing", [False, True], ids=["new", "older"])
def test_several_processes_opening_at_once_migrate_once(opened: Open, path: Path, existing: bool) -> None:
    numbers = [migration.number for migration in schema.migrations("sqlite")]
    if existing:
        made(opened)
        numbers = [numbers[-1] + 1]
    sql = NEXT if existing else ""
    command = [sys.executable, "-c", OPENING, str(path), sql]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    several = [subprocess.Popen([*command, str(i)], **pipes) for i in range(3)]  # type: ignore[call-overload]
    for process in several:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in several]
    assert [process.returncode for process in several] == [0] * 3, told
    assert sorted(line.split() for line, _ in told) == [[], [], [str(number) for number in numbers]]
    ledger = sqlite3.connect(path / "ledger.db")
    assert ledger.execute("SELECT count(*) FROM segments").fetchone() == (13 if existing else 3,)
    assert ledger.execute("SELECT count(DISTINCT value) FROM store WHERE key = 'store_id'").fetchone() == (1,)
    ledger.close()
