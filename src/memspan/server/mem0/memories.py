"""``Memories``: what mem0 calls memories, over a namespace of ours: the same verbs, items of its shape.

An id, a text, an owner and metadata are what they are there. Beside that: ``app_id`` and ``categories`` are kept in the
metadata, as what comes from a file of mem0's has them; ``actor_id`` is the speaker; ``expiration_date`` is the last day
on which it is found; ``created_at`` is when it was said, or where nobody told, when it was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

from starlette.requests import Request

from memspan.access import Right
from memspan.archives.mem0 import expiry
from memspan.errors import InvalidInput, NotFound, VersionConflict
from memspan.memory import Memory
from memspan.records import Event, Hit, Kind, Segment
from memspan.segmenting import parse_time, shown
from memspan.server.door import Door
from memspan.server.mem0 import bodies
from memspan.server.mem0.filters import ENTITIES, WHOSE, Asked, asked, between, day_before

P = ParamSpec("P")
T = TypeVar("T")

PAGE: Final = 100
BULK: Final = 1_000  # rows read at once
_FIXED: Final = frozenset({*WHOSE, "actor_id"})
"""Keys that metadata cannot set: whose a memory is, is said beside it."""
_TYPES: Final[Mapping[str | None, Kind | None]] = {None: None, "procedural_memory": "procedural"}
_OPINIONS: Final = {"POSITIVE": True, "NEGATIVE": False, "VERY_NEGATIVE": False}


async def through(
    door: Door,
    request: Request,
    right: Right,
    verb: Callable[Concatenate[Memories, P], T],
    *args: P.args,
    **none: P.kwargs,
) -> T:
    """What a verb of ``Memories`` returns for who asks, where the key has that right in the namespace it is for."""
    caller = await door.admit(request, right)
    return await door.call(caller, verb, Memories(door.memory, caller.namespace), *args, **none)


@dataclass(frozen=True, slots=True)
class Memories:
    """The memories of one namespace. What a verb raises is what the one of ``Memory`` behind it raises."""

    memory: Memory
    namespace: str

    # Writing

    def add(self, body: bodies.Adding, idempotency_key: str | None = None) -> list[dict[str, Any]]:
        """Remember messages as they were said, but those of the system; what each of them became.

        ``event`` is "NONE" for what was there already. Where a language model is configured and ``infer`` is not False,
        the facts it writes about the same owner are added beside them.
        """
        named = body.filters or {}
        whose = {**{name: named[name] for name in ENTITIES.values() if name in named}, **body.whose}
        if not whose or not all(isinstance(id, str) and id != "*" for id in whose.values()):
            mend = "say whose memory it is: user_id, agent_id, run_id or app_id"
            raise InvalidInput("user_id", "at least one identifier is required, as a string", mend=mend)
        if body.memory_type not in _TYPES:
            mend = "leave it out, or use 'procedural_memory'"
            raise InvalidInput("memory_type", f"there is no {shown(body.memory_type)}", mend=mend)
        said = [body.messages] if isinstance(body.messages, dict) else body.messages
        if not isinstance(said, str):
            said = [each for each in said if each.get("role") != "system"]
            if body.messages and not said:
                return []
        metadata = {name: value for name, value in (body.metadata or {}).items() if name not in _FIXED}
        metadata |= {"app_id": whose.pop("app_id")} if "app_id" in whose else {}
        metadata |= {"categories": body.categories} if body.categories else {}
        added = self.memory.add(
            [{"role": "user", "content": said}] if isinstance(said, str) else said,
            namespace=self.namespace,
            **whose,
            metadata=metadata,
            occurred_at=body.timestamp,
            expires_at=expiry(body.expiration_date),
            kind=_TYPES[body.memory_type],
            idempotency_key=idempotency_key,
        )
        facts = () if body.infer is False else self._facts(whose)
        return [
            {
                "id": row.id,
                "memory": row.text,
                "event": "NONE" if row.repeats or row.version > 1 else "ADD",
                "actor_id": row.speaker,
                "role": row.role,
            }
            for row in self._rows((*added.ids, *facts))
        ]

    def update(self, id: str, body: bodies.Updating) -> dict[str, Any]:
        """A new version of a memory; the keys of ``metadata`` are added to those it has."""
        given = body.model_fields_set
        text = body.text if body.text is not None else body.data
        if text is None and body.metadata is None and body.timestamp is None and "expiration_date" not in given:
            raise InvalidInput("text", "nothing to change was given", mend="give text, metadata or expiration_date")
        changes: dict[str, Any] = {"occurred_at": body.timestamp}
        if "expiration_date" in given:
            changes["expires_at"] = expiry(body.expiration_date)
        more = {name: value for name, value in (body.metadata or {}).items() if name not in _FIXED}
        return self._item(self._revise(id, text, changes, more))

    def _revise(
        self, id: str, text: str | None, changes: Mapping[str, Any], more: Mapping[str, Any], less: Sequence[str] = ()
    ) -> Segment:
        """``Memory.update``, with ``more`` keys in the metadata and without ``less``, whoever changes it meanwhile."""
        while True:
            old = self.memory.get(id, namespace=self.namespace)
            kept = {name: value for name, value in old.metadata.items() if name not in less}
            try:
                return self.memory.update(
                    id,
                    text,
                    namespace=self.namespace,
                    metadata={**kept, **more},
                    if_version=old.version,
                    **changes,
                )
            except VersionConflict:
                continue

    def update_all(self, several: Sequence[bodies.UpdatingOne]) -> int:
        """``update`` each of them, where all are there."""
        for each in several:
            self.memory.get(each.memory_id, namespace=self.namespace)
        for each in several:
            self.update(each.memory_id, each)
        return len(several)

    def delete(self, id: str) -> None:
        """Take a memory away. Raises NotFound."""
        if not self.memory.delete(id, namespace=self.namespace):
            raise NotFound(f"there is no memory {shown(id)}", mend="list them to see their ids")

    def delete_several(self, ids: Sequence[str]) -> int:
        """Take memories away, as many as there are."""
        return self.memory.delete(list(ids), namespace=self.namespace)

    def delete_all(self, filters: Mapping[str, Any] | None, whose: Mapping[str, str]) -> int:
        """Take everything of an owner away. Raises InvalidInput where none is named."""
        if whose and not filters and set(whose.values()) == {"*"}:
            wanted = asked({"OR": [{name: "*"} for name in whose]})  # mem0's way to say everything
        else:
            wanted = asked(filters, whose)
        return self.memory.delete_all(namespace=self.namespace, filters=wanted.filters)

    def reset(self) -> int:
        """Take everything in the namespace away."""
        return self.memory.delete_all(namespace=self.namespace)

    def feedback(self, body: bodies.Feedback) -> dict[str, Any]:
        """Keep what somebody thinks of a memory in its metadata; where the query is named, searches learn from it.

        None takes it back.
        """
        told = None if body.feedback is None else body.feedback.upper()
        if told is not None and told not in _OPINIONS:
            mend = f"use {', '.join(_OPINIONS)} or null"
            raise InvalidInput("feedback", f"there is no {shown(body.feedback)}", mend=mend)
        if body.query is not None:
            useful = None if told is None else _OPINIONS[told]
            self.memory.feedback(body.query, body.memory_id, useful, namespace=self.namespace)
        more = {"feedback": told, "feedback_reason": body.feedback_reason}
        more = {name: value for name, value in more.items() if told is not None and value is not None}
        self._revise(body.memory_id, None, {}, more, less=("feedback", "feedback_reason"))
        return {"id": body.memory_id, "feedback": told, "feedback_reason": body.feedback_reason}

    def _facts(self, whose: Mapping[str, str]) -> tuple[str, ...]:
        """The ids of what the configured language model writes now; nothing where none is configured."""
        try:
            user_id, agent_id, run_id = (whose.get(name) for name in WHOSE)
            return self.memory.extract(
                "auto", namespace=self.namespace, user_id=user_id, agent_id=agent_id, run_id=run_id
            ).ids
        except InvalidInput as error:
            if error.argument == "llm":
                return ()
            raise

    # Reading

    def get(self, id: str) -> dict[str, Any]:
        """One memory. Raises NotFound."""
        return self._item(self.memory.get(id, namespace=self.namespace))

    def history(self, id: str) -> list[dict[str, Any]]:
        """What became of a memory, oldest first, each entry with the text before and after. Raises NotFound."""
        events = self.memory.history(id, namespace=self.namespace)
        try:
            row = self.memory.get(id, namespace=self.namespace)
        except NotFound:
            row = None
        return [
            _entry(event, before, events[0].at, row)
            for before, event in zip([None, *(event.text for event in events)], events, strict=False)
        ]

    def search(self, body: bodies.Searching, k: int) -> list[dict[str, Any]]:
        """The ``k`` memories that answer best, with scores in [0, 1]."""
        wanted = asked(body.filters, body.also, show_expired=body.show_expired, latest_only=body.latest_only)
        if not k:
            return []
        hits = self.memory.search(
            body.query,
            k=k,
            namespace=self.namespace,
            filters=wanted.filters,
            include_superseded=wanted.include_superseded,
            threshold=body.threshold or 0.0,
            valid_at=body.reference_date,
            explain=bool(body.explain),
            recipe="default-rerank" if body.rerank is False else "default",
        )
        return [_only(self._item(hit), body.fields) for hit in hits]

    def listing(self, wanted: Asked, limit: int) -> list[dict[str, Any]]:
        """The first ``limit`` memories, in the order they were written."""
        return [self._item(row) for row in islice(self._every(wanted), limit)]

    def page(self, body: bodies.Listing, number: int, size: int) -> tuple[list[dict[str, Any]], int]:
        """Page ``number`` (from 1 on) of ``size`` memories each, and how many there are in all."""
        also = {**(between(body.start_date, body.end_date) or {}), **body.also}
        wanted = asked(body.filters, also, show_expired=body.show_expired, latest_only=body.latest_only)
        first, found, count = (number - 1) * size, list[Segment](), 0
        for count, row in enumerate(self._every(wanted), 1):
            if first < count <= first + size:
                found.append(row)
        return [_only(self._item(row), body.fields) for row in found], count

    def entities(self) -> list[dict[str, Any]]:
        """Who has memories here: users, agents, apps and runs, each with how many, since when and until when."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self._every(Asked(filters=None)):
            item = self._item(row)
            for kind, name in ENTITIES.items():
                id = item[name]
                if not isinstance(id, str):
                    continue
                entity = found.setdefault(
                    (kind, id),
                    {"id": id, "name": id, "type": kind, "total_memories": 0, "created_at": None, "updated_at": None},
                )
                entity["total_memories"] += 1
                entity["created_at"] = min(entity["created_at"] or item["created_at"], item["created_at"])
                entity["updated_at"] = max(entity["updated_at"] or item["updated_at"], item["updated_at"])
        return [found[key] for key in sorted(found)]

    def summary(self, filters: Mapping[str, Any] | None) -> str:
        """What the memories are about, in their own sentences."""
        wanted = asked(filters, anybody=True)
        return self.memory.summary(namespace=self.namespace, filters=wanted.filters).text

    def _rows(self, ids: Sequence[str]) -> Iterator[Segment]:
        for start in range(0, len(ids), BULK):
            several = list(dict.fromkeys(ids[start : start + BULK]))
            yield from self.memory.get_all(
                namespace=self.namespace, filters={"id": {"in": several}}, include_superseded=True, limit=BULK
            )

    def _every(self, wanted: Asked) -> Iterator[Segment]:
        after: str | None = None
        while rows := self.memory.get_all(
            namespace=self.namespace,
            filters=wanted.filters,
            include_superseded=wanted.include_superseded,
            limit=BULK,
            after=after,
        ):
            yield from rows
            if len(rows) < BULK:
                return
            after = rows[-1].id

    def _item(self, row: Segment) -> dict[str, Any]:
        """A segment as mem0 tells of it."""
        metadata = dict(row.metadata)
        told = metadata.pop("categories", None)
        item = {
            "id": row.id,
            "memory": row.text,
            "user_id": row.user_id,
            "agent_id": row.agent_id,
            "run_id": row.run_id,
            "app_id": metadata.pop("app_id", None),
            "actor_id": row.speaker,
            "role": row.role,
            "hash": md5(row.text.encode(), usedforsecurity=False).hexdigest(),
            "categories": told if isinstance(told, list) else list(row.category),
            "expiration_date": day_before(row.expires_at),
            "created_at": _created(row, metadata.pop("created_at", None)).isoformat(),
            "updated_at": row.recorded_at.isoformat(),
            "metadata": metadata,
        }
        if isinstance(row, Hit):
            item["score"] = row.score
            if row.channels is not None:
                item["score_details"] = dict(row.channels)
        return item


def _created(row: Segment, told: object) -> datetime:
    """When it was said, or first stored: an id of version 7 holds that time (RFC 9562)."""
    if row.occurred_at is not None:
        return row.occurred_at
    try:
        if isinstance(told, str) and (moment := parse_time(told, "created_at")) is not None:
            return moment
    except InvalidInput:
        pass  # somebody's own key of that name
    id = UUID(row.id)
    if id.version == 7:
        return datetime.fromtimestamp((id.int >> 80) / 1000, UTC)
    return row.heard_at or row.recorded_at


def _entry(event: Event, before: str | None, first: datetime, row: Segment | None) -> dict[str, Any]:
    gone = event.event in ("DELETE", "ERASE")
    return {
        "id": event.operation or event.id,
        "memory_id": event.id,
        "old_memory": before,
        "new_memory": None if gone else event.text,
        "event": "DELETE" if gone else event.event,
        "created_at": first.isoformat(),
        "updated_at": event.at.isoformat(),
        "is_deleted": gone,
        "actor_id": None if row is None else row.speaker,
        "role": None if row is None else row.role,
        "user_id": None if row is None else row.user_id,
        "metadata": dict(event.metadata) if event.metadata else {},
    }


def _only(item: dict[str, Any], fields: Sequence[str] | None) -> dict[str, Any]:
    return item if not fields else {name: value for name, value in item.items() if name in fields}
