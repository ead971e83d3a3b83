"""What users pass in, checked before anything is written: every error names the argument and the mend."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from memspan.errors import InvalidInput
from memspan.filtering import category_path
from memspan.records import NOTHING, Scope, Source

LONGEST_NAME = 256
DEEPEST_METADATA = 32
LARGEST_METADATA = 1 << 20  # bytes of JSON
MOST_HITS = 10_000
SOURCES: tuple[str, ...] = get_args(Source)


def scope(namespace: str, user_id: str | None, agent_id: str | None, run_id: str | None, session: str | None) -> Scope:
    """A Scope of names that are short, not empty and printable."""
    return Scope(
        namespace=_required("namespace", namespace),
        user_id=name("user_id", user_id),
        agent_id=name("agent_id", agent_id),
        run_id=name("run_id", run_id),
        session=name("session", session),
    )


def _required(argument: str, value: object) -> str:
    checked = name(argument, value)
    if checked is None:
        raise InvalidInput(argument, "is None", mend="give a name such as 'default'")
    return checked


def name(argument: str, value: object) -> str | None:
    """A name of at most 256 characters without NUL, lone surrogates or surrounding white space; None stays None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(argument, f"is a {type(value).__name__}, not a string", mend=f"pass str({value!r:.40})")
    if not value.strip():
        raise InvalidInput(argument, "is empty", mend="leave it out or give a name")
    if len(value) > LONGEST_NAME:
        raise InvalidInput(argument, f"has {len(value):,} characters", mend=f"use at most {LONGEST_NAME}")
    if "\0" in value:
        raise InvalidInput(argument, "holds a NUL character", mend="remove it")
    encodable(argument, value)
    return value


def encodable(argument: str, value: str) -> None:
    """Raises InvalidInput where ``value`` holds half of a surrogate pair, which no encoding can write."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        mend = "decode the source with errors='replace'"
        raise InvalidInput(argument, f"holds a lone surrogate at position {error.start}", mend=mend) from error


def importance(value: object) -> float:
    """A finite number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput("importance", f"{value!r} is not a finite number", mend="give a number from 0 to 1")
    if not 0 <= value <= 1:
        raise InvalidInput("importance", f"{value} is outside [0, 1]", mend="give a number from 0 to 1")
    return float(value)


def category(value: object) -> tuple[str, ...]:
    """A category path from "A / B", a list of names, or None."""
    if value is None:
        return ()
    if isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(step, str) for step in value)):
        path = category_path(value)
        for step in path:
            name("category", step)
            if "\x1f" in step:
                raise InvalidInput("category", "holds a control character", mend="remove it")
        return path
    mend = 'give "Software / Core" or ["Software", "Core"]'
    raise InvalidInput("category", f"is a {type(value).__name__}", mend=mend)


def source(value: object) -> Source:
    """One of the source classes."""
    if value not in SOURCES:
        raise InvalidInput("source", f"there is no {value!r}", mend=f"use one of {', '.join(SOURCES)}")
    return value  # type: ignore[return-value]


def metadata(value: object, argument: str = "metadata") -> Mapping[str, Any]:
    """A dict of JSON values with string keys, at most 32 levels deep and 1 MiB as JSON."""
    if value is None or value == {}:
        return NOTHING
    if not isinstance(value, Mapping):
        raise InvalidInput(argument, f"is a {type(value).__name__}", mend="give a dict of JSON values")
    _check_depth(argument, value)
    try:
        raw = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_mapping)
        size = len(raw.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(argument, "holds a lone surrogate", mend="decode with errors='replace'") from error
    except (TypeError, ValueError) as error:
        raise InvalidInput(argument, f"is not JSON ({error})", mend="use str, int, finite float, bool, list") from error
    if "\\u0000" in raw:
        raise InvalidInput(argument, "holds a NUL character", mend="remove it")
    if size > LARGEST_METADATA:
        raise InvalidInput(argument, f"has {size:,} bytes as JSON", mend=f"keep it under {LARGEST_METADATA:,}")
    plain: Mapping[str, Any] = json.loads(raw)
    return plain


def _mapping(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _check_depth(argument: str, value: object) -> None:
    """Level by level, not by recursion: what is checked may be deeper than Python's stack."""
    level: list[object] = [value]
    for _ in range(DEEPEST_METADATA):
        below: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                if not all(isinstance(key, str) for key in item):
                    raise InvalidInput(argument, "has a key that is not a string", mend="use strings as keys")
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
        level = [item for item in below if isinstance(item, (Mapping, list, tuple))]
        if not level:
            return
    raise InvalidInput(argument, f"is nested deeper than {DEEPEST_METADATA} levels", mend="flatten it")


def count(argument: str, value: object, *, most: int = MOST_HITS) -> int:
    """A whole number from 1 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(argument, f"{value!r} is not a whole number", mend=f"give one from 1 to {most:,}")
    if not 1 <= value <= most:
        raise InvalidInput(argument, f"{value} is outside 1 to {most:,}", mend=f"give a number from 1 to {most:,}")
    return value


def threshold(value: object) -> float:
    """A number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInput("threshold", f"{value!r} is not a number from 0 to 1", mend="scores are in [0, 1]")
    return float(value)
