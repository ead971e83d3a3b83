"""Secrets and personal data replaced by placeholders, before they are stored or before they are handed out.

Secrets are found by the patterns of ``detect-secrets`` and a few for tokens it does not know, phone numbers by
``phonenumbers``, account and card numbers by the check digits ``python-stdnum`` computes, all of the extra
``memspan[redact]``: patterns only, no model, no network. Names, streets and what only reads as personal are not found.
What was compared and measured: docs/decisions/0018-redaction.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Final, Protocol, TypeVar, runtime_checkable

from memspan.errors import InvalidInput, MissingExtra
from memspan.records import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A text with placeholders such as ``[EMAIL_1]``, and how many were put, by kind."""

    text: str
    counts: Mapping[str, int]


@runtime_checkable
class Redactor(Protocol):
    """Replaces what must not be read."""

    def redact(self, texts: Sequence[str]) -> list[Redacted]:
        """Each text without it. Within one call the same value gets the same placeholder."""


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    kind: str


_Finder = Callable[[str], Iterable[_Found]]


def make(spec: str | Redactor | Callable[[str], str] | None, argument: str = "redact") -> Redactor | None:
    """The redactor that ``spec`` names: ``"secrets"``, ``"personal"``, ``"all"`` (both), a function str → str, or a
    Redactor. None and ``"none"`` give None. Raises InvalidInput, MissingExtra.
    """
    if spec is None or spec == "none":
        return None
    if isinstance(spec, str):
        if spec not in _KINDS:
            mend = f"use {', '.join(map(repr, _KINDS))}, a function from str to str, or leave it out"
            raise InvalidInput(argument, f"{spec!r} is unknown", mend=mend)
        return _patterns(spec)
    if isinstance(spec, Redactor) and not isinstance(spec, type):
        return spec
    if callable(spec) and not isinstance(spec, type):
        return _Function(spec)
    mend = "give 'secrets', 'personal', 'all', a function from str to str, or a Redactor"
    raise InvalidInput(argument, f"is a {type(spec).__name__}", mend=mend)


class _Function:
    """A function str → str as a Redactor; what it replaced is not counted."""

    def __init__(self, function: Callable[[str], str]) -> None:
        self._function = function

    def redact(self, texts: Sequence[str]) -> list[Redacted]:
        return [Redacted(text=self._one(text), counts={}) for text in texts]

    def _one(self, text: str) -> str:
        left = self._function(text)
        if not isinstance(left, str):
            raise InvalidInput("redact", f"the function gave a {type(left).__name__}", mend="return the text as a str")
        return left


class _Patterns:
    def __init__(self, finders: Sequence[_Finder]) -> None:
        self._finders = finders

    def redact(self, texts: Sequence[str]) -> list[Redacted]:
        known: dict[tuple[str, str], str] = {}
        numbers: Counter[str] = Counter()
        done = []
        for text in texts:
            counts: Counter[str] = Counter()
            parts, at = [], 0
            for found in _apart(chain.from_iterable(find(text) for find in self._finders)):
                value = (found.kind, text[found.start : found.end])
                if value not in known:
                    numbers[found.kind] += 1
                    known[value] = f"[{found.kind}_{numbers[found.kind]}]"
                parts += [text[at : found.start], known[value]]
                counts[found.kind] += 1
                at = found.end
            done.append(Redacted(text="".join(parts) + text[at:] if parts else text, counts=dict(counts)))
        return done


def _apart(found: Iterable[_Found]) -> Iterator[_Found]:
    """In order, without what lies in another one; where two overlap, the earlier and longer one."""
    end = 0
    for each in sorted(found, key=lambda found: (found.start, -found.end)):
        if each.start >= end:
            yield each
            end = each.end
        elif each.end > end:  # what sticks out is no less secret
            yield _Found(end, each.end, each.kind)
            end = each.end


# -------------------------------------------------------------------------------------------------------------- secrets

_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-+/=.~]*(?<!\.)")
_LEFT_OUT: Final = frozenset(  # guesses by entropy or by a quoted name, and what is personal and no secret
    ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector", "BasicAuthDetector")
)
_OTHERS: Final = {
    "PRIVATE_KEY": r"-----BEGIN (?:[A-Z0-9 ]+ )?PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    "CREDENTIALS": r"(?<=://)[^\s:/@\"'<>]*:[^\s/\"'<>]+(?=@[\w.\-\[])",
    "GITHUB_TOKEN": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})",
    "API_KEY": r"\b(?:sk-(?=[\w-]*\d)[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|(?:xai-|gsk_)\w{40,})",
    "JSON_WEB_TOKEN": r"\beyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*)?",
    "BEARER": r"(?i:\bauthorization\s*:\s*(?:bearer|basic|token)\s+)(?P<value>[\w\-+/=.~]{8,})",
    "SECRET": r"(?i:(?<![A-Za-z])(?:[\w.-]*[_.-])?(?:api[_-]?key|access[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|"
    r"auth[_-]?token|access[_-]?token|token|passphrase|password|passwd|pwd)[\"']?[^\S\n]*(?::=|=>|=|:)[^\S\n]*)"
    r"(?:[\"'](?P<quoted>(?<=\")[^\"\n]{4,}(?=\")|(?<=')[^'\n]{4,}(?='))"
    r"|[\"']?(?P<value>(?=[^\s\"',;]*\d)(?=[^\s\"',;]*[^\W\d])[^\s\"',;]{6,}))",
}


def _library() -> list[tuple[str, re.Pattern[str]]]:
    """The patterns of detect-secrets for tokens that are known by their form."""
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
        from detect_secrets.plugins.base import RegexBasedDetector
    except ImportError as error:
        raise _missing("detect-secrets") from error
    detectors: Mapping[str, type] = get_mapping_from_secret_type_to_class()
    return [
        (re.sub(r"\W+", "_", name).upper(), pattern)
        for name, detector in detectors.items()
        if issubclass(detector, RegexBasedDetector) and detector.__name__ not in _LEFT_OUT
        for pattern in detector().denylist
    ]


def _secrets() -> list[_Finder]:
    return [_matching({kind: re.compile(pattern) for kind, pattern in _OTHERS.items()}.items()), _tokens(_library())]


def _matching(patterns: Iterable[tuple[str, re.Pattern[str]]]) -> _Finder:
    several = list(patterns)

    def find(text: str) -> Iterator[_Found]:
        for kind, pattern in several:
            for match in pattern.finditer(text):
                yield _Found(*match.span(match.lastgroup or 0), kind)

    return find


def _tokens(patterns: Sequence[tuple[str, re.Pattern[str]]]) -> _Finder:
    def find(text: str) -> Iterator[_Found]:
        for kind, pattern in patterns:
            for match in pattern.finditer(text):
                rest = _TOKEN.match(text, match.end())  # some patterns end before the token does
                yield _Found(match.start(), match.end() if rest is None else rest.end(), kind)

    return find


# ------------------------------------------------------------------------------------------------------- personal data

_EMAIL: Final = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_CARD: Final = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?!\w|\.\d)")
_IP: Final = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)"
)
_DIGITS: Final = re.compile(r"\d[^\n]{0,4}\d")
_LEAST_IBAN: Final = 15
_LOCAL_PREFIXES: Final = re.compile(r"[+(]|\d{2,}[ .\-/]\d")


def _personal() -> list[_Finder]:
    try:
        import phonenumbers
        from stdnum import iban, luhn
    except ImportError as error:
        raise _missing("phonenumbers and python-stdnum") from error

    def accounts(text: str) -> Iterator[_Found]:
        for match in _IBAN.finditer(text):
            value, ends = match.group(), [match.end()]
            ends += [match.start() + gap.start() for gap in reversed(list(re.finditer(r"[ -]", value)))]
            for end in ends:  # the words behind an IBAN may look like more of it
                number = re.sub(r"[ -]", "", text[match.start() : end])
                if len(number) >= _LEAST_IBAN and iban.is_valid(number):
                    yield _Found(match.start(), end, "IBAN")
                    break
        for match in _CARD.finditer(text):
            digits = re.sub(r"\D", "", match.group())
            if digits[0] in "23456" and luhn.is_valid(digits):
                yield _Found(*match.span(), "CARD")

    def phones(text: str) -> Iterator[_Found]:
        if _DIGITS.search(text) is None:
            return
        for region in ("US", "GB"):  # numbers with a country's prefix are found by either
            matcher = phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID)
            for match in matcher:
                if _LOCAL_PREFIXES.search(match.raw_string):
                    yield _Found(match.start, match.end, "PHONE")

    def addresses(text: str) -> Iterator[_Found]:
        for match in _EMAIL.finditer(text):
            yield _Found(*match.span(), "EMAIL")
        for match in _IP.finditer(text):
            if _is_address(match.group()):
                yield _Found(*match.span(), "IP")

    return [addresses, accounts, phones]


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified and not address.is_loopback


_KINDS: Final[Mapping[str, Callable[[], list[_Finder]]]] = {
    "secrets": _secrets,
    "personal": _personal,
    "all": lambda: [*_secrets(), *_personal()],
}


@cache
def _patterns(spec: str) -> _Patterns:
    return _Patterns(_KINDS[spec]())


def _missing(package: str) -> MissingExtra:
    return MissingExtra(f"redacting needs {package}", mend='pip install "memspan[redact]"')


_S = TypeVar("_S", bound=Segment)


def redacted(text: str, redactor: Redactor | None) -> str:
    """``text`` as ``redactor`` leaves it."""
    return text if redactor is None else redactor.redact([text])[0].text


def all_redacted(segments: Sequence[_S], redactor: Redactor | None) -> list[_S]:
    """Segments with their texts as ``redactor`` leaves them; the same value has the same placeholder in all of them."""
    if redactor is None:
        return list(segments)
    left = redactor.redact([segment.text for segment in segments])
    return [replace(segment, text=each.text) for segment, each in zip(segments, left, strict=True)]
