"""A chat as text: what WhatsApp exports, the log of an IRC client, or lines ``NAME: TEXT``.

    [31/12/2023, 21:15:03] Ana: Happy new year!         WhatsApp on an iPhone
    31/12/2023, 21:15 - Ana: Happy new year!            WhatsApp on Android
    2023-12-31 21:15 <ana> happy new year               a day in every line; also NAME: TEXT, tabs, brackets, zones
    21:15 <ana> happy new year                          irssi, which says when the day changes
    Ana: Happy new year!                                no times

Every message is an item by its speaker; lines that begin none belong to the message before. All of a day in one file is
a session, and where there are no days the whole file. Times without a zone are taken as UTC. Whether the day or the
month stands first is decided by the whole file: by numbers above 12, else by which reading goes backwards less often,
else by which takes less time. Left out are lines of the system, actions, and what only says that something was left out
or deleted.

Keys follow from the chat's name (its file's, without a number such as (1) at the end), who said what when, and for the
same again its number: an export that has grown, or begins later, adds only what is new.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from memspan.archives.base import HEAD, Item, Record, Report
from memspan.errors import InvalidInput
from memspan.reports import Problem
from memspan.segmenting import MAX_CHARACTERS, parse_time

SUFFIXES = (".txt", ".log")
LONGEST_LINE = 1 << 20  # bytes
LONGEST_TITLE = 200  # characters of a chat's name
FIRST = 200  # lines by which a chat is known

_CLOCK = r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?(?:\s?(?P<half>[AaPp])\.?\s?[Mm]\.?)?"
_WHEN = (
    r"(?P<a>\d{1,4})(?P<mark>[/.\-])(?P<b>\d{1,2})[/.\-](?P<c>\d{2,4}),?\s+(?:(?:klo|at|um|kl\.?|à|às)\s+)?" + _CLOCK
)
_STAMP = r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)"
_NICK = r"<\s?[@+%&~!]?(?P<nick>[^\s<>]{1,64})>"
_TABBED = r"[@+%&~!]?(?P<tabbed>[^\W_][^\t:<>]{0,63})\t"
_NAME = r"(?P<name>[^\W\d_][^:<>\[\]{}()=/\\\t\n]{0,39}):"
_DAY = re.compile(r"--- (?:Log opened|Day changed) \w{3} (?P<month>\w{3}) (?P<day>\d\d)(?: [\d:]{8})? (?P<year>\d{4})")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class _Style:
    """How a message begins: ``line`` tells when and the rest, ``said`` tells of it who and what. A chat has ``least``
    messages among its first lines."""

    line: re.Pattern[str]
    said: re.Pattern[str]
    least: int = 2
    exported: bool = False  # by WhatsApp, which marks what nobody said


def _said(*who: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:{'|'.join(who)})[ \t]*(?P<text>.*)", re.DOTALL)


_WHATSAPP = re.compile(r"(?P<name>[^:]{1,128}?):[ \u00a0](?P<text>.*)", re.DOTALL)
_PLAIN = _Style(re.compile(rf"(?P<rest>{_NAME}\s.*)"), _said(_NAME), least=4)
_STYLES = (
    _Style(re.compile(rf"\[?{_STAMP}\]?(?P<rest>\s.*)"), _said(_NICK, _TABBED, _NAME)),
    _Style(re.compile(rf"\[{_WHEN}\]\s(?P<rest>.*)"), _WHATSAPP, exported=True),
    _Style(re.compile(rf"{_WHEN}\s[-–]\s(?P<rest>.*)"), _WHATSAPP, exported=True),
    _Style(re.compile(r"\[?(?P<clock>\d\d:\d\d(?::\d\d)?)\]?\s(?P<rest>.*)"), _said(_NICK)),
    _PLAIN,
)

_MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"  # for the direction of writing
_ROLES = {"user": "user", "human": "user", "me": "user", "you": "user", "assistant": "assistant", "ai": "assistant",
          "system": "system"}  # fmt: skip
_LEVEL = re.compile(r"\b(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|SEVERE)\b")
_UNSAID = re.compile(
    r"<[^<>\n]{2,60}>|[^\n]{1,200}\.\w{2,4} \([^()\n]{3,40}\)|(?:this message was|you) deleted(?: this message)?\.?",
    re.IGNORECASE,
)
_EDITED = re.compile(r"\s?\u200e?<This message was edited>\Z")
_COPY = re.compile(r"[ _-]*\(\d+\)\Z")


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a .txt or .log file whose first lines are surely those of a chat, rather than of anything else."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    style, lines = _style(head)
    if style is None or not lines:
        return False
    begun = [match for match in map(style.line.match, lines) if match]
    said = [found for found in (style.said.fullmatch(match["rest"]) for match in begun) if found]
    first = style.line.match(lines[0]) or _DAY.match(lines[0])
    if first is None or len(said) < style.least or 2 * len(begun) < len(lines):
        return False
    names = [_speaker(found) for found in said if found.groupdict().get("name")]
    if style is _PLAIN and not all(name.casefold() in _ROLES for name in names):
        return len(begun) > 0.9 * len(lines) and _in_turns(names) and not _in_rows(names)
    return style.exported or _in_turns(names)


def _in_turns(names: Sequence[str]) -> bool:
    """Whether names before colons are those of people, who are few and return; programs log such lines too."""
    return not any(map(_LEVEL.search, names)) and len(set(names)) <= max(2, len(names) / 2)


def _in_rows(names: Sequence[str]) -> bool:
    """Whether names come round as the fields of a table do."""
    fields = len(set(names))
    return fields == 1 or all(name == names[at % fields] for at, name in enumerate(names))


def read(path: Path, report: Report) -> Iterator[Record]:
    """The messages. Raises InvalidInput naming ``path`` where none of its first lines begins one."""
    with path.open("rb") as file:
        style, _ = _style(file.read(HEAD))
    if style is None:
        raise InvalidInput("path", f"{path.name} holds no chat", mend="add it as a text: memspan ingest")
    days_first = _days_first(path, style) if "mark" in style.line.groupindex else True
    stem = path.parent.name if path.stem.casefold() in ("_chat", "chat") else path.stem
    chat = _COPY.sub("", stem)[:LONGEST_TITLE] or path.name
    seen: Counter[bytes] = Counter()
    today: datetime | None = None
    for message in _messages(path, style, days_first, report):
        if (text := message.text(style)) is None:
            continue
        day = message.time and message.time.replace(hour=0, minute=0, second=0, microsecond=0)
        if day != today:
            today = day
            seen.clear()
        time = message.time.isoformat() if message.time else ""
        digest = sha256(repr((time, message.speaker, text)).encode(errors="replace")).digest()[:16]
        again = seen[digest]
        seen[digest] += 1
        role = _ROLES.get(message.speaker.casefold())
        yield Item(
            key=f"{chat}/{time}/{digest.hex()}/{again}",
            text=text,
            role=role or "user",
            speaker=None if role else message.speaker,
            session=f"{chat} {day:%Y-%m-%d}" if day else chat,
            occurred_at=message.time,
            recorded_at=message.time,
        )


@dataclass(slots=True)
class _Message:
    """A message as its lines come."""

    where: str
    speaker: str
    time: datetime | None
    lines: list[str] = field(default_factory=list)
    size: int = 0

    def text(self, style: _Style) -> str | None:
        """What was said; None where nothing was."""
        text = "\n".join(self.lines).strip("\n")
        if style.exported:
            if text.startswith("\u200e"):
                return None
            text = _EDITED.sub("", text)
            if _UNSAID.fullmatch(text):
                return None
        return text if text.strip() else None


def _messages(path: Path, style: _Style, days_first: bool, report: Report) -> Iterator[_Message]:
    message: _Message | None = None
    begun = False  # a line that goes on with what was left out is left out too
    day = ""
    for number, line in _lines(path, report):
        where = f"{path.name}:{number}"
        match = style.line.match(line)
        if match is None:
            if (changed := _DAY.match(line)) is not None and changed["month"] in _MONTHS:
                day = f"{changed['year']}-{_MONTHS.index(changed['month']) + 1:02}-{changed['day']}"
            elif message is not None and message.size + len(line) <= MAX_CHARACTERS:
                message.lines.append(line)
                message.size += len(line) + 1
            elif message is not None:
                report(Problem(where=message.where, problem=f"is over {MAX_CHARACTERS:,} characters long"))
                message = None
            elif not begun and line.strip():
                report(Problem(where=where, problem="begins no message"))
            continue
        begun = True
        if message is not None:
            yield message
        message = None
        said = style.said.fullmatch(match["rest"])
        if said is not None and '"' not in (speaker := _speaker(said)) and "“" not in speaker:
            try:
                message = _Message(where, speaker, _time(match, day, days_first), [said["text"]], len(said["text"]))
            except ValueError as error:
                problem = error.problem if isinstance(error, InvalidInput) else str(error)
                report(Problem(where=where, problem=f"has no such time: {problem}"))
    if message is not None:
        yield message


def _speaker(said: re.Match[str]) -> str:
    groups = said.groupdict()
    name = groups.get("nick") or groups.get("tabbed") or groups.get("name") or ""
    return name.strip(_MARKS + " \u00a0\u202f").removeprefix("~").strip(" \u00a0\u202f") or name


def _lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """The lines of the file with their numbers from 1, without what marks the direction of writing before them."""
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(LONGEST_LINE):
            number += 1
            if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                report(Problem(where=f"{path.name}:{number}", problem=f"is over {LONGEST_LINE >> 20} MiB long"))
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(LONGEST_LINE)
                continue
            yield number, _decoded(raw)


def _decoded(raw: bytes) -> str:
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        line = raw.decode("cp1252", "replace")
    return line.rstrip("\r\n").lstrip(_MARKS)


def _style(head: bytes) -> tuple[_Style | None, Sequence[str]]:
    """The style in which most of the first lines are messages, and those lines."""
    whole = head.splitlines()[: -1 if len(head) >= HEAD else None]
    lines = [line for line in map(_decoded, whole[: 4 * FIRST]) if line.strip()][:FIRST]

    def messages(style: _Style) -> int:
        begun = (style.line.match(line) for line in lines)
        return sum(style.said.fullmatch(match["rest"]) is not None for match in begun if match)

    best = max(_STYLES, key=messages)
    return (best if messages(best) else None), lines


def _days_first(path: Path, style: _Style) -> bool:
    """Whether dates as 1/2/2024 are of February."""
    over = [0, 0]  # how often the first number, and the second, can be no month
    back, span = [0, 0], [0, 0]  # how often time goes backwards, and how far it goes, by either reading
    before: list[tuple[int, int, int]] | None = None
    match = None
    for _, line in _lines(path, lambda problem: None):
        if (found := style.line.match(line)) is None:
            continue
        match = found
        a, b, c = (int(match[name]) for name in "abc")
        over = [over[0] + (a > 12), over[1] + (b > 12)]
        now = [(c, b, a), (c, a, b)]
        if before is not None:
            for at in (0, 1):
                back[at] += now[at] < before[at]
                span[at] += abs(_ordinal(now[at]) - _ordinal(before[at]))
        before = now
    if match is None or len(match["a"]) == 4:
        return True
    for days, months in ((over[1], over[0]), tuple(back), tuple(span)):
        if days != months:
            return days < months
    return not (match["mark"] == "/" and match["half"] and len(match["c"]) == 2)  # as in the United States


def _ordinal(day: tuple[int, int, int]) -> int:
    return day[0] * 372 + day[1] * 31 + day[2]


def _time(match: re.Match[str], day: str, days_first: bool) -> datetime | None:
    """When a message was sent. Raises ValueError."""
    found = match.groupdict()
    if found.get("time"):
        return parse_time(found["time"], "time")
    if found.get("clock"):
        return parse_time(f"{day}T{found['clock']}", "time") if day else None
    if not found.get("a"):
        return None
    a, b, c = found["a"], found["b"], found["c"]
    year, month, date = (a, b, c) if len(a) == 4 else (c, b, a) if days_first else (c, a, b)
    hour = int(found["hour"])
    if found["half"]:
        hour = hour % 12 + (12 if found["half"] in "Pp" else 0)
    years = int(year) + (2000 if len(year) == 2 else 0)
    return datetime(years, int(month), int(date), hour, int(found["minute"]), int(found["second"] or 0), tzinfo=UTC)
