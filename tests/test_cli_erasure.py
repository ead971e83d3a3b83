"""Erasing and proving it, on the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memspan import Memory
from memspan.cli import main

Run = Callable[..., tuple[int, str, str]]
SECRET = "Zqvbnmkhgfd keeps the Wqzyxkjhgf ledger"


@pytest.fixture
def memspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def id(tmp_path: Path) -> str:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add("The kettle boils.", user_id="ben")
        return memory.add(SECRET, user_id="ana", metadata={"note": "Xkcdhgfqzw"}).ids[0]


def test_what_is_erased_is_looked_for_and_the_receipt_is_kept(memspan: Run, id: str, tmp_path: Path) -> None:
    code, out, _ = memspan("erase", id, "--vacuum", "--yes", "--receipt", "receipt.json")
    assert code == 0
    assert "1 segment erased" in out
    assert "Found          nothing" in out
    kept = (tmp_path / "receipt.json").read_text("utf-8")
    told = json.loads(kept)
    assert told["ok"]
    assert told["operation"]["verb"] == "erase"
    assert not [word for word in (*SECRET.split(), "Xkcdhgfqzw") if len(word) > 6 and word.lower() in kept.lower()]
    assert memspan("erase", id, "--yes")[0] == 1  # it is not there any more


def test_a_scope_is_erased_whole(memspan: Run, id: str) -> None:
    code, out, _ = memspan("erase", "--user", "ana", "--yes", "--vacuum", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["segments"], told["vacuumed"], told["receipt"]["found"]) == (1, True, [])
    assert "kettle" in memspan("list")[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["erase"], "ID"),
        (["erase", "--yes"], "ID"),
        (["erase", "x", "--user", "ana", "--yes"], "ID"),
        (["erase", "--user", "ana"], "--yes"),
        (["erase", "x", "--yes", "--no-verify", "--receipt", "r"], "--receipt"),
        (["verify-erasure", "--text-file", "nowhere.txt"], "--text-file"),
    ],
)
def test_an_erasure_that_is_not_meant_erases_nothing(
    memspan: Run, id: str, tmp_path: Path, arguments: list[str], named: str
) -> None:
    code, _, err = memspan(*arguments, "--json")
    assert code == 2
    assert json.loads(err)["error"]["argument"] == named
    with Memory(tmp_path / "store", encoder="hash") as memory:
        assert memory.get(id).text == SECRET


def test_a_trace_is_told_by_its_place_and_fails(memspan: Run, id: str, tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text(SECRET + "\n", "utf-8")
    assert memspan("verify-erasure", "--text-file", "gone.txt")[0] == 0  # it is still stored: no trace of what is gone
    assert memspan("erase", id, "--vacuum", "--yes")[0] == 0
    assert memspan("verify-erasure", "--text-file", "gone.txt")[0] == 0
    (tmp_path / "store" / "left.bin").write_bytes(b"\0\0" + SECRET.upper().encode())
    code, out, _ = memspan("verify-erasure", "--text-file", "gone.txt")
    assert code == 1
    assert "left.bin: text" in out
    assert "Wqzyxkjhgf".lower() not in out.lower()
