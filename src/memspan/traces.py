"""Looking for what was erased in the raw bytes of files, without knowing where it could be.

Everything that a store makes of a text is looked for: the text in pieces, its longer words, the terms and names it is
found by, written as UTF-8, UTF-16 or escaped as JSON, in any case; and what it becomes in indexes: hashes of terms, of
names and of the whole, its vector, its token matrix. All of them are looked for at once, in one pass over the bytes.

What something else that is still stored says as well is no trace of what was erased.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from memspan.activations.tokens import Activation
from memspan.analysis import key_of as term_key
from memspan.analysis import terms
from memspan.entities import key_of
from memspan.ledger.base import names_in
from memspan.reports import Trace
from memspan.views.base import Progress

What = Literal["text", "word", "term", "name", "hash", "vector", "tokens"]

PIECE, STRIDE = 32, 64  # characters of each piece of a text, and from the beginning of one to that of the next
LEAST = 6  # bytes of a word: shorter ones stand in any file by chance
SHORTEST = 4  # bytes of a text that is shorter than a piece: it is looked for whole
LARGEST = {"vector": 1_000, "tokens": 1 << 14}  # bytes that stand together: more of a row may lie on another page
FIRST = {"vector": 448, "tokens": 1 << 14}  # bytes that do of what is larger
BLOCK = 8 << 20
MOST = 64  # places of one form in one file that are told
LEAST_BITS = 20

_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_EXACT = frozenset({"hash", "vector", "tokens"})


class Needle(NamedTuple):
    """Bytes to look for. ``of`` is what they were made of: where that is said elsewhere, they are no trace."""

    what: What
    raw: bytes
    of: str


class Erasable(NamedTuple):
    """A text that was erased: as it was ``encoded`` (after its speaker or heading), with its ``hashes``."""

    text: str
    encoded: str
    hashes: tuple[bytes, ...] = ()


def needles(erased: Iterable[Erasable], activations: Mapping[str, Activation]) -> list[Needle]:
    """What to look for. ``activations`` are by encoded text."""
    found: dict[tuple[bytes, What], Needle] = {}

    def look(what: What, of: str, *forms: bytes) -> None:
        for raw in forms:
            found.setdefault((raw.lower(), what), Needle(what, raw.lower(), of))

    for each in erased:
        text = each.text.strip()
        pieces = [text[start : start + PIECE] for start in range(0, max(len(text) - PIECE, 0) + 1, STRIDE)]
        for piece in pieces:
            if len(piece.encode()) >= SHORTEST:
                look("text", piece, *_written(piece))
        for word in {*_WORD.findall(each.encoded), *_WORD.findall(each.text)}:
            if len(word.encode()) >= LEAST:
                look("word", word, *_written(word))
        for term in set(terms(each.encoded)):
            if len(term.encode()) >= LEAST:
                look("term", term, term.encode())
            look("term", term, term_key(term).to_bytes(8, "little"))
        for name in filter(None, names_in(each.encoded)):
            if len(name.encode()) >= LEAST:
                look("name", name, name.encode())
            look("name", name, key_of(name).to_bytes(8, "little"))
        look("hash", each.encoded, *each.hashes)
        if (activation := activations.get(each.encoded)) is not None:
            raws: tuple[tuple[What, bytes], ...] = (
                ("vector", activation.pooled.tobytes()),
                ("vector", activation.pooled.astype(">f2").tobytes()),  # as a server sends it
                ("vector", activation.pooled.astype(">f4").tobytes()),
                ("tokens", activation.tokens or b""),
            )
            for what, raw in raws:
                whole = raw if len(raw) <= LARGEST[what] else raw[: FIRST[what]]
                if any(whole):
                    look(what, each.encoded, whole)
    return list(found.values())


def _written(text: str) -> set[bytes]:
    """A text as files may hold it; ASCII letters are compared without case."""
    forms: set[bytes] = set()
    for cased in {text, text.lower(), text.upper(), text.casefold()}:
        wide = cased.encode("utf-16-le", "surrogatepass")
        # of ASCII, big-endian is the same from the second byte on
        forms |= {cased.encode("utf-8", "surrogatepass"), wide[:-1] if cased.isascii() else wide}
        if not cased.isascii():
            forms |= {cased.encode("utf-16-be", "surrogatepass"), json.dumps(cased)[1:-1].encode()}
    return forms


class Haystack:
    """Finds any of many needles in bytes: by a table of hashes of their first bytes, then by all of them."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._needles = needles
        self._longest = max((len(each.raw) for each in needles), default=0)
        self._starts: dict[int, dict[bytes, list[int]]] = {8: {}, SHORTEST: {}}
        for number, each in enumerate(needles):
            size = 8 if len(each.raw) >= 8 else SHORTEST
            self._starts[size].setdefault(each.raw[:size], []).append(number)
        self._tables = {size: _Table(starts, size) for size, starts in self._starts.items() if starts}

    def search(self, blocks: Iterable[bytes]) -> Iterator[tuple[int, int]]:
        """(offset, number of the needle), each needle at most MOST times."""
        counts: dict[int, int] = {}
        begin, rest = 0, b""
        for block in blocks:
            whole = rest + block.lower()
            keep = min(len(whole), max(self._longest - 1, 0))
            for offset, number in self._within(whole):
                # what lies in the rest altogether was told with the block before
                if offset + len(self._needles[number].raw) <= len(rest) or counts.get(number, 0) >= MOST:
                    continue
                counts[number] = counts.get(number, 0) + 1
                yield begin + offset, number
            begin, rest = begin + len(whole) - keep, whole[len(whole) - keep :]

    def _within(self, raw: bytes) -> Iterator[tuple[int, int]]:
        for size, table in self._tables.items():
            starts = self._starts[size]
            for at in table.places(raw):
                for number in starts[raw[at : at + size]]:
                    if raw.startswith(self._needles[number].raw, at):
                        yield at, number


class _Table:
    """Where in bytes any of many values of ``size`` bytes begins: by a table of hashes first, then exactly."""

    def __init__(self, values: Iterable[bytes], size: int) -> None:
        self._kind = f"<u{size}"
        self._size = size
        self._values = np.sort(np.frombuffer(b"".join(values), self._kind).astype(np.uint64))
        self._shift = np.uint64(64 - max(LEAST_BITS, len(self._values).bit_length() + 6))
        self._hashes = np.zeros(1 << (64 - int(self._shift)), bool)
        self._hashes[self._values * _SPREAD >> self._shift] = True

    def places(self, raw: bytes) -> Iterator[int]:
        for first in range(self._size):
            count = (len(raw) - first) // self._size
            if count <= 0:
                return
            values = np.frombuffer(raw, self._kind, count, first).astype(np.uint64)
            near = np.flatnonzero(self._hashes[values * _SPREAD >> self._shift])
            if len(near):
                at = np.searchsorted(self._values, values[near])
                at[at == len(self._values)] = 0
                yield from (near[self._values[at] == values[near]] * self._size + first).tolist()


class Looked(NamedTuple):
    """What was looked at, and the needles that were found, with where."""

    files: list[str]
    bytes: int
    found: list[tuple[str, int, Needle]]


def look(contents: Iterable[tuple[str, Iterable[bytes]]], wanted: Sequence[Needle]) -> Looked:
    """Look through all contents, each with its name and in blocks."""
    haystack, looked, total = Haystack(wanted), Looked([], 0, []), 0
    for name, blocks in contents:
        looked.files.append(name)

        def counted(blocks: Iterable[bytes] = blocks) -> Iterator[bytes]:
            nonlocal total
            for block in blocks:
                total += len(block)
                yield block

        looked.found.extend((name, offset, wanted[number]) for offset, number in haystack.search(counted()))
    return looked._replace(bytes=total)


def files(directory: Path, progress: Progress | None = None) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The contents of every file below ``directory``, and of what zip files among them hold."""
    paths = sorted(file for file in directory.rglob("*") if file.is_file())
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths), "looking")
        yield from _contents(path, path.relative_to(directory).as_posix())


def _contents(path: Path, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    try:
        with path.open("rb") as file:
            packed = file.read(4) == b"PK\3\4"
            file.seek(0)
            yield name, iter(lambda: file.read(BLOCK), b"")
        if packed:
            with ZipFile(path) as archive:
                for member in archive.infolist():
                    with archive.open(member) as inside:
                        yield f"{name}!{member.filename}", iter(lambda: inside.read(BLOCK), b"")
    except FileNotFoundError:  # it went meanwhile
        return
    except BadZipFile:  # it only begins as one does: its bytes were looked at
        return


def unsaid(
    found: Sequence[tuple[str, int, Needle]],
    said: Iterable[str],
    encoded: Callable[[], Iterable[str]],
    alike: Callable[[str], bool],
) -> list[Trace]:
    """Of what was found that which nothing says that is still stored. ``said`` is all of that; ``encoded`` the texts as
    they are encoded, of which terms, names and hashes are made; ``alike``: whether another text has the very vector or
    token matrix of this one."""
    if not found:
        return []
    of = list(dict.fromkeys(needle.of for _, _, needle in found))
    words = [Needle("word", form.encode(), each) for each in of for form in {each.lower(), each.casefold()} if form]
    spoken, held = Haystack([each for each in words if len(each.raw) >= SHORTEST]), set[str]()
    short = {each.of: each.raw for each in words if len(each.raw) < SHORTEST}
    known = [each for each in words if len(each.raw) >= SHORTEST]
    for text in said:
        raw = "\n".join((text, text.casefold())).encode("utf-8", "surrogatepass")
        held.update(known[number].of for _, number in spoken.search([raw]))
        held.update(word for word, form in short.items() if form in raw)
    exact: set[str] = set()
    if any((needle.what != "text" and needle.of not in held) or needle.what in _EXACT for _, _, needle in found):
        asked = set(of)
        for text in encoded():
            exact |= asked.intersection((text, *terms(text), *names_in(text)))
    made = {needle.of for _, _, needle in found if needle.what in ("vector", "tokens")}
    shared = {each for each in made - exact if alike(each)}
    held_as: dict[What, set[str]] = {"hash": exact, "vector": exact | shared, "tokens": exact | shared}
    return [
        Trace(file=file, offset=offset, what=needle.what)
        for file, offset, needle in found
        if needle.of not in held_as.get(needle.what, exact | held)
    ]
