"""The programs that can have a memory over MCP: where each keeps its configuration, and what it wants to read there.

A file is changed by one entry and nothing else. One that could not be written back as it was (comments, settings twice)
is left alone, and what to paste is told instead.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from memspan.errors import InvalidInput
from memspan.segmenting import shown

System = Literal["macos", "windows", "linux"]
Entry = dict[str, Any]

NAME: Final = "memspan"
"""What the server is called in every configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a client shall run: a program and its arguments."""

    program: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program with MCP. ``paths`` by system, None for all others, below the home directory (``%APPDATA%`` on Windows
    stands for ``AppData/Roaming``). ``key``: the setting that holds the servers; ``entry`` makes what stands in it."""

    name: str
    title: str
    paths: Mapping[System | None, str]
    key: str
    entry: Callable[[Command], Entry]
    format: Literal["json", "toml"] = "json"

    def path(self, home: Path, system: System, appdata: Path | None = None) -> Path:
        """Its configuration file; it may not exist. ``appdata``: the roaming folder of Windows, None for the usual."""
        named = self.paths.get(system) or self.paths[None]
        if named.startswith("%APPDATA%/"):
            return (appdata or home / "AppData" / "Roaming") / named.removeprefix("%APPDATA%/")
        return home / named


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a client's file holds, None where there is none, and what it shall hold."""

    client: Client
    path: Path
    before: str | None
    after: str

    @property
    def needed(self) -> bool:
        return self.before != self.after

    @property
    def diff(self) -> str:
        """The lines that change, as ``diff -u`` shows them."""
        old, new = (self.before or "").splitlines(keepends=True), self.after.splitlines(keepends=True)
        lines = difflib.unified_diff(old, new, str(self.path), str(self.path))
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def write(self) -> None:
        """Write the whole file or none of it, with the rights it had; a link stays one. Raises InvalidInput, also where
        the client itself has written it since."""
        file = self.path.resolve()
        aside = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            if _text(file) != self.before:
                raise InvalidInput(
                    self.client.name, f"{file} has just been changed", mend="close it and run this again"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("x", encoding="utf-8", newline="") as out:
                os.chmod(aside, file.stat().st_mode & 0o7777 if file.exists() else 0o600)
                out.write(self.after)
            os.replace(aside, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            problem = f"{file} cannot be written ({error.strerror})"
            raise InvalidInput(self.client.name, problem, mend=f"paste this into it:\n{snippet_of(self)}") from error


def plain(command: Command) -> Entry:
    return {"command": command.program, "args": list(command.arguments)}


def _typed(command: Command) -> Entry:
    return {"type": "stdio", **plain(command)}


def _zed(command: Command) -> Entry:
    return {"source": "custom", **plain(command), "env": {}}


def _opencode(command: Command) -> Entry:
    return {"type": "local", "command": [command.program, *command.arguments], "enabled": True}


def _copilot(command: Command) -> Entry:
    return {"type": "local", **plain(command), "tools": ["*"]}


def _everywhere(path: str) -> Mapping[System | None, str]:
    return MappingProxyType({None: path})


def _by_system(macos: str, windows: str, linux: str) -> Mapping[System | None, str]:
    return MappingProxyType({"macos": macos, "windows": windows, "linux": linux})


CODE_USER: Final = (
    "Library/Application Support/Code/User",
    "%APPDATA%/Code/User",
    ".config/Code/User",
)
CLINE: Final = "globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
CLIENTS: Final[tuple[Client, ...]] = (
    Client(
        name="claude-desktop",
        title="Claude Desktop",
        paths=_by_system(
            "Library/Application Support/Claude/claude_desktop_config.json",
            "%APPDATA%/Claude/claude_desktop_config.json",
            ".config/Claude/claude_desktop_config.json",
        ),
        key="mcpServers",
        entry=plain,
    ),
    Client(name="claude-code", title="Claude Code", paths=_everywhere(".claude.json"), key="mcpServers", entry=_typed),
    Client(name="cursor", title="Cursor", paths=_everywhere(".cursor/mcp.json"), key="mcpServers", entry=plain),
    Client(
        name="vscode",
        title="VS Code",
        paths=_by_system(*(f"{folder}/mcp.json" for folder in CODE_USER)),
        key="servers",
        entry=_typed,
    ),
    Client(
        name="cline",
        title="Cline",
        paths=_by_system(*(f"{folder}/{CLINE}" for folder in CODE_USER)),
        key="mcpServers",
        entry=plain,
    ),
    Client(
        name="windsurf",
        title="Windsurf",
        paths=_everywhere(".codeium/windsurf/mcp_config.json"),
        key="mcpServers",
        entry=plain,
    ),
    Client(
        name="zed",
        title="Zed",
        paths=_by_system(".config/zed/settings.json", "%APPDATA%/Zed/settings.json", ".config/zed/settings.json"),
        key="context_servers",
        entry=_zed,
    ),
    Client(
        name="codex",
        title="Codex",
        paths=_everywhere(".codex/config.toml"),
        key="mcp_servers",
        entry=plain,
        format="toml",
    ),
    Client(
        name="gemini", title="Gemini CLI", paths=_everywhere(".gemini/settings.json"), key="mcpServers", entry=plain
    ),
    Client(name="qwen", title="Qwen Code", paths=_everywhere(".qwen/settings.json"), key="mcpServers", entry=plain),
    Client(
        name="copilot",
        title="GitHub Copilot CLI",
        paths=_everywhere(".copilot/mcp-config.json"),
        key="mcpServers",
        entry=_copilot,
    ),
    Client(
        name="opencode",
        title="opencode",
        paths=_everywhere(".config/opencode/opencode.json"),
        key="mcp",
        entry=_opencode,
    ),
    Client(name="lmstudio", title="LM Studio", paths=_everywhere(".lmstudio/mcp.json"), key="mcpServers", entry=plain),
)


def named(name: str) -> Client:
    """The client of this name. Raises InvalidInput."""
    for client in CLIENTS:
        if client.name == name:
            return client
    mend = f"use one of {', '.join(client.name for client in CLIENTS)}"
    raise InvalidInput("CLIENT", f"there is no {shown(name)}", mend=mend)


def this_system() -> System:
    return "macos" if sys.platform == "darwin" else "windows" if sys.platform == "win32" else "linux"


def command_for(arguments: Sequence[str]) -> Command:
    """How a client, which knows no PATH of a shell, starts this very installation of memspan with ``arguments``."""
    beside = Path(sys.executable).parent / ("memspan.exe" if sys.platform == "win32" else "memspan")
    found = str(beside) if beside.is_file() else shutil.which("memspan")
    if found is not None:
        return Command(program=found, arguments=tuple(arguments))
    run = "from memspan.cli import main; main()"
    return Command(program=sys.executable, arguments=("-c", run, *arguments))


def change(client: Client, path: Path, command: Command) -> Change:
    """What has the client start ``command``, with everything else in its file as it is.

    Raises InvalidInput, with the lines to paste as the mend, where that cannot be promised; nothing was written.
    """
    entry = client.entry(command)
    try:
        before = _text(path)
        after = (_toml if client.format == "toml" else _json)(client, before or "", entry)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        mend = f"paste this into it:\n{snippet(client, entry)}"
        raise InvalidInput(client.name, f"{path} was left as it is: {told}", mend=mend) from error
    return Change(client=client, path=path, before=before, after=after)


def _text(path: Path) -> str | None:
    return path.read_bytes().decode() if path.exists() else None


def snippet(client: Client, entry: Entry) -> str:
    """The lines a person pastes by hand."""
    if client.format == "toml":
        return _table(client.key, entry)
    return json.dumps({client.key: {NAME: entry}}, indent=2, ensure_ascii=False) + "\n"


def snippet_of(change: Change) -> str:
    """The same, of a change that could not be made."""
    read = tomllib.loads if change.client.format == "toml" else json.loads
    return snippet(change.client, read(change.after)[change.client.key][NAME])


def _json(client: Client, before: str, entry: Entry) -> str:
    """``before`` with the entry in it. Raises ValueError."""
    bare = before.removeprefix("\ufeff")
    try:
        settings = json.loads(bare, object_pairs_hook=_once) if bare.strip() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no plain JSON, but may have comments (line {error.lineno}: {error.msg})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(settings, dict) or not isinstance(settings.setdefault(client.key, {}), dict):
        raise ValueError(f"it is not an object with an object {client.key!r}")
    if settings[client.key].get(NAME) == entry:
        return before
    settings[client.key][NAME] = entry
    margin = re.search(r"^([ \t]+)\S", bare, re.MULTILINE)
    after = json.dumps(settings, indent=margin[1] if margin else 2, ensure_ascii=bare.isascii() and bool(bare.strip()))
    after = after.replace("\n", "\r\n") if "\r\n" in before else after
    after.encode()
    return before[: len(before) - len(bare)] + after + (before[len(before.rstrip()) :] if bare.strip() else "\n")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("it names a setting twice, of which one would be lost")
    return made


def _toml(client: Client, before: str, entry: Entry) -> str:
    """``before`` with the entry as a table of its own at its end, or in the place of the one that is there. Raises
    ValueError."""
    try:
        settings = tomllib.loads(before)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML ({error})") from error
    servers = settings.get(client.key, {})
    if not isinstance(servers, dict):
        raise ValueError(f"its {client.key!r} is no table")
    if servers.get(NAME) == entry:
        return before
    wanted = {**settings, client.key: {**servers, NAME: entry}}
    header = re.escape(f"[{client.key}.{NAME}]")
    own = re.compile(rf"^{header}[ \t]*(?:#[^\n]*)?\n(?:(?!\s*\[)[^\n]*(?:\n|\Z))*", re.MULTILINE)
    rest = own.sub("", before.replace("\r\n", "\n")).rstrip("\n")
    after = f"{rest}\n\n{_table(client.key, entry)}" if rest else _table(client.key, entry)
    after = after.replace("\n", "\r\n") if "\r\n" in before else after
    try:
        kept = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        kept = False
    if not kept:
        raise ValueError(f"it has {client.key}.{NAME} in another form than a table")
    return after


def _table(key: str, entry: Entry) -> str:
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items()]
    return "\n".join([f"[{key}.{NAME}]", *lines, ""])
