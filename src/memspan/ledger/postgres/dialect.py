"""The ledger's SQL as PostgreSQL understands it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from memspan.ledger.where import ORDER, Clauses, passed_over
from memspan.records import AsOf, Condition

NUL = "\0"
_TOKEN = re.compile(
    r"'(?:[^']|'')*'"  # a literal, in which nothing is a placeholder
    r"|(?P<list>\bIN \((?P<marks>\?(?:, \?)*)?\))"
    r"|\?(?P<number>\d*)"
    r"|(?<![:\w]):(?P<name>[a-z]\w*)"
    r"|(?P<percent>%)"
)
_HINTS = (  # for SQLite's planner only, which has no statistics
    (re.compile(r" INDEXED BY \w+"), ""),
    (re.compile(r"(?<=[\s(])\+(?=[a-z])"), ""),
    (re.compile(r"\bCROSS JOIN\b"), "JOIN"),
)
_WORDS = (
    (re.compile(r"\bIS NOT (?!NULL\b|DISTINCT\b)"), "IS DISTINCT FROM "),
    (re.compile(r"\bIS (?!NOT\b|NULL\b|DISTINCT\b)"), "IS NOT DISTINCT FROM "),
    (re.compile(r"\bx''"), r"'\\x'::bytea"),
    (re.compile(r"\bjson_extract\((\w+), '\$\[(\d+)\]'\)"), r"(\1::json ->> \2)"),
    (re.compile(r"\bchar\((\d+)\)"), r"chr(\1)"),
)


class Translated(NamedTuple):
    """A statement as psycopg takes it, and how its parameters are made of those given: an index each, a name, or for a
    list (first, count)."""

    sql: str
    parameters: tuple[int | str | tuple[int, int], ...]

    def bound(self, given: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        values: list[Any] = []
        for parameter in self.parameters:
            if isinstance(parameter, tuple):
                first, count = parameter
                values.append(_alike(given[first : first + count]))  # type: ignore[index]
            else:
                values.append(given[parameter])  # type: ignore[index]
        return values


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values of one array, which are of one type: numbers of several are as they are written."""
    if {type(value) for value in values} == {int, float}:
        return [Decimal(str(value)) for value in values]
    return list(values)


@lru_cache(maxsize=4_096)
def translated(sql: str) -> Translated:
    """A statement of the ledger's, in the words that both dialects know, for PostgreSQL.

    A list of placeholders becomes one array, so that a statement is the same however many there are.
    """
    for pattern, replacement in _HINTS:
        sql = pattern.sub(replacement, sql)
    parameters: list[int | str | tuple[int, int]] = []
    at = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal at
        if found["percent"]:
            return "%%"
        if found["list"]:
            count = found["list"].count("?")
            parameters.append((at, count))
            at += count
            return "= ANY(%s)"
        if found["number"]:
            parameters.append(int(found["number"]) - 1)
            return "%s"
        if found["name"]:
            parameters.append(found["name"])
            return "%s"
        if found[0] == "?":
            parameters.append(at)
            at += 1
            return "%s"
        return found[0].replace("%", "%%")

    for pattern, replacement in _WORDS:
        sql = pattern.sub(replacement, sql)
    sql = re.sub(r"\bNOT IN \(", "<> ALL (", sql) if re.search(r"\bNOT IN \(\?", sql) else sql
    return Translated(_TOKEN.sub(replaced, sql), tuple(parameters))


class PostgresClauses(Clauses):
    """What PostgreSQL says in other words: paths as an array, metadata as jsonb. ``fold`` is how this server folds
    case, "{}" the text."""

    def __init__(self, fold: str) -> None:
        self.fold = fold

    def hidden(self, namespace: str, as_of: AsOf, *, stated: bool) -> tuple[str, list[Any]]:
        """That a row is none of those that searches pass over."""
        parts = passed_over(as_of, stated=stated)
        if not parts:
            return "TRUE", []
        clause = " OR ".join(f"({part})" for part, _ in parts)
        return f"NOT ({clause})", [value for _, bound in parts for value in bound]

    def folded(self, expression: str) -> str:
        return self.fold.format(f"CAST({expression} AS TEXT)" if expression == "?" else expression)

    def within(self, expression: str) -> str:
        return f"coalesce(strpos({self.folded(expression)}, {self.folded('?')}), 0) > 0"

    def below(self, paths: list[str]) -> tuple[str, list[Any]]:
        below = "category = path OR starts_with(category, path || chr(31))"
        return f"EXISTS (SELECT 1 FROM unnest(CAST(? AS TEXT[])) AS path WHERE {below})", [paths]

    def metadata(self, node: Condition) -> tuple[str, list[Any]]:
        """The value's JSON type decides what it is compared with."""
        # a step is a name in an object only: `#>` would take "0" for a place in a list, a lax path look into each of it
        value = "jsonb_path_query_first(CAST(metadata AS JSONB), CAST(? AS JSONPATH), '{}', TRUE)"
        bound: list[Any]
        path = "strict $" + "".join(f".{json.dumps(step)}" for step in node.path)
        text, kind = f"({value} #>> '{{}}')", f"jsonb_typeof({value})"
        if node.operator in ORDER:
            order = ORDER[node.operator]
            if isinstance(node.value, str):
                clause = f"CASE WHEN {kind} = 'string' THEN {text} COLLATE \"C\" {order} ? ELSE FALSE END"
            else:
                number = f"CAST({value} AS NUMERIC) {order} CAST(? AS NUMERIC)"  # as it is written: none is rounded
                clause = f"CASE WHEN {kind} = 'number' THEN {number} ELSE FALSE END"
            bound = [path, path, node.value if isinstance(node.value, str) else json.dumps(node.value)]
            return f"coalesce({clause}, FALSE)", bound
        if node.operator == "contains":
            clause = f"{kind} = 'array' AND {value} @> CAST(? AS JSONB)"
            bound = [path, path, json.dumps(node.value)]
            if isinstance(node.value, str):
                clause += f" OR ({kind} = 'string' AND {self.within(text)})"
                bound += [path, path, node.value]
            return f"coalesce({clause}, FALSE)", bound
        several = node.value if node.operator in ("in", "nin") else (node.value,)
        wanted = [json.dumps(each) for each in several if each is not None]
        clause, bound = f"{value} = ANY(CAST(CAST(? AS TEXT[]) AS JSONB[]))", [path, wanted]
        if None in several:
            clause += f" OR {value} IS NULL OR {kind} = 'null'"
            bound += [path, path]
        negated = "NOT " if node.operator in ("ne", "nin") else ""
        return f"({negated}coalesce({clause}, FALSE))", bound
