"""The rule that lets a server distribute everything by namespace, as a check of one statement.

Each table of a namespace that a statement names has its namespace equal to a value that is given, or to that of another
table of the same statement that has: then one machine answers it. What is asked of the whole store is named in
``OF_THE_WHOLE_STORE``, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp

from memspan.ledger.removing import SAID

KEY = "namespace"

OF_THE_WHOLE_STORE: Mapping[str, str] = {
    r"^SELECT (count\(\*\)|namespace, count\(\*\)|coalesce\(sum)": "stats and verify count what there is",
    r"^SELECT DISTINCT ON \(namespace\) namespace, entry, hash FROM log": "stats tells where the logs end",
    r"^SELECT coalesce\(max\(encoding\), 0\) FROM activations": "reencode gives an encoding a number of its own",
    r"^(DELETE FROM (activations|matrices) WHERE encoding <>|UPDATE activations AS a SET tokens = 0 WHERE)":
        "what an encoding left, or lost, in all namespaces",
    r"^INSERT INTO pending \(seq, namespace\) SELECT s.seq, s.namespace FROM segments AS s WHERE NOT EXISTS":
        "a switch to another encoding is one transaction for the whole store",
    r"^DELETE FROM (activations|matrices|pending)$": "rebuild without an encoder drops what all namespaces have",
    r"^DELETE FROM snapshots WHERE view IN": "what views made of vectors that are no more",
    r"FROM pending AS p JOIN segments AS s .* WHERE TRUE ORDER BY": "the worker that encodes asks what waits anywhere",
    r"AS l JOIN segments AS s ON s.namespace = l.namespace": "the worker makes lost token matrices again",
    r"^SELECT name FROM namespaces WHERE number IN \(SELECT s.namespace FROM pending":
        "whom else an encoded text serves; never asked by a search",
    r" FROM segments AS s WHERE s.seq % %s = 0 ORDER BY": "fit_tokens samples texts of all namespaces",
    r"^SELECT 1 FROM (activations|matrices) WHERE (pooled|matrix) = %s LIMIT 1": "verify_erasure looks everywhere",
    **{f"^SELECT {columns} FROM {table}$": "verify_erasure reads all that is said" for table, columns in SAID.items()},
}  # fmt: skip
"""By a pattern: statements that ask every machine, and why they do. None is part of an add, a search, a get, an update,
a delete, an erase or a context. Even they keep what they compare in one namespace, as it lies on one machine."""


@dataclass
class Place:
    """What the tables in sight of a part of a statement are: those of namespaces by alias, whether each is held to one;
    ``outer`` is what contains it. ``whole``: it may ask every machine, about one namespace each time."""

    tables: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    outer: Place | None = None
    whole: bool = False

    def holds(self, alias: str) -> bool:
        if alias in self.tables:
            return alias in self.held
        return self.outer is not None and self.outer.holds(alias)


def offences(statement: str, columns: Mapping[str, list[str]]) -> list[str]:
    """What in a statement breaks the rule. ``columns`` are those of the tables of namespaces, by table."""
    statement = statement.replace("%%", "%")
    whole = any(re.search(pattern, statement) for pattern in OF_THE_WHOLE_STORE)
    if re.match(r"(SAVEPOINT|ROLLBACK TO|RELEASE|LOCK TABLE)\b", statement):
        return []
    plain = re.sub(r"<[#=+]>", "<->", statement.replace("%s", ":p"))  # one operator of distance is as good as another
    (parsed,) = sqlglot.parse(plain, dialect="postgres")
    assert parsed is not None, statement
    found: list[str] = []
    _walk(parsed, Place(whole=whole), columns, found)
    return found


def _walk(
    node: exp.Expression,
    outer: Place,
    columns: Mapping[str, list[str]],
    found: list[str],
) -> None:
    """A query or a statement: what it names, what holds it, then what is within it."""
    place = Place(outer=outer, whole=outer.whole)
    for table in _named(node, columns):
        place.tables[table.alias_or_name] = table.name
    beside = isinstance(node.parent, exp.Subquery) and isinstance(node.parent.parent, (exp.From, exp.Join))
    if place.whole and (beside or not outer.tables):
        place.held |= set(list(place.tables)[:1])
    conditions = list(_conditions(node))
    while True:  # until nothing follows from what follows
        more = {alias for condition in conditions for alias in _held(condition, place)} - place.held
        if not more:
            break
        place.held |= more
    if isinstance(node, exp.Insert):
        _inserted(node, place, columns, found)
    found += [f"{name} as {alias}" for alias, name in place.tables.items() if alias not in place.held]
    for part in _within(node):
        _walk(part, outer if isinstance(node, exp.Insert) else place, columns, found)


def _own(node: exp.Expression) -> Iterator[exp.Expression]:
    """The node and what is below it, but for queries within it."""
    for child in node.iter_expressions():
        if isinstance(child, exp.Query) and not isinstance(child, exp.Subquery):
            continue
        yield child
        yield from _own(child)


def _within(node: exp.Expression) -> Iterator[exp.Expression]:
    """The queries directly within it."""
    for child in node.iter_expressions():
        if isinstance(child, exp.Query) and not isinstance(child, exp.Subquery):
            yield child
        else:
            yield from _within(child)


def _named(node: exp.Expression, tables: Collection[str]) -> Iterator[exp.Table]:
    shadowed = {cte.alias for cte in node.find_all(exp.CTE)}
    for child in _own(node):
        if isinstance(child, exp.Table) and child.name in tables and child.name not in shadowed:
            yield child


def _conditions(node: exp.Expression) -> Iterator[exp.Expression]:
    """What has to hold of every row: conditions and joins, taken apart where they are joined by AND."""
    for key in ("where", "joins"):
        for clause in node.args.get(key) or [] if key == "joins" else [node.args.get(key)]:
            if clause is None:
                continue
            condition = clause.this if key == "where" else clause.args.get("on")
            if condition is not None:
                yield from condition.flatten() if isinstance(condition, exp.And) else (condition,)


def _held(condition: exp.Expression, place: Place) -> Iterator[str]:
    """The aliases that one condition holds to a namespace."""
    while isinstance(condition, exp.Paren):
        condition = condition.this
    if isinstance(condition, exp.And):
        for part in condition.flatten():
            yield from _held(part, place)
    if not isinstance(condition, exp.EQ):
        return
    sides = [_alias(side, place) for side in (condition.this, condition.expression)]
    for (alias, other), value in (
        ((sides[0], sides[1]), condition.expression),
        ((sides[1], sides[0]), condition.this),
    ):
        if alias in place.tables and (_given(value) or (other is not None and place.holds(other))):
            yield str(alias)


def _alias(side: exp.Expression, place: Place) -> str | None:
    """Whose namespace this is, None where it is none."""
    if not isinstance(side, exp.Column) or side.name != KEY:
        return None
    if side.table:
        return str(side.table)
    return next(iter(place.tables)) if len(place.tables) == 1 else None


def _given(value: exp.Expression) -> bool:
    while isinstance(value, (exp.Paren, exp.Cast)):
        value = value.this
    return isinstance(value, (exp.Parameter, exp.Placeholder, exp.Literal))


def _inserted(node: exp.Insert, place: Place, columns: Mapping[str, list[str]], found: list[str]) -> None:
    """The rows of an insert: each gives its namespace, and what may already be there is known by it."""
    into = node.this.this if isinstance(node.this, exp.Schema) else node.this
    if into.name not in columns:
        return
    names = [each.name for each in node.this.expressions] if isinstance(node.this, exp.Schema) else columns[into.name]
    at, source = names.index(KEY) if KEY in names else None, node.expression
    rows = source.expressions if isinstance(source, exp.Values) else [source]
    given = [row.expressions[at] for row in rows] if at is not None else []
    inner = Place(outer=None)
    if isinstance(source, exp.Select):
        inner.tables = {table.alias_or_name: table.name for table in _named(source, columns)}
        conditions = list(_conditions(source))
        inner.held = set(list(inner.tables)[: place.whole])
        for _ in conditions:
            inner.held |= {alias for condition in conditions for alias in _held(condition, inner)}
    if given and all(_given(value.unalias()) or inner.holds(_alias(value.unalias(), inner) or "") for value in given):
        place.held.add(into.alias_or_name)
    conflict = node.args.get("conflict")
    keys = [each.name for each in (conflict.args.get("conflict_keys") or [])] if conflict is not None else []
    if keys and KEY not in keys:
        found.append(f"a conflict in {into.name} is known by {', '.join(keys)} alone")
