"""Backups: whole, of one moment, each chunk once; what may not be backed up or restored, and what is damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from memspan import (
    InvalidInput,
    Memory,
    NewerStore,
    NotFound,
    NotWritable,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    WrongKey,
    as_dict,
    backups,
    restore,
)
from memspan.testing import WordEncoder
from memspan.views import graph, lexical, tree, vectors

pytestmark = pytest.mark.embedded("backups are of files")

Open = Callable[..., Memory]
KEY = bytes(range(32))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots are made from a few rows on."""
    for view in (lexical, vectors, tree, graph):
        monkeypatch.setattr(view, "SNAPSHOT_ROWS", 8)
    monkeypatch.setattr(vectors, "SCANNED_ROWS", 8)


def facts(memory: Memory, count: int, about: str = "kettle") -> list[str]:
    return list(memory.add([{"role": "user", "content": f"Fact {i} of the {about}."} for i in range(count)]).ids)


def texts(memory: Memory) -> list[str]:
    return [segment.text for segment in memory.get_all(limit=10_000)]


# What is in it


@pytest.mark.usefixtures("folding")
def test_a_restored_store_is_the_store_of_that_moment_with_its_indexes(
    opened: Open, place: Path, tmp_path: Path
) -> None:
    memory = opened()
    ids = facts(memory, 40)
    memory.add("Another tenant's.", namespace="other")
    memory.update(ids[3], "Fact three was changed.")
    memory.delete(ids[4])
    memory.feedback("which fact?", ids[5])
    memory.compact()

    def told(memory: Memory) -> list[object]:
        stats = memory.stats()
        return [
            memory.get_all(),
            memory.get_all(namespace="other"),
            memory.history(ids[3]),
            memory.history(ids[4]),
            memory.search("fact three", explain=True),
            {name: stats[name] for name in ("store_id", "versions", "tombstones", "judgements", "pending")},
            {name: (view["rows"], view["tail"], view["failure"]) for name, view in stats["views"].items()},
        ]

    before = told(memory)
    done = memory.backup(place)
    assert (done.number, done.segments, done.written) == (1, 40, done.bytes)
    memory.add("Said after the backup.")
    assert restore(place, tmp_path / "restored") == done
    with Memory(tmp_path / "restored", encoder="hash") as restored:
        assert told(restored) == before
        assert restored.verify() == {"ok": True, "segments": memory.stats()["versions"] - 1, "problems": []}
        assert restored.add("It goes on from there.").added == 1


def test_token_activations_are_in_it_and_what_was_erased_is_not(
    opened: Open, path: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis = WordEncoder().basis()
    monkeypatch.setattr("memspan.store.shipped", lambda id: basis)
    monkeypatch.setattr("memspan.activations.arena.EXTENT", 1 << 16)
    memory = opened(encoder=WordEncoder())
    ids = facts(memory, 1_200)
    kept = memory.stats()["activations"]
    assert len(kept["files"]) > 1
    first = memory.backup(place)
    memory.erase(ids[:800])
    memory.compact()
    facts(memory, 10, "pot")
    second = memory.backup(place)
    assert len(memory.stats()["activations"]["files"]) < len(kept["files"]), "those mostly dead were removed"
    for done, count in ((first, 1_200), (second, 410)):
        restore(place, tmp_path / str(done.number), at=done.number)
        with Memory(tmp_path / str(done.number), encoder=WordEncoder()) as restored:
            assert restored.verify() == {"ok": True, "segments": count, "problems": []}
            assert restored.stats()["activations"]["tensors"] == min(count, kept["tensors"])
    for file in (tmp_path / "2").rglob("*"):
        assert not file.is_file() or b"Fact 7 of the kettle" not in file.read_bytes()


def test_an_encrypted_store_is_backed_up_as_it_lies_there(
    opened: Open, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlcipher3")
    basis = WordEncoder().basis()
    monkeypatch.setattr("memspan.store.shipped", lambda id: basis)
    memory = opened(encoder=WordEncoder(), key=KEY)
    facts(memory, 800, "marzipan")
    memory.compact()
    first = memory.backup(place)
    facts(memory, 10, "zebulon")
    second = memory.backup(place)
    assert second.written < first.written / 4, "what has not changed is the same bytes, and no key was needed to see it"
    restore(place, tmp_path / "restored")
    for file in [*place.iterdir(), *(tmp_path / "restored").rglob("*")]:
        assert not file.is_file() or not {b"marzipan", b"zebulon"} & set(
            re.findall(rb"marzipan|zebulon", file.read_bytes())
        )
    with pytest.raises(WrongKey):
        Memory(tmp_path / "restored", key=bytes(32))
    with Memory(tmp_path / "restored", encoder=WordEncoder(), key=KEY) as restored:
        assert restored.verify() == {"ok": True, "segments": 810, "problems": []}
        assert "zebulon" in restored.search("zebulon", k=1)[0].text


def test_what_a_reader_holds_back_in_the_log_is_in_the_backup(
    opened: Open, path: Path, place: Path, tmp_path: Path
) -> None:
    memory = opened()
    facts(memory, 5)
    memory.compact()
    reader = sqlite3.connect(path / "ledger.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM segments").fetchone() == (5,)
    try:
        facts(memory, 7, "pot")
        memory.backup(place)
    finally:
        reader.close()
    restore(place, tmp_path / "restored")
    assert (tmp_path / "restored" / "ledger.db-wal").stat().st_size > 0
    with Memory(tmp_path / "restored", encoder="hash") as restored:
        assert len(texts(restored)) == 12
        assert restored.verify()["ok"]


def test_writers_are_not_held_up_while_the_ledger_is_copied(opened: Open, place: Path, tmp_path: Path) -> None:
    memory, other = opened(), opened()
    facts(memory, 300)
    added: list[str] = []

    def write(done: int, total: int, what: str) -> None:
        if not added:  # from another thread, which would wait for a lock
            thread = threading.Thread(target=lambda: added.extend(other.add("Said meanwhile.").ids))
            thread.start()
            thread.join()

    memory.backup(place, progress=write)
    assert len(added) == 1
    restore(place, tmp_path / "restored")
    with Memory(tmp_path / "restored", encoder="hash") as restored:
        assert len(texts(restored)) == 300
    assert len(texts(memory)) == 301


CLOSING = """
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1])
print(ledger.execute("SELECT count(*) FROM segments").fetchone()[0])
ledger.close()
"""


def test_a_backup_takes_no_lock_from_the_open_store(opened: Open, path: Path, place: Path) -> None:
    memory = opened()
    facts(memory, 5)
    memory.backup(place)
    memory.add("In the log alone.")
    # who closes a database last folds its log in and removes it: this process has it open, and its lock says so
    done = subprocess.run([sys.executable, "-c", CLOSING, str(path / "ledger.db")], capture_output=True, check=True)
    assert done.stdout.strip() == b"6"
    assert (path / "ledger.db-wal").stat().st_size > 0
    memory.add("And one more.")
    assert memory.verify() == {"ok": True, "segments": 7, "problems": []}


# Several


def test_what_has_not_changed_is_not_written_again(opened: Open, place: Path) -> None:
    memory = opened()
    facts(memory, 2_000)
    memory.compact()
    first = memory.backup(place)
    again = memory.backup(place)
    assert again.written < 50_000 < first.written  # the store's note of its last backup
    facts(memory, 10, "pot")
    third = memory.backup(place)
    assert third.written < first.written / 4
    assert [each.number for each in backups.kept(place)] == [1, 2, 3]
    assert backups.kept(place) == [first, again, third]
    assert memory.stats()["backup"] == as_dict(third)


def test_a_backup_is_chosen_by_its_number_or_by_a_time(opened: Open, place: Path, tmp_path: Path) -> None:
    memory = opened()
    made = []
    for number in range(1, 4):
        facts(memory, 1, f"pot {number}")
        made.append(memory.backup(place))
    asked = {
        None: 3,
        2: 2,
        "1": 1,
        made[1].at: 2,
        (made[2].at - timedelta(microseconds=1)).isoformat(): 2,
        "2999-01-01": 3,
    }
    for at, number in asked.items():
        target = tmp_path / f"restored {number} {len(list(tmp_path.iterdir()))}"
        assert restore(place, target, at=at).number == number  # type: ignore[arg-type]
        with Memory(target, encoder="hash") as restored:
            assert len(texts(restored)) == number
    with pytest.raises(NotFound, match="no backup 7") as caught:
        restore(place, tmp_path / "none", at=7)
    assert caught.value.mend == "there are 1, 2, 3"
    with pytest.raises(NotFound, match="from before"):
        restore(place, tmp_path / "none", at="1999-01-01")
    with pytest.raises(InvalidInput, match="at: "):
        restore(place, tmp_path / "none", at="yesterday")
    assert not (tmp_path / "none").exists()


def test_nothing_is_removed_unless_it_is_asked_for_and_then_only_the_oldest(opened: Open, place: Path) -> None:
    memory = opened()
    for number in range(5):
        facts(memory, 300, f"pot {number}")
        memory.backup(place)
    assert [each.number for each in backups.kept(place)] == [1, 2, 3, 4, 5]
    memory.backup(place, keep=3)
    assert [each.number for each in backups.kept(place)] == [4, 5, 6]
    for each in backups.kept(place):
        assert backups.check(place, each.number) == each


def test_space_comes_back_when_what_old_backups_hold_has_changed(opened: Open, path: Path, place: Path) -> None:
    memory = opened()
    facts(memory, 2_000)
    memory.backup(place)
    for number in range(6):
        memory.erase([segment.id for segment in memory.get_all(limit=10_000)])
        memory.add([{"role": "user", "content": f"{number} {i} is all there is now."} for i in range(50)])
        memory.compact()
        last = memory.backup(place, keep=2)
    packs = sum(file.stat().st_size for file in place.glob("*.pack"))
    assert packs < 4 * last.bytes
    assert not (place / "000001.pack").exists()
    assert all(backups.check(place, each.number) == each for each in backups.kept(place))


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "3"])
def test_how_many_to_keep_is_at_least_one(opened: Open, place: Path, keep: object) -> None:
    with pytest.raises(InvalidInput, match="keep"):
        opened().backup(place, keep=keep)  # type: ignore[arg-type]
    assert not place.exists()


def test_progress_comes_to_its_end(opened: Open, place: Path, tmp_path: Path) -> None:
    memory = opened()
    facts(memory, 500)
    steps: dict[str, list[tuple[int, int]]] = {}

    def told(done: int, total: int, what: str) -> None:
        steps.setdefault(what, []).append((done, total))

    memory.backup(place, progress=told)
    backups.check(place, progress=told)
    restore(place, tmp_path / "restored", progress=told)
    assert list(steps) == ["backing up", "checking", "restoring"]
    for several in steps.values():
        assert several[-1][0] == several[-1][1] > 0
        assert all(done <= total for done, total in several)


# What is refused


def test_a_store_in_memory_says_how_it_is_kept(memory: Memory, place: Path) -> None:
    with pytest.raises(StoreError, match="in memory") as caught:
        memory.backup(place)
    assert "export_to" in caught.value.mend
    assert not place.exists()


def test_a_backup_does_not_lie_in_its_store(opened: Open, path: Path, tmp_path: Path) -> None:
    memory = opened()
    (tmp_path / "link").symlink_to(path)
    for inside in (path, path / "backups", tmp_path / "link" / "deep" / "er", path / ".." / "store"):
        with pytest.raises(InvalidInput, match="inside the store"):
            memory.backup(inside)
    assert not (path / "backups").exists()


def test_what_is_something_else_is_not_touched(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    facts(memory, 3)
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "letter.part").write_text("Dear Ana", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"holds other files \(letter.part\)"):
        memory.backup(folder)
    with pytest.raises(InvalidInput, match="is a file"):
        memory.backup(folder / "letter.part")
    with pytest.raises(InvalidInput, match="holds no backups"):
        backups.kept(folder)
    with pytest.raises(InvalidInput, match="holds no backups"):
        restore(tmp_path / "nowhere", tmp_path / "restored")
    assert [file.name for file in folder.iterdir()] == ["letter.part"]
    assert (folder / "letter.part").read_text(encoding="utf-8") == "Dear Ana"


def test_each_store_has_a_directory_of_its_own(opened: Open, place: Path, tmp_path: Path) -> None:
    opened().backup(place)
    other = opened(tmp_path / "other")
    with pytest.raises(InvalidInput, match="another store"):
        other.backup(place)
    assert len(backups.kept(place)) == 1


def test_nothing_is_restored_over_something(opened: Open, path: Path, place: Path, tmp_path: Path) -> None:
    memory = opened()
    facts(memory, 3)
    memory.backup(place)
    facts(memory, 3, "pot")
    for target in (path, place, place / "new"):
        with pytest.raises(InvalidInput, match="target"):
            restore(place, target)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="target"):
        restore(place, tmp_path / "file")
    assert len(texts(memory)) == 6
    (tmp_path / "empty").mkdir()
    restore(place, tmp_path / "empty")
    restore(place, tmp_path / "a" / "b")
    for target in (tmp_path / "empty", tmp_path / "a" / "b"):
        with Memory(target, encoder="hash") as restored:
            assert len(texts(restored)) == 3


def test_only_one_backup_is_made_in_a_directory_at_a_time(opened: Open, place: Path) -> None:
    memory, other = opened(), opened()
    facts(memory, 300)
    refused: list[StoreBusy] = []

    def again(done: int, total: int, what: str) -> None:
        try:
            other.backup(place)
        except StoreBusy as error:
            refused.append(error)

    memory.backup(place, progress=again)
    assert refused
    assert other.backup(place).number == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root is refused by nothing but such a mount")
def test_a_full_or_unwritable_disk_is_said_and_costs_no_earlier_backup(
    opened: Open, path: Path, tmp_path: Path
) -> None:
    facts(opened(), 200)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = """
import subprocess, sys
from memspan import Memory, NotWritable, StoreFull, backups

store, disk = sys.argv[1:]
with Memory(store, encoder="hash") as memory:
    memory.backup(disk + "/backups")
    memory.add([{"role": "user", "content": f"{i} " + "much more " * 200} for i in range(800)])
    try:
        memory.backup(disk + "/backups")
    except StoreFull as error:
        print("full", error.mend)
    print([each.number for each in backups.kept(disk + "/backups")], backups.check(disk + "/backups").segments)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        memory.backup(disk + "/backups")
    except NotWritable as error:
        print("unwritable", error.mend)
    backups.restore(disk + "/backups", store + "-restored")
"""
    mount = f"mount -t tmpfs -o size=1m tmpfs '{disk}' && exec \"$@\""
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", script, str(path), str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["full", "[1]", "unwritable"]
    assert "[1] 200" in done.stdout
    with Memory(f"{path}-restored", encoder="hash") as restored:
        assert len(texts(restored)) == 200


# What is damaged


def damaged(file: Path, at: int = -1) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1
    file.write_bytes(raw)


def test_a_damaged_chunk_is_named_and_others_are_restored(opened: Open, place: Path, tmp_path: Path) -> None:
    memory = opened()
    facts(memory, 300)
    memory.backup(place)
    facts(memory, 300, "pot")
    memory.backup(place)
    damaged(place / "000002.pack", 5_000)
    for call in (lambda: restore(place, tmp_path / "restored"), lambda: backups.check(place)):
        with pytest.raises(StoreCorrupt) as caught:
            call()
        assert str(place / "000002.pack") in caught.value.problem
        assert "byte 4096 (4096 bytes): it is part of ledger.db in backup 2" in caught.value.problem
    assert not (tmp_path / "restored").exists()
    assert not list(tmp_path.glob(".restored*"))
    restore(place, tmp_path / "restored", at=1)
    with Memory(tmp_path / "restored", encoder="hash") as restored:
        assert len(texts(restored)) == 300


@pytest.mark.parametrize("harm", ["gone", "short", "list"])
def test_after_a_damage_that_shows_the_next_backup_is_whole_again(
    opened: Open, place: Path, tmp_path: Path, harm: str
) -> None:
    memory = opened()
    facts(memory, 300)
    memory.backup(place)
    if harm == "gone":
        (place / "000001.pack").unlink()
    elif harm == "short":
        os.truncate(place / "000001.pack", 10_000)
    else:
        damaged(place / "000001.backup")
    with pytest.raises(StoreCorrupt, match=r"00000?1\.(pack|backup) is "):
        restore(place, tmp_path / "restored")
    done = memory.backup(place)
    assert done.number == 2
    assert restore(place, tmp_path / "restored") == done
    with Memory(tmp_path / "restored", encoder="hash") as restored:
        assert restored.verify()["ok"]


def test_what_was_cut_off_is_removed_by_the_next_backup(opened: Open, place: Path) -> None:
    memory = opened()
    memory.backup(place)
    for name in ("000002.pack.part", "000002.pack", "000002.backup.part"):
        (place / name).write_bytes(b"half")
    assert memory.backup(place).number == 2
    assert backups.check(place).number == 2
    assert not list(place.glob("*.part"))


def test_a_backup_of_a_newer_memspan_is_refused_untouched(opened: Open, place: Path, tmp_path: Path) -> None:
    memory = opened()
    memory.backup(place)
    marker = place / "memspan-backups.json"
    told = json.loads(marker.read_text(encoding="utf-8"))
    marker.write_text(json.dumps({**told, "format": told["format"] + 1}), encoding="utf-8")
    before = sorted(file.name for file in place.iterdir())
    with pytest.raises(NewerStore) as caught:
        memory.backup(place)
    assert "upgrade memspan" in caught.value.mend
    with pytest.raises(NewerStore):
        restore(place, tmp_path / "restored")
    assert sorted(file.name for file in place.iterdir()) == before


def test_a_copied_directory_of_backups_is_one(opened: Open, place: Path, tmp_path: Path) -> None:
    memory = opened()
    facts(memory, 3)
    done = memory.backup(place)
    shutil.copytree(place, tmp_path / "elsewhere")
    shutil.rmtree(place)
    assert restore(tmp_path / "elsewhere", tmp_path / "restored").number == done.number


def test_an_unwritable_place_is_said(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((NotWritable, InvalidInput)):
        memory.backup(tmp_path / "file" / "backups")
    assert issubclass(StoreFull, StoreError)
