"""Extractive summaries: the sentences that hold most of what a session is about, word for word, with their places.

A summary is a set of sentences within a budget of tokens that covers as much as can be of the words that matter, each
counted once: budgeted maximum coverage, chosen greedily by gain per token (Lin and Bilmes, "A class of submodular
functions for document summarization", ACL 2011). That is centrality and no redundancy in one. A word matters the more
often it is said here and the less elsewhere. Questions count less and what somebody tells of himself more, in English.
docs/consolidation.md has it beside LexRank (Erkan and Radev, JAIR 2004) over words and over vectors.

There are two levels, after HEMA's running compact memory (arXiv:2504.16754): summaries of sessions, and one over their
sentences. Both cite the segments the sentences come from; nothing is written that nobody said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import terms
from memspan.borders import sentences, trimmed
from memspan.errors import BudgetTooSmall
from memspan.ledger.base import MONTHS
from memspan.records import Quote, Segment, Summary
from memspan.segmenting import Tokenizer

ASKED = 0.3  # of what a question would count for as a statement
TOLD = 1.5
_OWN = re.compile(r"\b(?:I|I['’](?:m|ve|ll|d)|my|we|our)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """How often each term is said in so many ``sessions``: what tells the words that matter from the others."""

    sessions: int
    said: Counter[str]

    @classmethod
    def of(cls, sessions: Iterable[Iterable[Segment]]) -> Background:
        count, said = 0, Counter[str]()
        for segments in sessions:
            count += 1
            for segment in segments:
                said.update(terms(segment.text))
        return cls(sessions=count, said=said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """``segment.text[start:end]``."""

    segment: Segment
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.segment.text[self.start : self.end]


def sentences_of(segments: Iterable[Segment]) -> list[Sentence]:
    """The sentences of ``segments``, in order."""
    found = []
    for segment in segments:
        for start, end in pairwise(sentences(segment.text, 0, len(segment.text))):
            start, end = trimmed(segment.text, start, end)
            if start < end:
                found.append(Sentence(segment=segment, start=start, end=end))
    return found


def summarise(
    found: Sequence[Sentence],
    background: Background,
    *,
    budget: int,
    tokenizer: Tokenizer,
    segments: int,
    sessions: int = 1,
    dated: bool = False,
) -> Summary:
    """The best of the sentences ``found`` within ``budget`` tokens, in their order, a line for each turn.

    ``segments`` and ``sessions`` are what the summary stands for. ``dated``: each day stands above its lines. Raises
    BudgetTooSmall where there are sentences and not one fits.
    """
    said = [Counter(terms(each.text)) for each in found]
    tokens = np.array(tokenizer.count([_line([each]) for each in found]), np.int64)
    value = np.array([_bearing(each.text) for each in found])
    chosen = _covering(said, background, np.maximum(tokens, 1), value, budget)
    while True:
        kept = [found[at] for at in sorted(chosen)]
        text = _rendered(kept, dated)
        (total,) = tokenizer.count([text])
        if total <= budget:
            break
        chosen.pop()  # what was worth least; heads and line ends count too
    if found and not kept and tokens.min() > budget:
        problem = f"{budget} tokens hold no sentence; the shortest takes {int(tokens.min())}"
        raise BudgetTooSmall("budget", problem, mend=f"give at least {int(tokens.min()) + 16}")
    quotes = tuple(Quote(id=each.segment.id, start=each.start, end=each.end) for each in kept)
    return Summary(
        text=text,
        tokens=total,
        budget=budget,
        tokenizer=tokenizer.name,
        citations=quotes,
        segments=segments,
        sessions=sessions,
    )


def _bearing(sentence: str) -> float:
    if sentence.rstrip("\"'’”)» ").endswith(("?", "\uff1f", "\u061f")):
        return ASKED
    return TOLD if _OWN.search(sentence) else 1.0


def _covering(
    said: Sequence[Counter[str]],
    background: Background,
    tokens: NDArray[np.int64],
    value: NDArray[np.float64],
    budget: int,
) -> list[int]:
    """The sentences chosen, best first: each the one that adds most per token to the words covered before it."""
    total: Counter[str] = Counter()
    for words in said:
        total.update(words)
    numbers = {word: at for at, word in enumerate(total)}
    often = np.array(list(total.values()), np.float64)
    elsewhere = np.array([background.said[word] for word in total], np.float64)
    weight = np.sqrt(often) * np.log1p(max(background.sessions, 1) / np.maximum(elsewhere, 1.0))
    sizes = np.array([len(words) for words in said], np.int64)
    word = np.array([numbers[each] for words in said for each in words], np.int64)
    owner = np.repeat(np.arange(len(said)), sizes)
    gain = np.bincount(owner, weight[word], len(said))
    by_word = np.argsort(word, kind="stable")
    first = np.searchsorted(word[by_word], np.arange(len(total) + 1))
    begins = np.concatenate([[0], np.cumsum(sizes)])
    covered = np.zeros(len(total), bool)
    chosen: list[int] = []
    while len(said):
        worth = np.where((tokens <= budget) & (gain > 1e-9), gain * value / tokens, 0.0)
        best = int(worth.argmax())
        if not worth[best]:
            break
        chosen.append(best)
        budget -= int(tokens[best])
        for each in word[begins[best] : begins[best + 1]].tolist():
            if not covered[each]:
                covered[each] = True
                np.subtract.at(gain, owner[by_word[first[each] : first[each + 1]]], weight[each])
    return chosen


def _line(of_one_turn: Sequence[Sentence]) -> str:
    speaker = of_one_turn[0].segment.speaker or of_one_turn[0].segment.role
    text = " ".join(" ".join(each.text.split()) for each in of_one_turn)
    return f"{speaker}: {text}" if speaker else text


def _rendered(kept: Sequence[Sentence], dated: bool) -> str:
    lines: list[str] = []
    day = ""
    for _, turn in groupby(kept, key=lambda each: each.segment.id):
        of_turn = list(turn)
        time = of_turn[0].segment.time
        named = f"{time.day} {MONTHS[time.month - 1]} {time.year}"
        if dated and named != day:
            lines.append(named)
            day = named
        lines.append(_line(of_turn))
    return "\n".join(lines)


def quoted(citations: Sequence[Quote], of: Callable[[str], Segment | None]) -> list[Sentence]:
    """The sentences cited, without those whose segment ``of`` does not give or is not so long any more."""
    found = []
    for quote in citations:
        segment = of(quote.id)
        if segment is not None and quote.end <= len(segment.text):
            found.append(Sentence(segment=segment, start=quote.start, end=quote.end))
    return found
