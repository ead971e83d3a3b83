"""Where a text has borders: headings, paragraphs, fences, definitions, sentences, lines, clauses, words.

Everything here gives positions in the text and leaves the text alone. All of it takes time linear in the text's length,
whatever the text.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

Bounds = tuple[int, int]
"""A stretch of the text: its first position, and the one after its last."""


@dataclass(slots=True)
class Span:
    """A stretch of the text between two borders, its size, and, where it is too large, the spans it is made of."""

    start: int
    end: int
    code: bool = False
    tokens: int = 0
    weight: int = 0
    parts: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class Section:
    """What stands under one heading, the heading included; ``heading`` is the path to it, ``depth`` its level."""

    start: int
    heading: tuple[str, ...] = ()
    depth: int = 0
    blocks: list[Span] = field(default_factory=list)


# -------------------------------------------------------------------------------------------------------------- borders
# Each gives the borders of text[start:end] in order, both ends included. All are linear, whatever the text.

_NEWLINE: Final = r"(?:\r\n|\n|\r(?!\n))"
_BLANK: Final = re.compile(rf"{_NEWLINE}[ \t]*+{_NEWLINE}\s*+|[\f\u2029]\s*+")
_LINE: Final = re.compile(_NEWLINE)
_BULLET: Final = re.compile(rf"{_NEWLINE}(?=[ \t]{{0,12}}(?:[-*+\u2022|]|\d{{1,3}}[.)])[ \t])")
_CLOSING: Final = r"[\"'\u201d\u2019\u00bb)\]*_]"
_STOP: Final = re.compile(
    rf"(?<![.!?\u2026])(?P<mark>[.!?\u2026]++){_CLOSING}*+\s++"  # Latin, Greek, Cyrillic: a space must follow
    r"|[\u3002\uff01\uff1f\uff61]++[\u300d\u300f\u201d\u2019\uff09\u3011]*+\s*+"  # Chinese and Japanese
    r"|[\u0964\u0965\u061f\u06d4\u1362\u104b\u17d4]++\s*+"  # Indic, Arabic, Ethiopic, Burmese, Khmer
)
_LAST_SPACE: Final = re.compile(r"\s\S*\Z")
_CLAUSE: Final = re.compile(r"[,;:)\]\u2013\u2014]\s|[\uff0c\u3001\uff1b\uff1a\u060c]")
_BEFORE: Final = re.compile(r"[^\s(\[{\"'\u201c\u2018\u00ab]*\Z")
_INITIALS: Final = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
# Never the end of a sentence; only not the end before a number.
_TITLES: Final = """
mr mrs ms mx dr prof st mt gen col sgt capt lt rev hon gov sen rep pres messrs mme mlle sra vs cf viz approx resp
esp incl
"""
_COUNTED: Final = """
no nos nr fig figs eq vol p pp ch sec art ed ca c v jan feb mar apr jun jul aug sep sept oct nov dec
"""
_NEVER: Final = frozenset(_TITLES.split())
_BEFORE_NUMBER: Final = frozenset(_COUNTED.split())


def paragraphs(text: str, start: int, end: int) -> list[int]:
    return _bordered(start, (match.end() for match in _BLANK.finditer(text, start, end)), end)


def lines(text: str, start: int, end: int) -> list[int]:
    return _bordered(start, (match.end() for match in _LINE.finditer(text, start, end)), end)


def items(text: str, start: int, end: int) -> list[int]:
    """Borders before the items of a list and the rows of a table."""
    return _bordered(start, (match.end() for match in _BULLET.finditer(text, start, end)), end)


def sentences(text: str, start: int, end: int) -> list[int]:
    stops = (match.end() for match in _STOP.finditer(text, start, end) if _is_stop(text, match))
    return _bordered(start, stops, end)


def _is_stop(text: str, match: re.Match[str]) -> bool:
    mark = match["mark"]
    following = text[match.end() : match.end() + 1]
    if mark is None or not following:
        return True
    if following.islower():
        return False
    if mark != ".":
        return True
    found = _BEFORE.search(text, max(match.start() - 24, 0), match.start())
    word = found[0].casefold() if found else ""
    if word in _NEVER or (word in _BEFORE_NUMBER and following.isdigit()):
        return False
    if word.isdigit():  # "1. Do this": the number of an item
        before = match.start() - len(word)
        return before > 0 and text[before - 1] not in "\r\n"
    return not _INITIALS.fullmatch(word) or word in {"i"}


def words(text: str, start: int, end: int, size: int) -> list[int]:
    """Borders at most ``size`` characters apart: after a line, a clause or a word, else between two characters."""
    size = -(-(end - start) // -(-(end - start) // size))
    borders = [start]
    while end - borders[-1] > size:
        borders.append(_best(text, borders[-1] + size // 2, borders[-1] + size))
    return [*borders, end]


def _best(text: str, low: int, high: int) -> int:
    """The best border after ``low`` and up to ``high``, late rather than early."""
    stretch = text[low:high]
    if at := stretch.rfind("\n") + 1:
        return low + at
    if clauses := [match.end() for match in _CLAUSE.finditer(stretch)]:
        return low + clauses[-1]
    if space := _LAST_SPACE.search(stretch):
        return low + space.start() + 1
    for at in range(high, max(low, high - 32), -1):
        if not _clings(text, at):
            return at
    return high


def _clings(text: str, at: int) -> bool:
    """Whether text[at] is drawn as one with the character before it: accents, vowel signs, joined emoji, CR LF."""
    character = text[at]
    return (
        unicodedata.category(character)[0] == "M"
        or character in "\u200d\n"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or text[at - 1] == "\u200d"
    )


def _bordered(start: int, borders: Iterable[int], end: int) -> list[int]:
    return [start, *(border for border in borders if start < border < end), end]


def trimmed(text: str, start: int, end: int) -> Bounds:
    """The bounds without white space at the ends; an empty stretch at ``end`` where there is nothing else."""
    stretch = text[start:end]
    start = end - len(stretch.lstrip())
    return start, max(start, end - len(stretch) + len(stretch.rstrip()))


# ------------------------------------------------------------------------------------------------------------- sections

_FENCE: Final = re.compile(r"[ \t]*+(?P<fence>`{3,}+|~{3,}+)(?P<info>.*)", re.DOTALL)
_HASHES: Final = re.compile(r" {0,3}(?P<hashes>#{1,6})(?:[ \t]+(?P<title>\S.*)?)?\Z", re.DOTALL)
_RULES: Final = {"markdown": "=-", "html": "", "text": "=-~^\"'`#*+.:_"}
_LINK: Final = re.compile(r"!?\[(?P<words>[^\[\]]*+)\]\([^()\s]*+\)")
_EMPHASIS: Final = re.compile(r"(?<!\w)(?P<marks>[*_]{1,3})(?=\S)(?P<words>.+?)(?<=\S)(?P=marks)(?!\w)")
_TITLE: Final = 200  # characters; a longer line is no heading
_PARSED: Final = 2 * 1024 * 1024  # characters of code; a syntax tree takes some 300 bytes for each


def sections(text: str, media: str, *, roomy: int) -> list[Section]:
    """The sections of a text with their blocks: paragraphs, fences, and in code what stands between blank lines.

    ``roomy``: characters of a Python class from which on its methods are found of their own.
    """
    if media == "code":
        found = _definitions(text, roomy)
        fences: list[Bounds] = []
    else:
        found, fences = outline(text, media)
    ends = [section.start for section in found[1:]] + [len(text)]
    fence = 0
    for section, end in zip(found, ends, strict=True):
        at = section.start
        while fence < len(fences) and fences[fence][0] < end:
            opening, closing = fences[fence]
            section.blocks += _blocks(text, at, opening, code=False)
            section.blocks.append(Span(opening, closing, code=True))
            at = closing
            fence += 1
        section.blocks += _blocks(text, at, end, code=media == "code")
    return found


def _blocks(text: str, start: int, end: int, *, code: bool) -> Iterator[Span]:
    borders = paragraphs(text, start, end)
    if code:  # only before what is not indented and closes nothing: a whole definition, in most languages
        borders = [start, *(at for at in borders[1:-1] if text[at - 1] in "\r\n" and text[at] not in ")]}"), end]
    return (Span(first, last, code) for first, last in pairwise(borders) if first < last)


def outline(text: str, media: str) -> tuple[list[Section], list[Bounds]]:
    """Sections by headings (``# title``, or underlined as in Markdown and reStructuredText), and fenced code."""
    headings: list[tuple[int, int, int, str]] = []  # start, end, level, title
    fences: list[Bounds] = []
    rules: list[tuple[str, bool]] = []  # ways of underlining, outermost first, in order of appearance
    marked = media != "text"
    opening, fence = 0, ""
    at = 0
    rows = text.splitlines(keepends=True)
    if marked and rows and rows[0].rstrip() == "---":  # front matter
        fence = "---"
    for i, line in enumerate(rows):
        start, at = at, at + len(line)
        if fence:
            if i and _closes(line, fence):
                fences.append((opening, at))
                fence = ""
            continue
        if marked and (found := _FENCE.match(line)) and "`" not in found["info"]:
            opening, fence = start, found["fence"]
        elif marked and (found := _HASHES.match(line.rstrip())):
            title = re.sub(r"(?:^|[ \t]+)#+\Z", "", (found["title"] or "")[:_TITLE])
            headings.append((start, at, len(found["hashes"]), _plain(title)))
        elif (rule := line.rstrip()[:1]) and rule in _RULES[media] and (title := _underlined(rows, i, media)):
            above = start - len(rows[i - 1])
            over = i > 1 and rows[i - 2].strip() == line.strip()
            if (rule, over) not in rules:
                rules.append((rule, over))
            level = "=-".index(rule) + 1 if marked else rules.index((rule, over)) + 1
            headings.append((above - len(rows[i - 2]) * over, at, level, _plain(title) if marked else title))
    if fence and fence != "---":
        fences.append((opening, len(text)))
    return _nested(text, headings), fences


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return line in ("---", "...") if fence == "---" else line.startswith(fence) and not line.strip(fence[0])


def _underlined(rows: list[str], i: int, media: str) -> str:
    """The title above the rule in row ``i``: one line after a blank one, about as long as its rule; "" if none."""
    rule = rows[i].rstrip()
    title = rows[i - 1].strip() if i else ""
    if rule.strip(rule[0]) or len(rule) < 3 or len(title) > _TITLE or not any(map(str.isalnum, title)):
        return ""
    if rule[0] in "`~" and i > 1 and rows[i - 2].startswith(rule):  # one line between code fences
        return ""
    alone = i < 2 or not rows[i - 2].strip() or rows[i - 2].rstrip() == rule
    fitting = media == "markdown" or len(rule) + 1 >= len(title)
    return title if alone and fitting and (media == "text" or title[0] not in "#>|-*+`") else ""


def _plain(title: str) -> str:
    """A heading without its inline markup."""
    return _EMPHASIS.sub(r"\g<words>", _LINK.sub(r"\g<words>", title)).replace("`", "").strip(" \t§¶")


def _nested(text: str, headings: list[tuple[int, int, int, str]]) -> list[Section]:
    found = [Section(0)]
    path: list[tuple[int, str]] = []
    body = 0  # where the text under the last heading begins
    for start, end, level, title in headings:
        path = [(depth, name) for depth, name in path if depth < level] + [(level, title)]
        heading = tuple(name for _, name in path if name)
        last = found[-1]
        if not text[body:start].strip() and level > last.depth:  # a heading with nothing but a deeper one under it
            last.heading, last.depth = heading, level
        else:
            found.append(Section(start, heading, level))
        body = end
    return found


def _definitions(text: str, roomy: int) -> list[Section]:
    """Python's functions and classes, a large class by its methods; any other language is one section."""
    found = [Section(0)]
    if len(text) > _PARSED:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes and the like in code that is only read
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not Python, or nested too deeply to tell
        return found
    starts = [0, *(match.end() for match in _LINE.finditer(text)), len(text)]

    def walk(body: list[ast.stmt], path: tuple[str, ...]) -> None:
        after = False  # a definition came before: what follows it stands under ``path`` again
        for i, node in enumerate(body):
            named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if named or after:
                first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))]) - 1
                while first and text[starts[first - 1] : starts[first]].lstrip().startswith("#"):
                    first -= 1
                alone = path and i == 0  # a class line without a docstring goes with the first method
                if starts[first] > found[-1].start and not alone:
                    found.append(Section(starts[first]))
                found[-1].heading = path
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found[-1].heading = (*path, node.name)
                size = starts[node.end_lineno or node.lineno] - starts[node.lineno - 1]
                if isinstance(node, ast.ClassDef) and size > roomy:
                    walk(node.body, found[-1].heading)
            after = named

    walk(tree.body, ())
    return found
