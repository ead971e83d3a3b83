"""Whether a statement says what its sources say, told without a model; and where they say it.

A statement that a model wrote is kept only where everything of it that can be compared holds: its quote stands in a
source, its names, numbers and dates are there, it denies what they deny and doubts what they doubt, and most of its
words are theirs. What is wrong in another way passes: this keeps out what was made up, not what was misunderstood.
Denials and doubts are known in English, and the plainest denials in some other languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final, Literal

from memspan.analysis import terms
from memspan.borders import Bounds, sentences, trimmed
from memspan.entities import entities
from memspan.records import Segment

Objection = Literal[
    "long", "empty", "babble", "quote", "question", "dictated", "name", "number", "date", "negation", "hedge", "words"
]

OBJECTIONS: Final[Mapping[str, str]] = {
    "long": "has more characters than a fact or a sentence of a summary may have",
    "empty": "says nothing",
    "babble": "says the same words over and over",
    "quote": "quotes what no cited source says",
    "question": "states what the source only asks",
    "dictated": "quotes a source that dictates an answer instead of saying something",
    "name": "has a name that no cited source has",
    "number": "has a number that the cited passages do not have",
    "date": "has a date that the cited passages do not have",
    "negation": "denies what the source says, or says what it denies",
    "hedge": "states as a fact what the source only supposes, plans, or says of the past",
    "words": "has too little in common with the cited sources",
}
"""Why a statement was not kept."""

LONGEST: Final = 400  # characters of a statement
SHARED: Final = 0.5  # of a statement's words that its sources must have
_VARIED: Final = 0.4  # of the words of a statement of more than ``_FEW`` that must differ
_FEW: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cite:
    """A passage of a source: characters ``start`` up to ``end`` of the text of segment ``id``."""

    id: str
    start: int
    end: int


def ground(statement: str, cited: Sequence[Segment], quote: str | None = None) -> tuple[Cite, ...] | Objection:
    """The passages of ``cited`` that hold ``statement``, or why it does not hold.

    ``quote`` must stand in one of them, but for case, white space and typography; its sentences are the passage.
    Without one, and in the other sources, the sentences that share words with the statement are; a source that shares
    none is left out.
    """
    said = terms(statement)
    if len(statement) > LONGEST:
        return "long"
    if not said:
        return "empty"
    if len(said) > _FEW and len(set(said)) < _VARIED * len(said):
        return "babble"
    cites: list[Cite] = []
    for row in cited:
        at = None if quote is None or cites else _find(row.text, quote)
        if at is not None:
            cites.append(_whole(row, at))
    if quote is not None and not cites:
        return "quote"
    others = [row for row in cited if not any(row.id == cite.id for cite in cites)]
    cites += [cite for row in others if (cite := _related(row, frozenset(said))) is not None]
    if not cites:
        return "words"
    rows = {row.id: row for row in cited}
    return _objection(statement, said, [(rows[cite.id], (cite.start, cite.end)) for cite in cites]) or tuple(cites)


def _objection(statement: str, said: Sequence[str], passages: Sequence[tuple[Segment, Bounds]]) -> Objection | None:
    texts = [row.text[start:end] for row, (start, end) in passages]
    if any(_REPLY.search(text) for text in texts):
        return "dictated"
    around = [" ".join(filter(None, (row.speaker, *row.heading))) for row, _ in passages]
    known = frozenset(terms("\n".join((*texts, *around))))
    everywhere = known | frozenset(terms("\n".join(row.text for row, _ in passages)))
    dates = _dates(statement)
    there = frozenset(day for row, at in passages for day in _days(row, row.text[at[0] : at[1]]))
    if any(not _dated(date, there) for date in dates):
        return "date"
    names = [name for name in entities(statement, pairs=False).names if not _is_number(name)]
    if any(not everywhere.issuperset(terms(name)) for name in names):
        return "name"
    parts = {number.lstrip("0") for date in dates for number in re.findall(r"\d+", date)}
    if _numbers(statement) - _numbers("\n".join(texts)) - parts - {day[:4] for day in there}:
        return "number"
    words = set(said) - _REPORTING
    if len(words & known) < SHARED * len(words):
        return "words"
    best = _closest(frozenset(said), texts)
    if all(clause.rstrip("\"'”’ )").endswith("?") for clause in best) and not _ASKING.search(statement):
        return "question"
    denied = _NEGATION.search(statement) is not None
    if all((_NEGATION.search(clause) is not None) != denied for clause in best):
        return "negation"
    for source, own in _QUALIFIED:
        if all(source.search(clause) for clause in best) and not denied and not own.search(statement):
            return "hedge"
    return None


# ------------------------------------------------------------------------------------------------------------- passages


def _find(text: str, quote: str) -> Bounds | None:
    """Where ``quote`` stands in ``text``, but for case, accents' encoding, white space and typography."""
    wanted = "".join(character for character, _ in _folded(quote)).strip(" .…\"'")
    if not terms(wanted):
        return None
    folded = list(_folded(text))
    at = "".join(character for character, _ in folded).find(wanted)
    return None if at < 0 else (folded[at][1], folded[at + len(wanted) - 1][1] + 1)


def _folded(text: str) -> Iterator[tuple[str, int]]:
    """The characters by which quotes are compared, each with where it comes from."""
    space = True
    for place, raw in enumerate(text):
        for character in unicodedata.normalize("NFKD", _TYPOGRAPHY.get(raw, raw)).casefold():
            blank = character.isspace()
            if not (blank and space) and not "\u0300" <= character <= "\u036f":
                yield (" " if blank else character), place
                space = blank


def _whole(row: Segment, at: Bounds) -> Cite:
    """The sentences in which a stretch of a source lies."""
    touched = [span for span in _sentences(row.text) if span[0] < at[1] and at[0] < span[1]]
    return Cite(id=row.id, start=min(at[0], touched[0][0]), end=max(at[1], touched[-1][1]))


def _related(row: Segment, said: frozenset[str]) -> Cite | None:
    """From the first to the last sentence of a source that shares words with a statement."""
    spans = [span for span in _sentences(row.text) if said.intersection(terms(row.text[span[0] : span[1]]))]
    return Cite(id=row.id, start=spans[0][0], end=spans[-1][1]) if spans else None


def _sentences(text: str) -> list[Bounds]:
    spans = (trimmed(text, start, end) for start, end in pairwise(sentences(text, 0, len(text))))
    return [span for span in spans if span[0] < span[1]] or [(0, len(text))]


def _closest(said: frozenset[str], texts: Sequence[str]) -> list[str]:
    """The clauses of the passages that have most of a statement's words."""
    clauses = [
        clause
        for text in texts
        for start, end in _sentences(text)
        for clause in _CLAUSE.split(_EXCLAMATION.sub("", text[start:end]))
        if clause.strip()
    ]
    shared = [len(said.intersection(terms(clause))) for clause in clauses]
    most = max(shared, default=0)
    return [clause for clause, n in zip(clauses, shared, strict=True) if n == most]


# ---------------------------------------------------------------------------------------------------- numbers and dates


def _numbers(text: str) -> frozenset[str]:
    """The numbers in a text, without separators of thousands and leading zeros; small ones also in English words."""
    found = {number.lstrip("0") or "0" for number in _NUMBER.findall(_THOUSANDS.sub("", text))}
    return frozenset(found | {_SPELLED[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _SPELLED})


def _is_number(name: str) -> bool:
    return bool(_DATE.fullmatch(name)) or not any(character.isalpha() for character in name)


def _dates(text: str) -> list[str]:
    """The dates in a text: 2023-05-08, 2023-05, --05-08."""
    text = _PREPOSITION.sub(lambda match: match[0].lower(), text)  # "On 7" would be read as a name
    return [name for name in entities(text, pairs=False).names if _DATE.fullmatch(name)]


def _days(row: Segment, text: str) -> Iterator[str]:
    """The dates that a passage may be said to have: its own, the day it was said, and those it names from there."""
    yield from _dates(text)
    if row.occurred_at is not None:
        yield f"{row.occurred_at:%Y-%m-%d}"
        for cue, days in _RELATIVE:
            if cue.search(text):
                yield f"{row.occurred_at + timedelta(days=days):%Y-%m-%d}"


def _dated(date: str, there: frozenset[str]) -> bool:
    return any(day.startswith(date) or day.endswith(date.removeprefix("-")) for day in there)


_TYPOGRAPHY: Final = {
    **dict.fromkeys("‘’ʼ´`", "'"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("\u200b\u200d\ufeff\u00ad", ""),
}
_REPLY: Final = re.compile(r"\\?[\"']?(?:fact|summary|sources|quote)\\?[\"']\s*:", re.IGNORECASE)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DATE: Final = re.compile(r"(?:\d{4}|-)-\d\d(?:-\d\d)?")
_PREPOSITION: Final = re.compile(r"\b(?:On|In|Since|By|At|Until|From|Before|After)(?= \d)")
_SMALL: Final = "two three four five six seven eight nine ten eleven twelve"  # "one" is mostly no number
_SPELLED: Final = {word: str(number) for number, word in enumerate(_SMALL.split(), 2)} | {
    "twice": "2", "dozen": "12", "twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "hundred": "100",
}  # fmt: skip
_RELATIVE: Final = tuple(
    (re.compile(rf"\b{cue}\b", re.IGNORECASE), days)
    for cue, days in (("yesterday|last night", -1), ("tomorrow", 1), ("the day before yesterday", -2))
)

_CLAUSE: Final = re.compile(
    r"[;:—–]\s|,?\s(?:but|because|although|though|while|whereas|however|yet)\s"
    r"|(?:,|\sand|\sor|\sso)\s(?=(?:i|we|he|she|they|you|it|my|our|his|her|their)\b)",
    re.IGNORECASE,
)
_EXCLAMATION: Final = re.compile(r"\A\W*(?:no|nope|nah|not really|oh no|no way)[,.!]\s", re.IGNORECASE)
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly|barely|any ?more"
    r"|refus\w+|den(?:y|ies|ied)|(?:do|did|does|is|was|are|were|have|has|had|would|could|should|ca|wo|must)n['’]?t"
    r"|nicht|kein(?:e[rnms]?)?|niemals|pas|jamais|nunca|jamás|ningun[oa]?|não|non|mai|не|нет|никогда)\b"
    r"|[不没]|ない|ません|않|아니",
    re.IGNORECASE,
)
_ASKING: Final = re.compile(r"\b(?:ask\w*|wonder\w*|question\w*|want\w* to know|inquir\w*)\b|\?", re.IGNORECASE)
_DOUBT: Final = (
    r"if|might|maybe|perhaps|(?-i:may)|could|would|wish\w*|hop(?:e|es|ed|ing)|plan\w*|probably|possibly|consider\w*|want\w*"
    r"|intend\w*|suppos\w*|think\w*|thought|guess\w*|seem\w*|likely|going to|gonna|(?-i:will)|dream\w*"
    r"|imagin\w*|unless|someday"
)
_QUALIFIED: Final = (
    (re.compile(rf"\b(?:{_DOUBT})\b", re.IGNORECASE), re.compile(rf"\b(?:{_DOUBT})\b", re.IGNORECASE)),
    (
        re.compile(r"\b(?:used to|formerly|previously|stopped|quit|gave up)\b", re.IGNORECASE),
        re.compile(r"\b(?:used to|formerly|previously|once|was|were|had|quit|gave|\w{2,}ed)\b", re.IGNORECASE),
    ),
)
"""What tells a clause that is no plain statement of what is now, and what a statement of it must have instead."""

_REPORTING: Final = frozenset(
    terms("user assistant speaker person people say said state mention tell talk conversation name call about who")
)
