"""``MemspanMemoryTool``: what Claude's memory tool (``memory_20250818``) reads and writes, kept in a ``Memory``.

    from anthropic import Anthropic
    from memspan import Memory
    from memspan.integrations.anthropic import MemspanMemoryTool

    memory = MemspanMemoryTool(Memory("my-memory"))
    Anthropic().beta.messages.tool_runner(model=..., max_tokens=..., messages=..., tools=[memory])

A file is an ``Entry``: it is found by what it says, with ``Memory.search`` and in contexts, and what Claude overwrites
or deletes stays in the history. No path leads to the disk. Directories are there while a file is in them. What the
commands answer, also when they cannot be done, is what Anthropic's documentation of the tool says
(platform.claude.com/docs, "Memory tool"); a failed one raises ToolError, which the tool runner gives to Claude as a
result that is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from memspan.errors import InvalidInput, MissingExtra
from memspan.integrations.entries import Entries, Entry
from memspan.memory import Memory

try:
    from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
    from anthropic.types.beta import (
        BetaMemoryTool20250818CreateCommand,
        BetaMemoryTool20250818DeleteCommand,
        BetaMemoryTool20250818InsertCommand,
        BetaMemoryTool20250818RenameCommand,
        BetaMemoryTool20250818StrReplaceCommand,
        BetaMemoryTool20250818ViewCommand,
    )
except ImportError as error:
    raise MissingExtra("MemspanMemoryTool needs anthropic", mend='pip install "memspan[anthropic]"') from error

ROOT = "memories"
MOST_LINES = 999_999
LEVELS = 2  # of directories that a view lists
AROUND = 2  # lines shown before and after a change
LONGEST_PATH = 1_024

Path = tuple[str, ...]


class MemspanMemoryTool(BetaAbstractMemoryTool):
    """The files under ``/memories``, of ``user_id`` in one namespace of a memory. Each command answers with a text.

    Raises ToolError where a command cannot be done; then nothing was changed.
    """

    def __init__(
        self, memory: Memory, *, namespace: str | None = None, user_id: str = "anthropic", **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._files = Entries(memory, "anthropic", user_id=user_id, namespace=namespace)

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """A file with its lines numbered, or what is in a directory, with sizes."""
        path = _path(command.path)
        file = self._files.read(path)
        if file is None:
            return self._listing(path, command.path)
        lines = file.text.split("\n")
        if len(lines) > MOST_LINES:
            raise ToolError(f"File {command.path} exceeds maximum line limit of {MOST_LINES:,} lines.")
        first, last = command.view_range or (1, -1)
        first, last = max(1, first), len(lines) if last == -1 else last
        numbered = _numbered(lines, first, last)
        return f"Here's the content of {command.path} with line numbers:\n{numbered}"

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """A new file."""
        path = _path(command.path)
        if not path[1:] or self._exists(path):
            raise ToolError(f"Error: File {command.path} already exists")
        self._write(path, command.path, command.file_text)
        return f"File created successfully at: {command.path}"

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """One place of a file changed, which must be the only one that reads so."""
        file = self._file(command.path, " Please provide a valid path.")
        old, new = command.old_str, command.new_str or ""
        places = list(_places(file.text, old))
        if not places:
            raise ToolError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {command.path}.")
        if len(places) > 1:
            lines = ", ".join(str(file.text.count("\n", 0, place) + 1) for place in places)
            raise ToolError(
                f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {lines}. "
                "Please ensure it is unique"
            )
        text = file.text[: places[0]] + new + file.text[places[0] + len(old) :]
        self._write(file.key, command.path, text)
        changed = text.count("\n", 0, places[0]) + 1
        snippet = _numbered(text.split("\n"), changed - AROUND, changed + new.count("\n") + AROUND)
        return f"The memory file has been edited. Here is the snippet showing the change:\n{snippet}"

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Text after a line, 0 for the beginning."""
        file = self._file(command.path)
        lines = _lines(file.text)
        if not 0 <= command.insert_line <= len(lines):
            raise ToolError(
                f"Error: Invalid `insert_line` parameter: {command.insert_line}. "
                f"It should be within the range of lines of the file: [0, {len(lines)}]"
            )
        before, after = "".join(lines[: command.insert_line]), "".join(lines[command.insert_line :])
        if before and not before.endswith("\n"):
            before += "\n"
        self._write(file.key, command.path, f"{before}{command.insert_text.rstrip(chr(10))}\n{after}")
        return f"The file {command.path} has been edited."

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """A file, or a directory with all in it, which stays in the history."""
        path = _path(command.path)
        if not path[1:]:
            raise ToolError("Error: Cannot delete the /memories directory itself")
        files = self._below(path)
        if not files:
            raise ToolError(f"Error: The path {command.path} does not exist")
        self._files.remove(files)
        return f"Successfully deleted {command.path}"

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """A file, or a directory with all in it, under another path; what is there is not overwritten."""
        old, new = _path(command.old_path), _path(command.new_path)
        if not old[1:]:
            raise ToolError("Error: Cannot rename the /memories directory itself")
        files = self._below(old)
        if not files:
            raise ToolError(f"Error: The path {command.old_path} does not exist")
        if not new[1:] or self._exists(new):
            raise ToolError(f"Error: The destination {command.new_path} already exists")
        if new[: len(old)] == old:
            raise ToolError(f"Error: The destination {command.new_path} lies in {command.old_path}")
        for file in files:
            self._write(new + file.key[len(old) :], command.new_path, file.text)
        self._files.remove(files)
        return f"Successfully renamed {command.old_path} to {command.new_path}"

    def clear_all_memory(self) -> str:
        """Every file deleted."""
        self._files.remove(self._files.all())
        return "All memory cleared"

    def _file(self, named: str, mend: str = "") -> Entry:
        path = _path(named)
        file = self._files.read(path)
        if file is None:  # a directory is none either
            raise ToolError(f"Error: The path {named} does not exist{'.' if mend else ''}{mend}")
        return file

    def _exists(self, path: Path) -> bool:
        return self._files.read(path) is not None or bool(self._below(path))

    def _below(self, path: Path) -> list[Entry]:
        """The file at ``path``, or those in the directory that is there."""
        file = self._files.read(path)
        if file is not None:
            return [file]
        folder = "/".join(path)  # no name holds a slash, and 0 comes next after it
        return self._files.all({"metadata.path": {"gte": f"{folder}/", "lt": f"{folder}0"}})

    def _write(self, path: Path, named: str, text: str) -> None:
        for end in range(2, len(path)):
            if self._files.read(path[:end]) is not None:
                raise ToolError(f"Error: The path /{'/'.join(path[:end])} is a file, not a directory")
        media = "markdown" if path[-1].endswith(".md") else "text"
        try:
            self._files.write(path, text, {"path": "/".join(path)}, category=path[:-1], media=media)  # type: ignore[arg-type]
        except InvalidInput as error:
            raise ToolError(f"Error: {named} cannot be written: {error}") from error

    def _listing(self, path: Path, named: str) -> str:
        files = self._below(path)
        if not files and path[1:]:
            raise ToolError(f"The path {named} does not exist. Please provide a valid path.")
        sizes: dict[Path, int] = {path: 0}
        folders = {path}
        for file in files:
            names = file.key[len(path) :]
            if any(name.startswith(".") or name == "node_modules" for name in names):
                continue
            size = len(file.text.encode())
            for depth in range(len(names) + 1):
                place = path + names[:depth]
                sizes[place] = sizes.get(place, 0) + size
                folders |= {place} if depth < len(names) else set()
        listed = [
            f"{_size(sizes[place])}\t/{'/'.join(place)}{'/' if place in folders and place != path else ''}"
            for place in sorted(sizes)
            if len(place) <= len(path) + LEVELS
        ]
        header = f"Here're the files and directories up to {LEVELS} levels deep in {named}"
        return "\n".join([f"{header}, excluding hidden items and node_modules:", *listed])


class MemspanAsyncMemoryTool(BetaAsyncAbstractMemoryTool):
    """The same for the asynchronous client: each command runs in a thread."""

    def __init__(
        self, memory: Memory, *, namespace: str | None = None, user_id: str = "anthropic", **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._tool = MemspanMemoryTool(memory, namespace=namespace, user_id=user_id)

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        return await asyncio.to_thread(self._tool.view, command)

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        return await asyncio.to_thread(self._tool.create, command)

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        return await asyncio.to_thread(self._tool.str_replace, command)

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        return await asyncio.to_thread(self._tool.insert, command)

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        return await asyncio.to_thread(self._tool.delete, command)

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        return await asyncio.to_thread(self._tool.rename, command)

    async def clear_all_memory(self) -> str:
        return await asyncio.to_thread(self._tool.clear_all_memory)


def _path(named: str) -> Path:
    """The steps of a path under /memories. Raises ToolError for one that would lead out of it, encoded or not."""
    begin, *steps = named.removesuffix("/").split("/") if isinstance(named, str) else ("?",)
    decoded = [unquote(step) for step in steps]
    if begin or not steps or steps[0] != ROOT:
        raise ToolError(f"Error: The path must start with /memories, got: {named}")
    if any(step in ("", ".", "..") or "/" in step or "\\" in step or not step.isprintable() for step in decoded):
        raise ToolError(f"Error: The path {named} would escape the /memories directory, or is none")
    if len(named) > LONGEST_PATH or not named.isprintable():
        raise ToolError(f"Error: The path has {len(named):,} characters; use at most {LONGEST_PATH:,}")
    return tuple(steps)


def _places(text: str, wanted: str) -> Iterator[int]:
    """Where ``wanted`` is in a text, also where it overlaps itself; nowhere where it is empty."""
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def _lines(text: str) -> list[str]:
    """The lines of a text with their ends, cut at line feeds alone."""
    *whole, last = text.split("\n")
    return [f"{line}\n" for line in whole] + [last] * bool(last)


def _numbered(lines: list[str], first: int, last: int) -> str:
    first = max(1, first)
    return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines[first - 1 : last], first))


def _size(size: int) -> str:
    """As ``du -h`` writes it."""
    number = float(size)
    for unit in "BKMG":
        if number < 1024 or unit == "G":
            break
        number /= 1024
    return f"{number:.1f}{unit}" if number % 1 else f"{int(number)}{unit}"
