"""Statements that a later one of the same speaker may have taken the place of, found without a model's word.

Two texts are compared clause by clause. Two clauses speak of the same thing as far as they share the words that tell
most, those which few others of that speaker say; and the later one says something else of it where it has another
number of the same, another date or name, another liking, where one denies what the other says, or where one word
stands in the place of another. A change is said in English; numbers and dates are read in others too.

What is found is a proposal: what it was worth on chats is in docs/truth.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan import borders
from memspan.analysis import terms
from memspan.records import Reason, Segment
from memspan.updates import ALIKE, CHANGE, NAME, NUMBER, SAME, SMALL

NEAR: Final = 24  # of a statement, which it is compared with
MOST: Final = 24  # clauses of one text
SHORT: Final = 24  # words of a sentence that is one clause; a longer one is cut
FEW: Final = 3  # words that a clause has at least
DENIED: Final = 5  # words after a denial that it denies
COUNTED: Final = 3  # words after a number that say of what it is
UNSEEN: Final = 50  # as if so many more statements said nothing of all this: of two alone every word is shared

# What a score is made of, in logits: by judgement, from what it finds in the tuning chats of docs/truth.md.
BASE: Final[Mapping[Reason, float]] = {
    "number": -3.5, "negation": -3.4, "preference": -3.9, "wording": -4.2, "date": -4.0, "name": -4.3,
}  # fmt: skip
EACH_MORE: Final = 0.4  # of every further reason
TELLING: Final = (0.4, 2.5)  # shared words, counted in words that nobody else says: the least, and what counts at most
SUBJECT: Final = 0.9  # of each of them
OVERLAP: Final = 3.0  # of their share of all words of both clauses
COSINE: Final = 1.5
CUE: Final = 1.2  # where the later one speaks of a change
AGAIN: Final = 0.3  # score of what is only said again, at most: nothing is lost with either

_CLAUSE: Final = re.compile(
    r"[,;:—–]\s(?!\d)|\s-\s|\s(?=(?:but|and|so|because|which|while|although|since|considering)\s)"
)
_ASIDE: Final = re.compile(r"```.*?(?:```|\Z)|\[[^\[\]]*\]", re.DOTALL)  # code; and what is in brackets, nobody says
_CODE: Final = re.compile(r"[{}]|[;>]\Z|==|=>|\w\(|://|\A[#@.]|\b(?:NOT NULL|const)\b")
_MONTH: Final = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*\.?"
_DATE: Final = re.compile(
    rf"\b(?:{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}}\b)?"
    rf"|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}(?: \d{{4}}\b)?|{_MONTH} \d{{4}}"
    r"|\d{4}-\d\d(?:-\d\d)?|(?:19|20)\d\d(?![\d.,]\d)|(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
    r"|\d{1,2}(?:[:.]\d\d)? ?[ap]\.?m\b\.?|\d{1,2}:\d\d)(?!\w)",
    re.IGNORECASE,
)
_COUNT: Final = re.compile(
    rf"(?<![\w.])(?P<money>[$€£¥]?)(?P<value>{NUMBER.pattern}|(?:{'|'.join(SMALL)})\b)(?P<unit>\s?%)?", re.IGNORECASE
)
_DENIAL: Final = re.compile(  # but not "will never stop"
    r"(?<!n't )(?<!never )\b(?:never|no longer|stopped|quit)\b(?! (?:mind|stop))"
    r"|(?P<mild>\bnot(?! (?:sure|only|just|too|quite|really))\b"
    r"|(?<!\bdo)n[’']t\b(?! (?:sure|know|think|wait|worry|believe|mind|even|help|imagine|you|it|that)))",
    re.IGNORECASE,
)
_LIKES: Final = re.compile(r"\b(?:prefer\w*|favou?rites?|love[sd]?|like[sd]?|enjoy\w*|adore[sd]?)\b", re.IGNORECASE)
_LOATHES: Final = re.compile(r"\b(?:hate[sd]?|dislike[sd]?|detest\w*|can[’']t stand|tired of|sick of)\b", re.IGNORECASE)
_PREFERS: Final = re.compile(r"\b(?:prefer\w*|favou?rites?)\b", re.IGNORECASE)
_CALLED: Final = re.compile(r"(?:\A|[,.!?] ?)[^\W\d_]\w+(?=[,.!?]|\Z)")  # "Thanks, Ana!" says nothing of Ana


class Clause(NamedTuple):
    """What is said in a clause: its ``words`` in order as terms, without its numbers and dates.

    ``numbers``: by each word of what they count, as written without commas. ``denied``: words of which it says that it
    never was so, or is not any more; ``negated``: that it is not. ``liking``: 1, -1 or 0. ``single``: it is all that
    its text says. ``changes``: it speaks of a change.
    """

    words: tuple[str, ...]
    about: frozenset[str]
    numbers: Mapping[str, frozenset[str]]
    dates: frozenset[str]
    names: frozenset[str]
    denied: frozenset[str]
    negated: frozenset[str]
    liking: int
    prefers: bool
    changes: bool
    single: bool

    def can_differ(self, other: Clause) -> bool:
        """Whether there can be any reason: most clauses have nothing that another could say otherwise."""
        return bool(
            (self.numbers and other.numbers)
            or (self.dates and other.dates)
            or (self.names and other.names)
            or (self.single and other.single)
            or (self.liking and other.liking)
            or self.denied
            or other.denied
            or self.negated
            or other.negated
        )


class Found(NamedTuple):
    """That of two of some rows, by their places, the later may have taken the place of the earlier."""

    older: int
    newer: int
    reasons: tuple[Reason, ...]
    score: float


def speakers(rows: Sequence[Segment]) -> Iterator[NDArray[np.intp]]:
    """The places of the rows that one speaker said to one owner of memories, where there are several.

    What a model said is no statement, and what was made of others is none of its own.
    """
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for at, row in enumerate(rows):
        if row.role in (None, "user") and row.source not in ("assistant", "derived", "system"):
            owner = (row.user_id, row.agent_id, row.run_id)
            groups.setdefault((*owner, row.role, row.source, row.speaker), []).append(at)
    yield from (np.array(group, np.intp) for group in groups.values() if len(group) > 1)


def compared(rows: Sequence[Segment], near: NDArray[np.intp], cosines: NDArray[np.float32]) -> Iterator[Found]:
    """What is found among the statements of one speaker. ``near`` intp[n, k]: the places of the rows most like each,
    -1 for none, ``cosines`` float32[n, k]."""
    said = [clauses(row.text) for row in rows]
    weights = _weights(said)
    one, column = np.nonzero((near >= 0) & (cosines >= ALIKE))
    other, alike = near[one, column], cosines[one, column]
    when = [(row.time, row.seq) for row in rows]
    seen: set[tuple[int, int]] = set()
    for a, b, cosine in zip(one.tolist(), other.tolist(), alike.tolist(), strict=True):
        older, newer = (a, b) if when[a] < when[b] else (b, a)
        apart = rows[a].document_id is None or rows[a].document_id != rows[b].document_id
        if a != b and apart and (older, newer) not in seen:
            seen.add((older, newer))
            reasons, score = _differing(said[older], said[newer], weights, cosine)
            if reasons:
                yield Found(older, newer, reasons, score)


def clauses(text: str) -> list[Clause]:
    """What a text says, clause by clause, without what it asks; at most MOST of them."""
    plain = _ASIDE.sub("\n", text)
    found: list[Clause] = []
    sentences = [plain[start:end].strip() for start, end in pairwise(borders.sentences(plain, 0, len(plain)))]
    for sentence in sentences:
        parts = (part for part in _cut(sentence) if not _CODE.search(part))
        found += [clause for part in parts if len((clause := _clause(part)).about) > 1]
        if len(found) >= MOST:
            break
    whole = len(found) == sum(map(bool, sentences)) == 1
    return [found[0]._replace(single=True)] if whole else found[:MOST]


def _cut(sentence: str) -> Iterator[str]:
    asks, start = sentence.endswith(("?", "？")), 0
    for match in _CLAUSE.finditer(sentence) if asks or sentence.count(" ") >= SHORT else ():
        if sentence.count(" ", start, match.start()) >= FEW:
            yield sentence[start : match.end()].strip()
            start = match.end()
    if not asks:
        yield sentence[start:].strip()


def _clause(text: str) -> Clause:
    undated = _DATE.sub(" ", text)
    plain = _COUNT.sub(" ", undated)
    words = tuple(word for word in terms(plain) if not word.isdigit())
    denied: dict[bool, set[str]] = {True: set(), False: set()}
    for match in _DENIAL.finditer(plain):
        after = plain[match.end() :].split(maxsplit=DENIED)[:DENIED]
        denied[match["mild"] is None].update(terms(" ".join(after)))
    return Clause(
        words=words,
        about=frozenset(words),
        numbers=_numbers(undated),
        dates=frozenset(" ".join(terms(match[0])) for match in _DATE.finditer(text)),
        names=frozenset(match[0].lower() for match in NAME.finditer(_CALLED.sub(" ", plain))),
        denied=frozenset(denied[True]),
        negated=frozenset(denied[False]),
        liking=-1 if _LOATHES.search(text) else int(_LIKES.search(text) is not None),
        prefers=_PREFERS.search(text) is not None,
        changes=CHANGE.search(text) is not None,
        single=False,
    )


def _numbers(text: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for match in _COUNT.finditer(text):
        value = match["value"].rstrip(".,:/").replace(",", "").lower()
        if value == "one" or value.count(".") > 1:  # hardly ever counts; a version
            continue
        counted = [match["money"] or (match["unit"] or "").strip()]
        if not counted[0]:
            after = _COUNT.split(text[match.end() : match.end() + 60], maxsplit=1)[0]
            counted = [word for word in terms(after)[:COUNTED] if not word.isdigit()]
        for word in counted:
            found.setdefault(word, set()).add(SMALL.get(value, value))
    return {word: frozenset(values) for word, values in found.items()}


def _weights(said: Sequence[Sequence[Clause]]) -> dict[str, float]:
    """How much each word tells: 1 for one that only one of these texts has, 0 for one that all have."""
    counts = Counter(word for text in said for word in frozenset[str]().union(*(clause.about for clause in text)))
    every = len(said) + UNSEEN
    return {word: math.log(every / count) / math.log(every) for word, count in counts.items()}


def _differing(
    older: Sequence[Clause], newer: Sequence[Clause], weights: Mapping[str, float], cosine: float
) -> tuple[tuple[Reason, ...], float]:
    """Why the one may have taken the place of the other, by the two clauses that say so best, and how likely."""
    best: tuple[tuple[Reason, ...], float] = ((), 0.0)
    for a in older:
        for b in newer:
            if not a.can_differ(b):
                continue
            shared = a.about & b.about
            subject = _sum(weights, shared)
            if subject < TELLING[0]:
                continue
            sizes = _sum(weights, a.about), _sum(weights, b.about)
            overlap = subject / (sum(sizes) - subject)
            reasons = tuple(_reasons(a, b, weights, overlap, subject / min(sizes)))
            if reasons:
                logit = max(BASE[reason] for reason in reasons) + EACH_MORE * (len(reasons) - 1)
                logit += SUBJECT * min(subject, TELLING[1]) + OVERLAP * overlap + COSINE * cosine + CUE * b.changes
                best = max(best, (reasons, 1 / (1 + math.exp(-logit))), key=lambda found: found[1])
    if not best[0] and cosine >= SAME:
        return ("said again",), AGAIN * min(cosine, 1.0)
    return best


def _reasons(a: Clause, b: Clause, weights: Mapping[str, float], overlap: float, covered: float) -> Iterator[Reason]:
    """In what ``b`` differs from ``a``. ``covered``: how much of the shorter one the other says too."""
    shared = a.about & b.about
    values = [frozenset[str]().union(*each.numbers.values()) for each in (a, b)]
    counted = a.numbers.keys() & b.numbers.keys()
    if any(not a.numbers[word] & values[1] and not b.numbers[word] & values[0] for word in counted):
        yield "number"
    if a.dates and b.dates and not a.dates & b.dates and covered >= 0.3:
        yield "date"
    if a.names - b.names and b.names - a.names and overlap >= 0.5:
        yield "name"
    once = bool(a.denied or a.negated) != bool(b.denied or b.negated)
    denied = once and _sum(weights, shared & (a.denied | b.denied)) >= 0.5 and covered >= 0.2
    negated = once and _sum(weights, shared & (a.negated | b.negated)) >= 0.5 and covered >= 0.6 and overlap >= 0.3
    turned = denied or negated
    chosen = a.prefers and b.prefers and a.about - b.about and b.about - a.about and overlap >= 0.3
    if a.liking * b.liking < 0 or chosen or (turned and a.liking * b.liking):
        yield "preference"
    elif turned:
        yield "negation"
    elif a.single and b.single and _replaced(a.words, b.words):
        yield "wording"


def _replaced(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether in one sentence one or two words stand in the place of one or two in the other, and no more differs."""
    start = next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    rest = a[start:][::-1], b[start:][::-1]
    end = next((at for at, (one, other) in enumerate(zip(*rest, strict=False)) if one != other), min(map(len, rest)))
    return all(1 <= len(part) - end <= 2 for part in rest)


def _sum(weights: Mapping[str, float], words: Iterable[str]) -> float:
    return sum(weights[word] for word in words)
