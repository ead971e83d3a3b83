"""Text, messages and documents → pieces that fit an encoder's window and join again to the same text, to the character.

A text is cut where it already has a border: first at headings, then between paragraphs, then between sentences, then
between lines, clauses and words, and in the middle of a word only where nothing else is left. Pieces are filled toward
a target below the window, evenly, so that no crumbs are left over, and every finished piece is counted as a whole.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from memspan.borders import Bounds, Span, items, lines, paragraphs, sections, sentences, trimmed, words
from memspan.errors import InvalidInput
from memspan.reading import CONVERTIBLE, MAX_CHARACTERS, SUFFIXES, read_file, readable, too_long
from memspan.records import NOTHING, Message, Piece

__all__ = [
    "CONVERTIBLE",
    "MAX_CHARACTERS",
    "MEDIA",
    "SUFFIXES",
    "CallableTokenizer",
    "FileTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "check_text",
    "cut",
    "messages",
    "parse_time",
    "read_file",
    "readable",
    "shown",
    "summary",
    "tokenizer_of",
]

# ----------------------------------------------------------------------------------------------------------- tokenizers


@runtime_checkable
class Tokenizer(Protocol):
    """Counts tokens. ``name`` says by whose rules."""

    @property
    def name(self) -> str: ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""


_HAN: Final = (
    "\u3005-\u3007\u3041-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORDS: Final = re.compile(
    # a CJK character; a run of letters and digits with their marks; any other sign
    rf"[{_HAN}]"
    rf"|(?:[^\W{_HAN}]|[\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0df3\u0e31-\u0eff])+"
    r"|[^\w\s]"
)


class WordTokenizer:
    """Counts words, punctuation marks and CJK characters, one each: no model, and about 1.3 times fewer than one."""

    name = "words"

    def count(self, texts: Sequence[str]) -> list[int]:
        return [sum(1 for _ in _WORDS.finditer(text)) for text in texts]


class FileTokenizer:
    """Counts with a tokenizer saved by Hugging Face ``tokenizers``: its JSON file, or a directory with tokenizer.json.

    Truncation and padding stored in the file are switched off. Raises InvalidInput naming ``tokenizer``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from tokenizers import Tokenizer as Engine

        file = Path(path)
        self.name = file.name if file.is_dir() or file.name != "tokenizer.json" else file.resolve().parent.name
        if file.is_dir():
            file = file / "tokenizer.json"
        try:
            self._engine = Engine.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:
            raise InvalidInput(
                "tokenizer",
                f"cannot read a tokenizer from {str(file)!r} ({error})",
                mend="give a tokenizer.json written by the Hugging Face tokenizers library, or a directory holding one",
            ) from error
        self._engine.no_truncation()
        self._engine.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        for batch in _batches(texts):
            counts += map(len, self._engine.encode_batch_fast(batch, add_special_tokens=False))
        return counts


def _batches(texts: Sequence[str], characters: int = 1 << 18) -> Iterator[list[str]]:
    """Runs of texts of about ``characters`` in all: encodings are some 50 times the size of their text."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > characters:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


class CallableTokenizer:
    """Counts with any function str → int. Raises InvalidInput naming ``tokenizer`` when it returns something else."""

    def __init__(self, function: Callable[[str], int]) -> None:
        self._function = function
        self.name = getattr(function, "__qualname__", None) or type(function).__qualname__

    def count(self, texts: Sequence[str]) -> list[int]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> int:
        tokens = self._function(text)
        if isinstance(tokens, bool) or not isinstance(tokens, Integral) or tokens < 0:
            raise InvalidInput(
                "tokenizer",
                f"{self.name} returned {shown(tokens)} for a text",
                mend="it must return the number of tokens as an int of at least 0",
            )
        return int(tokens)


def tokenizer_of(spec: Any) -> Tokenizer:
    """The tokenizer meant by ``spec``: a Tokenizer, a path to a tokenizer.json, or a function str → int.

    Raises InvalidInput naming ``tokenizer`` for anything else.
    """
    if isinstance(spec, (str, os.PathLike)):
        return WordTokenizer() if spec == "words" else FileTokenizer(spec)
    if isinstance(spec, Tokenizer) and not isinstance(spec, type):
        return spec
    if callable(spec) and not isinstance(spec, type):
        return CallableTokenizer(spec)
    raise InvalidInput(
        "tokenizer",
        f"{type(spec).__name__} counts no tokens",
        mend='give "words", a path to a tokenizer.json, a function from str to int, or an object with name and count',
    )


# -------------------------------------------------------------------------------------------------------------- cutting

MEDIA: Final = ("text", "markdown", "html", "code")
"""The kinds of text ``cut`` knows. ``html`` is what ``read_file`` makes of a page: its text, with markdown headings."""

_TARGET: Final = 0.7  # of the window: room for a small neighbour, and for what an encoder adds of its own
_SMALL: Final = 0.2  # of the target: not worth a piece of its own
_LONGEST: Final = 16  # characters per token: some tokenizers count a word of any length as one unknown token
_PROBE: Final = 2048  # characters counted to learn how many a token takes in text without borders


def cut(text: str, *, tokenizer: Tokenizer, window: int, media: str = "text") -> list[Piece]:
    """Cut ``text`` into pieces of at most ``window`` tokens each, counted by ``tokenizer``.

    ``"".join(p.gap + p.text + p.tail for p in pieces) == text``; no piece is empty or begins or ends with white space;
    a text of nothing but white space gives no pieces. ``media`` is one of MEDIA. Equal arguments give equal pieces.
    Raises InvalidInput naming ``window``, ``media``, or ``tokenizer`` (one character is more than ``window`` tokens).
    """
    if window < 1:
        raise InvalidInput("window", f"{window} tokens hold no text", mend="give at least 1")
    if media not in MEDIA:
        raise InvalidInput("media", f"unknown kind of text {media!r}", mend=f"use one of {', '.join(MEDIA)}")
    scale = _Scale(text, tokenizer, window)
    found = sections(text, media, roomy=4 * scale.target)
    scale.weigh([block for section in found for block in section.blocks])
    stretches = [
        (bounds, tokens, section.heading)
        for section in found
        for bounds, tokens in _settled(_packed(section.blocks, scale), scale)
    ]
    pieces: list[Piece] = []
    end = 0
    for (start, stop), tokens, heading in scale.fit(stretches):
        pieces.append(Piece(text=text[start:stop], gap=text[end:start], heading=heading, tokens=tokens))
        end = stop
    if pieces:
        pieces[-1] = replace(pieces[-1], tail=text[end:])
    return pieces


_Stretch = tuple[Bounds, int | None, tuple[str, ...]]  # where, its tokens if known, its heading


class _Scale:
    """Weighs stretches of one text. A weight is at least the tokens, and at least a sixteenth of the characters."""

    def __init__(self, text: str, tokenizer: Tokenizer, window: int) -> None:
        self.text = text
        self.window = window
        self.target = max(1, int(window * _TARGET))
        self.grain = window // 4  # characters, not tokens: certainly small
        self._count = tokenizer.count

    def weigh(self, blocks: Sequence[Span]) -> None:
        """Weigh the blocks and take apart what does not fit the window, one round of counting per kind of border."""
        self._weigh(blocks)
        for prose, code in ((items, paragraphs), (sentences, lines), (lines, lines)):
            large = [span for span in blocks if span.weight > self.window]
            for span in large:
                self._part(span, (code if span.code else prose)(self.text, span.start, span.end))
            self._weigh([part for span in large for part in span.parts])
            blocks = [part for span in large for part in span.parts or [span]]
        large = [span for span in blocks if span.weight > self.window]
        probes = [(span.start, min(span.end, span.start + _PROBE)) for span in large]
        for span, (start, end), tokens in zip(large, probes, self._tokens(probes), strict=True):
            size = self.target * min((end - start) / max(tokens, 1), _LONGEST)
            self._part(span, words(self.text, span.start, span.end, max(1, int(size))))
        self._weigh([part for span in large for part in span.parts])

    def fit(self, stretches: list[_Stretch]) -> list[tuple[Bounds, int, tuple[str, ...]]]:
        """Count what is not counted yet, and halve what is too large all the same, until everything fits."""
        while True:
            counted = iter(self._tokens([bounds for bounds, tokens, _ in stretches if tokens is None]))
            sized = [(b, next(counted) if tokens is None else tokens, heading) for b, tokens, heading in stretches]
            if all(self._fits(bounds, tokens) for bounds, tokens, _ in sized):
                return sized
            stretches = []
            for bounds, tokens, heading in sized:
                if self._fits(bounds, tokens):
                    stretches.append((bounds, tokens, heading))
                else:
                    stretches += [(half, None, heading) for half in self._halves(bounds, tokens)]

    def _halves(self, bounds: Bounds, tokens: int) -> list[Bounds]:
        start, end = bounds
        if end - start == 1:
            raise InvalidInput(
                "tokenizer",
                f"counts {tokens} tokens in the one character {self.text[start]!r}, and the window is {self.window}",
                mend="use a larger window",
            )
        borders = words(self.text, start, end, -(-(end - start) // 2))
        return [trimmed(self.text, *half) for half in pairwise(borders) if self.text[slice(*half)].strip()]

    def _fits(self, bounds: Bounds, tokens: int) -> bool:
        return tokens <= self.window and bounds[1] - bounds[0] <= self.window * _LONGEST

    def _part(self, span: Span, borders: Iterable[int]) -> None:
        kept: list[int] = []
        for border in borders:
            if len(kept) > 1 and border - kept[-2] <= self.grain:
                kept.pop()  # tiny on both sides: millions of short lines are not weighed one by one
            kept.append(border)
        parts = [Span(start, end, span.code) for start, end in pairwise(kept)]
        span.parts = parts if len(parts) > 1 else []

    def _weigh(self, spans: Sequence[Span]) -> None:
        """Set tokens and weight. What is certainly too long is not given to the tokenizer."""
        short: list[Span] = []
        for span in spans:
            span.start, span.end = trimmed(self.text, span.start, span.end)
            span.weight = -(-(span.end - span.start) // _LONGEST)
            if span.weight <= self.window:
                short.append(span)
        for span, tokens in zip(short, self._tokens([(span.start, span.end) for span in short]), strict=True):
            span.tokens = tokens
            span.weight = max(span.weight, tokens)

    def _tokens(self, bounds: Sequence[Bounds]) -> list[int]:
        counts = self._count([self.text[start:end] for start, end in bounds]) if bounds else []
        if len(counts) != len(bounds):
            raise InvalidInput(
                "tokenizer", f"gave {len(counts)} counts for {len(bounds)} texts", mend="give one for each"
            )
        return counts


def _packed(spans: Sequence[Span], scale: _Scale) -> list[list[Span]]:
    """Neighbouring spans in groups: all in one where they fit the window, else about equally heavy, up to the target.

    What was taken apart is grouped alone.
    """
    groups: list[list[Span]] = []
    run: list[Span] = []
    for span in spans:
        if span.parts:
            groups += _filled(run, scale) + _packed(span.parts, scale)
            run = []
        elif span.end > span.start:
            run.append(span)
    return groups + _filled(run, scale)


def _filled(run: list[Span], scale: _Scale) -> list[list[Span]]:
    total = sum(span.weight for span in run)
    if total <= scale.window:
        return [run] if run else []
    goal = total / math.ceil(total / scale.target)
    groups: list[list[Span]] = []
    weight = 0
    for span in run:
        if not groups or weight + span.weight > scale.target or weight + span.weight / 2 > goal:
            groups.append([])
            weight = 0
        groups[-1].append(span)
        weight += span.weight
    return groups


def _settled(groups: list[list[Span]], scale: _Scale) -> Iterator[tuple[Bounds, int | None]]:
    """Crumbs, such as a heading before a long paragraph, joined to their neighbour; the tokens where they are known."""
    small = scale.target * _SMALL
    settled: list[tuple[list[Span], int]] = []
    for group in groups:
        weight = sum(span.weight for span in group)
        if settled:
            before, heavy = settled[-1]
            if min(weight, heavy) <= small and weight + heavy <= scale.window:
                settled[-1] = (before + group, weight + heavy)
                continue
        settled.append((group, weight))
    for group, _ in settled:
        yield (group[0].start, group[-1].end), group[0].tokens if len(group) == 1 else None


# ------------------------------------------------------------------------------------------------------------- messages

_ROLES: Final = {
    **{role: role for role in ("user", "assistant", "system", "tool")},
    "human": "user",
    "ai": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
}
_TIMES: Final = ("time", "timestamp", "created_at", "occurred_at")
_PICTURES: Final = frozenset(("image", "image_url", "input_image"))
_UNSAID: Final = frozenset(("tool_use", "tool_call", "function_call", "thinking", "redacted_thinking", "reasoning"))


def messages(items: Iterable[Any]) -> list[Message]:
    """Messages from the shapes in use: Message, or a dict {role, content, name, time, metadata}.

    ``content`` is a str or a list of parts: text parts are joined by a newline, a picture becomes
    ``[shares a picture: caption]``. The time is under ``time``, ``timestamp``, ``created_at`` or ``occurred_at`` (see
    ``parse_time``). Turns of the assistant that only call tools are left out. Raises InvalidInput naming the place,
    such as ``messages[3].content``.
    """
    if isinstance(items, (str, bytes, Mapping, Message)) or not isinstance(items, Iterable):
        raise InvalidInput("messages", f"{type(items).__name__} is no list", mend="give a list of messages")
    found = (_message(item, f"messages[{i}]") for i, item in enumerate(items))
    return [message for message in found if message is not None]


def _message(item: Any, at: str) -> Message | None:
    if isinstance(item, Message):
        check_text(item.content, f"{at}.content")
        return replace(item, role=_role(item.role, at), time=parse_time(item.time, f"{at}.time"))
    if not isinstance(item, Mapping):
        raise InvalidInput(
            at, f"{type(item).__name__} is no message", mend='give {"role": "user", "content": "..."} or a Message'
        )
    role = _role(item.get("role"), at)
    if "content" not in item and not item.get("tool_calls"):
        raise InvalidInput(f"{at}.content", "is missing", mend="give the text that was said")
    content = item.get("content")
    if not isinstance(content, (str, type(None))):
        content = _said(content, f"{at}.content")
    if role == "assistant" and not content:
        return None
    content = check_text(content, f"{at}.content")
    name = item.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise InvalidInput(f"{at}.name", f"{shown(name)} is no name", mend="give a str, or leave it out")
    metadata = item.get("metadata") or NOTHING
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"{at}.metadata", f"{type(metadata).__name__} is no dict", mend="give a dict")
    when = next((key for key in _TIMES if item.get(key) is not None), None)
    return Message(
        content=content,
        role=role,
        name=name,
        time=parse_time(item[when], f"{at}.{when}") if when else None,
        metadata=metadata,
    )


def _role(role: Any, at: str) -> str:
    known = _ROLES.get(role.casefold()) if isinstance(role, str) else None
    if known is None:
        problem = "is missing" if role is None else f"unknown role {shown(role)}"
        raise InvalidInput(f"{at}.role", problem, mend="use user, assistant, system or tool")
    return known


def _said(parts: Any, at: str, *, inner: bool = False) -> str:
    """The parts of a message, or of a tool's result inside it, as one text."""
    if not isinstance(parts, (list, tuple)):
        raise InvalidInput(at, f"{type(parts).__name__} is no content", mend="give a str or a list of parts")
    said: list[str] = []
    for i, part in enumerate(parts):
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            said.append(part)
        elif kind in _PICTURES:
            said.append(_picture(part))
        elif isinstance(part, Mapping) and isinstance(text := part.get("text", part.get("refusal")), str):
            said.append(text)
        elif kind == "tool_result" and isinstance(part, Mapping) and not inner:
            result = part.get("content") or ""
            said.append(result if isinstance(result, str) else _said(result, f"{at}[{i}].content", inner=True))
        elif kind not in _UNSAID:
            raise InvalidInput(
                f"{at}[{i}]",
                f"cannot tell what was said in a part of type {shown(kind)}"
                if kind
                else f"{type(part).__name__} is no part",
                mend='give {"type": "text", "text": "..."} or {"type": "image_url", "caption": "..."}',
            )
    return "\n".join(text for text in said if text.strip())


def _picture(part: Mapping[str, Any]) -> str:
    inner = part.get("image_url", part.get("source"))
    for place in (part, inner if isinstance(inner, Mapping) else NOTHING):
        for key in ("caption", "alt", "blip_caption", "alt_text", "description"):
            if isinstance(words := place.get(key), str) and words.strip():
                return f"[shares a picture: {' '.join(words.split())}]"
    return "[shares a picture]"


# --------------------------------------------------------------------------------------------------------------- values


def parse_time(value: Any, argument: str) -> datetime | None:
    """A point in time as an aware UTC datetime; None stays None.

    ``value`` is a datetime or ISO 8601 string (UTC where it names no zone), a date (its midnight), or seconds since
    1970. Raises InvalidInput naming ``argument``.
    """
    try:
        moment = _moment(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            argument,
            f"{shown(value)} is no time between the years 1 and 9999",
            mend='give a datetime, an ISO 8601 string such as "2026-05-30T14:00:00Z", or seconds since 1970',
        ) from error
    return moment


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    elif isinstance(value, Real) and not isinstance(value, bool):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value))
    if not isinstance(value, datetime):
        raise ValueError(f"{type(value).__name__} is no time")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_SUMMARY_WORDS: Final = 24
_SUMMARY_CHARACTERS: Final = 240  # of what is written without spaces


def summary(text: str) -> str:
    """What a text is about, where nobody said: its first 24 words, on one line."""
    words = text.split(maxsplit=_SUMMARY_WORDS)
    line = " ".join(words[:_SUMMARY_WORDS])
    cut = len(words) > _SUMMARY_WORDS or len(line) > _SUMMARY_CHARACTERS
    return line[:_SUMMARY_CHARACTERS] + ("…" if cut else "")


def shown(value: object) -> str:
    """``repr(value)``, shortened, for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no int of more than 4,300 digits
        return f"such a {type(value).__name__}"


def check_text(text: Any, argument: str) -> str:
    """``text`` itself, when it is one that can be kept.

    Raises InvalidInput naming ``argument`` when it is not a str, is empty or white space, is longer than
    MAX_CHARACTERS, or holds a NUL character or half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise InvalidInput(argument, f"{type(text).__name__} is not text", mend="give a str")
    if len(text) > MAX_CHARACTERS:
        raise too_long(argument, len(text), "the text")
    if not text or text.isspace():
        raise InvalidInput(argument, "is empty" if not text else "is only white space", mend="give some text")
    if (at := text.find("\0")) >= 0:
        raise InvalidInput(argument, f"has a NUL character at position {at}", mend="remove it; is this binary data?")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                argument,
                f"has half of a surrogate pair (U+{ord(text[error.start]):04X}) at position {error.start}",
                mend='decode the text again, or drop it with text.encode("utf-8", "ignore").decode()',
            ) from error
    return text
