"""What every archive format is given and gives: all that a namespace holds, as one stream of records.

A format is a module with ``recognises``, ``read`` and, where it can be written, ``write``: see ``FORMATS`` in
``memspan.archives``. Those of memspan hold ``Archived`` records, whole. Those of others hold ``Item``s: texts with the
key they have there, so that reading them twice adds nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from memspan.errors import InvalidInput
from memspan.ledger.connections import translated
from memspan.records import NOTHING, Archived, Problem, Source

VERSION = 1
"""Of the records in an archive; what is read of later ones is refused."""

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
    which encoder. ``versions`` and ``segments`` (the current ones) are how many there will be.

    ``compat``: as the seeds wrote it, where that is not the same. ``key``: the private key to sign with, a PEM file's
    bytes. ``about``: where it comes from, for formats that tell.
    """

    header: Header
    records: Callable[[], Iterator[Archived]]
    segments: int
    versions: int
    compat: bool = False
    key: bytes | None = None
    about: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A text that another system kept. The same ``key`` from the same format is the same memory: read again it is
    passed over, and where its text has changed it is a new version.

    ``session`` names the conversation, in the order of which items come. ``occurred_at`` is when it was said,
    ``recorded_at`` when that system stored it (None: now). ``title`` and ``uri`` make a document of it, cut by its
    ``media``. ``heading`` is what it stands under, outermost first.
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
    except (InvalidInput, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        said = error.problem if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
        report(Problem(where=where, problem=said))


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
    decoder, text, at, number = json.JSONDecoder(), "", 0, 0
    decode = _decoding(name)

    def fill() -> bool:
        nonlocal text, at
        raw = file.read(max(1 << 20, len(text) - at))  # as much again: what is not whole is not parsed too often
        text, at = text[at:] + decode(raw, not raw), 0
        return bool(raw)

    def following() -> str:
        nonlocal at
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            if at < len(text) or not fill():
                return text[at : at + 1]

    if following() == "\ufeff":
        at += 1
    if following() != "[":
        raise InvalidInput("path", f"{name} does not hold a JSON list", mend="name another --format, or correct it")
    at += 1
    while (sign := following()) != "]":
        if number and sign == ",":
            at += 1
            sign = following()
        elif number:
            raise _broken(name, number, "there is no comma after it" if sign else "the file ends within the list")
        while True:
            try:
                value, end = decoder.raw_decode(text, at)
            except RecursionError as error:
                raise _broken(name, number, "it is nested too deep") from error
            except ValueError as error:
                if len(text) - at > LONGEST_ITEM or not fill():
                    raise _broken(name, number, str(error)) from error
            else:
                # what ends with the text may go on: a number, of which only the first digits are here
                if end < len(text) or not fill():
                    break
        at = end
        yield number, value
        number += 1


def _decoding(name: str) -> Callable[[bytes, bool], str]:
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()

    def decode(raw: bytes, final: bool) -> str:
        try:
            return decoder.decode(raw, final)
        except UnicodeDecodeError as error:
            raise InvalidInput("path", f"{name} is not UTF-8", mend="convert it to UTF-8 first") from error

    return decode


def _broken(name: str, number: int, reason: str) -> InvalidInput:
    return InvalidInput(
        "path", f"{name} is not JSON at element {number}: {reason}", mend="it was cut short, or damaged"
    )


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at ``path``, a file or a directory, whole or not at all."""
    with translated(path):
        place = path.resolve()  # a link stays a link
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{uuid.uuid4().hex}.part")
        try:
            yield part
            if part.is_dir():
                _into(part, place)
            else:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                part.replace(place)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)


def _into(part: Path, place: Path) -> None:
    """Move the files of ``part`` into the directory ``place``, beside what else is there."""
    place.mkdir(exist_ok=True)
    for file in sorted(part.iterdir()):
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        file.replace(place / file.name)


def weighed(paths: Sequence[Path]) -> int:
    """The bytes of these files."""
    return sum(path.stat().st_size for path in paths)
