"""What is read in bulk: files as documents, tables (JSON lines, Parquet) by their rows; in parts that any machine of a
cluster reads alone, and blocks of drafts that are written each in one transaction.

A block is named by where it stands and what it says, so that the same one is known again whenever it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from memspan import arguments, encoders
from memspan.drafting import Batch, Common, hashed, pieces_for
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput, MissingExtra
from memspan.ledger.base import DocumentDraft, Idempotency
from memspan.reading import MAX_CHARACTERS, read_file
from memspan.records import Draft, Piece
from memspan.redaction import Redactor, redacted
from memspan.reports import Problem
from memspan.segmenting import check_text, parse_time, shown

Form = Literal["document", "jsonl", "parquet"]
TABLES: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""Suffixes in lower case of files whose rows are texts; any other file is a document."""

PART = 8 << 20  # bytes of JSON lines that are read by one task
BLOCK = 256  # rows in one transaction at most,
BLOCK_CHARACTERS = 1 << 20  # and about so many characters
LONGEST_LINE = 4 * MAX_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table say what: the ``text`` of a row; its ``id``, which makes it a document that replaces
    what came by that id before; the ``time`` when it happened; ``metadata`` to be kept with it."""

    text: str = "text"
    id: str | None = None
    time: str | None = None
    metadata: tuple[str, ...] = ()

    def names(self) -> list[str]:
        return [name for name in dict.fromkeys((self.text, self.id, self.time, *self.metadata)) if name is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one task reads of the file at ``path``: all of a document, the lines that begin at bytes ``start`` to
    ``end``, or the row group ``start``. ``uri`` names the file."""

    form: Form
    path: str
    uri: str
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is written in one transaction: drafts in order, their documents, and the texts to encode by content.

    ``parts``: how many parts end with it. ``idempotency`` is of texts that are no documents, which
    the ledger would count again. ``read``: texts in it, ``stripped`` and ``skipped`` as in ``Added``. ``problems``:
    what could not be read.
    """

    parts: int
    read: int
    drafts: Sequence[Draft]
    documents: Sequence[DocumentDraft]
    texts: Mapping[bytes, str]
    idempotency: Idempotency | None
    stripped: int
    skipped: int
    problems: tuple[Problem, ...]

    def without(self, documents: set[str]) -> Block:
        """The block without what belongs to these documents."""
        drafts = [draft for draft in self.drafts if draft.document_id not in documents]
        kept = {draft.content for draft in drafts}
        return replace(
            self,
            drafts=drafts,
            documents=[document for document in self.documents if document.id not in documents],
            texts={content: text for content, text in self.texts.items() if content in kept},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads parts on any machine. ``encoder``: its spec, or itself, whose tokenizer tells where texts are cut; None
    cuts for keywords. ``common`` is what all drafts share."""

    encoder: str | Encoder | None
    common: Common
    columns: Columns
    redactor: Redactor | None

    def blocks(self, part: Part) -> Iterator[Block]:
        """The blocks of a part, at least one; the last says that the part ends with it."""
        gathered = _Gathered(self, part, 0)
        if part.form == "document":
            with attempt(gathered.problems, part.path):
                gathered.document(part)
        else:
            read = _lines if part.form == "jsonl" else _rows
            with attempt(gathered.problems, part.path):
                for where, row in read(part, self.columns):
                    if gathered.full:
                        yield gathered.block(0)
                        gathered = _Gathered(self, part, gathered.number + 1)
                    with attempt(gathered.problems, where):
                        gathered.row(row() if callable(row) else row)
        yield gathered.block(1)

    def cut(self, text: str, media: str) -> list[Piece]:
        encoder = _encoder(self.encoder) if isinstance(self.encoder, str) else self.encoder
        return pieces_for(encoder, text, media)


@cache
def _encoder(spec: str) -> Encoder | None:
    """Made once in a process, of which only the tokenizer is used here."""
    return encoders.make(spec)


class _Gathered:
    """Drafts of the block ``number`` of a part."""

    def __init__(self, reader: Reader, part: Part, number: int) -> None:
        self.number = number
        self.problems: list[Problem] = []
        self._reader = reader
        self._part = part
        self._batches: list[Batch] = []
        self._characters = 0

    @property
    def full(self) -> bool:
        return len(self._batches) + len(self.problems) >= BLOCK or self._characters >= BLOCK_CHARACTERS

    def document(self, part: Part) -> None:
        """The file of a part, as ``Memory.add_file`` takes it."""
        source = read_file(part.path)
        self._claimed(check_text(source.text, "path"), source.media, part.uri, source.title, self._reader.common)

    def row(self, row: object) -> None:
        """A row of a table: a text, or where it has an id a document by that id."""
        columns = self._reader.columns
        if not isinstance(row, Mapping):
            raise InvalidInput("row", f"is a {type(row).__name__}", mend="write an object with a text")
        if columns.text not in row:
            there = ", ".join(map(str, row)) or "none"
            raise InvalidInput(columns.text, f"is no column; there are {there}", mend="name the one with the text")
        text = check_text(row[columns.text], columns.text)
        common = self._reader.common
        if columns.metadata:
            own = {name: _plain(row[name]) for name in columns.metadata if row.get(name) is not None}
            common = replace(common, metadata={**common.metadata, **arguments.metadata(own)})
        if columns.time is not None and row.get(columns.time) is not None:
            common = replace(common, occurred_at=parse_time(row[columns.time], columns.time))
        if columns.id is None:
            batch = self._batch(common)
            batch.text(text)
            self._add(batch, len(text))
            return
        id = row.get(columns.id)
        if not isinstance(id, (str, int)) or isinstance(id, bool):
            raise InvalidInput(columns.id, f"is {shown(id)}", mend="give each row an id, a text or a whole number")
        uri = arguments.name(columns.id, str(id), longest=arguments.LONGEST_PLACE)
        self._claimed(text, "text", uri, None, common)

    def _claimed(self, text: str, media: str, uri: str | None, title: str | None, common: Common) -> None:
        batch = self._batch(replace(common, source="document"))
        if admitted := batch.admitted(text):
            called = None if title is None else redacted(title, self._reader.redactor)
            batch.document(admitted, media, batch.claim(admitted, media, uri=uri, title=called))
        self._add(batch, len(text))

    def _batch(self, common: Common) -> Batch:
        return Batch(self._reader.cut, common, redactor=self._reader.redactor)

    def _add(self, batch: Batch, characters: int) -> None:
        self._batches.append(batch)
        self._characters += characters

    def block(self, parts: int) -> Block:
        batches = self._batches
        idempotency = None
        if self._part.form != "document" and self._reader.columns.id is None and batches:
            payload = sha256(b"".join(batch.fingerprint() for batch in batches)).digest()
            place = hashed("memspan bulk", self._part.uri, self._part.start, self.number, payload)
            idempotency = Idempotency(key=f"bulk {place.hex()}", payload=payload)
        return Block(
            parts=parts,
            read=len(batches),
            drafts=[draft for batch in batches for draft in batch.drafts],
            documents=[document for batch in batches for document in batch.documents],
            texts={content: text for batch in batches for content, text in batch.texts.items()},
            idempotency=idempotency,
            stripped=sum(batch.stripped for batch in batches),
            skipped=sum(batch.skipped for batch in batches),
            problems=tuple(self.problems),
        )


# ------------------------------------------------------------------------------------------------------------- the plan


def plan(paths: Sequence[Path]) -> tuple[list[Part], list[Problem]]:
    """The parts of these files in their order, and those that cannot be read. Raises MissingExtra."""
    parts: list[Part] = []
    problems: list[Problem] = []
    for path in paths:
        form = TABLES.get(path.suffix.lower(), "document")
        with attempt(problems, str(path)):
            whole = Part(form=form, path=str(path), uri=path.resolve().as_uri())
            borders: list[tuple[int, int]] = [(0, 0)]
            if form == "jsonl":
                size = path.stat().st_size
                borders = [(start, min(start + PART, size)) for start in range(0, size, PART)]
            elif form == "parquet":
                with _opened(path) as file:
                    borders = [(group, group + 1) for group in range(file.num_row_groups)]
            parts += [replace(whole, start=start, end=end) for start, end in borders]
    return parts, problems


@contextmanager
def attempt(problems: list[Problem], where: str) -> Iterator[None]:
    """Note what cannot be read inside among ``problems``, as of ``where``; the rest goes on."""
    try:
        yield
    except (InvalidInput, MissingExtra) as error:
        problems.append(Problem(where=where, problem=str(error)))
    except OSError as error:
        problems.append(Problem(where=where, problem=f"cannot be read ({error.strerror or error})"))


# --------------------------------------------------------------------------------------------------------------- tables


def _lines(part: Part, columns: Columns) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Where each line of a part stands, and what gives its row."""
    with Path(part.path).open("rb") as file:
        if part.start:  # a line belongs to the part in which it begins
            file.seek(part.start - 1)
            _line(file)
        while (at := file.tell()) < part.end and (line := _line(file)):
            if line.strip():
                yield f"{part.path}[byte {at}]", partial(_parsed, line)


def _line(file: Any) -> bytes:
    """The next line; of one that is too long only so much that no JSON can be read from it."""
    line: bytes = file.readline(LONGEST_LINE)
    rest = line
    while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
        rest = file.readline(LONGEST_LINE)
    return line


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("line", f"is not JSON ({error})", mend="correct it there") from error


def _rows(part: Part, columns: Columns) -> Iterator[tuple[str, Any]]:
    """Where each row of a row group stands, and the columns that are asked for of it."""
    import pyarrow

    with _opened(Path(part.path)) as file:
        there = set(file.schema_arrow.names)
        wanted = [name for name in columns.names() if name in there]
        if columns.text not in there:
            problem = f"is no column; there are {', '.join(sorted(there))}"
            raise InvalidInput(columns.text, problem, mend="name the one with the text")
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BLOCK, row_groups=[part.start], columns=wanted):
                for row in batch.to_pylist():
                    yield f"{part.path}[group {part.start}, row {number}]", row
                    number += 1
        except pyarrow.ArrowException as error:
            raise _unreadable(part.path, error) from error


def _opened(path: Path) -> Any:
    """A Parquet file. Raises InvalidInput where it is none, MissingExtra."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet files need pyarrow", mend='pip install "memspan[parquet]"') from error
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise _unreadable(str(path), error) from error


def _unreadable(path: str, error: Exception) -> InvalidInput:
    return InvalidInput("path", f"{path!r} is no whole Parquet file ({error})", mend="write it anew")


def _plain(value: object) -> object:
    """A value of a cell as JSON has it: times as text."""
    return value.isoformat() if isinstance(value, date) else value
