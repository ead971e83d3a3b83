"""The errors: one tree, drawn as it is, with the problem and the mend in every message."""

from __future__ import annotations

import errno
import inspect
import pickle
import re
import sqlite3
from pathlib import Path

import pytest
from filelock import Timeout

import memspan
from memspan import errors
from memspan.errors import (
    InvalidInput,
    MemspanError,
    NotWritable,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
)
from memspan.ledger.connections import translated

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, MemspanError) and value.__module__ == errors.__name__
}
DRAWN = re.compile(r"^    (?P<lines>[│ ]*)(?:[├└]── )?(?P<name>[A-Z]\w+)(?: \((?P<kind>\w+)\))?", re.MULTILINE)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Each error of the drawn tree: its parent, and the built-in error it is too."""
    found: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = DRAWN.match(line)
        if match:
            depth = 0 if not re.search("[├└]", line) else 1 + len(match["lines"]) // 4
            path = [*path[:depth], match["name"]]
            found[match["name"]] = (path[-2] if depth else None, match["kind"])
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    for name, (parent, kind) in drawn().items():
        bases = [base.__name__ for base in CLASSES[name].__bases__]
        assert bases == [*([parent] if parent else ["Exception"]), *([kind] if kind else [])], name


def test_every_error_is_drawn_and_every_drawn_error_exists() -> None:
    assert set(drawn()) == set(CLASSES)
    assert len(CLASSES) > 15


@pytest.mark.parametrize("kind", CLASSES.values(), ids=list(CLASSES))
def test_an_error_reaches_another_process_whole(kind: type[MemspanError]) -> None:
    named = ("k",) if issubclass(kind, InvalidInput) else ()
    error = kind(*named, "is wrong", mend="mend it")
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), vars(other)) == (kind, str(error), vars(error))


def test_every_error_is_a_public_name() -> None:
    assert {name for name in memspan.__all__ if name in CLASSES} == set(CLASSES)
    assert all(getattr(memspan, name) is kind for name, kind in CLASSES.items())


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_a_message_is_the_problem_and_then_the_mend(kind: type[MemspanError]) -> None:
    given = ("k", "is 0") if issubclass(kind, InvalidInput) else ("is 0",)
    error = kind(*given, mend="give 1")
    assert str(error) == ("k: is 0; give 1" if issubclass(kind, InvalidInput) else "is 0; give 1")
    assert error.mend == "give 1"
    assert str(kind(*given)) == error.problem
    assert kind.__doc__


def test_whoever_catches_the_built_in_errors_catches_these() -> None:
    memory = memspan.Memory(":memory:", encoder=None)
    with pytest.raises(ValueError, match=r"^k: "):
        memory.search("words", k=0)
    with pytest.raises(LookupError):
        memory.get("nothing")
    with pytest.raises(MemspanError):
        memory.search("")
    memory.close()


# SQLite's errors

TABLE: dict[str, type[StoreError]] = {
    "SQLITE_BUSY": StoreBusy,
    "SQLITE_BUSY_SNAPSHOT": StoreBusy,
    "SQLITE_BUSY_RECOVERY": StoreBusy,
    "SQLITE_LOCKED": StoreBusy,
    "SQLITE_LOCKED_SHAREDCACHE": StoreBusy,
    "SQLITE_FULL": StoreFull,
    "SQLITE_IOERR_WRITE": StoreFull,
    "SQLITE_IOERR_SHMSIZE": StoreFull,
    "SQLITE_READONLY": NotWritable,
    "SQLITE_READONLY_DIRECTORY": NotWritable,
    "SQLITE_READONLY_DBMOVED": NotWritable,
    "SQLITE_CANTOPEN": NotWritable,
    "SQLITE_CANTOPEN_ISDIR": NotWritable,
    "SQLITE_PERM": NotWritable,
    "SQLITE_AUTH": NotWritable,
    "SQLITE_CORRUPT": StoreCorrupt,
    "SQLITE_CORRUPT_VTAB": StoreCorrupt,
    "SQLITE_CORRUPT_INDEX": StoreCorrupt,
    "SQLITE_NOTADB": StoreCorrupt,
    "SQLITE_IOERR_READ": StoreError,
    "SQLITE_IOERR_FSYNC": StoreError,
    "SQLITE_ERROR": StoreError,
    "SQLITE_CONSTRAINT_UNIQUE": StoreError,
    "SQLITE_TOOBIG": StoreError,
    "SQLITE_MISUSE": StoreError,
}


@pytest.mark.parametrize(("name", "kind"), TABLE.items(), ids=TABLE)
def test_an_error_of_sqlite_is_one_of_ours(name: str, kind: type[StoreError]) -> None:
    original = sqlite3.OperationalError("as SQLite says it")
    original.sqlite_errorcode = getattr(sqlite3, name)
    original.sqlite_errorname = name
    with pytest.raises(StoreError) as caught, translated(Path("/data/ledger.db")):
        raise original
    assert type(caught.value) is kind
    assert caught.value.__cause__ is original
    assert "/data/ledger.db" in caught.value.problem
    assert caught.value.mend


def test_no_code_of_sqlite_comes_through_as_its_own_error() -> None:
    """Every primary and extended result code, by its number."""
    codes = {value for name, value in vars(sqlite3).items() if re.fullmatch(r"SQLITE_[A-Z_]+", name)}
    for code in sorted(code for code in codes if isinstance(code, int) and 0 < code & 0xFF < 100):
        original = sqlite3.DatabaseError("x")
        original.sqlite_errorcode = code
        with pytest.raises(StoreError), translated(None):
            raise original


@pytest.mark.parametrize(
    ("original", "kind"),
    [
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), StoreError),
        (Timeout("open.lock"), StoreBusy),
        (PermissionError(errno.EACCES, "Permission denied"), NotWritable),
        (OSError(errno.EROFS, "Read-only file system"), NotWritable),
        (OSError(errno.ENOSPC, "No space left on device"), StoreFull),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreFull),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_other_errors_at_the_file_are_ours_too(original: Exception, kind: type[StoreError]) -> None:
    with pytest.raises(StoreError) as caught, translated(Path("/data/ledger.db")):
        raise original
    assert type(caught.value) is kind
    assert caught.value.__cause__ is original
    assert caught.value.mend


def test_what_is_no_error_of_the_file_passes_as_it_is() -> None:
    for original in (KeyError("mine"), memspan.NotFound("nothing"), KeyboardInterrupt()):
        with pytest.raises(type(original)) as caught, translated(None):
            raise original
        assert caught.value is original


def test_a_lock_held_by_another_process_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memspan.Memory(tmp_path / "store", encoder="hash") as first:
        first.add("Words.")
        monkeypatch.setattr("memspan.ledger.connections.BUSY_SECONDS", 0.05)
        with memspan.Memory(tmp_path / "store", encoder="hash") as second:
            holder = sqlite3.connect(tmp_path / "store" / "ledger.db", isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy) as caught:
                second.add("More words.")
            assert caught.value.mend
            assert [segment.text for segment in second.get_all()] == ["Words."]  # readers never wait
            assert second.search("words")
            holder.execute("ROLLBACK")
            holder.close()
            assert second.add("More words.").added == 1
