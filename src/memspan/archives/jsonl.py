"""JSON lines: the form in which memspan's memories are exchanged. One record a line, documented in docs/archives.md.

    {"type": "memspan", "format": 1, "namespace": "default"}
    {"type": "segment", "id": "...", "version": 1, "text": "...", "recorded_at": "2026-05-30T12:00:00+00:00", ...}

Everything is in it but what is made of the texts: vectors and indexes. The same memory gives the same bytes: fields
stand in one order, what is empty or the usual value is left out, and versions of segments are sorted by when they were
recorded, id and version. So files can be compared and kept under version control.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from memspan import arguments
from memspan.archives.base import VERSION, Contents, Header, Record, Report, Vectors, aside, attempt, lines, start_of
from memspan.errors import InvalidInput, NewerStore
from memspan.records import Archived, Edge, Filing, Judgement, Segment, Tombstone, Usage, Verdict, Version
from memspan.segmenting import MAX_CHARACTERS, check_text, parse_time, shown

_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029]")  # some programs take these for ends of lines

SEGMENT = (
    "id", "version", "text", "user_id", "agent_id", "run_id", "session", "document_id", "position", "role", "speaker",
    "heading", "category", "importance", "source", "occurred_at", "recorded_at", "heard_at", "ended_at", "repeats",
    "tokens", "metadata", "gap", "tail", "kind", "state", "valid_from", "valid_to", "expires_at",
)  # fmt: skip
USUAL = {each.name: each.default for each in fields(Segment) if each.name not in ("position", "importance", "source")}


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file begins as such a file does."""
    return start_of(head).startswith(b'{"type": "memspan"')


def write(path: Path, contents: Contents) -> list[Path]:
    """Write the file, without vectors."""
    with aside(path) as part, part.open("wb") as file:
        file.write(line_of(contents.header))
        file.writelines(map(line_of, contents.records()))
    return [path]


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput where its first line is no header, NewerStore."""
    with path.open("rb") as file:
        yield from read_lines(file, path.name, report)


def read_lines(file: IO[bytes], name: str, report: Report) -> Iterator[Record]:
    """The records of an open file, which reports call ``name``. Raises as ``read`` does."""
    numbered = lines(file, name, report)
    number, raw = next(numbered, (1, b"{}"))
    try:
        value = decoded(raw.removeprefix(b"\xef\xbb\xbf"))
    except InvalidInput:
        value = {}
    yield header_of(value, f"{name}:{number}")
    for number, raw in numbered:
        with attempt(report, f"{name}:{number}"):
            yield record_of(decoded(raw))


def decoded(raw: bytes) -> Mapping[str, Any]:
    """The JSON object in a line. Raises InvalidInput."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("line", f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InvalidInput("line", "is no JSON object")
    return value


def line_of(record: Archived | Header) -> bytes:
    """A record as its line."""
    text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
    return _BREAKS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode() + b"\n"


def plain(record: Archived | Header) -> dict[str, Any]:
    """A record as JSON values."""
    match record:
        case Version():
            return segment_plain(record)
        case Header():
            about = record.vectors
            kept = {} if about is None else {name: getattr(about, name) for name in Vectors.__dataclass_fields__}
            head = {"type": "memspan", "format": VERSION, "namespace": record.namespace}
            return {**head, "vectors": kept} if kept else head
        case Filing():
            return _filled(
                "document",
                id=record.id,
                owner=record.owner.hex(),
                uri=record.uri,
                title=record.title,
                media=record.media,
                sha256=record.sha256.hex(),
                recorded_at=record.recorded_at,
                ended_at=record.ended_at,
            )
        case Edge():
            return _filled(
                "link", source=record.source, target=record.target, kind=record.kind, weight=record.weight, at=record.at
            )
        case Judgement():
            return _filled("judgement", query=record.query, id=record.id, useful=record.useful, at=record.at)
        case Verdict():
            return _filled("verdict", older=record.older, newer=record.newer, accepted=record.accepted, at=record.at)
        case Usage():
            return _filled("usage", id=record.id, times=record.times, at=record.at, relevance=record.relevance)
        case Tombstone():
            return _filled("tombstone", id=record.id, version=record.version, at=record.at)


def segment_plain(version: Version) -> dict[str, Any]:
    """A version of a segment as JSON values."""
    segment = version.segment
    values = {name: getattr(segment, name) for name in SEGMENT}
    if segment.heard_at == segment.recorded_at:
        del values["heard_at"]
    kept = {name: value for name, value in values.items() if name not in USUAL or value != USUAL[name]}
    if not segment.metadata:
        kept.pop("metadata", None)
    return _filled("segment", **kept, identity=version.identity.hex() or None)


def _filled(kind: str, /, **values: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"type": kind}
    for name, value in values.items():
        if isinstance(value, datetime):
            told[name] = value.isoformat()
        elif isinstance(value, tuple):
            told[name] = list(value)
        elif isinstance(value, Mapping):
            told[name] = dict(value)
        elif value is not None:
            told[name] = value
    return told


def header_of(value: Mapping[str, Any], where: str) -> Header:
    """Raises InvalidInput where it is none, NewerStore where it says that a later format follows."""
    if value.get("type") != "memspan" or not isinstance(value.get("format"), int):
        raise InvalidInput("path", f"{where} is not what a memspan archive begins with", mend="name another --format")
    if value["format"] > VERSION:
        mend = "upgrade memspan (pip install -U memspan); nothing was imported"
        raise NewerStore(f"{where} is of format {value['format']}, this memspan reads up to {VERSION}", mend=mend)
    about = value.get("vectors")
    try:
        vectors = _vectors(about) if isinstance(about, dict) else None
    except InvalidInput as error:
        problem = f"{where} says of its vectors that {error.argument} {error.problem}"
        raise InvalidInput("path", problem, mend="it was damaged, or made by something else") from error
    return Header(namespace=str(value.get("namespace") or "default"), vectors=vectors)


def _vectors(about: Mapping[str, Any]) -> Vectors:
    encoder = arguments.name("encoder", about.get("encoder"))
    if encoder is None:
        raise InvalidInput("encoder", "is missing")
    return Vectors(
        encoder=encoder,
        dim=arguments.count("dim", about.get("dim"), most=1 << 16),
        tokens=arguments.name("tokens", about.get("tokens")) or "none",
        basis=arguments.name("basis", about.get("basis")),
    )


def record_of(value: Mapping[str, Any]) -> Archived:
    """The record in a line. Raises InvalidInput naming the field that is wrong."""
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise InvalidInput("type", f"there is no {shown(kind)}", mend=f"one of {', '.join(_MAKERS)}")
    return _MAKERS[kind](value)


def version_of(value: Mapping[str, Any]) -> Version:
    """A version of a segment from JSON values. Raises InvalidInput naming the field that is wrong."""
    recorded_at = _time(value, "recorded_at")
    segment = Segment(
        id=_uuid(value, "id"),
        seq=0,
        version=arguments.count("version", value.get("version", 1), most=1 << 40),
        text=check_text(value.get("text"), "text"),
        namespace="",
        user_id=arguments.name("user_id", value.get("user_id")),
        agent_id=arguments.name("agent_id", value.get("agent_id")),
        run_id=arguments.name("run_id", value.get("run_id")),
        session=arguments.name("session", value.get("session")),
        document_id=_uuid(value, "document_id") if "document_id" in value else None,
        position=arguments.count("position", value.get("position", 0), least=-(1 << 53), most=1 << 53),
        role=arguments.name("role", value.get("role")),
        speaker=arguments.name("speaker", value.get("speaker")),
        heading=_texts(value, "heading"),
        category=arguments.category(value.get("category")),
        importance=arguments.importance(value.get("importance", 0.5)),
        source=arguments.source(value.get("source", "user")),
        occurred_at=parse_time(value.get("occurred_at"), "occurred_at"),
        recorded_at=recorded_at,
        heard_at=parse_time(value.get("heard_at"), "heard_at") or recorded_at,
        ended_at=parse_time(value.get("ended_at"), "ended_at"),
        kind=arguments.kind(value.get("kind", "episodic")),
        state=arguments.state(value.get("state")),
        valid_from=parse_time(value.get("valid_from"), "valid_from"),
        valid_to=parse_time(value.get("valid_to"), "valid_to"),
        expires_at=parse_time(value.get("expires_at"), "expires_at"),
        repeats=arguments.count("repeats", value.get("repeats", 0), least=0, most=1 << 53),
        tokens=arguments.count("tokens", value.get("tokens", 0), least=0, most=1 << 53),
        metadata=arguments.metadata(value.get("metadata")),
        gap=_space(value, "gap"),
        tail=_space(value, "tail"),
    )
    return Version(segment=segment, identity=_bytes(value, "identity", 16) if "identity" in value else b"")


def _filing(value: Mapping[str, Any]) -> Filing:
    return Filing(
        id=_uuid(value, "id"),
        owner=_bytes(value, "owner", 16),
        uri=_text(value, "uri"),
        title=_text(value, "title"),
        media=_text(value, "media") or "text",
        sha256=_bytes(value, "sha256", 32),
        recorded_at=_time(value, "recorded_at"),
        ended_at=parse_time(value.get("ended_at"), "ended_at"),
    )


def _edge(value: Mapping[str, Any]) -> Edge:
    return Edge(
        source=_uuid(value, "source"),
        target=_uuid(value, "target"),
        kind=arguments.relation(value.get("kind")),
        weight=arguments.weight(value.get("weight", 1.0)),
        at=_time(value, "at"),
    )


def _judgement(value: Mapping[str, Any]) -> Judgement:
    return Judgement(
        query=check_text(value.get("query"), "query"),
        id=_uuid(value, "id"),
        useful=arguments.useful("useful", value.get("useful")),
        at=_time(value, "at"),
    )


def _verdict(value: Mapping[str, Any]) -> Verdict:
    return Verdict(
        older=_uuid(value, "older"),
        newer=_uuid(value, "newer"),
        accepted=arguments.useful("accepted", value.get("accepted")),
        at=_time(value, "at"),
    )


def _usage(value: Mapping[str, Any]) -> Usage:
    return Usage(
        id=_uuid(value, "id"),
        times=arguments.count("times", value.get("times"), most=1 << 53),
        at=_time(value, "at"),
        relevance=arguments.threshold(value.get("relevance", 0.5)),
    )


def _tombstone(value: Mapping[str, Any]) -> Tombstone:
    version = arguments.count("version", value.get("version", 1), most=1 << 40)
    return Tombstone(id=_uuid(value, "id"), version=version, at=_time(value, "at"))


def _uuid(value: Mapping[str, Any], name: str) -> str:
    try:
        return str(uuid.UUID(value[name]))
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(name, f"{shown(value.get(name))} is no UUID") from error


def _bytes(value: Mapping[str, Any], name: str, length: int) -> bytes:
    try:
        raw = bytes.fromhex(value[name])
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidInput(name, f"{shown(value.get(name))} is no hexadecimal number") from error
    if len(raw) != length:
        raise InvalidInput(name, f"has {len(raw)} bytes instead of {length}")
    return raw


def _time(value: Mapping[str, Any], name: str) -> datetime:
    if (moment := parse_time(value.get(name), name)) is None:
        raise InvalidInput(name, "is missing")
    return moment


def _text(value: Mapping[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or "\0" in text or len(text) > MAX_CHARACTERS:
        raise InvalidInput(name, f"{shown(text)} is no text that can be kept")
    arguments.encodable(name, text)
    return text


def _space(value: Mapping[str, Any], name: str) -> str:
    text = _text(value, name) or ""
    if text and not text.isspace():
        raise InvalidInput(name, f"{shown(text)} is no white space")
    return text


def _texts(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    several = value.get(name) or []
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise InvalidInput(name, f"{shown(several)} is no list of texts")
    for each in several:
        if "\x1f" in each or "\0" in each:
            raise InvalidInput(name, "holds a control character")
        arguments.encodable(name, each)
    return tuple(several)


_MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Archived]] = {
    "segment": version_of,
    "document": _filing,
    "link": _edge,
    "judgement": _judgement,
    "verdict": _verdict,
    "usage": _usage,
    "tombstone": _tombstone,
}
