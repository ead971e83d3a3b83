"""The formats a memory goes out to and comes in from: one module each, loaded when it is used.

A module has ``recognises(path, head)``, asked with the first bytes of the file (none for a directory);
``read(path, report)``, which gives records as it goes and holds only a few of them; and where the format can be
written, ``write(path, contents)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from memspan.archives.base import HEAD, Record, Report
from memspan.errors import InvalidInput, NotFound
from memspan.segmenting import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format by ``name``. ``suffixes`` of the file it makes, none for a directory. ``vectors``: it has room for a
    vector of each segment, ``tokens`` also for token matrices; ``matrix``: it is nothing without vectors."""

    name: str
    about: str
    suffixes: tuple[str, ...] = ()
    writes: bool = False
    vectors: bool = False
    tokens: bool = False
    matrix: bool = False

    @property
    def module(self) -> ModuleType:
        return import_module(f"memspan.archives.{self.name}")


FORMATS: tuple[Format, ...] = (
    Format(name="jsonl", about="everything but vectors as JSON lines: stable, to be compared and versioned",
           suffixes=(".jsonl", ".ndjson"), writes=True),
    Format(name="cube", about="everything, vectors too, in one file with checksums and a signature",
           suffixes=(".memspan",), writes=True, vectors=True, tokens=True),
    Format(name="parquet", about="everything, vectors too, as a table for analysis",
           suffixes=(".parquet",), writes=True, vectors=True),
    Format(name="csv", about="Latent Memory's embeddings.csv and metadata.json, in a folder",
           writes=True, vectors=True, matrix=True),
    Format(name="npy", about="Latent Memory's embeddings.npy and metadata.json, in a folder",
           writes=True, vectors=True, matrix=True),
    Format(name="hdf5", about="Latent Memory's HDF5 file",
           suffixes=(".hdf5", ".h5"), writes=True, vectors=True, matrix=True),
    Format(name="pickle", about="Latent Memory's pickle",
           suffixes=(".pkl", ".pickle"), writes=True, vectors=True, matrix=True),
    Format(name="faiss", about="Latent Memory's faiss_index.bin and metadata.json, in a folder",
           writes=True, vectors=True, matrix=True),
    Format(name="records", about="Latent Memory's summaries of conversations as JSON, YAML or an SQLite table"),
    Format(name="mcp", about="the memory.jsonl of the reference MCP server"),
    Format(name="mem0", about="mem0: what get_all returns, its history.db, its local Qdrant folder"),
    Format(name="chatgpt", about="a ChatGPT export: conversations.json, or the zip it came in"),
    Format(name="claude", about="a Claude export: conversations.json, or the zip it came in"),
    Format(name="langgraph", about="the items of a LangGraph store as JSON, or its SQLite file"),
    Format(name="dsm", about="DSM's JSON file"),
    Format(name="markdown", about="a folder of Markdown notes"),
    Format(name="chatlog", about="a chat as text: WhatsApp, IRC, or lines NAME: TEXT"),
)  # fmt: skip


def named(name: str) -> Format:
    """The format of this name. Raises InvalidInput naming ``format``."""
    for format in FORMATS:
        if format.name == name:
            return format
    mend = f"use one of {', '.join(format.name for format in FORMATS)}"
    raise InvalidInput("format", f"there is no {shown(name)}", mend=mend)


def for_writing(path: Path, name: str | None) -> Format:
    """The format to write ``path`` in: the one named, or the one its suffix says. Raises InvalidInput."""
    names = ", ".join(each.name for each in FORMATS if each.writes)
    if name is not None:
        format = named(name)
    else:
        suffix = path.suffix.lower()
        found = [each for each in FORMATS if each.writes and suffix in each.suffixes]
        if not found:
            problem = f"the name {path.name!r} says no format"
            raise InvalidInput(
                "format", problem, mend=f"end it in .jsonl, .memspan or .parquet, or name one of {names}"
            )
        format = found[0]
    if not format.writes:
        raise InvalidInput("format", f"{format.name} can only be read", mend=f"use one of {names}")
    return format


def of(path: Path, name: str | None) -> Format:
    """The format of what stands at ``path``: the one named, or the first that recognises it.

    Raises NotFound where nothing is there, InvalidInput where no format knows it, or it is no file and no folder: what
    comes out of a pipe or a device may never come, or never end.
    """
    head = b""
    try:
        if not path.exists():
            raise NotFound(f"there is nothing at {path}", mend="check the name, and where you are")
        if not (path.is_file() or path.is_dir()):
            raise InvalidInput("path", f"{path} is no file and no folder", mend="save it to a file first")
        if name is not None:
            return named(name)
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(HEAD)
    except OSError as error:
        raise _unreadable(path, error) from error
    for format in FORMATS:
        if format.module.recognises(path, head):
            return format
    names = ", ".join(format.name for format in FORMATS)
    raise InvalidInput("format", f"{path} looks like none that is known", mend=f"name it: one of {names}")


def reading(format: Format, path: Path, report: Report) -> Iterator[Record]:
    """What ``read`` of the format's module gives. Raises as it does, and InvalidInput where the system refuses."""
    try:
        yield from format.module.read(path, report)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    mend = "check its permissions, and whether the format is one of files or of folders"
    return InvalidInput("path", f"{path} cannot be read ({error.strerror or error})", mend=mend)
