"""Records and errors as JSON and back: what a server and its clients say to each other.

``decode(kind, json.loads(json.dumps(encode(value)))) == value`` for every record. Errors are told as RFC 9457 problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from memspan import errors
from memspan.errors import InvalidInput, MemspanError, TooManyRequests

PROBLEM: Final = "application/problem+json"
QUIET: Final = ("gap", "tail")
"""Fields that are left out where they are empty, as only a document put together again needs them."""
PLAIN: Final = frozenset({str, int, float, bool, NoneType})
STATUSES: Final[tuple[tuple[type[MemspanError], int], ...]] = (
    (errors.Unauthorized, 401),
    (errors.AccessDenied, 403),
    (errors.NotFound, 404),
    (errors.IdempotencyConflict, 409),
    (errors.NotUndoable, 409),
    (errors.VersionConflict, 412),
    (errors.TooLarge, 413),
    (errors.InvalidInput, 400),
    (errors.TooManyRequests, 429),
    (errors.MissingExtra, 501),
    (errors.Unsupported, 501),
    (errors.EncoderMismatch, 409),
    (errors.StoreFull, 507),
    (errors.StoreError, 503),
    (errors.MemspanError, 502),
)
"""The HTTP status of an error: that of the first kind it is one of."""


def encode(value: Any) -> Any:
    """A record, or a collection of them, as JSON values: times as ISO 8601, records as objects."""
    kind: Any = type(value)
    if kind in PLAIN:  # most of what is in a record, and so asked first
        return value
    if is_dataclass(value):
        told = {name: encode(getattr(value, name)) for name in _names(kind)}
        for name in QUIET:
            if not told.get(name, True):
                del told[name]
        return told
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, value: Any) -> Any:
    """The value of type ``kind`` that ``encode`` made ``value`` of. Raises ValueError where it cannot be one."""
    if kind is Any or (value is None and kind in (None, NoneType)):
        return value
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        for part in parts:
            try:
                return decode(part, value)
            except ValueError:
                continue
    elif origin is Literal:
        if value in parts:
            return value
    elif is_dataclass(kind):
        if isinstance(value, Mapping):
            return _record(kind, value)
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {key: decode(parts[1], item) for key, item in value.items()}
    elif origin is not None and issubclass(origin, Sequence):
        if isinstance(value, list):
            if origin is not tuple:
                return [decode(parts[0], item) for item in value]
            if parts[-1] is Ellipsis:
                return tuple(decode(parts[0], item) for item in value)
            if len(parts) == len(value):
                return tuple(decode(part, item) for part, item in zip(parts, value, strict=True))
    elif kind is datetime:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{kind} expected, not {type(value).__name__}")


def _record(kind: Any, value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    given = {name: decode(hints[name], value[name]) for name in _names(kind) if name in value}
    if missing := [each.name for each in fields(kind) if each.name not in given and _needed(each)]:
        raise ValueError(f"{kind.__name__} without {missing[0]}")
    return kind(**given)


def problem(error: MemspanError) -> dict[str, Any]:
    """An error as the members of a problem; ``code`` is its class."""
    kind: Any = type(error)
    return {
        "type": "about:blank",
        "title": _title(kind),
        "status": status(error),
        "code": type(error).__name__,
        "detail": error.problem,
        "mend": error.mend,
        "argument": getattr(error, "argument", None),
    }


def status(error: MemspanError) -> int:
    """The HTTP status that tells of an error."""
    return next(code for kind, code in STATUSES if isinstance(error, kind))


def raised(told: Mapping[str, Any], retry_after: float = 1.0) -> MemspanError:
    """The error that a problem tells of. Raises ValueError where it is none of memspan's."""
    code, detail, mend = (str(told.get(name) or "") for name in ("code", "detail", "mend"))
    kind = getattr(errors, code, None)
    if not (isinstance(kind, type) and issubclass(kind, MemspanError)):
        raise ValueError(f"no error of memspan is called {code!r}")
    if issubclass(kind, InvalidInput):
        argument = str(told.get("argument") or "request")
        return kind(argument, detail.removeprefix(f"{argument}: "), mend=mend)
    error = kind(detail, mend=mend)
    if isinstance(error, TooManyRequests):
        error.retry_after = retry_after
    return error


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _needed(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


@cache
def _title(kind: Any) -> str:
    """The name of an error as words: "not found"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).strip()
