"""``memspan mcp install``: what it writes into the files of clients, and what it leaves alone."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memspan import cli
from memspan.cli.clients import CLIENTS, Client, change, command_for, named

Run = Callable[..., tuple[int, str, str]]
COMMAND = command_for(["mcp", "serve"])
OTHERS: dict[str, str] = {
    "json": '{\n    "theme": "dark",\n    "%s": {\n        "other": {\n            "on": "é"\n        }\n    }\n}\n',
    "toml": 'model = "o5" # mine\n\n[%s.other]\ncommand = "é"\n\n[tools]\nweb = true\n',
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["mcp", "install", *arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return ran


def read(client: Client, text: str) -> Any:
    return tomllib.loads(text) if client.format == "toml" else json.loads(text)


def placed(home: Path, client: Client, text: str) -> Path:
    path = client.path(home, "linux")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_the_clients_are_listed_with_their_files(home: Path, run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [client.name for client in CLIENTS]
    assert f"{home}/.cursor/mcp.json\tnot there" in out
    code, out, _ = run("--json")
    assert json.loads(out)["clients"][0]["client"] == CLIENTS[0].name


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_file_there_was_not_is_made_with_the_entry_the_client_reads(home: Path, run: Run, client: Client) -> None:
    code, out, _ = run(client.name, "--yes", "--profile", "full", "--namespace", "acme")
    path = client.path(home, "linux")
    entry = read(client, path.read_text(encoding="utf-8"))[client.key]["memspan"]
    called = entry["command"][1:] if isinstance(entry["command"], list) else entry["args"]
    store = str(home / "store")
    assert called[-8:] == ["mcp", "serve", "--store", store, "--namespace", "acme", "--profile", "full"]
    assert code == 0
    assert "+" in out
    assert client.title in out
    assert path.stat().st_mode & 0o077 == 0
    assert run(client.name, "--yes")[0] == 0  # another one takes its place
    assert "acme" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_everything_else_in_a_file_stays_as_it_is(home: Path, run: Run, client: Client) -> None:
    before = OTHERS[client.format] % client.key
    path = placed(home, client, before)
    path.chmod(0o640)
    code, out, _ = run(client.name, "--yes")
    after = path.read_text(encoding="utf-8")
    expected = read(client, before)
    expected[client.key]["memspan"] = client.entry(command_for(["mcp", "serve", "--store", str(home / "store")]))
    assert (code, read(client, after)) == (0, expected)
    removed = [line for line in out.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert len(removed) <= 1  # a comma
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".part")] == []
    code, out, _ = run(client.name, "--yes")
    assert "has it already" in out
    assert path.read_text(encoding="utf-8") == after


@pytest.mark.parametrize(
    "text",
    [
        '// mine\n{"context_servers": {}}\n',
        '{"context_servers": {},}\n',
        '{"a": 1, "a": 2}\n',
        "[]",
        '{"context_servers": 1}',
    ],
)
def test_a_file_that_could_not_be_written_back_is_left_with_the_lines_to_paste(home: Path, run: Run, text: str) -> None:
    path = placed(home, named("zed"), text)
    code, _, err = run("zed", "cursor", "--yes")
    assert code == 1
    assert path.read_text(encoding="utf-8") == text
    assert "was left as it is" in err
    pasted = json.loads(err[err.index("{") : err.rindex("}") + 1])
    assert pasted["context_servers"]["memspan"]["args"][:2] == ["mcp", "serve"]
    assert (home / ".cursor" / "mcp.json").exists()
    code, out, _ = run("zed", "--json", "--dry-run")
    assert (code, json.loads(out)["refused"][0]["client"]) == (1, "zed")


def test_toml_in_another_form_is_left_alone(home: Path, run: Run) -> None:
    for text in ("mcp_servers = {}\n", "mcp_servers = 1\n", '[mcp_servers]\nmemspan = {command = "x"}\n', "a = [\n"):
        path = placed(home, named("codex"), text)
        code, _, err = run("codex", "--yes")
        assert (code, path.read_text(encoding="utf-8")) == (1, text)
        assert "[mcp_servers.memspan]\ncommand = " in err


def test_line_ends_and_margins_stay(home: Path, run: Run) -> None:
    path = placed(home, named("gemini"), '\ufeff{\r\n\t"theme": "dark"\r\n}\r\n')
    assert run("gemini", "--yes")[0] == 0
    raw = path.read_bytes().decode()
    assert raw.startswith('\ufeff{\r\n\t"theme": "dark",\r\n\t"mcpServers": {\r\n\t\t"memspan"')
    assert raw.endswith("}\r\n")
    assert raw.count("\n") == raw.count("\r\n")


def test_a_dry_run_and_a_run_that_cannot_ask_write_nothing(home: Path, run: Run) -> None:
    code, out, _ = run("cursor", "--dry-run")
    assert code == 0
    assert '+      "command":' in out
    code, _, err = run("cursor")
    assert code == cli.BAD_INPUT
    assert "--yes" in err
    code, out, _ = run("cursor", "--json", "--dry-run")
    (told,) = json.loads(out)["clients"]
    assert (told["client"], told["changed"]) == ("cursor", False)
    assert not (home / ".cursor").exists()
    code, out, _ = run("cursor", "--json", "--yes")
    assert json.loads(out)["clients"][0]["changed"] is True


def test_a_link_to_a_file_stays_one(home: Path, run: Run) -> None:
    kept = home / "dotfiles.json"
    kept.write_text("{}")
    (home / ".cursor").mkdir()
    (home / ".cursor" / "mcp.json").symlink_to(kept)
    assert run("cursor", "--yes")[0] == 0
    assert (home / ".cursor" / "mcp.json").is_symlink()
    assert "memspan" in kept.read_text()


def test_a_file_that_changed_meanwhile_is_not_written(home: Path) -> None:
    client = named("claude-code")
    path = placed(home, client, "{}")
    made = change(client, path, COMMAND)
    path.write_text('{"numStartups": 2}')
    with pytest.raises(ValueError, match="has just been changed"):
        made.write()
    assert path.read_text() == '{"numStartups": 2}'


def test_an_unknown_client_or_profile_is_named_with_those_there_are(home: Path, run: Run) -> None:
    code, _, err = run("emacs")
    assert code == cli.BAD_INPUT
    assert "claude-desktop, claude-code, cursor" in err
    code, _, err = run("cursor", "--profile", "all", "--yes")
    assert code == cli.BAD_INPUT
    assert "default, full, chatgpt, reference" in err


def test_each_system_has_its_own_paths() -> None:
    home, desktop = Path("/home/ana"), named("claude-desktop")
    assert desktop.path(home, "linux") == home / ".config/Claude/claude_desktop_config.json"
    assert desktop.path(home, "macos") == home / "Library/Application Support/Claude/claude_desktop_config.json"
    assert desktop.path(home, "windows", Path("/roaming")) == Path("/roaming/Claude/claude_desktop_config.json")
    assert desktop.path(home, "windows") == home / "AppData/Roaming/Claude/claude_desktop_config.json"
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
