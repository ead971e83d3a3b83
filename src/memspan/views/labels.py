"""A few telling words for a group of texts.

Class-based TF-IDF (Grootendorst, "BERTopic", arXiv:2203.05794): how many of the group's texts hold a word, times how
rare it is in the store; with the two weightings that BERTopic offers against words that are everywhere, the square root
of the count and the idf of BM25. Words are counted as the analyser sees them and shown as they are written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p, sqrt

from memspan.analysis import terms

WORDS = 3
LEAST, LONGEST = 2, 32  # characters of a word that is shown

_WORD = re.compile(r"[^\W\d_]\w*(?:['’.-]\w+)*")

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of ``texts`` texts: how many texts hold each, by its terms, and how it is written there."""

    texts: int
    counts: Counter[Key]
    written: dict[Key, Counter[str]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        """Stop words, numbers, single letters and words longer than LONGEST are left out."""
        counts: Counter[Key] = Counter()
        written: dict[Key, Counter[str]] = {}
        for text in texts:
            telling = set(terms(text))
            held: set[Key] = set()
            for word in _WORD.findall(text):
                for key, shown in _keys(word.strip("_")):
                    if LEAST <= len(shown) <= LONGEST and telling.issuperset(key):
                        held.add(key)
                        written.setdefault(key, Counter())[shown] += 1
            counts.update(held)
        return cls(texts=len(texts), counts=counts, written=written)


def label(words: Words, background: Words, most: int = WORDS) -> str:
    """The ``most`` words that tell ``words`` from ``background``, the store's, best first: "asyncio, event, loop".

    Empty where there are none. A word is in two texts at least, where there are so many; one that shares a term with a
    better one is left out.
    """

    def weight(key: Key) -> float:
        elsewhere = background.counts[key]
        return sqrt(words.counts[key]) * log1p((background.texts - elsewhere + 0.5) / (elsewhere + 0.5))

    chosen: list[str] = []
    used: set[str] = set()
    shared = [key for key, count in words.counts.items() if count >= min(2, words.texts)]
    for key in sorted(shared, key=lambda key: (-weight(key), key)):
        if len(chosen) < most and used.isdisjoint(key):
            chosen.append(min(words.written[key].items(), key=lambda item: (-item[1], item[0]))[0])
            used.update(key)
    return ", ".join(chosen)


def _keys(word: str) -> list[tuple[Key, str]]:
    """What ``word`` counts as, and how each is shown: as one word, or as the pairs of a script without spaces."""
    found = terms(word)
    if len(found) > 1 and not word.isascii() and all(term in word for term in found):
        return [((term,), term) for term in found]
    return [(tuple(found), word)] if found else []
