"""What docs/server.md says is what happens."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import typer
from served import served

from memspan import Memory, cli
from memspan.cli import serving
from memspan.cli.output import clean

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def options() -> dict[str, object]:
    """The options of ``memspan serve`` with what they are by default."""
    app = typer.Typer()
    app.command()(serving.serve)
    found: dict[str, object] = {}
    for parameter in typer.main.get_command(app).params:
        found |= {name: parameter.default for name in (*parameter.opts, *parameter.secondary_opts) if name[:2] == "--"}
    return {name: default for name, default in found.items() if "completion" not in name}


def test_the_table_names_every_option_and_its_default() -> None:
    table = PAGE[PAGE.index("| Option |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    named = {name: row[1].strip("`") for row in rows for name in re.findall(r"--[\w-]+", row[0])}
    assert set(named) == set(options()) - {"--logs"}
    for name, said in named.items():
        if said.isdigit():
            assert int(said) == options()[name], name


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl runs the examples")
def test_the_first_requests_are_answered(memory: Memory) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    with served(memory) as url:
        answers = [
            subprocess.run(shlex.split(line.replace("http://127.0.0.1:8767", url)), capture_output=True, check=True)
            for line in lines
        ]
    added, found, context = (json.loads(each.stdout) for each in answers)
    assert found["hits"][0]["id"] == added["ids"][0]
    assert "Porto" in context["text"]


def test_the_commands_about_keys_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) == 4
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            cli.main(shlex.split(command)[1:])
        assert ended.value.code == 0, command


def test_every_command_line_has_only_options_that_there_are() -> None:
    (unit,), (image,) = blocks("ini"), blocks("dockerfile")
    lines = [*re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE), *(" ".join(json.loads(image.split("\nCMD ")[1])),)]
    for line in (*lines, *re.findall(r"^memspan serve.*$", PAGE, re.MULTILINE)):
        assert set(re.findall(r"--[\w-]+", line)) <= set(options()), clean(line)


def test_what_can_be_seen_has_the_names_it_says(memory: Memory, capfd: pytest.CaptureFixture[str]) -> None:
    with served(memory, logs=True) as url:
        httpx.post(f"{url}/v1/namespaces/default/search", json={"query": "kettle"})
        httpx.get(f"{url}/nowhere")
        metrics = httpx.get(f"{url}/metrics").text
    for name in re.findall(r"`(memspan_\w+)`", PAGE):
        assert f"# TYPE {name.removesuffix('_total')}" in metrics
    (shown,) = (json.loads(block) for block in blocks("json"))
    logged = json.loads(capfd.readouterr().err.splitlines()[0])
    assert list(logged) == list(shown)
    assert (logged["method"], logged["route"], logged["status"]) == (shown["method"], shown["route"], shown["status"])
