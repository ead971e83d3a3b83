"""``Conversation``: the turns of one chat in a ``Memory``, given back as the framework gave them, and recalled from.

A turn is a message of a session, with its role and time, so that it is found like anything that was said. The rest of
what the framework keeps of it (ids, calls of tools, pictures) is in the metadata. Every turn is kept: also one that
says nothing, and one of the assistant that repeats what somebody said, which ``Memory.add`` leaves out of messages.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from memspan.errors import BudgetTooSmall
from memspan.integrations.entries import MARK
from memspan.memory import Memory
from memspan.records import Added, Segment, Source

SOURCES: Mapping[str, Source] = {"user": "user", "assistant": "assistant", "tool": "tool", "system": "system"}
PAGE = 10_000

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was said: ``text`` by ``role`` ("user", "assistant", "system", "tool"), and the ``item`` that the framework
    keeps of it, JSON values. ``place`` is where in the item the text is, None where it is made of the item."""

    role: str
    text: str
    item: Mapping[str, Any]
    place: Place | None = None


class Conversation:
    """The chat ``session`` of a user, agent and run, each None or a name; a chat with other names is another one."""

    def __init__(
        self,
        memory: Memory,
        session: str,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self._memory = memory
        self._namespace = namespace
        self._whose: dict[str, Any] = {"user_id": user_id, "agent_id": agent_id, "run_id": run_id}
        self._session = session
        self._last: datetime | None = None
        self._lock = threading.Lock()

    def append(self, turns: Sequence[Turn]) -> None:
        """Add turns at the end, each durable before the next. Raises InvalidInput."""
        with self._lock:
            for turn in turns:
                self._add(turn)

    def items(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The items of all turns in order, or of the last ``limit``."""
        turns = self._turns()
        return [_item(rows) for rows in (turns if limit is None else turns[len(turns) - min(limit, len(turns)) :])]

    def pop(self) -> dict[str, Any] | None:
        """Take the last turn away, which stays in the history; None where there is none."""
        with self._lock:
            turns = self._turns()
            if not turns:
                return None
            self._memory.delete([row.id for row in turns[-1]], namespace=self._namespace)
            return _item(turns[-1])

    def clear(self) -> None:
        """Take every turn away; they stay in the history."""
        with self._lock:
            ids = [row.id for rows in self._turns() for row in rows]
            self._memory.delete(ids, namespace=self._namespace)

    def recall(
        self, query: str, budget: int, *, own: bool = True, filters: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """A context of at most ``budget`` tokens that answers ``query``, from all that the memory has of this user,
        agent and run; empty where there is nothing, or no budget for it. ``own`` False leaves this chat out, for a
        model that reads it anyway. ``filters`` and ``options``: those of ``Memory.context``."""
        if not query.strip():
            return ""
        wanted: list[Mapping[str, Any]] = [{f"{MARK}.said": {"ne": False}}]
        wanted += [] if own else [{"session": {"ne": self._session}}]
        wanted += [filters] if filters else []
        given = {**self._whose, **options, "filters": {"AND": wanted}}
        try:
            found = self._memory.context(query, budget=budget, namespace=self._namespace, **given)
        except BudgetTooSmall:
            return ""
        return found.text if found.citations else ""

    def _add(self, turn: Turn) -> None:
        mark: dict[str, Any] = {"item": dict(turn.item)}
        if turn.place is not None and turn.text.strip():
            mark = {"item": _replaced(turn.item, turn.place, ""), "place": list(turn.place)}
        when = self._next()
        message = {"role": turn.role, "content": turn.text, "time": when, "metadata": {MARK: mark}}
        if turn.text.strip():
            if self._stored(message) or self._said(turn.text, turn.role, when, mark):
                return
            mark = {"item": mark["item"]}  # it was nothing but recalled memory, which is not remembered again
        self._said(f"[{turn.role}]", turn.role, when, {**mark, "said": False})

    def _stored(self, message: Mapping[str, Any]) -> bool:
        return bool(self._memory.add([message], namespace=self._namespace, session=self._session, **self._whose).ids)

    def _said(self, text: str, role: str, when: datetime, mark: Mapping[str, Any]) -> bool:
        """As a text, which is kept whoever said the same before."""
        added: Added = self._memory.add(
            text,
            namespace=self._namespace,
            session=self._session,
            occurred_at=when,
            source=SOURCES[role],
            metadata={MARK: mark},
            **self._whose,
        )
        return bool(added.ids)

    def _next(self) -> datetime:
        """A time after that of every turn, by which they are in order and none is taken for another one."""
        if self._last is None:
            turns = self._turns()
            self._last = turns[-1][0].occurred_at if turns else None
        now = datetime.now(UTC)
        self._last = now if self._last is None else max(now, self._last + timedelta(microseconds=1))
        return self._last

    def _turns(self) -> list[list[Segment]]:
        """The segments of each turn."""
        turns: dict[datetime, list[Segment]] = {}
        after: str | None = None
        while True:
            rows = self._memory.get_all(
                namespace=self._namespace,
                session=self._session,
                **self._whose,
                include_superseded=True,  # a turn was said, whatever became of what it says
                limit=PAGE,
                after=after,
            )
            for row in rows:
                if MARK in row.metadata and row.occurred_at is not None and self._own(row):
                    turns.setdefault(row.occurred_at, []).append(row)
            if len(rows) < PAGE:
                return [sorted(turns[when], key=lambda row: row.position) for when in sorted(turns)]
            after = rows[-1].id

    def _own(self, row: Segment) -> bool:
        """On a read a name that is None means any; here it means none."""
        return all(getattr(row, name) == value for name, value in self._whose.items())


def _item(rows: Sequence[Segment]) -> dict[str, Any]:
    mark = rows[0].metadata[MARK]
    if "place" not in mark:
        return dict(mark["item"])
    return _replaced(mark["item"], mark["place"], "".join(row.gap + row.text + row.tail for row in rows))


def _replaced(item: Mapping[str, Any], place: Sequence[str | int], text: str) -> dict[str, Any]:
    """The item with another text at a place."""
    made: Any = deepcopy(dict(item))
    inner = made
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = text
    return dict(made)
