"""Of two statements about the same thing the newer goes first, without a model's word: by words, numbers and vectors.

A later statement takes the place of an earlier one of the same speaker, and that one the next, where both are among the
best, the later has every name and number of the question that the earlier has, and either say nearly the same, or speak
of the same thing, the later of another number and of a change ("now", "increased to", "no longer"; in English). Both
stay in the answer, each with its date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import encoded_text
from memspan.records import Segment

SAME = 0.8  # cosine from which two statements say nearly the same
ALIKE = 0.4  # cosine from which two speak of the same thing
OLDER = 3  # of the best, which may make way
GAP = 4.0  # logits, beyond which the later one is no answer to the question
NEARLY = 0.7  # the same for statements that are nearly the same: what little differs may be what is asked for

CHANGE = re.compile(
    r"\b(?:recent(?:ly)?|now|just|updat\w*|chang(?:e|ed|es|ing)|increas\w*|decreas\w*|improv\w*|extend\w*|reduc\w*"
    r"|drop(?:ped|s)?|gr[eo]wn?|new(?:er)?|no longer|any ?more|instead|switch\w*|moved?|moving|reschedul\w*|postpon\w*"
    r"|shifted|revis\w*|adjust\w*|replac\w*|actually|latest|current(?:ly)?|used to|reached|rose|risen|expand\w*"
    r"|added)\b",
    re.IGNORECASE,
)
NUMBER = re.compile(r"\d[\d.,:/]*")
NAME = re.compile(r"(?<=\s)[^\W\d_a-z]\w+")  # a word with a capital that opens no sentence
_WORD = re.compile(r"\w+")
_FIRST = "one two three four five six seven eight nine ten eleven twelve"
SMALL = {word: str(number) for number, word in enumerate(_FIRST.split(), 1)}


def newer_first(
    question: str, logits: NDArray[np.float32], rows: Sequence[Segment], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``logits`` float32[n] of ``rows``, best first, each later statement just above the earlier one that it updates.
    ``vectors`` float32[n, dim] of length 1."""
    given = logits.astype(np.float64)
    moved = given.copy()
    cosines = vectors @ vectors.T
    numbers = [_numbers(row.text) for row in rows]
    wanted = _numbers(question) | {name.lower() for name in NAME.findall(question)}
    held = [
        wanted & (own | _words(encoded_text(row.text, row.speaker, row.heading)))
        for own, row in zip(numbers, rows, strict=True)
    ]
    times = [row.occurred_at or row.recorded_at for row in rows]
    for older, row in enumerate(rows[:OLDER]):
        for newer, other in enumerate(rows):
            later = (times[newer], other.seq) > (times[older], row.seq)
            if not later or moved[newer] > given[older] or not held[older] <= held[newer] or not _together(row, other):
                continue
            gap = given[older] - given[newer]
            same = cosines[older, newer] >= SAME and gap <= NEARLY
            told = cosines[older, newer] >= ALIKE and gap <= GAP and row.role != "assistant"
            if same or (told and numbers[older] and numbers[newer] - numbers[older] and CHANGE.search(other.text)):
                moved[newer] = max(moved[newer], np.nextafter(np.float32(given[older]), np.float32(np.inf)))
    return moved.astype(np.float32)


def _together(one: Segment, other: Segment) -> bool:
    """Whether both are statements of one speaker, or texts of which it is known when they happened; no parts of one
    document."""
    voice = (one.role, one.speaker) == (other.role, other.speaker)
    known = one.role or one.speaker or (one.occurred_at and other.occurred_at)
    return bool(voice and known) and (one.document_id is None or one.document_id != other.document_id)


def _numbers(text: str) -> frozenset[str]:
    """The numbers in a text, as written, without what ends a sentence; small ones also in English words."""
    found = {match.rstrip(".,:/") for match in NUMBER.findall(text)}
    return frozenset(found | {SMALL[word] for word in _words(text) if word in SMALL})


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
