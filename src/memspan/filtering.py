"""Filters as users write them → the ``Filter`` tree every ledger understands. The same syntax and meaning everywhere.

    {"user_id": "ana"}                                   equal
    {"importance": {"gte": 0.5, "lt": 0.9}}              several comparisons of one field: all must hold
    {"topic": {"in": ["travel", "food"]}}                a name that is no column is a key of the metadata
    {"metadata.trip.city": {"contains": "Lis"}}          a path into nested metadata
    {"OR": [{"speaker": "Ana"}, {"NOT": {"role": "user"}}]}

A missing value is equal only to None, differs from everything else (``ne``, ``nin`` hold), and is never greater, less
or containing. ``contains`` is a case-insensitive substring of a string, or membership in a list. Numbers compare with
numbers and strings with strings only. ``category`` matches the category and everything below it. Times take a
datetime or an ISO string; a time without a zone is UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from memspan.errors import InvalidFilter, InvalidInput
from memspan.records import Condition, Filter, Junction
from memspan.segmenting import parse_time

OPERATORS: tuple[str, ...] = get_args(Condition.__annotations__["operator"]) or (
    "eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains"
)  # fmt: skip
TIMES = ("occurred_at", "recorded_at")
NUMBERS = ("importance", "position", "version", "tokens", "repeats")
STRINGS = ("id", "user_id", "agent_id", "run_id", "session", "document_id", "role", "speaker", "source", "text")
FIELDS = (*TIMES, *NUMBERS, *STRINGS, "category")
MAX_DEPTH = 16
MAX_VALUES = 10_000


def parse_filter(filters: object, *, depth: int = 0) -> Filter | None:
    """``filters`` as a tree, or None where nothing is asked. Raises InvalidFilter naming the field or operator."""
    if filters is None or isinstance(filters, (Condition, Junction)):
        return filters
    if not isinstance(filters, Mapping):
        raise InvalidFilter("filters", f"is a {type(filters).__name__}", mend='give a dict like {"speaker": "Ana"}')
    if depth > MAX_DEPTH:
        raise InvalidFilter("filters", f"is nested deeper than {MAX_DEPTH} levels", mend="flatten it")
    parts: list[Filter] = []
    for name, wanted in filters.items():
        if not isinstance(name, str) or not name:
            raise InvalidFilter("filters", f"has the key {name!r}", mend="keys are names of fields, or AND, OR, NOT")
        if name in ("AND", "OR", "NOT"):
            parts.append(_junction(name, wanted, depth))
        else:
            parts.extend(_conditions(name, wanted))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else Junction(kind="AND", parts=tuple(parts))


def _junction(kind: Any, wanted: object, depth: int) -> Junction:
    several = [wanted] if kind == "NOT" and isinstance(wanted, (Mapping, Condition, Junction)) else wanted
    if isinstance(several, (str, Mapping)) or not isinstance(several, Sequence) or not several:
        raise InvalidFilter(
            f"filters.{kind}", "needs a list of filters", mend=f'write {{"{kind}": [{{...}}, {{...}}]}}'
        )
    parsed = [parse_filter(part, depth=depth + 1) for part in several]
    if any(part is None for part in parsed):
        raise InvalidFilter(f"filters.{kind}", "holds an empty filter", mend="remove it or fill it")
    return Junction(kind=kind, parts=tuple(part for part in parsed if part is not None))


def _conditions(name: str, wanted: object) -> list[Filter]:
    path: tuple[str, ...] = ()
    if name not in FIELDS:
        path = tuple(name.removeprefix("metadata.").split("."))
        if not all(path) or any(not step.isprintable() or '"' in step or "\\" in step for step in path):
            raise InvalidFilter(f"filters.{name}", "is no field and no metadata path", mend="use names joined by dots")
    column = "metadata" if path else name
    if not isinstance(wanted, Mapping):
        return [Condition(field=column, path=path, operator="eq", value=_value(name, column, "eq", wanted))]
    if not wanted:
        raise InvalidFilter(f"filters.{name}", "has no operator", mend=f"use one of {', '.join(OPERATORS)}")
    found: list[Filter] = []
    for operator, operand in wanted.items():
        if operator not in OPERATORS:
            raise InvalidFilter(
                f"filters.{name}", f"unknown operator {operator!r}", mend=f"use one of {', '.join(OPERATORS)}"
            )
        value = _value(name, column, operator, operand)
        found.append(Condition(field=column, path=path, operator=operator, value=value))
    return found


def _value(name: str, column: str, operator: str, value: object) -> Any:
    where = f"filters.{name}"
    if operator in ("in", "nin"):
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, (Sequence, set, frozenset)):
            raise InvalidFilter(where, f"{operator} needs a list", mend=f'write {{"{operator}": ["a", "b"]}}')
        if len(value) > MAX_VALUES:
            raise InvalidFilter(where, f"{operator} has {len(value):,} values", mend=f"give at most {MAX_VALUES:,}")
        return tuple(_scalar(where, column, item) for item in value)
    scalar = _scalar(where, column, value)
    if operator in ("gt", "gte", "lt", "lte") and (scalar is None or isinstance(scalar, bool)):
        raise InvalidFilter(where, f"{operator} needs a number, a string or a time", mend="compare with a value")
    if operator == "contains" and scalar is None:
        raise InvalidFilter(where, "contains needs a value", mend="give the text or item to look for")
    return scalar


def _scalar(where: str, column: str, value: object) -> Any:
    if column in TIMES and value is not None:
        try:
            return parse_time(value, where)
        except InvalidInput as error:
            raise InvalidFilter(where, error.problem.removeprefix(f"{where}: "), mend=error.mend) from error
    if column == "category" and isinstance(value, (list, tuple)) and all(isinstance(step, str) for step in value):
        return tuple(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if not (value is None or isinstance(value, (str, int, float))):
        raise InvalidFilter(where, f"cannot compare with a {type(value).__name__}", mend="use a string or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilter(where, f"cannot compare with {value}", mend="use a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidFilter(where, "the number does not fit 64 bits", mend="store large numbers as strings")
    wrong_text = column in STRINGS and value is not None and not isinstance(value, str)
    wrong_number = column in NUMBERS and not isinstance(value, (int, float))
    if wrong_text or wrong_number:
        kind = "string" if wrong_text else "number"
        raise InvalidFilter(where, f"{value!r} is not a {kind}", mend=f"compare {column} with a {kind}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidFilter(where, "holds a lone surrogate", mend="decode with errors='replace'") from error
        if "\0" in value:
            raise InvalidFilter(where, "holds a NUL character", mend="remove it")
    return value


def category_path(category: object) -> tuple[str, ...]:
    """``"Software / Architecture"`` (also ``>``, ``→``, ``|``) or a list of names → the path; None is the root."""
    if category is None:
        return ()
    if isinstance(category, str):
        for mark in (">", "→", "|"):
            category = category.replace(mark, "/")
        steps = category.split("/")
    else:
        steps = [str(step) for step in category]  # type: ignore[attr-defined]
    return tuple(" ".join(step.split()) for step in steps if step.strip())
