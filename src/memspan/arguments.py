"""What users pass in, checked before anything is written: every error names the argument and the mend."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, cast, get_args

from memspan.config import SCHEMES, Database
from memspan.errors import InvalidInput
from memspan.filtering import category_path
from memspan.kinds import KINDS
from memspan.records import NOTHING, Judgement, Kind, Scope, Source, State
from memspan.segmenting import check_text, shown

LONGEST_NAME = 256
LONGEST_PLACE = 8_192  # characters of a document's address or title
DEEPEST_METADATA = 32
LARGEST_METADATA = 1 << 20  # bytes of JSON
MOST_VALUES = LARGEST_METADATA // 2  # a value and its comma
DEEPEST_CATEGORY = 32
MOST_HITS = 10_000
DERIVED = ("next", "mentions", "similar")  # kinds of edges that the graph finds by itself
SOURCES: tuple[str, ...] = get_args(Source)
STATES: tuple[str, ...] = get_args(State)


def path(value: object) -> Path:
    """The absolute path that a str or Path names; ``~`` is the user's home."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(given := os.fspath(value), bytes):
        raise InvalidInput("path", f"is a {type(value).__name__}", mend="give a str or a Path")
    if not given.strip() or "\0" in given:
        problem = "holds a NUL character" if "\0" in given else "is empty"
        raise InvalidInput("path", problem, mend="name a file or directory")
    encodable("path", given)
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError as error:  # the home of a user there is not
        raise InvalidInput("path", str(error), mend="write the path without ~") from error


def place(value: object) -> Path | Database:
    """Where a store is: a directory, or the database that an address names."""
    if isinstance(value, Database):
        return value
    if isinstance(value, str) and value.startswith(SCHEMES):
        encodable("path", value)
        return Database(value)
    return path(value)


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


def name(argument: str, value: object, *, longest: int = LONGEST_NAME) -> str | None:
    """A name of at most ``longest`` characters, not empty, without NUL or lone surrogates; None stays None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(argument, f"is a {type(value).__name__}, not a string", mend=f"pass str({shown(value)})")
    if not value.strip():
        raise InvalidInput(argument, "is empty", mend="leave it out or give a name")
    if len(value) > longest:
        raise InvalidInput(argument, f"has {len(value):,} characters", mend=f"use at most {longest:,}")
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
    number = _number(value)
    if not math.isfinite(number):
        raise InvalidInput("importance", f"{shown(value)} is not a finite number", mend="give a number from 0 to 1")
    if not 0 <= number <= 1:
        raise InvalidInput("importance", f"{shown(value)} is outside [0, 1]", mend="give a number from 0 to 1")
    return number


def number(argument: str, value: object) -> float:
    """A finite number."""
    checked = _number(value)
    if not math.isfinite(checked):
        raise InvalidInput(argument, f"{shown(value)} is not a finite number", mend="give a number")
    return checked


def _number(value: object) -> float:
    """A number as a float: infinite where it is too large for one, NaN where it is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def category(value: object, argument: str = "category") -> tuple[str, ...]:
    """A category path from "A / B", a list of names, or None."""
    if value is None:
        return ()
    if isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(step, str) for step in value)):
        path = category_path(value)
        if len(path) > DEEPEST_CATEGORY:
            raise InvalidInput(argument, f"has {len(path):,} levels", mend=f"use at most {DEEPEST_CATEGORY}")
        for step in path:
            name(argument, step)
        return path
    mend = 'give "Software / Core" or ["Software", "Core"]'
    raise InvalidInput(argument, f"is a {type(value).__name__}", mend=mend)


def source(value: object) -> Source:
    """One of the source classes."""
    if value not in SOURCES:
        raise InvalidInput("source", f"there is no {shown(value)}", mend=f"use one of {', '.join(SOURCES)}")
    return value  # type: ignore[return-value]


def kind(value: object) -> Kind:
    """What a memory is."""
    if value not in KINDS:
        raise InvalidInput("kind", f"there is no {shown(value)}", mend=f"use one of {', '.join(KINDS)}")
    return cast("Kind", value)


def state(value: object) -> State | None:
    """What became of a segment; None where it is active."""
    if value is not None and value not in STATES:
        raise InvalidInput("state", f"there is no {shown(value)}", mend=f"use one of {', '.join(STATES)}, or None")
    return cast("State | None", value)


def interval(begin: datetime | None, end: datetime | None) -> None:
    """From when to when something holds, None where it is open."""
    if begin is not None and end is not None and end <= begin:
        raise InvalidInput("valid_to", f"{end} is not after valid_from, {begin}", mend="leave one of them out")


def metadata(value: object, argument: str = "metadata") -> Mapping[str, Any]:
    """A dict of JSON values with string keys, at most 32 levels deep and 1 MiB as JSON."""
    if value is None or value == {}:
        return NOTHING
    if not isinstance(value, Mapping):
        raise InvalidInput(argument, f"is a {type(value).__name__}", mend="give a dict of JSON values")
    _check_shape(argument, value)
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


def _check_shape(argument: str, value: Mapping[Any, Any]) -> None:
    """Level by level, not by recursion: what is checked may be deeper than Python's stack, or hold itself."""
    level: list[Mapping[Any, Any] | Sequence[Any]] = [value]
    values = 0
    for _ in range(DEEPEST_METADATA):
        below: list[Mapping[Any, Any] | Sequence[Any]] = []
        for item in level:
            values += len(item)
            if values > MOST_VALUES:
                raise InvalidInput(argument, f"holds over {MOST_VALUES:,} values", mend="keep less in it")
            if isinstance(item, Mapping):
                if not all(isinstance(key, str) for key in item):
                    raise InvalidInput(argument, "has a key that is not a string", mend="use strings as keys")
                item = list(item.values())
            below.extend(inner for inner in item if isinstance(inner, (Mapping, list, tuple)))
        level = below
        if not level:
            return
    raise InvalidInput(argument, f"is nested deeper than {DEEPEST_METADATA} levels", mend="flatten it")


def count(argument: str, value: object, *, least: int = 1, most: int = MOST_HITS) -> int:
    """A whole number from ``least`` to ``most``."""
    mend = f"give a number from {least} to {most:,}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(argument, f"{shown(value)} is not a whole number", mend=mend)
    number = int(value)
    if not least <= number <= most:
        raise InvalidInput(argument, f"{shown(number)} is outside {least} to {most:,}", mend=mend)
    return number


def threshold(value: object, argument: str = "threshold", mend: str = "scores are in [0, 1]") -> float:
    """A number in [0, 1]."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise InvalidInput(argument, f"{shown(value)} is not a number from 0 to 1", mend=mend)
    return number


def relation(value: object) -> str:
    """What a user calls a link: a short name, none of those the graph finds by itself."""
    checked = name("relation", value)
    if checked is None or checked in DERIVED:
        mend = "use a word of your own, such as 'reply', 'supersedes' or 'related'"
        raise InvalidInput("relation", f"{shown(value)} cannot be stated: the graph finds such edges itself", mend=mend)
    return checked


def weight(value: object) -> float:
    """A number in (0, 1]."""
    number = _number(value)
    if not 0 < number <= 1:
        raise InvalidInput("weight", f"{shown(value)} is not above 0 and at most 1", mend="1.0 is the strongest")
    return number


def kinds(value: object) -> tuple[str, ...] | None:
    """Kinds of edges: one, or several; None is all."""
    if value is None:
        return None
    several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not several or not all(isinstance(kind, str) and kind.strip() for kind in several):
        mend = f"give {', '.join(map(repr, DERIVED))}, or a relation you stated"
        raise InvalidInput("kinds", f"{shown(value)} names no kind of edge", mend=mend)
    return several


def useful(argument: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidInput(argument, f"{shown(value)} is neither True nor False", mend="say whether it was of use")
    return value


def flags(**values: object) -> None:
    """Each True or False; a text such as "no" would count as True."""
    for argument, value in values.items():
        if not isinstance(value, bool):
            raise InvalidInput(argument, f"{shown(value)} is neither True nor False", mend="give a bool")


def progress(value: object) -> None:
    """None, or what can be called."""
    if value is not None and not callable(value):
        raise InvalidInput("progress", f"is a {type(value).__name__}", mend="give a function (done, all, what)")


def judgement(argument: str, value: object) -> Judgement:
    """A dict {"query", "id", "useful"}; useful is True where it is left out."""
    if isinstance(value, Judgement):
        value = {"query": value.query, "id": value.id, "useful": value.useful}
    mend = 'write {"query": "...", "id": "...", "useful": true}'
    if not isinstance(value, Mapping):
        raise InvalidInput(argument, f"{shown(value)} is no judgement", mend=mend)
    if missing := [name for name in ("query", "id") if name not in value]:
        raise InvalidInput(argument, f"has no {missing[0]}", mend=mend)
    if unknown := [name for name in value if name not in ("query", "id", "useful")]:
        raise InvalidInput(argument, f"has {shown(unknown[0])}, which means nothing here", mend=mend)
    if not isinstance(value["id"], str):
        raise InvalidInput(f"{argument}.id", f"{shown(value['id'])} is no id", mend=mend)
    return Judgement(
        query=check_text(value["query"], f"{argument}.query"),
        id=value["id"],
        useful=useful(f"{argument}.useful", value.get("useful", True)),
    )


def judgements(value: object) -> list[Judgement]:
    """What was said of segments, one or more dicts."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping)):
        return [judgement(f"judgements[{at}]", each) for at, each in enumerate(value)]
    raise InvalidInput("judgements", f"{shown(value)} is no list", mend='give dicts {"query", "id", "useful"}')


def ids(value: object) -> list[str]:
    """One id or several."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        several = list(value)
        if all(isinstance(id, str) for id in several):
            return several
    raise InvalidInput("id", f"{shown(value)} is no id", mend="give an id, or a list of them")


def texts(argument: str, value: object) -> list[str]:
    """A list of texts, which may be empty."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise InvalidInput(argument, f"is a {type(value).__name__}", mend="give a list of texts")
    if wrong := [type(each).__name__ for each in value if not isinstance(each, str)]:
        raise InvalidInput(argument, f"holds a {wrong[0]}", mend="give texts only")
    return list(value)
