"""Near-duplicates: of the segments of a scope those that say no more than a later one, told by their words.

Vectors and overlapping shingles find what is alike, which is another thing: in chats of people the pairs with the
greatest cosine are greetings and short answers, each of which means what was said before it, and "at 5 pm" and
"at 6 pm" are closer to each other than two tellings of one story. So what decides is exact. The same speaker said, in
the same scope, the same words in the same order, but for case, punctuation, fillers, contractions, a phrase moved from
one end to the other, sentences in another order, or a slip of the pen; or the later text has all of the earlier one's
sentences and goes on. Numbers, names and negations are words like any other, so they always agree.

What needs its surroundings to be understood is left alone: questions, short turns, turns with pronouns; and words of
time ("yesterday", "on Monday") are the same only on the same day. docs/consolidation.md has what was measured.

Candidates are found by sums of hashes of words (as SimHash and MinHash do, but exact): equal sums are the same words
in any order, sums less one word find the pairs that differ in one, sums of the beginnings of sentences find what
another one contains. All of it takes time linear in the words, whatever the texts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import terms
from memspan.borders import sentences
from memspan.records import Segment

Rows = NDArray[np.int64]

LEFT = ("core", "procedural", "working")  # kinds that have their own ways to change
LEAST_TURN = 4  # different telling words of a turn; shorter ones are answers
LEAST_NOTE = 2  # of a text that stands alone
ALONE = 12  # telling words from which a turn is understood without its surroundings, pronouns or not
LATEST = 4  # of the texts that have a sentence in common, which are compared
LONG_ENOUGH = 6  # letters of a word in which a slip is forgiven
KNOWN = 3  # segments that have the word meant, where only one has the slip

_SIGN = re.compile(
    r"(?P<number>(?<!\w)[-+]?\d+(?:[.,:/]\d+)*)|(?P<word>\w+(?:['’]\w+)*)|(?P<clause>[,;:()\u2013\u2014])"
    r"|(?P<other>[!<>=]=|[^\w\s.!\"'’‘“”…-])"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SPELLED = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: str(number) for number, word in enumerate(_SPELLED.split())}
_SHORT = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will"}
_DENIABLE = _set("do does did is was are were have has had could would should")
_WHOLE = {
    "can't": ("can", "not"),
    "cant": ("can", "not"),
    "cannot": ("can", "not"),
    "won't": ("will", "not"),
    "shan't": ("shall", "not"),
    "im": ("i", "am"),
    "ive": ("i", "have"),
    "gonna": ("going", "to"),
    "wanna": ("want", "to"),
    **{f"{word}nt": (word, "not") for word in _DENIABLE},
}
_FILLERS = _set("oh ah well hey hi hello um uh er hmm wow ok okay yeah yep yes please also too mm mhm alright")
_ARTICLES = _set("a an the")
_DEGREES = _set("really very truly definitely certainly absolutely honestly actually basically")
_NEGATIONS = _set("not no never none nobody nothing neither nor without hardly barely")
_LITTLE = _set("few little bit lot")  # "a few" is not "few"
_POINTERS = _set(
    "it its that this these those they them their he him his she her there here so such same one ones other another"
)
_CONTRAST = _NEGATIONS | _set(
    "but however although though except unless until if instead kidding joking wrong maybe perhaps almost used longer"
    " anymore or said"
)
_PLACED = _set("in on at after before since during last next this every by from to with until around between for")
_DAYS = _set(
    "today tonight yesterday tomorrow ago last next this earlier later recently lately soon week weekend morning"
    " afternoon evening night monday tuesday wednesday thursday friday saturday sunday days weeks months"
)
_MONTHS = _set("january february march april june july august september october november december year years birthday")
_MAY = re.compile(r"\b(?:in|on|of|by|since|until|last|next|this|\d{1,2}(?:st|nd|rd|th)?) may\b")
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The words of a text that weigh, sentence by sentence, a question with its mark; ``clauses``: after how many words
    of each sentence a clause ends. ``key``: what must be equal beside the words."""

    key: tuple[object, ...]
    words: tuple[tuple[str, ...], ...]
    clauses: tuple[tuple[int, ...], ...]
    names: frozenset[str]


def survivors(segments: Sequence[Segment]) -> Rows:
    """For each of ``segments`` the place of a later one that says all that it says, its own where there is none.

    int64[n]; where it leads to is its own. Parts of documents and what was derived are never told apart here.
    """
    kept = np.arange(len(segments))
    readings = [_reading(segment) for segment in segments]
    told = [row for row, reading in enumerate(readings) if reading is not None]
    rows = np.array(sorted(told, key=lambda row: (segments[row].time, segments[row].seq)), np.int64)
    read = [reading for row in rows.tolist() if (reading := readings[row]) is not None]
    hashed = _Hashed.of(read)
    later = np.arange(len(read))
    for candidates in (hashed.same, hashed.containing, hashed.nearly):
        for old, new in candidates():
            if later[old] == old and _says_all_of(read[new], read[old], hashed.held):
                later[old] = new
    for old in range(len(later) - 1, -1, -1):  # what replaces something is later, so it is settled before
        later[old] = later[later[old]]
    kept[rows] = rows[later]
    return kept


# -------------------------------------------------------------------------------------------------------------- reading


def _reading(segment: Segment) -> Reading | None:
    """None for what is left alone."""
    if segment.document_id is not None or segment.source == "derived" or segment.kind in LEFT:
        return None
    text = unicodedata.normalize("NFKC", segment.text)
    words, clauses, names = [], [], set[str]()
    for start, end in pairwise(sentences(text, 0, len(text))):
        found, ends = _words(text[start:end], names)
        if found:
            words.append(tuple(found))
            clauses.append(tuple(ends))
    flat = [word for sentence in words for word in sentence]
    turn = segment.role is not None
    telling = min(len(set(flat)), len(set(terms(" ".join(flat)))))
    if telling < (LEAST_TURN if turn else LEAST_NOTE) or (
        turn and ("?" in flat or (telling < ALONE and not _POINTERS.isdisjoint(flat)))
    ):
        return None
    if not turn and telling < ALONE and flat[0] in _POINTERS:
        return None
    scope = segment.namespace, segment.user_id, segment.agent_id, segment.run_id
    about = (
        segment.role,
        segment.speaker,
        segment.kind,
        segment.category,
        json.dumps(dict(segment.metadata), sort_keys=True),
    )
    key = (*scope, *about, segment.valid_from, segment.valid_to, segment.expires_at, _when(segment, flat))
    return Reading(key=key, words=tuple(words), clauses=tuple(clauses), names=frozenset(names))


def _words(sentence: str, names: set[str]) -> tuple[list[str], list[int]]:
    """The words of a sentence that weigh, and after how many of them a clause ends."""
    found: list[str] = []
    clauses: list[int] = []
    for sign in _SIGN.finditer(sentence):
        if sign.lastgroup == "clause":
            clauses.append(len(found))
        elif sign.lastgroup == "word":
            if sign[0][0].isupper() and found:
                names.add(sign[0].casefold())
            found += _spelled(sign[0].casefold().replace("’", "'"))
        else:
            found.append(sign[0])
    denied = not _NEGATIONS.isdisjoint(found)
    light = _FILLERS | _ARTICLES if denied else _FILLERS | _ARTICLES | _DEGREES
    weighs = [
        word not in light or (word in _ARTICLES and following in _LITTLE)
        for word, following in zip_longest(found, found[1:])
    ]
    before = [0, *accumulate(weighs)]
    kept = [word for word, weight in zip(found, weighs, strict=True) if weight]
    return kept, sorted({before[end] for end in clauses} - {0, len(kept)})


def _spelled(word: str) -> Sequence[str]:
    if word in _WHOLE:
        return _WHOLE[word]
    stem, mark, ending = word.partition("'")
    if mark and ending == "t" and stem.endswith("n"):
        return stem[:-1], "not"
    if mark and mark + ending in _SHORT:
        return stem, _SHORT[mark + ending]
    return (_NUMBERS.get(word, word),)


def _when(segment: Segment, words: Sequence[str]) -> object:
    """The day, or the year, on which the words of time in a text depend; None where it has none."""
    if not _DAYS.isdisjoint(words):
        return segment.time.date()
    named = not _MONTHS.isdisjoint(words) or _MAY.search(" ".join(words)) is not None
    return segment.time.year if named and not any(map(_YEAR.fullmatch, words)) else None


# ------------------------------------------------------------------------------------------------------------ comparing


def _says_all_of(later: Reading, earlier: Reading, held: Counter[str]) -> bool:
    if later.key != earlier.key:
        return False
    new = [word for sentence in later.words for word in sentence]
    old = [word for sentence in earlier.words for word in sentence]
    if new == old:
        return True
    if len(new) == len(old):
        if Counter(later.words) == Counter(earlier.words) or _moved(old, new):
            return True
        differing = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
        return len(differing) == 1 and _slip(*differing[0], later.names | earlier.names, held)
    return _contains(later, earlier)


def _moved(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether a phrase such as "in May" went from one end of the text to the other."""
    for cut in (at for at in range(1, len(old)) if old[at] == new[0]):
        if [*old[cut:], *old[:cut]] == list(new):
            return old[0] in _PLACED or new[0] in _PLACED
    return False


def _contains(later: Reading, earlier: Reading) -> bool:
    """Whether every sentence of ``earlier`` is one of ``later`` or begins one, and what it adds takes nothing back."""
    added: list[str] = []
    wanted = Counter(earlier.words)
    for words, clauses in zip(later.words, later.clauses, strict=True):
        for end in (len(words), *reversed(clauses)):
            if wanted[words[:end]] > 0:
                wanted[words[:end]] -= 1
                added += words[end:]
                break
        else:
            added += words
    return not +wanted and _CONTRAST.isdisjoint(added) and "?" not in added


def _slip(one: str, other: str, names: frozenset[str], held: Counter[str]) -> bool:
    """Whether one of two words is the other, mistyped: long, no name, in no other text, and the end, where grammar is,
    and the beginning the same."""
    rare, known = sorted((one, other), key=lambda word: (held[word], word))
    if not (one.isalpha() and other.isalpha() and min(len(one), len(other)) >= LONG_ENOUGH):
        return False
    if held[rare] > 1 or held[known] < KNOWN or not names.isdisjoint((one, other)):
        return False
    if one[0] != other[0] or one[-2:] != other[-2:]:
        return False
    start = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


# ----------------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Hashed:
    """Sums of the hashes of words of readings in order of time, all uint64, by which candidates are found.

    ``whole`` [n] of all words, ``order`` int64[n] of them in order; ``less`` [m] without one word, of the readings
    ``owner``, the word's place in the alphabet in ``letters``; ``heads`` [p] of sentences and of what comes before the
    end of a clause, of the readings ``head_owner``; ``longest`` [n] of the longest sentence. ``held``: in how many
    texts each word is.
    """

    whole: NDArray[np.uint64]
    order: Rows
    less: NDArray[np.uint64]
    owner: Rows
    letters: Rows
    heads: NDArray[np.uint64]
    head_owner: Rows
    longest: NDArray[np.uint64]
    held: Counter[str]

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> _Hashed:
        numbers: dict[str, int] = {}
        keys: dict[tuple[object, ...], int] = {}
        held: Counter[str] = Counter()
        flat: list[int] = []
        sizes: list[int] = []  # words of each sentence
        counts: list[int] = []  # sentences of each reading
        ends: list[int] = []  # where heads end, in words of all
        begins: list[int] = []
        owners: list[int] = []
        for row, reading in enumerate(readings):
            held.update({word for sentence in reading.words for word in sentence})
            counts.append(len(reading.words))
            for sentence, clauses in zip(reading.words, reading.clauses, strict=True):
                for end in (*clauses, len(sentence)):
                    begins.append(len(flat))
                    ends.append(len(flat) + end)
                    owners.append(row)
                flat += [numbers.setdefault(word, len(numbers)) for word in sentence]
                sizes.append(len(sentence))
        key = _mixed(np.array([keys.setdefault(each.key, len(keys)) for each in readings], np.uint64) + (1 << 40))
        ids = np.array(flat, np.int64)
        words = _mixed(ids.astype(np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words, dtype=np.uint64)])
        size, count = np.array(sizes, np.int64), np.array(counts, np.int64)
        stops = np.cumsum(size)
        first = np.cumsum(count) - count  # of each reading's sentences
        starts = stops - size
        sentence = sums[stops] - sums[starts]
        last = np.array(
            [max(range(at, at + n), key=sizes.__getitem__) for at, n in zip(first, count, strict=True)], int
        )
        owner = np.repeat(np.repeat(np.arange(len(readings)), count), size)
        whole = key + (np.add.reduceat(sentence, first) if len(first) else sentence)
        alphabet = {word: at for at, word in enumerate(sorted(numbers))}
        letters = np.array([alphabet[word] for word in numbers], np.int64)
        head_owner = np.array(owners, np.int64)
        return cls(
            whole=whole,
            order=np.array([hash(each.words) for each in readings], np.int64),
            less=whole[owner] - words,
            owner=owner,
            letters=letters[ids] if len(ids) else ids,
            heads=key[head_owner] + sums[np.array(ends, np.int64)] - sums[np.array(begins, np.int64)],
            head_owner=head_owner,
            longest=key + (sentence[last] if len(last) else sentence),
            held=held,
        )

    def same(self) -> Iterator[tuple[int, int]]:
        """Each text and the next later one with the same words, where there is one in the same order that one."""
        rows = np.arange(len(self.whole))
        for columns in ((rows, self.order), (rows,)):
            at = np.lexsort((*columns, self.whole))
            equal = self.whole[at[1:]] == self.whole[at[:-1]]
            yield from zip(at[:-1][equal].tolist(), at[1:][equal].tolist(), strict=True)

    def nearly(self) -> Iterator[tuple[int, int]]:
        """Pairs that differ in one word, of many the ones whose words are next to each other in the alphabet."""
        at = np.lexsort((self.letters, self.less))
        equal = (self.less[at[1:]] == self.less[at[:-1]]) & (self.owner[at[1:]] != self.owner[at[:-1]])
        one, other = self.owner[at[:-1][equal]], self.owner[at[1:][equal]]
        yield from zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), strict=True)

    def containing(self) -> Iterator[tuple[int, int]]:
        """Each text and the latest ones with its longest sentence."""
        at = np.lexsort((self.head_owner, self.heads))
        heads, owners = self.heads[at], self.head_owner[at]
        ends = np.searchsorted(heads, self.longest, "right")
        starts = np.searchsorted(heads, self.longest, "left")
        rows = np.arange(len(self.longest))
        for back in range(1, LATEST + 1):
            there = ends - back >= starts
            found = owners[np.maximum(ends - back, 0)]
            there &= found > rows
            yield from zip(rows[there].tolist(), found[there].tolist(), strict=True)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): numbers in order become numbers without any."""
    z = values * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
