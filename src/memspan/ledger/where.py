"""``Filter`` and ``Scope`` → an SQLite WHERE clause. Values are always bound, never written into the SQL."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from memspan.filtering import category_path
from memspan.ledger.base import SEPARATOR, microseconds
from memspan.records import Condition, Filter, Junction, Scope

ORDER: Mapping[str, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def scope_sql(scope: Scope, filters: Filter | None, as_of: datetime | None) -> tuple[str, list[Any]]:
    """The clause for rows in ``scope`` that pass ``filters``, current now or as of a time (namespace not included)."""
    clauses: list[str] = []
    values: list[Any] = []
    if as_of is None:
        clauses.append("ended_at IS NULL")
    else:
        clauses.append("recorded_at <= ? AND (ended_at IS NULL OR ended_at > ?)")
        values += [microseconds(as_of)] * 2
    for column in ("user_id", "agent_id", "run_id", "session"):
        wanted = getattr(scope, column)
        if wanted is not None:
            clauses.append(f"{column} = ?")
            values.append(wanted)
    if filters is not None:
        clause, bound = _sql(filters)
        clauses.append(clause)
        values += bound
    return " AND ".join(clauses), values


def _sql(node: Filter) -> tuple[str, list[Any]]:
    if isinstance(node, Junction):
        parts = [_sql(part) for part in node.parts]
        joined = (" AND " if node.kind == "AND" else " OR ").join(clause for clause, _ in parts)
        return f"({'NOT ' if node.kind == 'NOT' else ''}({joined}))", [value for _, bound in parts for value in bound]
    if node.field == "category":
        return _category(node)
    if node.field == "metadata":
        return _metadata(node)
    return _column(node)


def _column(node: Condition) -> tuple[str, list[Any]]:
    column = {"document_id": "document"}.get(node.field, node.field)
    if node.operator in ("in", "nin"):
        return _membership(column, node.operator, [_bound(node.field, value) for value in node.value])
    value = _bound(node.field, node.value)
    if node.operator == "eq":
        return f"({column} IS ?)", [value]
    if node.operator == "ne":
        return f"({column} IS NOT ?)", [value]
    if node.operator == "contains":
        return f"(coalesce(instr(memspan_fold({column}), memspan_fold(?)), 0) > 0)", [str(value)]
    return f"(coalesce({column} {ORDER[node.operator]} ?, 0))", [value]


def _membership(expression: str, operator: str, values: list[Any]) -> tuple[str, list[Any]]:
    present = [value for value in values if value is not None]
    clause = f"coalesce({expression} IN ({', '.join('?' * len(present))}), 0)"
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
            return value  # no row holds a text here, so it simply matches nothing
    return value


def _category(node: Condition) -> tuple[str, list[Any]]:
    if node.operator in ("in", "nin"):
        parts = [_category(Condition(field="category", path=(), operator="eq", value=value)) for value in node.value]
        joined = " OR ".join(clause for clause, _ in parts) or "0"
        return f"({'NOT ' if node.operator == 'nin' else ''}({joined}))", [v for _, bound in parts for v in bound]
    if node.operator == "contains":
        return "(coalesce(instr(memspan_fold(category), memspan_fold(?)), 0) > 0)", [str(node.value)]
    path = category_path(node.value)
    if not path:
        return ("(category IS NULL)" if node.operator == "eq" else "(category IS NOT NULL)"), []
    joined = SEPARATOR.join(path)
    if node.operator in ("eq", "ne"):
        below = joined + SEPARATOR
        clause = "coalesce(category = ? OR substr(category, 1, ?) = ?, 0)"
        return f"({'NOT ' if node.operator == 'ne' else ''}{clause})", [joined, len(below), below]
    return f"(coalesce(category {ORDER[node.operator]} ?, 0))", [joined]


def _metadata(node: Condition) -> tuple[str, list[Any]]:
    path = "$" + "".join(f'."{step}"' for step in node.path)
    value, kind = "json_extract(metadata, ?)", "json_type(metadata, ?)"
    if node.operator in ("in", "nin"):
        parts = [_metadata(_equal(node, item)) for item in node.value]
        joined = " OR ".join(clause for clause, _ in parts) or "0"
        return f"({'NOT ' if node.operator == 'nin' else ''}({joined}))", [v for _, bound in parts for v in bound]
    if node.operator == "ne":
        clause, bound = _metadata(_equal(node, node.value))
        return f"(NOT {clause})", bound
    wanted = node.value
    if node.operator == "contains":
        inside = f"EXISTS (SELECT 1 FROM json_each(metadata, ?) AS item WHERE {kind} = 'array' AND item.value IS ?)"
        text = f"({kind} = 'text' AND instr(memspan_fold({value}), memspan_fold(?)) > 0)"
        return f"coalesce({inside} OR {text}, 0)", [path, path, wanted, path, path, str(wanted)]
    if wanted is None:
        return f"(coalesce({kind}, 'null') = 'null')", [path]
    if isinstance(wanted, bool):
        return f"coalesce({kind} = ?, 0)", [path, "true" if wanted else "false"]
    types = "('text')" if isinstance(wanted, str) else "('integer', 'real')"
    comparison = "=" if node.operator == "eq" else ORDER[node.operator]
    return f"coalesce({kind} IN {types} AND {value} {comparison} ?, 0)", [path, path, wanted]


def _equal(node: Condition, value: Any) -> Condition:
    return Condition(field=node.field, path=node.path, operator="eq", value=value)
