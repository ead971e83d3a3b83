"""The one text analyser: text → the terms under which it is indexed, the same for documents, queries and every store.

A text is normalised (NFKC, case folded, Latin and Greek accents dropped), cut into words, and each word gives one or
more terms: English words their Porter2 stem [1]; names such as ``camelCase``, ``snake_case``, ``foo.bar`` or ``wi-fi``
their parts and the parts joined; Chinese, Japanese, Korean and the scripts that write no spaces (Thai, Lao, Khmer,
Burmese) their overlapping pairs of characters [2]. A term holds only letters, marks, digits and ``_``.

[1] M. Porter, "The English (Porter2) stemming algorithm", https://snowballstem.org/algorithms/english/stemmer.html
[2] J. Nie, J. Gao, J. Zhang, M. Zhou, "On the use of words and n-grams for Chinese information retrieval", IRAL 2000
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from functools import lru_cache
from typing import Final

import Stemmer

VERSION: Final[str] = f"1+snowball-{Stemmer.version()}"
"""Names the terms this module makes. Where a store's lexical view was built with another one, it must be rebuilt."""

LONGEST: Final[int] = 64
"""Characters of a term; what is longer is cut off, so that a blob cannot fill an index."""

_REMEMBERED: Final = 1 << 16  # words whose terms are kept: most of any text, in about 20 MB
_MEMORABLE: Final = 40  # characters; longer words hardly ever come again

# Only words that carry no subject. "will", "may" and "us" are left out on purpose: Will, May and US are names.
_STOP_WORDS: Final = """
a about all also am an and any are aren arent as at be because been being but by can cant could couldnt did didnt do
does doesnt doing dont each for from had hadnt has hasnt have havent having he her here hers herself him himself his
how https i if im in into is isnt it its itself ive just me my myself nor of on or our ours ourselves shall she
should shouldnt so some such than that the their theirs them themselves then there these they this those through to
too until up was wasnt we were werent what when where which while who whom whose why with wont would wouldnt www you
your yours yourself yourselves
"""
_STOP: Final = frozenset(_STOP_WORDS.split())

# After folding, every character beyond ASCII belongs to a word (see _Folding).
_CHARACTER: Final = "[A-Za-z0-9_\x80-\U0010ffff]"
_WORD: Final = re.compile(rf"{_CHARACTER}+(?:(?:[-'./&]|(?<=\d),(?=\d\d\d(?!\d))){_CHARACTER}+)*")
_POSSESSIVE: Final = re.compile(r"'(?:s|re|ve|ll|d|m)(?![A-Za-z0-9])", re.IGNORECASE)
_NEGATION: Final = re.compile(r"'(?=t(?![A-Za-z0-9]))", re.IGNORECASE)
_JOINT: Final = re.compile(r"[-'.&_]+")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
_ACRONYMS: Final = re.compile(r"[A-Z]{2,}s")
_HUMPS: Final = 8  # a word with more of them is a key or a hash, not a name

_UNSPACED: Final = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u309f\u30a0-\u30ff\u3105-\u312f\u3131-\u318e"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\u1100-\u11ff\uf900-\ufaff"
    "\U00016ff0-\U00018d8f\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"  # up to here Han, kana, Hangul and their kin
    "\u0e01-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u109d\u1780-\u17d3\uaa60-\uaa7f"
)
_RUN: Final = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_PAIRED: Final = re.compile(f"[{_UNSPACED}]")


class _Folding(dict[int, str]):
    """What each character becomes before words are cut, for ``str.translate``; filled as characters come up.

    Letters, marks and digits stay (without what search should not depend on), apostrophes and hyphens take their ASCII
    form, invisible characters vanish, and everything else beyond ASCII becomes a space.
    """

    def __missing__(self, code: int) -> str:
        self[code] = folded = self._fold(chr(code))
        return folded

    _KIN: Final = {
        **dict.fromkeys("\u2018\u2019\u02bc\uff07", "'"),
        **dict.fromkeys("\u2010\u2011\u2043", "-"),
        **dict.fromkeys("\u02bb\u0640", ""),  # Hawaiian okina, Arabic tatweel
        **dict.fromkeys("\u200b", " "),
        **dict(zip("øØłŁđĐðÐħĦıёЁ", "oOlLdDdDhHiеЕ", strict=True)),
        **dict(zip("þÞæÆœŒ", ("th", "Th", "ae", "Ae", "oe", "Oe"), strict=True)),
    }
    _DROPPED: Final = re.compile(  # accents, Hebrew points, Arabic vowel signs, variation selectors
        "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff"
        "\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
    )
    _ACCENTED: Final = re.compile("[A-Za-z\u0370-\u03ff\u0627]")  # Latin, Greek, Arabic alef

    def _fold(self, character: str) -> str:
        if character in self._KIN:
            return self._KIN[character]
        category = unicodedata.category(character)
        if character.isascii():
            return character
        if category == "Cf" or self._DROPPED.match(character):
            return ""
        if category == "Nd":
            return str(unicodedata.digit(character))
        if category[0] == "L":
            base = unicodedata.normalize("NFD", character)[0]
            return base if self._ACCENTED.match(base) else character
        return character if category[0] in "MN" else " "


_FOLDED: Final = _Folding()
_known: dict[str, tuple[str, ...]] = {}
_thread = threading.local()


def terms(text: str) -> list[str]:
    """The terms of ``text`` in order, with repetitions, each 1 to 64 characters of letters, marks, digits and ``_``.

    English stop words are left out, unless the text has nothing else. A text without letters and digits has no terms.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_FOLDED)
    words = _WORD.findall(text)
    found: list[str] = []
    for word in words:
        known = _known.get(word)
        found += _learn(word) if known is None else known
    if not found:
        for word in words:
            found += _terms_of(word, dropped=frozenset())
    return found


def _learn(word: str) -> tuple[str, ...]:
    learned = tuple(_terms_of(word, dropped=_STOP))
    if len(word) <= _MEMORABLE:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[word] = learned
    return learned


def _terms_of(word: str, *, dropped: frozenset[str]) -> list[str]:
    if "'" in word:
        word = _NEGATION.sub("", _POSSESSIVE.sub("", word))
    steps = word.replace(",", "").split("/")
    found: list[str] = []
    path: list[str] = []
    for step in steps:
        parts = [part for name in _JOINT.split(step) if name for part in _split_humps(name)]
        for part in parts:
            found += _terms_of_part(part, dropped)
        found += _joined(parts, dropped)
        path += parts
    if len(steps) > 2 or (len(steps) == 2 and ("." in word or "_" in word)):  # a path, not "and/or"
        found += _joined(path, dropped)
    return found


def _split_humps(name: str) -> list[str]:
    """``getHTTPResponse`` → get, HTTP, Response; ``LLMs`` → LLM, which the stemmer leaves as it is."""
    if name.islower() or not name.isascii():
        return [name]
    if _ACRONYMS.fullmatch(name):
        return [name[:-1]]
    parts = _HUMP.split(name)
    return parts if len(parts) <= _HUMPS else [name]


def _joined(parts: list[str], dropped: frozenset[str]) -> list[str]:
    """A name's parts as one term, so that ``wi-fi``, ``wifi`` and ``WiFi`` meet; numbers stay apart: 3.14 → 3_14."""
    if len(parts) < 2 or sum(map(len, parts)) > LONGEST or any(_PAIRED.search(part) for part in parts):
        return []
    name = parts[0]
    for part in parts[1:]:
        name += f"_{part}" if name[-1].isdigit() and part[0].isdigit() else part
    return _terms_of_part(name, dropped)


def _terms_of_part(part: str, dropped: frozenset[str]) -> list[str]:
    part = part.casefold()
    if part.isascii():
        return [] if part in dropped else [_stem(part[:LONGEST])]
    part = unicodedata.normalize("NFKC", part).translate(_FOLDED).replace(" ", "")
    found: list[str] = []
    for run in _RUN.findall(part):
        if not _PAIRED.match(run):
            run = run[:LONGEST]
            if run not in dropped:
                found.append(_stem(run) if run.isascii() else run)
        elif len(run) == 1:
            found.append(run)
        else:
            found += [run[i : i + 2] for i in range(len(run) - 1)]
    return found


def _stem(word: str) -> str:
    try:
        stemmer = _thread.stemmer
    except AttributeError:
        stemmer = _thread.stemmer = Stemmer.Stemmer("english", 0)  # not thread-safe; words are remembered here already
    stem: str = stemmer.stemWord(word)
    return stem


@lru_cache(maxsize=200_000)
def key_of(term: str) -> int:
    """The number, of 64 bits, under which an index keeps a term."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest())
