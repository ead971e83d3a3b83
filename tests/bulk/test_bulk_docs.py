"""What docs/bulk.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "bulk.md"


def test_the_example_of_the_page_runs_as_it_stands(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/bulk.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.endswith("1 of 1: 2 segments stored, 2 texts encoded\n")


def test_the_page_names_every_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from typer import rich_utils

    from memspan.cli import bulk, main

    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 200)
    with pytest.raises(SystemExit):
        main(["ingest", "--help"])
    panel = capsys.readouterr().out.split(bulk.ON_RAY)[1].split("╰")[0]
    options = set(re.findall(r"(--[a-z-]+)", panel))
    assert {"--ray", "--encoders", "--text-column"} <= options
    assert {option for option in options if f"`{option}" not in PAGE.read_text(encoding="utf-8")} <= {"--ray"}
