"""``MemspanStore``: LangGraph's long-term store over a ``Memory``.

    from langgraph.graph import StateGraph
    from memspan import Memory
    from memspan.integrations.langgraph import MemspanStore

    store = MemspanStore(Memory("my-memory"))
    store.put(("users", "ana"), "drink", {"text": "Ana drinks green tea."})
    store.search(("users", "ana"), query="what does Ana drink?")
    graph = builder.compile(store=store)

LangGraph's namespaces are labels inside one tenant, so they never choose the ``namespace`` of the memory, which is the
store's own. An item is an ``Entry``: its labels become the category, so that it has its place in the tree, and, joined
by dots, a value of the metadata, by which a prefix is matched as SQLite matches it and to the label. As in an archive
that ``import_from(path, "langgraph")`` reads, the text is what the value says under a name such as ``text`` or
``content`` (else all of it, a line for each name), and the metadata has ``key``, ``value`` without that, and ``field``,
where in the value it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from memspan.archives.langgraph import told
from memspan.errors import MissingExtra
from memspan.integrations.entries import Entries, Entry
from memspan.memory import Memory

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        validate_op_namespace,
    )
except ImportError as error:
    raise MissingExtra("MemspanStore needs langgraph", mend='pip install "memspan[langgraph]"') from error

LONGEST_TOLD = 4_000  # characters of a value's lines that stand for it where nothing in it is its text
STALE = 0.1  # of a time to live; a read within that does not start it anew, which would be a write for each read


class MemspanStore(BaseStore):
    """A ``BaseStore`` whose items are kept, with their history, in a ``Memory``.

    ``user_id`` is whose memory the items are: searches of the memory find them under it, and stores with another one do
    not. ``fields`` are the paths that are searched where ``put`` does not say (``index=``), None for the text of the
    value. ``ttl`` is LangGraph's TTLConfig: ``default_ttl`` and ``refresh_on_read``; what has expired is never found,
    and ``sweep_ttl`` deletes it. ``recipe`` is that of ``Memory.search``.

    ``search(query=...)`` gives what the query finds first, with scores in [0, 1], then what it does not, last written
    first, without one; that is also the order without a query. Texts are kept as the memory keeps them: redacted where
    it redacts, and without contexts that came out of it. A batch reads as of before its writes, as LangGraph's own
    stores do; each write is a transaction of its own.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: Memory,
        *,
        namespace: str | None = None,
        user_id: str = "langgraph",
        fields: Sequence[str] | None = None,
        ttl: TTLConfig | None = None,
        recipe: str = "default",
    ) -> None:
        self.ttl_config = ttl
        self._entries = Entries(memory, "langgraph", user_id=user_id, namespace=namespace)
        self._fields = fields
        self._recipe = recipe

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The result of each operation in order. Raises InvalidNamespaceError, and InvalidInput for what is no JSON."""
        several = list(ops)
        for op in several:
            validate_op_namespace(op)
        results = [self._read(op) for op in several]
        writes = {(tuple(op.namespace), op.key): op for op in several if isinstance(op, PutOp)}
        for op in writes.values():  # of several to one key the last
            self._write(op)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """``batch`` in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def sweep_ttl(self) -> int:
        """Delete what has expired, which no search finds any more; returns how many segments it was."""
        return self._entries.expire()

    def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            entry = self._entries.read((*op.namespace, op.key))
            if entry is None:
                return None
            self._refresh([entry], op.refresh_ttl)
            return Item(**_about(entry))
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        if isinstance(op, PutOp):
            return None
        raise ValueError(f"there is no operation {type(op).__name__}")

    def _write(self, op: PutOp) -> None:
        key = (*op.namespace, op.key)
        if op.value is None:
            known = self._entries.read(key)
            if known is not None:
                self._entries.remove([known])
            return
        value, expires_at = dict(op.value), None
        text, field, rest = told(value)
        paths = self._fields if op.index is None else op.index
        if isinstance(paths, (list, tuple)):
            text, field = "\n".join(each for path in paths for each in get_text_at_path(value, path)), ()
        if not field:
            text, rest = text[:LONGEST_TOLD], value
        metadata: dict[str, Any] = {"namespace": ".".join(op.namespace), "key": op.key, "value": rest}
        if field:
            metadata["field"] = list(field)
        if op.ttl is not None:
            metadata["ttl"] = op.ttl
            expires_at = datetime.now(UTC) + timedelta(minutes=op.ttl)
        indexed = op.index is not False
        self._entries.write(key, text, metadata, category=tuple(op.namespace), expires_at=expires_at, indexed=indexed)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        def passes(entry: Entry) -> bool:
            return _passes(_value(entry), op.filter)

        filters, most = _within(tuple(op.namespace_prefix)), op.offset + op.limit
        found: list[tuple[Entry, float | None]] = []
        if op.query and op.query.strip():
            found += self._entries.search(op.query, most, filters, recipe=self._recipe, passes=passes)
        if len(found) < most:
            scored = {entry.key for entry, _ in found}
            rest = (entry for entry in self._entries.all(filters) if entry.key not in scored and passes(entry))
            found += [(entry, None) for entry in rest]
        shown = found[op.offset : most]
        self._refresh([entry for entry, _ in shown], op.refresh_ttl)
        return [SearchItem(**_about(entry), score=score) for entry, score in shown]

    def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        depth = op.max_depth
        spaces = {entry.key[:-1] for entry in self._entries.all()}
        matching = {space[:depth] for space in spaces if all(_matches(space, each) for each in conditions)}
        return sorted(matching)[op.offset : op.offset + op.limit]

    def _refresh(self, entries: Sequence[Entry], wanted: bool) -> None:
        now = datetime.now(UTC)
        for entry in entries:
            if wanted and entry.expires_at is not None and (ttl := entry.metadata.get("ttl")) is not None:
                whole = timedelta(minutes=ttl)
                if now + whole - entry.expires_at > whole * STALE:
                    self._entries.extend(entry, now + whole)


def _about(entry: Entry) -> dict[str, Any]:
    return {
        "namespace": entry.key[:-1],
        "key": entry.key[-1],
        "value": _value(entry),
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
    }


def _value(entry: Entry) -> dict[str, Any]:
    """The value as it was put, its text where it was."""
    value: dict[str, Any] = dict(entry.metadata["value"])
    *outer, last = entry.metadata.get("field") or (None,)
    inner = value
    for name in outer:
        inner[name] = dict(inner[name])
        inner = inner[name]
    if last is not None:
        inner[last] = entry.text
    return value


def _within(prefix: tuple[str, ...]) -> dict[str, Any] | None:
    """A filter for the items in a namespace and below it: no label holds a dot, and ``/`` comes next after it."""
    if not prefix:
        return None
    path = ".".join(prefix)
    return {"OR": [{"metadata.namespace": path}, {"metadata.namespace": {"gte": f"{path}.", "lt": f"{path}/"}}]}


def _matches(space: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    end = space[: len(path)] if condition.match_type == "prefix" else space[len(space) - len(path) :]
    return len(space) >= len(path) and all(wanted in ("*", label) for label, wanted in zip(end, path, strict=True))


def _passes(value: Any, wanted: Mapping[str, Any] | None) -> bool:
    return all(_same(value.get(name), each) for name, each in (wanted or {}).items())


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value is what a filter wants: equal, or what the operators ask; objects and lists part by part."""
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_holds(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and _passes(value, wanted)
    if isinstance(wanted, (list, tuple)):
        alike = isinstance(value, (list, tuple)) and len(value) == len(wanted)
        return alike and all(_same(one, other) for one, other in zip(value, wanted, strict=True))
    return bool(value == wanted)


def _holds(value: Any, operator: str, operand: Any) -> bool:
    """Numbers, also those written as texts, are compared as numbers; what is none passes no comparison."""
    if operator in ("$eq", "$ne"):
        return bool(value == operand) is (operator == "$eq")
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise ValueError(f"Unsupported operator: {operator}")
    try:
        one, other = float(value), float(operand)
    except (TypeError, ValueError):
        return False
    return {"$gt": one > other, "$gte": one >= other, "$lt": one < other, "$lte": one <= other}[operator]
