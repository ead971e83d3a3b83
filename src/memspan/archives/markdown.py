"""A folder of Markdown notes, such as a vault of Obsidian, a graph of Logseq or a project of basic-memory; or one note.

Every .md, .markdown and .mdx file becomes a document, without its front matter: under its file URI, with its folders as
category, and as title what the front matter says, its first heading, or its name. Front matter is the metadata: read by
PyYAML where it is installed, else ``name: value`` and lists only. ``date`` or ``created`` in it, or a date that the
file's name begins with (2024-03-01.md), is when it happened; without them a note has no time.

``[[links]]`` and ``[links](other.md)`` to other notes become links between their documents, found as Obsidian does: by
path, by name, then by title or alias. Left out are hidden files and folders, links that leave the folder, empty notes,
Logseq's backups, and everything that is not Markdown.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from memspan.archives.base import Item, Record, Report, Tie, attempt
from memspan.borders import outline
from memspan.errors import InvalidInput
from memspan.reading import read_file
from memspan.segmenting import parse_time

SUFFIXES = (".md", ".markdown", ".mdx")
LONGEST_MATTER = 1 << 16  # characters of front matter
_DEEPEST = 32  # brackets within brackets in it
_LOOKED_AT = 2_000  # files and folders, to see whether a folder holds a note

_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_DAY = re.compile(r"(\d{4})[-_.](\d{2})[-_.](\d{2})(?!\d)")
_WIKI = re.compile(r"\[\[([^\[\]|#\n]{1,512})(?:#[^\[\]|\n]{0,512})?(?:\|[^\[\]\n]{0,512})?\]\]")
_LINK = re.compile(r"\]\(<?([^()<>\s]{1,512}?\.(?:md|markdown|mdx))(?:#[^()<>\s]*)?>?\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Note:
    """A note as it is read: its file, and where in the folder it is, without the suffix."""

    file: Path
    place: str

    @property
    def key(self) -> str:
        return self.file.resolve().as_uri()


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is such a file, or a folder with one among its first files."""
    if path.is_dir():
        return next(_files(path, _LOOKED_AT), None) is not None
    return path.suffix.lower() in SUFFIXES


def read(path: Path, report: Report) -> Iterator[Record]:
    """The notes, then the links between them. Raises InvalidInput naming ``path`` where there is none."""
    root = path if path.is_dir() else path.parent
    files = _files(path) if path.is_dir() else iter((path,))
    notes = [_Note(file, file.relative_to(root).with_suffix("").as_posix()) for file in files]
    if not notes:
        raise InvalidInput("path", f"{path.name} holds no Markdown", mend=f"its files end in {', '.join(SUFFIXES)}")
    names: dict[str, str] = {}
    for note in sorted(notes, key=lambda each: (each.place.count("/"), each.place)):  # the name means the nearest
        for name in (note.place, note.place.rpartition("/")[2]):
            names.setdefault(_folded(name), note.key)
    told: dict[str, str] = {}
    links: list[tuple[_Note, str, bool]] = []
    for note in notes:
        with attempt(report, f"{path.name}/{note.file.relative_to(root).as_posix()}"):
            if not note.file.stat().st_size:
                continue
            text = read_file(note.file).text
            matter, body = _parted(text)
            if not body.strip():
                continue
            item = _item(note, body, matter)
            yield item
            aliases = matter.get("aliases") or matter.get("alias") or ()
            for name in (item.title, matter.get("permalink"), *(aliases if isinstance(aliases, list) else [aliases])):
                if isinstance(name, str):
                    told.setdefault(_folded(name), note.key)
            links += [(note, match[1], True) for match in _WIKI.finditer(body)]
            links += [(note, unquote(match[1]), False) for match in _LINK.finditer(body)]
    yield from _ties(links, names, told)


def _files(path: Path, most: int | None = None) -> Iterator[Path]:
    """The notes in a folder, by their paths, of the first ``most`` entries that are looked at."""
    inside = path.resolve()

    def walk() -> Iterator[Path]:
        for folder, folders, files in os.walk(path):
            at = Path(folder)
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            if at.name == "logseq":
                folders[:] = [each for each in folders if each != "bak"]
            yield at
            yield from (at / each for each in sorted(files))

    for file in islice(walk(), most):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file():
            if file.is_symlink() and not file.resolve().is_relative_to(inside):
                continue
            yield file


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a note, and what stands below it."""
    match = _MATTER.match(text, 0, LONGEST_MATTER)
    if match is None:
        return {}, text
    return _matter(match[1]), text[match.end() :]


def _matter(text: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        return _pairs(text)
    depth = accumulate((sign in "[{") - (sign in "]}") for sign in text)
    if max(depth, default=0) > _DEEPEST:  # PyYAML takes as long as the square of it
        return _pairs(text)

    try:
        aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        value = {} if aliases else yaml.safe_load(text)  # a name that stands for what it is part of would never end
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError):
        return _pairs(text)  # people write "title: Ana: a life"
    return {str(name): _plain(each) for name, each in value.items()} if isinstance(value, dict) else {}


def _pairs(text: str) -> dict[str, Any]:
    """``name: value``, ``name: [a, b]``, and a name with ``- value`` lines under it; everything else is passed over."""
    pairs: dict[str, Any] = {}
    name = ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("- ") and name:
            held = pairs[name] if isinstance(pairs[name], list) else []
            pairs[name] = [*held, _bare(bare[2:])]
        elif bare and not line[0].isspace() and bare[0] not in "#-":
            named, colon, value = bare.partition(":")
            if colon and (not value or value[0].isspace()):
                name, value = named.strip(), value.strip()
                several = value.startswith("[") and value.endswith("]")
                pairs[name] = [_bare(each) for each in value[1:-1].split(",")] if several else _bare(value)
    return {name: value for name, value in pairs.items() if value not in ("", [""])}


def _bare(value: str) -> str:
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _plain(value: Any) -> Any:
    """What YAML made, as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(each) for each in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    kept = isinstance(value, (str, bool, int, type(None))) or (isinstance(value, float) and math.isfinite(value))
    return value if kept else str(value)


def _item(note: _Note, body: str, matter: Mapping[str, Any]) -> Item:
    title = matter.get("title")
    if not isinstance(title, str) or not title.strip():
        headings = (section.heading for section in outline(body, "markdown")[0] if section.heading)
        title = next(headings, (note.place.rpartition("/")[2],))[0]
    return Item(
        key=note.key,
        text=body,
        uri=note.key,
        title=title,
        media="markdown",
        source="document",
        category=tuple(note.place.split("/")[:-1]),
        occurred_at=_when(note, matter),
        metadata=matter,
    )


def _when(note: _Note, matter: Mapping[str, Any]) -> datetime | None:
    for name in ("date", "created", "created_at"):
        try:
            if (time := parse_time(matter.get(name), name)) is not None:
                return time
        except InvalidInput:  # it stays in the metadata, as it is written
            continue
    day = _DAY.match(note.place.rpartition("/")[2])
    try:
        return None if day is None else parse_time("-".join(day.groups()), "date")
    except InvalidInput:
        return None


def _ties(links: list[tuple[_Note, str, bool]], names: Mapping[str, str], told: Mapping[str, str]) -> Iterator[Tie]:
    seen: set[tuple[str, str]] = set()
    for note, name, wiki in links:
        near = os.path.normpath(f"{note.place.rpartition('/')[0]}/{name}".lstrip("/"))
        for each in (name, near) if wiki else (near,):
            target = names.get(_folded(each)) or told.get(_folded(each))
            if target is not None:
                break
        if target not in (None, note.key) and (note.key, str(target)) not in seen:
            seen.add((note.key, str(target)))
            yield Tie(source=note.key, target=str(target), kind="link")


def _folded(name: str) -> str:
    """A name as links compare: without a suffix, however its letters are written, with Logseq's marks for a slash."""
    name = name.strip().replace("\\", "/").replace("___", "/").replace("%2F", "/")
    stem, dot, suffix = name.rpartition(".")
    return (stem if dot and f".{suffix.lower()}" in SUFFIXES else name).strip("/").casefold()
