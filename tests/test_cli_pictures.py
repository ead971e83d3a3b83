"""The commands that draw, through the door a user takes."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memspan.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


Run = Callable[..., Outcome]


@pytest.fixture
def memspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def stored(memspan: Run) -> Run:
    """Two turns of Ana's session in "Travel", and a note on "Home"."""
    said = [
        {"role": "user", "name": "Ana", "content": "I took the train to Lisbon.", "time": "2024-05-01T10:00"},
        {"role": "assistant", "content": "How was it?", "time": "2024-05-01T11:00"},
    ]
    talk = ("--messages", "-", "--category", "Travel", "--user", "ana", "--session", "trip")
    assert memspan("add", *talk, stdin=json.dumps(said)).code == 0
    assert memspan("add", "The tomatoes want water.", "--category", "Home", "--at", "2024-05-20").code == 0
    return memspan


@pytest.mark.parametrize(
    ("command", "file", "about"),
    [
        (["plot"], "plot.html", "3 points by pca, coloured by category"),
        (["plot", "--heatmap"], "heatmap.html", "3 rows of 256 dimensions"),
        (["timeline"], "timeline.html", "3 segments by the day, 1 session"),
    ],
    ids=["plot", "heatmap", "timeline"],
)
def test_a_drawing_is_one_file_and_its_path_is_printed(
    stored: Run, tmp_path: Path, command: list[str], file: str, about: str
) -> None:
    drawn = stored(*command)
    assert (drawn.code, drawn.out) == (0, f"{tmp_path / file}\n")
    assert about in drawn.err
    assert (tmp_path / file).read_text(encoding="utf-8").startswith("<!doctype html>")
    for name in ("small.svg", "small.png"):
        assert stored(*command, "--out", name).code == 0
        assert (tmp_path / name).stat().st_size > 1_000


def test_the_json_says_what_was_drawn(stored: Run, tmp_path: Path) -> None:
    points = stored("plot", "--json", "--color", "speaker").document
    assert (points["points"], points["segments"], points["method"], points["dim"]) == (3, 3, "pca", 256)
    assert points["groups"] == {"Ana": 1, "assistant": 1, "no speaker": 1}
    assert sum(points["explained"]) == pytest.approx(1, abs=1e-3)
    assert points["bytes"] == (tmp_path / "plot.html").stat().st_size
    rows = stored("plot", "--heatmap", "--json").document
    assert (rows["rows"], rows["bands"], rows["dims"]) == (3, 3, 256)
    times = stored("timeline", "--json").document
    assert (times["segments"], times["sessions"], times["unit"], times["bins"]) == (3, 1, "day", 2)
    assert (times["start"], times["end"]) == ("2024-05-01T10:00:00+00:00", "2024-05-20T00:00:00+00:00")
    assert times["groups"] == {"ana": 2, "no user": 1}


@pytest.mark.parametrize("command", [["plot"], ["plot", "--heatmap"], ["timeline"]], ids=" ".join)
def test_scopes_and_filters_hold_and_nothing_found_is_said(stored: Run, tmp_path: Path, command: list[str]) -> None:
    assert stored(*command, "--user", "ana", "--json").document["segments"] == 2
    assert stored(*command, "--session", "trip", "--filter", "category=Travel", "--json").document["segments"] == 2
    for scope in (["--namespace", "nobody"], ["--user", "ben"], ["--filter", "category=Nowhere"]):
        told = stored(*command, *scope, "--out", "absent.html", "--json")
        assert (told.code, told.out) == (1, "")
        assert "nothing to draw" in told.error["message"]
    assert not (tmp_path / "absent.html").exists()


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["plot", "--out", "plot.pdf"], "path"),
        (["plot", "--out", "absent/plot.html"], "path"),
        (["plot", "--color", "mood"], "color"),
        (["plot", "--method", "tsne"], "method"),
        (["plot", "--heatmap", "--color", "time"], "--heatmap"),
        (["plot", "--heatmap", "--method", "umap"], "--heatmap"),
        (["plot", "--filter", "?"], "--filter"),
        (["timeline", "--out", "time"], "path"),
        (["timeline", "--color", "session"], "color"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_with_its_mend(stored: Run, tmp_path: Path, arguments: list[str], argument: str) -> None:
    told = stored(*arguments, "--json")
    assert (told.code, told.out) == (2, "")
    assert told.error["argument"] == argument
    assert told.error["mend"]
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("command", [["plot"], ["plot", "--heatmap"], ["timeline"]], ids=" ".join)
def test_a_picture_without_its_library_is_a_missing_package(
    stored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = stored(*command, "--out", "it.png", "--json")
    assert (told.code, told.error["mend"]) == (4, 'pip install "memspan[pictures]"')
    assert not (tmp_path / "it.png").exists()
    assert stored(*command).code == 0


def test_the_commands_of_the_documentation_run(stored: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/pictures.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    examples = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    assert len(examples) >= 5
    for example in examples:
        program, *arguments = shlex.split(example.removeprefix("$ "))
        assert program == "memspan"
        if "umap" not in arguments or importlib.util.find_spec("umap"):
            assert stored(*arguments).code == 0, example


def test_looking_never_creates_a_store(memspan: Run, tmp_path: Path) -> None:
    for command in ("plot", "timeline"):
        assert memspan(command, "--store", "mistyped").code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_an_encoder_has_a_timeline_and_no_plot(memspan: Run) -> None:
    assert memspan("add", "Only words.", "--encoder", "none").code == 0
    told = memspan("plot", "--json")
    assert told.code == 1
    assert "no encoder" in told.error["message"]
    assert "memspan rebuild" in told.error["mend"]
    assert memspan("timeline").code == 0
