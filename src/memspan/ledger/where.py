"""``Filter`` and ``Scope`` → a WHERE clause. Values are always bound, never written into the SQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from memspan.filtering import category_path
from memspan.ledger.base import SEPARATOR, microseconds, now
from memspan.records import AsOf, Condition, Filter, Junction, Scope

CURRENT = "ended_at IS NULL"  # what the clause of a scope as it is now begins with
ORDER: Mapping[str, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Clauses:
    """What SQL says of a scope and filters: called with them, it gives a clause and its values. What a dialect says in
    another way are its methods ``folded``, ``below`` and ``metadata``, as SQLite says them here."""

    def __call__(self, scope: Scope, filters: Filter | None, as_of: AsOf | None) -> tuple[str, list[Any]]:
        """The clause for rows in ``scope`` that pass ``filters`` (namespace not included), as of then; None: all that
        are current, whatever became of them. A filter that asks for the state sees every one."""
        clauses: list[str] = []
        values: list[Any] = []
        if as_of is None or as_of.known is None:
            clauses.append(CURRENT)
        else:
            clauses.append("recorded_at <= ? AND (ended_at IS NULL OR ended_at > ?)")
            values += [microseconds(as_of.known)] * 2
        if as_of is not None:
            clause, bound = self.hidden(scope.namespace, as_of, stated=asks_for(filters, "state"))
            clauses.append(clause)
            values += bound
        for column in ("user_id", "agent_id", "run_id", "session"):
            wanted = getattr(scope, column)
            if wanted is not None:
                clauses.append(f"{column} = ?")
                values.append(wanted)
        if filters is not None:
            clause, bound = self._sql(filters)
            clauses.append(clause)
            values += bound
        return " AND ".join(clauses), values

    def hidden(self, namespace: str, as_of: AsOf, *, stated: bool) -> tuple[str, list[Any]]:
        """That a row is none of those that searches pass over. Each part reads an index that has only rows with such a
        value, which are few."""
        parts = passed_over(as_of, stated=stated)
        number = "(SELECT number FROM namespaces WHERE name = ?)"
        clause = " UNION ALL ".join(
            f"SELECT seq FROM segments WHERE namespace = {number} AND {part}" for part, _ in parts
        )
        return f"seq NOT IN ({clause or 'SELECT 0'})", [value for _, bound in parts for value in (namespace, *bound)]

    def folded(self, expression: str) -> str:
        """The text of an expression without regard to case."""
        return f"memspan_fold({expression})"

    def within(self, expression: str) -> str:
        """Whether a bound text stands in that of an expression, whatever their case."""
        return f"coalesce(instr({self.folded(expression)}, {self.folded('?')}), 0) > 0"

    def below(self, paths: list[str]) -> tuple[str, list[Any]]:
        """Whether the category is one of these paths, or below one."""
        below = "category = path.value OR substr(category, 1, length(path.value) + 1) = path.value || char(31)"
        return f"EXISTS (SELECT 1 FROM json_each(?) AS path WHERE {below})", [json.dumps(paths)]

    def _sql(self, node: Filter) -> tuple[str, list[Any]]:
        if isinstance(node, Junction):
            parts = [self._sql(part) for part in node.parts]
            joined = (" AND " if node.kind == "AND" else " OR ").join(clause for clause, _ in parts)
            values = [value for _, bound in parts for value in bound]
            return f"({'NOT ' if node.kind == 'NOT' else ''}({joined}))", values
        if node.field == "category":
            return self._category(node)
        if node.field == "metadata":
            return self.metadata(node)
        return self._column(node)

    def _column(self, node: Condition) -> tuple[str, list[Any]]:
        column = {"document_id": "document"}.get(node.field, node.field)
        if node.operator in ("in", "nin"):
            return _membership(column, node.operator, [_bound(node.field, value) for value in node.value])
        value = _bound(node.field, node.value)
        if node.operator == "eq":
            return f"({column} IS ?)", [value]
        if node.operator == "ne":
            return f"({column} IS NOT ?)", [value]
        if node.operator == "contains":
            return f"({self.within(column)})", [str(value)]
        return f"(coalesce({column} {ORDER[node.operator]} ?, FALSE))", [value]

    def _category(self, node: Condition) -> tuple[str, list[Any]]:
        if node.operator == "contains":
            return f"({self.within('category')})", [node.value]
        wanted = node.value if node.operator in ("in", "nin") else (node.value,)
        paths = [SEPARATOR.join(category_path(value)) for value in wanted]
        clause, values = self.below([path for path in paths if path])
        if "" in paths:
            clause = f"({clause} OR category IS NULL)"
        return f"({'NOT ' if node.operator in ('ne', 'nin') else ''}coalesce({clause}, FALSE))", values

    def metadata(self, node: Condition) -> tuple[str, list[Any]]:
        """The value's JSON type decides what it is compared with: SQLite itself would find 1 in ``true``."""
        path = "$" + "".join(f'."{step}"' for step in node.path)
        value, kind = "json_extract(metadata, ?)", "json_type(metadata, ?)"
        if node.operator in ("gt", "gte", "lt", "lte"):
            ((types, wanted),) = _by_type([node.value])
            return f"coalesce({kind} IN {types} AND {value} {ORDER[node.operator]} ?, FALSE)", [path, path, *wanted]
        if node.operator == "contains":
            ((types, wanted),) = _by_type([node.value])
            among = f"item.type IN {types} AND item.value = ?"
            clause = f"EXISTS (SELECT 1 FROM json_each(metadata, ?) AS item WHERE {kind} = 'array' AND {among})"
            bound = [path, path, *wanted]
            if isinstance(node.value, str):
                clause += f" OR ({kind} = 'text' AND {self.within(value)})"
                bound += [path, path, node.value]
            return f"coalesce({clause}, FALSE)", bound
        several = node.value if node.operator in ("in", "nin") else (node.value,)
        clauses, bound = ["FALSE"], []
        for types, wanted in _by_type(several):
            clauses.append(f"({kind} IN {types} AND {value} IN (SELECT value FROM json_each(?)))")
            bound += [path, path, json.dumps(wanted)]
        if None in several:
            clauses.append(f"(coalesce({kind}, 'null') = 'null')")
            bound.append(path)
        negated = "NOT " if node.operator in ("ne", "nin") else ""
        return f"({negated}coalesce({' OR '.join(clauses)}, FALSE))", bound


def asks_for(filters: Filter | None, field: str) -> bool:
    """Whether any condition is on this field."""
    if isinstance(filters, Junction):
        return any(asks_for(part, field) for part in filters.parts)
    return filters is not None and filters.field == field


def passed_over(as_of: AsOf, *, stated: bool) -> list[tuple[str, list[Any]]]:
    """What searches pass over, as clauses of which few rows fulfil any."""
    parts: list[tuple[str, list[Any]]] = []
    if not stated:
        parts.append(("state IS NOT NULL" + (" AND state <> 'merged'" if as_of.superseded else ""), []))
    if not as_of.superseded:
        times = [time for time in (as_of.valid, as_of.known) if time is not None]
        moment = microseconds(times[0]) if times else now()
        parts += [
            ("valid_to IS NOT NULL AND valid_to <= ?", [moment]),
            ("valid_from IS NOT NULL AND valid_from > ?", [moment]),
            ("expires_at IS NOT NULL AND expires_at <= ?", [moment]),
        ]
    return parts


def _membership(expression: str, operator: str, values: list[Any]) -> tuple[str, list[Any]]:
    present = [value for value in values if value is not None]
    clause = f"coalesce({expression} IN ({', '.join('?' * len(present))}), FALSE)"
    if len(present) < len(values):
        clause = f"({clause} OR {expression} IS NULL)"
    return f"({'NOT ' if operator == 'nin' else ''}{clause})", present


def _bound(field: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return microseconds(value)
    if field in ("id", "document_id") and isinstance(value, str):
        try:
            return uuid.UUID(value).bytes
        except ValueError:
            return b""  # which no row has, so it simply matches nothing
    return value


def _by_type(values: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    """Values that are not None by SQLite's JSON types, which are compared with each other and with no others."""
    groups: dict[str, list[Any]] = {}
    for value in values:
        if isinstance(value, bool):
            groups.setdefault("('true')" if value else "('false')", []).append(value)
        elif value is not None:
            groups.setdefault("('text')" if isinstance(value, str) else "('integer', 'real')", []).append(value)
    return list(groups.items())
