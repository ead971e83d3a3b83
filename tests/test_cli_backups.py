"""backup and restore on the command line, and what the doctor says of them."""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def memspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in [name for name in os.environ if name.startswith("MEMSPAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_store_is_backed_up_and_comes_back_verified(memspan: Run, tmp_path: Path) -> None:
    memspan("add", "The spare key hangs behind the blue door.")
    code, out, _ = memspan("backup", "kept")
    assert (code, out.startswith(f"backup 1 in {tmp_path / 'kept'}, of 20")) == (0, True)
    assert "1 segment, " in out
    memspan("add", "The train to Porto leaves at nine.")
    code, out, _ = memspan("backup", "kept", "--json")
    assert (code, json.loads(out)["number"], json.loads(out)["segments"]) == (0, 2, 2)
    code, out, _ = memspan("backup", "kept", "--list")
    assert [line.split(" in ")[0] for line in out.splitlines()] == ["backup 1", "backup 2"]
    listed = json.loads(memspan("backup", "kept", "--list", "--json")[1])
    assert [each["segments"] for each in listed] == [1, 2]

    code, out, _ = memspan("restore", "kept", "--store", "back", "--verify")
    assert (code, out.splitlines()[0].startswith(f"{tmp_path / 'back'} is backup 2")) == (0, True)
    assert "problems" in out
    code, out, _ = memspan("restore", "kept", "--store", "earlier", "--at", "1", "--verify", "--json")
    told = json.loads(out)
    assert (code, told["backup"]["number"], told["verified"]["ok"]) == (0, 1, True)
    with Memory(tmp_path / "earlier", encoder="hash") as restored:
        assert [segment.text for segment in restored.get_all()] == ["The spare key hangs behind the blue door."]
    at = listed[0]["at"]
    assert json.loads(memspan("restore", "kept", "--store", "timed", "--at", at, "--json")[1])["backup"]["number"] == 1


def test_old_backups_go_only_when_told_and_a_check_reads_them_whole(memspan: Run, tmp_path: Path) -> None:
    for number in range(3):
        memspan("add", f"Fact number {number}.")
        memspan("backup", "kept")
    assert memspan("backup", "kept", "--keep", "2")[0] == 0
    assert [each["number"] for each in json.loads(memspan("backup", "kept", "--list", "--json")[1])] == [3, 4]
    code, out, _ = memspan("backup", "kept", "--check")
    assert (code, "every chunk is as it was written" in out) == (0, True)
    assert memspan("backup", "kept", "--check", "--at", "3")[0] == 0
    pack = tmp_path / "kept" / "000003.pack"
    pack.write_bytes(bytes(len(pack.read_bytes())))
    code, _, err = memspan("backup", "kept", "--check", "--at", "3")
    assert (code, "000003.pack is damaged at byte" in err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["backup", "nowhere", "--list"], 2, "holds no backups"),
        (["backup", "store/inside"], 2, "inside the store"),
        (["backup", "kept", "--at", "1"], 2, "--at"),
        (["backup", "kept", "--keep", "0"], 2, "keep"),
        (["backup"], 2, "DIR"),
        (["restore", "kept"], 2, "is not empty"),
        (["restore", "nowhere", "--store", "new"], 2, "holds no backups"),
        (["restore", "kept", "--store", "new", "--at", "9"], 1, "no backup 9"),
        (["backup", "kept", "--store", "absent"], 3, "there is no memory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_says_why_and_how_to_mend_it(
    memspan: Run, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    memspan("add", "One.")
    memspan("backup", "kept")
    done = memspan(*arguments)
    assert (done[0], said in done[2], "Mend:" in done[2]) == (code, True, True)
    assert not (tmp_path / "new").exists()


def checks(memspan: Run) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(memspan("doctor", "--json")[1])["checks"]}


def test_the_doctor_knows_the_last_backup_and_whether_it_is_still_there(memspan: Run, tmp_path: Path) -> None:
    memspan("add", "One.")
    assert checks(memspan)["store backup"]["detail"] == "none was made yet; memspan backup DIR makes one"
    memspan("backup", "kept")
    found = checks(memspan)["store backup"]
    assert (found["ok"], found["detail"]) == (True, f"backup 1 in {tmp_path / 'kept'}, today")
    (tmp_path / "kept").rename(tmp_path / "elsewhere")
    found = checks(memspan)["store backup"]
    assert (found["ok"], "holds no backups" in found["detail"]) == (False, True)
    assert f"memspan backup {tmp_path / 'kept'}" in found["mend"]


def test_the_doctor_tells_versions_the_schema_what_waits_and_old_copies(memspan: Run, tmp_path: Path) -> None:
    memspan("add", "One.")
    (tmp_path / "store" / "ledger.db.before-0002").write_bytes(b"")
    found = checks(memspan)
    assert "parquet: pyarrow" in found["memspan"]["detail"]
    with Memory(tmp_path / "store", encoder="hash") as memory:
        assert f"schema {memory.stats()['schema']}," in found["store"]["detail"]
    assert found["store queue"]["detail"] == "0 waiting to be encoded"
    assert "ledger.db.before-0002" in found["store copies"]["detail"]
    assert found["store log"]["detail"] == "1 entries, each following from the one before"
    assert all(check["ok"] for check in found.values())


def test_the_doctor_walks_the_log(memspan: Run, tmp_path: Path) -> None:
    memspan("add", "One.")
    memspan("add", "Two.")
    ledger = sqlite3.connect(tmp_path / "store" / "ledger.db")
    ledger.execute("UPDATE log SET at = at + 1 WHERE entry = 1")
    ledger.commit()
    ledger.close()
    found = checks(memspan)["store log"]
    assert (found["ok"], "log" in found["detail"], "memspan restore" in found["mend"]) == (False, True, True)
