"""What every archive format is given and gives: all that a namespace holds, as one stream of records.

A format is a module with ``recognises``, ``read`` and, where it can be written, ``write``: see ``FORMATS`` in
``memspan.archives``. Those of memspan hold ``Archived`` records, whole. Those of others hold ``Item``s: texts with the
key they have there, so that reading them twice adds nothing.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from memspan.errors import InvalidInput
from memspan.ledger.connections import translated
from memspan.records import NOTHING, Archived, Source
from memspan.reports import Problem

VERSION = 1
"""Of the records in an archive; what is read of later ones is refused."""

HEAD = 1 << 16  # bytes by which a file is recognised
LONGEST_ITEM = 256 << 20  # bytes of one record: a text of 32 Mi characters, each escaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Where the vectors of an archive come from: the encoder's id, its dimensions, and how its token matrices are kept
    (a level of ``memspan.activations.tokens``, and the id of the basis)."""

    encoder: str
    dim: int
    tokens: str = "none"
    basis: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an archive says of itself; ``namespace`` is the one it was made of."""

    namespace: str
    vectors: Vectors | None = None
    signed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is to be written. ``records()`` begins anew each time and has vectors where ``header.vectors`` says of
    which encoder.

    ``compat``: as the seeds wrote it, where that is not the same. ``key``: the private key to sign with, a PEM file's
    bytes. ``about``: where it comes from, for formats that tell.
    """

    header: Header
    records: Callable[[], Iterator[Archived]]
    compat: bool = False
    key: bytes | None = None
    about: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A text that another system kept. The same ``key`` from the same format is the same memory: read again it is
    passed over, and where its text has changed it is a new version.

    ``session`` names the conversation, in the order of which items come. ``occurred_at`` is when it was said,
    ``recorded_at`` when that system stored it (None: now), ``expires_at`` until when it is found. ``title`` and ``uri``
    make a document of it, cut by its ``media``. ``heading`` is what it stands under, outermost first.
    """

    key: str
    text: str
    role: str | None = None
    speaker: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    session: str | None = None
    occurred_at: datetime | None = None
    recorded_at: datetime | None = None
    expires_at: datetime | None = None
    category: tuple[str, ...] = ()
    heading: tuple[str, ...] = ()
    importance: float = 0.5
    source: Source | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    uri: str | None = None
    title: str | None = None
    media: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """A link between two items of one archive, by their keys."""

    source: str
    target: str
    kind: str
    weight: float = 1.0


Record = Header | Archived | Item | Tie
"""What ``read`` gives: a Header first where the format has one."""

Report = Callable[[Problem], None]
"""Told of each thing that cannot be read; reading goes on after it."""


@contextmanager
def attempt(report: Report, where: str) -> Iterator[None]:
    """Reports what is wrong with one record instead of raising it."""
    try:
        yield
    except (InvalidInput, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        said = error.problem if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
        report(Problem(where=where, problem=said))


def refused(path: Path, problem: str) -> InvalidInput:
    """That a file of memspan's own is not as it was made."""
    return InvalidInput("path", f"{path.name} {problem}", mend="it was cut short, altered or made by something else")


def start_of(head: bytes) -> bytes:
    """The first bytes of a text, without a mark of its encoding and white space."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


def lines(file: IO[bytes], name: str, report: Report) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers from 1; one too long to be a record is reported and
    never held as a whole."""
    number = 0
    while raw := file.readline(LONGEST_ITEM):
        number += 1
        if not raw.endswith(b"\n") and len(raw) == LONGEST_ITEM:
            report(Problem(where=f"{name}:{number}", problem=f"is over {LONGEST_ITEM >> 20} MiB long"))
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(1 << 20)
        elif raw.strip():
            yield number, raw


def elements(file: IO[bytes], name: str) -> Iterator[tuple[int, Any]]:
    """The elements of the JSON list in a file, with their numbers from 0, read as they are needed.

    Raises InvalidInput naming the file where it holds no list, or stops being JSON.
    """
    source = _Json(file, name)
    if source.following() != "[":
        raise InvalidInput("path", f"{name} does not hold a JSON list", mend="name another --format, or correct it")
    yield from source.elements(name)


def members(file: IO[bytes], name: str) -> Iterator[tuple[str, int | None, Any]]:
    """What is in the JSON object in a file, read as it is needed: (name, None, value), and for each element of a list
    that has any (name, its number from 0, element).

    Raises InvalidInput naming the file where it holds no object, or stops being JSON.
    """
    source = _Json(file, name)
    if source.following() != "{":
        raise InvalidInput("path", f"{name} does not hold a JSON object", mend="name another --format, or correct it")
    for number in source.parts("}", name):
        at = f"{name} at member {number}"
        key = source.value(at)
        if not isinstance(key, str) or source.following() != ":":
            raise _broken(at, "it is no name and value")
        source.at += 1
        if source.following() != "[":
            yield key, None, source.value(at)
            continue
        each = None
        for each, value in source.elements(f"{name} {key}"):
            yield key, each, value
        if each is None:
            yield key, None, []


def entries(
    file: BufferedReader, name: str, report: Report, lists: Collection[str] = ()
) -> Iterator[tuple[str, str, Any]]:
    """The records of a JSON file, as (where it stands, the list it is in, itself), read as they are needed: each line
    of JSON lines, each element of a list, or of those lists of an object that are named in ``lists``. An object without
    any of them is one record.

    A line that is no JSON is reported. Raises InvalidInput naming the file where a list or an object stops being JSON,
    or an object over several lines has none of these lists.
    """
    head = start_of(file.peek(HEAD))
    line, ended, _ = head.partition(b"\n")
    if head.startswith(b"["):
        for number, value in elements(file, name):
            yield f"{name}[{number}]", "", value
    elif not ended or line.rstrip().endswith(b"}"):
        for number, raw in lines(file, name, report):
            where = f"{name}:{number}"
            with attempt(report, where):
                value = json.loads(raw.removeprefix(b"\xef\xbb\xbf"))
                held = [key for key in lists if isinstance(value, dict) and isinstance(value.get(key), list)]
                for key in held:
                    for at, each in enumerate(value[key]):
                        yield f"{where} {key}[{at}]", key, each
                if not held:
                    yield where, "", value
    elif lists:
        found = False
        for key, place, value in members(file, name):
            found |= key in lists
            if key in lists and place is not None:
                yield f"{name} {key}[{place}]", key, value
        if not found:
            raise InvalidInput("path", f"{name} has no list {' or '.join(lists)}", mend="name another --format")
    else:
        yield name, "", _Json(file, name).value(name)


class _Json:
    """The JSON in a file, value by value. ``text`` is what is read of it and needed, from ``at`` on."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.text = ""
        self.at = 0
        self._file = file
        self._name = name
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._decoder = json.JSONDecoder()
        if self.following() == "\ufeff":
            self.at += 1

    def following(self) -> str:
        """The next sign that is no white space, "" where there is none."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self._fill():
                return self.text[self.at : self.at + 1]

    def elements(self, place: str) -> Iterator[tuple[int, Any]]:
        """Those of the list that follows."""
        for number in self.parts("]", place):
            yield number, self.value(f"{place} at element {number}")

    def parts(self, close: str, place: str) -> Iterator[int]:
        """The numbers of the parts of the list or object that follows; each is to be read before the next."""
        self.at += 1
        number = 0
        while (sign := self.following()) != close:
            if number and sign == ",":
                self.at += 1
                self.following()
            elif number:
                reason = "there is no comma after it" if sign else "the file ends within it"
                raise _broken(f"{place} after {number} parts", reason)
            yield number
            number += 1
        self.at += 1

    def value(self, place: str) -> Any:
        """The value that follows."""
        self.following()
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
            except RecursionError as error:
                raise _broken(place, "it is nested too deep") from error
            except ValueError as error:
                if len(self.text) - self.at > LONGEST_ITEM or not self._fill():
                    raise _broken(place, str(error)) from error
            else:
                # what ends with the text may go on: a number, of which only the first digits are here
                if end < len(self.text) or not self._fill():
                    self.at = end
                    return value

    def _fill(self) -> bool:
        raw = self._file.read(max(1 << 20, len(self.text) - self.at))  # as much again: it is not parsed too often
        try:
            self.text, self.at = self.text[self.at :] + self._decode(raw, not raw), 0
        except UnicodeDecodeError as error:
            raise InvalidInput("path", f"{self._name} is not UTF-8", mend="convert it to UTF-8 first") from error
        return bool(raw)


_SPACE = re.compile("[ \t\r\n]*")


def _broken(place: str, reason: str) -> InvalidInput:
    return InvalidInput("path", f"{place} is not JSON: {reason}", mend="it was cut short, or damaged")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at ``path``, a file or a directory, whole or not at all.

    Raises InvalidInput where something else stands there: a device or a pipe would be replaced.
    """
    with translated(path):
        try:
            place = path.resolve()  # a link stays a link
        except RuntimeError as error:
            raise InvalidInput("path", f"{path} is a link to itself", mend="remove it, or give another name") from error
        if place.exists() and not (place.is_file() or place.is_dir()):
            raise InvalidInput("path", f"{path} is no file and no folder", mend="give another name")
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        try:
            yield part
            if part.is_dir():
                _into(part, place)
            else:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                if place.is_file():  # who may read what is replaced may read this, and nobody else
                    shutil.copymode(place, part)
                part.replace(place)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)


def _into(part: Path, place: Path) -> None:
    """Have the files of ``part`` in the directory ``place``: at once where it is new, else one after the other, beside
    what else is there."""
    files = sorted(part.iterdir())
    for file in files:
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        if (place / file.name).is_dir():  # seen before any of them is moved
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place / file.name))
    if not place.exists():
        part.replace(place)
        return
    for file in files:
        file.replace(place / file.name)


def weighed(paths: Sequence[Path]) -> int:
    """The bytes of these files."""
    return sum(path.stat().st_size for path in paths)
