"""Filters as users write them → the ``Filter`` tree every ledger understands. The same syntax and meaning everywhere.

    {"user_id": "ana"}                                   equal
    {"importance": {"gte": 0.5, "lt": 0.9}}              several comparisons of one field: all must hold
    {"topic": {"in": ["travel", "food"]}}                a name that is no column is a key of the metadata
    {"metadata.trip.city": {"contains": "Lis"}}          a path into nested metadata
    {"OR": [{"speaker": "Ana"}, {"NOT": {"role": "user"}}]}

A missing value is equal only to None, differs from everything else (``ne``, ``nin`` hold), and is never greater, less
or containing. ``contains`` is a case-insensitive substring of a string, or membership in a list. Numbers compare with
numbers, strings with strings and truth values with truth values only. ``category`` matches the category and everything
below it, and ``contains`` looks into each of its steps. Times take a datetime or an ISO string; a time without a zone
is UTC. What an id, a category, a number or a time cannot be asked, such as ``contains`` of a number, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from memspan.errors import InvalidFilter, InvalidInput
from memspan.records import Condition, Filter, Junction, Kind, State
from memspan.segmenting import parse_time, shown

OPERATORS: tuple[str, ...] = get_args(Condition.__annotations__["operator"]) or (
    "eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains"
)  # fmt: skip
TIMES = ("occurred_at", "recorded_at", "valid_from", "valid_to", "expires_at")
NUMBERS = ("importance", "position", "version", "tokens", "repeats")
STRINGS = (
    "id", "user_id", "agent_id", "run_id", "session", "document_id", "role", "speaker", "source", "kind",
    "state", "text",
)  # fmt: skip
NAMED: Mapping[str, tuple[str, ...]] = {"kind": get_args(Kind), "state": get_args(State)}
FIELDS = (*TIMES, *NUMBERS, *STRINGS, "category")
NOT_FILTERED = (
    "namespace",
    "as_of",
    "valid_at",
    "threshold",
)  # arguments of their own: as metadata they would match nothing
EXACT = ("eq", "ne", "in", "nin")
ORDERED = ("gt", "gte", "lt", "lte")
MAX_DEPTH = 16
MAX_CONDITIONS = 500
MAX_VALUES = 10_000


def parse_filter(filters: object) -> Filter | None:
    """``filters`` as a tree, or None where nothing is asked. Raises InvalidFilter naming the field or operator.

    A filter has at most 500 conditions and 10,000 values in them.
    """
    tree = None if filters is None else _parsed(filters, 0)
    conditions = _leaves(tree)
    if len(conditions) > MAX_CONDITIONS:
        mend = 'write {"in": [...]} for many values of one field'
        raise InvalidFilter("filters", f"has {len(conditions):,} conditions, more than {MAX_CONDITIONS}", mend=mend)
    values = sum(len(leaf.value) for leaf in conditions if leaf.operator in ("in", "nin"))
    if values > MAX_VALUES:
        raise InvalidFilter("filters", f"has {values:,} values in lists", mend=f"give at most {MAX_VALUES:,}")
    return tree


def _leaves(tree: Filter | None) -> list[Condition]:
    if isinstance(tree, Junction):
        return [leaf for part in tree.parts for leaf in _leaves(part)]
    return [] if tree is None else [tree]


def _parsed(filters: object, depth: int) -> Filter | None:
    if not isinstance(filters, Mapping):
        raise InvalidFilter("filters", f"is a {type(filters).__name__}", mend='give a dict like {"speaker": "Ana"}')
    if depth > MAX_DEPTH:
        raise InvalidFilter("filters", f"is nested deeper than {MAX_DEPTH} levels", mend="flatten it")
    parts: list[Filter] = []
    for name, wanted in filters.items():
        if not isinstance(name, str) or not name:
            raise InvalidFilter(
                "filters", f"has the key {shown(name)}", mend="keys are names of fields, or AND, OR, NOT"
            )
        if name in ("AND", "OR", "NOT"):
            parts.append(_junction(name, wanted, depth))
        else:
            parts.extend(_conditions(name, wanted))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else Junction(kind="AND", parts=tuple(parts))


def _junction(kind: Any, wanted: object, depth: int) -> Junction:
    several = [wanted] if kind == "NOT" and isinstance(wanted, Mapping) else wanted
    if isinstance(several, (str, bytes, Mapping)) or not isinstance(several, Sequence) or not several:
        raise InvalidFilter(
            f"filters.{kind}", "needs a list of filters", mend=f'write {{"{kind}": [{{...}}, {{...}}]}}'
        )
    parsed = [_parsed(part, depth + 1) for part in several]
    if any(part is None for part in parsed):
        raise InvalidFilter(f"filters.{kind}", "holds an empty filter", mend="remove it or fill it")
    return Junction(kind=kind, parts=tuple(part for part in parsed if part is not None))


def _conditions(name: str, wanted: object) -> list[Filter]:
    path: tuple[str, ...] = ()
    if name in NOT_FILTERED:
        mend = f'pass {name}= to the call, or write "metadata.{name}" for a key of the metadata'
        raise InvalidFilter(f"filters.{name}", "cannot be filtered by", mend=mend)
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
                f"filters.{name}", f"unknown operator {shown(operator)}", mend=f"use one of {', '.join(OPERATORS)}"
            )
        value = _value(name, column, operator, operand)
        found.append(Condition(field=column, path=path, operator=operator, value=value))
    return found


def _value(name: str, column: str, operator: str, value: object) -> Any:
    where = f"filters.{name}"
    taken = _operators(column)
    if operator not in taken:
        raise InvalidFilter(where, f"{operator} cannot be asked of it", mend=f"use one of {', '.join(taken)}")
    if operator in ("in", "nin"):
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, (Sequence, set, frozenset)):
            raise InvalidFilter(where, f"{operator} needs a list", mend=f'write {{"{operator}": ["a", "b"]}}')
        return tuple(_scalar(where, column, item) for item in value)
    scalar = _scalar(where, column, value)
    if operator in ORDERED and (scalar is None or isinstance(scalar, bool)):
        raise InvalidFilter(where, f"{operator} needs a number, a string or a time", mend="compare with a value")
    if operator == "contains" and (scalar is None or (column == "category" and not isinstance(scalar, str))):
        raise InvalidFilter(where, "contains needs a value", mend="give the text or item to look for")
    return scalar


def _operators(column: str) -> tuple[str, ...]:
    """What a column can be asked; metadata anything."""
    if column in ("id", "document_id", *NAMED):
        return EXACT
    if column in TIMES or column in NUMBERS:
        return (*EXACT, *ORDERED)
    return (*EXACT, "contains") if column == "category" else OPERATORS


def _scalar(where: str, column: str, value: object) -> Any:
    if column in TIMES and value is not None:
        try:
            return parse_time(value, where)
        except InvalidInput as error:
            raise InvalidFilter(where, error.problem.removeprefix(f"{where}: "), mend=error.mend) from error
    if column == "category" and value is not None:
        if isinstance(value, (list, tuple)) and all(isinstance(step, str) for step in value):
            return tuple(_text(where, step) for step in value)
        if not isinstance(value, str):
            problem = f"cannot compare with a {type(value).__name__}"
            raise InvalidFilter(where, problem, mend='use "Software / Core" or ["Software", "Core"]')
    if isinstance(value, datetime):
        return value.isoformat()
    if not (value is None or isinstance(value, (str, int, float))):
        raise InvalidFilter(where, f"cannot compare with a {type(value).__name__}", mend="use a string or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidFilter(where, f"cannot compare with {value}", mend="use a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidFilter(where, "the number does not fit 64 bits", mend="store large numbers as strings")
    wrong_text = column in STRINGS and value is not None and not isinstance(value, str)
    wrong_number = column in NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float)))
    if wrong_text or wrong_number:
        kind = "string" if wrong_text else "number"
        raise InvalidFilter(where, f"{shown(value)} is not a {kind}", mend=f"compare {column} with a {kind}")
    if value is not None and value not in NAMED.get(column, (value,)):
        mend = f"use one of {', '.join(NAMED[column])}; what you named so yourself is metadata.{column}"
        raise InvalidFilter(where, f"there is no {column} {shown(value)}", mend=mend)
    return _text(where, value) if isinstance(value, str) else value


def _text(where: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidFilter(where, "holds a lone surrogate", mend="decode with errors='replace'") from error
    if "\0" in value:
        raise InvalidFilter(where, "holds a NUL character", mend="remove it")
    return value


def category_path(category: object) -> tuple[str, ...]:
    """``"Software / Architecture"`` (also ``>``, ``->``, ``→``, ``|``), or a list of names → the path; None: root."""
    if category is None:
        return ()
    if isinstance(category, str):
        for mark in ("->", ">", "→", "|"):
            category = category.replace(mark, "/")
        steps = category.split("/")
    else:
        steps = [str(step) for step in category]  # type: ignore[attr-defined]
    return tuple(" ".join(step.split()) for step in steps if step.strip())
