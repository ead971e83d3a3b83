"""The commands about what may have taken the place of what, through the door a user takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memspan.cli import main

OLD = "The daily call quota of the API key is 1,000 calls."
NEW = "The daily call quota of the API key has been increased to 1,200 calls."


@pytest.fixture(autouse=True)
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    older, newer = (
        run(capsys, "add", text, "--at", day, "--json") for text, day in ((OLD, "2024-01-01"), (NEW, "2024-02-01"))
    )
    return older["ids"][0], newer["ids"][0]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What a command prints, read where it is JSON."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    return json.loads(printed.out) if "--json" in arguments else printed.out


def test_conflicts_are_listed_with_reasons_and_ids_and_one_call_decides(
    ids: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "conflicts")
    assert "number" in shown
    assert shown.index(ids[0]) < shown.index(ids[1])
    (pair,) = run(capsys, "conflicts", "--json")["conflicts"]
    assert (pair["older"]["id"], pair["newer"]["id"], pair["reasons"]) == (*ids, ["number"])
    rejected = run(capsys, "reject", *ids, "--json")
    assert rejected["verb"] == "reject"
    assert run(capsys, "conflicts", "--json", code=1) == {"conflicts": []}
    run(capsys, "undo", rejected["id"])
    assert f"{ids[1]} took the place of {ids[0]}" in run(capsys, "accept", *ids)
    assert [hit["id"] for hit in run(capsys, "search", "call quota", "--json")["hits"]] == [ids[1]]
    run(capsys, "accept", "nothing", ids[1], code=1)


def test_resolve_shows_and_with_apply_does(ids: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 pair would be accepted" in run(capsys, "resolve", "--threshold", "0.5")
    assert len(run(capsys, "conflicts", "--json")["conflicts"]) == 1
    done = run(capsys, "resolve", "--threshold", "0.5", "--apply", "--json")
    assert (len(done["accepted"]), done["dry_run"]) == (1, False)
    assert run(capsys, "conflicts", "--json", code=1) == {"conflicts": []}
    run(capsys, "undo", done["operation"])
    assert len(run(capsys, "conflicts", "--json")["conflicts"]) == 1
