"""``Revising``: the part of ``Memory`` by which what it holds changes, and changes back.

A segment is never changed: it gets another version, or none any more. So everything can be seen as of then, and taken
back; only ``erase`` removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from memspan import arguments
from memspan.drafting import Batch, content_key, draft_of, expiring, redrafted
from memspan.errors import EncoderMismatch, InvalidInput, NotFound, NotUndoable, VersionConflict
from memspan.filtering import parse_filter
from memspan.kinds import KINDS
from memspan.ledger.base import ADD, UPDATE, Idempotency, Relink, Revised, Revision, Why
from memspan.portability import Portability
from memspan.records import NOW, Added, AsOf, Event, Filter, Kind, Operation, Scope, Segment
from memspan.segmenting import check_text, parse_time
from memspan.views.base import Progress

UNCHANGED: Any = object()
BULK = 4_096  # rows read at once
MOST_VERSIONS = 2**63 - 1
LARGE = 1_024  # segments of one add from which the texts become durable first and are encoded after
EVERY_STATE = parse_filter({"state": {"in": [None, *arguments.STATES]}})
FINAL: Mapping[str, str] = {
    "erase": "what was erased is nowhere any more",
    "feedback": "feedback(query, id, None) takes back what was said",
}
"""Verbs of which an operation cannot be undone, and why."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """What segments shall say from now on, the texts to encode for that by their hash, and what becomes of links."""

    revisions: list[Revision] = field(default_factory=list)
    texts: dict[bytes, str] = field(default_factory=dict)
    relinks: list[Relink] = field(default_factory=list)


class Revising(Portability):
    """An open store in which segments get new versions."""

    def _write(
        self,
        scope: Scope,
        batch: Batch,
        idempotency: Idempotency | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        why: Why = ADD,
    ) -> Added:
        """Add what a batch holds."""
        if idempotency is not None and (done := self._ledger.replay(scope.namespace, idempotency)) is not None:
            return replace(done, stripped=batch.stripped, skipped=batch.skipped)
        large = len(batch.drafts) > LARGE
        projection = self._projection
        activations = projection.activations(scope.namespace, batch.texts) if wait and not large else {}
        try:
            added = self._ledger.append(
                scope.namespace,
                expiring(batch.drafts, datetime.now(UTC)),
                documents=batch.documents,
                activations=None if projection.recorded == "null" else activations,
                encoder=projection.recorded,
                idempotency=idempotency,
                why=why,
            )
        except EncoderMismatch:  # another process has just switched the store over: nothing was written
            self._follow()
            return self._write(scope, batch, idempotency, wait, progress, why)
        pending = added.pending
        if pending and large and wait:
            self._projection.settle(scope.namespace, progress=progress)
            pending = self._ledger.count_pending(scope.namespace)
        self._projection.written(scope.namespace, added.added, pending=pending)
        return replace(added, pending=pending, stripped=batch.stripped, skipped=batch.skipped)

    def update(
        self,
        id: str,
        text: str | None = None,
        *,
        category: str | Sequence[str] | None = None,
        importance: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        kind: Kind | None = None,
        valid_from: datetime | str | float | None = UNCHANGED,
        valid_to: datetime | str | float | None = UNCHANGED,
        expires_at: datetime | str | float | None = UNCHANGED,
        if_version: int | None = None,
        namespace: str | None = None,
    ) -> Segment:
        """A new version of segment ``id`` with what is given changed; ``history`` keeps every version.

        None for ``valid_from``, ``valid_to`` or ``expires_at`` takes that away. ``if_version``: only where that is its
        version now. Raises NotFound, VersionConflict, InvalidInput (also when the text no longer fits one segment).
        """
        scope = self._scope(namespace, None, None, None, None)
        changes: dict[str, Any] = {
            "category": None if category is None else arguments.category(category),
            "importance": None if importance is None else arguments.importance(importance),
            "metadata": None if metadata is None else arguments.metadata(metadata),
            "occurred_at": None if occurred_at is None else parse_time(occurred_at, "occurred_at"),
            "kind": None if kind is None else arguments.kind(kind),
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        for name, value in {"valid_from": valid_from, "valid_to": valid_to, "expires_at": expires_at}.items():
            if value is not UNCHANGED:
                changes[name] = parse_time(value, name)
        ttl = None if kind is None else KINDS[kind].ttl
        if ttl is not None and expires_at is UNCHANGED:
            changes["expires_at"] = datetime.now(UTC) + ttl
        expected = None if if_version is None else arguments.count("if_version", if_version, most=MOST_VERSIONS)
        pieces = None if text is None else self._cut(self._admitted(check_text(text, "text"), "text"), "text")
        if pieces is not None and len(pieces) > 1:
            mend = "delete it and add the new text instead"
            raise InvalidInput("text", f"is too long for one segment (needs {len(pieces)})", mend=mend)

        def plan() -> Plan:
            old = self._ledger.get(scope.namespace, id)
            if expected not in (None, old.version):
                mend = "get it, see what changed, and change that"
                raise VersionConflict("if_version", f"is {expected}, and it has version {old.version} now", mend=mend)
            arguments.interval(changes.get("valid_from", old.valid_from), changes.get("valid_to", old.valid_to))
            revision, encoded = redrafted(old, None if pieces is None else pieces[0], changes)
            return Plan(revisions=[revision], texts={content_key(encoded): encoded})

        return self._revise(scope.namespace, plan).segments[0]

    def _seen(self, scope: Scope, filters: Filter | None) -> Iterator[Segment]:
        """What searches see now in a scope, in the order it was written."""
        seqs, _ = self._ledger.select(scope, filters, NOW, -1)
        for start in range(0, len(seqs), BULK):
            yield from self._ledger.fetch(scope.namespace, seqs[start : start + BULK].tolist())

    def _revise(
        self, namespace: str, plan: Callable[[], Plan], *, distinct: bool = False, why: Why = UPDATE
    ) -> Revised:
        """Carry out a plan; made anew until nobody has changed a segment between our reading and our writing."""
        while True:
            made, projection = plan(), self._projection
            given = None if projection.recorded == "null" else projection.activations(namespace, made.texts)
            try:
                done = self._ledger.revise(
                    namespace,
                    made.revisions,
                    given,
                    projection.recorded,
                    relinks=made.relinks,
                    distinct=distinct,
                    why=why,
                )
            except EncoderMismatch:  # another process has just switched the store over: nothing was written
                self._follow()
                continue
            if done is not None:
                break
        self._projection.written(namespace, len(done.segments), pending=self._ledger.count_pending(namespace))
        return done

    def move_category(
        self, old: str | Sequence[str], new: str | Sequence[str] | None, *, namespace: str | None = None
    ) -> int:
        """Rename a category, move it, or merge it into another: what is in ``old`` and below it goes to ``new``.

        All of it or nothing. ``new`` None takes the category away. Each segment gets a new version; ``history`` keeps
        the old one. Returns how many segments there were. Raises InvalidInput, NotFound when there are none.
        """
        scope = self._scope(namespace, None, None, None, None)
        source, target = arguments.category(old, "old"), arguments.category(new, "new")
        if not source:
            raise InvalidInput("old", "is empty", mend="name the category to move")
        if target[: len(source)] == source:
            raise InvalidInput("new", "lies in the category that is to be moved", mend="move it somewhere else")
        within = parse_filter({"category": list(source)})

        def plan() -> Plan:
            seqs, _ = self._ledger.select(scope, within, None, -1)
            rows = self._ledger.fetch(scope.namespace, seqs.tolist())
            if not rows:
                raise nothing_in(source)
            if max(len(target) + len(row.category) - len(source) for row in rows) > arguments.DEEPEST_CATEGORY:
                mend = "move it to a shorter path"
                raise InvalidInput("new", f"puts a category over {arguments.DEEPEST_CATEGORY} levels deep", mend=mend)
            return Plan(
                revisions=[redrafted(row, None, {"category": target + row.category[len(source) :]})[0] for row in rows]
            )

        while True:
            try:
                return len(self._revise(scope.namespace, plan, why=Why(verb="move_category")).segments)
            except NotFound:  # one of them was deleted meanwhile: what is left is looked up again, if anything
                plan()

    def delete(self, id: str | Sequence[str], *, namespace: str | None = None) -> int:
        """Take one segment or several away: nothing finds them any more. Returns how many there were.

        Their history stays, ``undo`` brings them back, and ``as_of`` sees them as they were; ``erase`` is what removes.
        An id that is not there counts 0.
        """
        scope = self._scope(namespace, None, None, None, None)
        return self._ledger.delete(scope.namespace, arguments.ids(id))

    def delete_all(
        self,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """``delete`` everything in a scope, in one statement; returns how many segments it held.

        The scope must be said: raises InvalidInput when no argument is given.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        parsed = parse_filter(filters)
        named(scope, namespace, filters, "delete_all")
        return self._ledger.delete_scope(scope, parsed)

    def supersede(
        self,
        old: str,
        new: str,
        *,
        at: datetime | str | float | None = None,
        namespace: str | None = None,
    ) -> Operation:
        """State that segment ``new`` took the place of ``old``: what ``old`` says held until ``at``, what ``new`` says
        from then on. ``at`` None: when ``new`` is valid from, or happened, or was heard.

        Searches find ``old`` only for ``valid_at`` before that, or with ``include_superseded``. Raises NotFound,
        InvalidInput.
        """
        space = self._scope(namespace, None, None, None, None).namespace
        given = parse_time(at, "at")
        done = self._revise(space, lambda: self._superseding(space, old, new, given), why=Why(verb="supersede"))
        return self._ledger.operation(space, done.operation)[0]

    def _superseding(self, space: str, old: str, new: str, given: datetime | None) -> Plan:
        """What has ``new`` take the place of ``old``. Raises as ``supersede``."""
        before, after = (self._ledger.get(space, id) for id in (old, new))
        if before.id == after.id:
            raise InvalidInput("new", "is the segment itself", mend="update(id, text) gives it a new version")
        moment = given or after.valid_from or after.time
        if before.valid_from is not None and before.valid_from >= moment:
            problem = f"the old segment holds only from {before.valid_from} on, which is not before {moment}"
            raise InvalidInput("at", problem, mend="say since when the new one holds: at=")
        made = Plan(relinks=[Relink(source=after.id, target=before.id, kind="supersedes", weight=1.0)])
        if before.valid_to is None or before.valid_to > moment:
            made.revisions.append(redrafted(before, None, {"valid_to": moment})[0])
        if after.valid_from is None and (after.valid_to is None or after.valid_to > moment):
            made.revisions.append(redrafted(after, None, {"valid_from": moment})[0])
        return made

    # What was done, and taking it back

    def history(self, id: str, *, namespace: str | None = None) -> list[Event]:
        """What became of a segment, oldest first; of an erased one only that it was. Raises NotFound."""
        return self._ledger.history(self._scope(namespace, None, None, None, None).namespace, id)

    def operations(
        self, id: str | None = None, *, limit: int = 100, before: str | None = None, namespace: str | None = None
    ) -> list[Operation]:
        """What changed the memory, or one segment, the last first; ``before`` the last id of a page gives the next.

        What is counted again (``repeats``), read, or made of texts (vectors, indexes) is no change.
        """
        scope = self._scope(namespace, None, None, None, None)
        return self._ledger.operations(
            scope.namespace, id, limit=arguments.count("limit", limit, most=100_000), before=before
        )

    def undo(self, operation: str, *, namespace: str | None = None) -> Operation:
        """Take back an operation: what it changed says again what it said before. That is an operation too, and can be
        undone.

        Raises NotFound, and NotUndoable when something has changed since, or the operation removed what that would
        need; then nothing was changed.
        """
        space = self._scope(namespace, None, None, None, None).namespace
        known, changes, relinks = self._ledger.operation(space, operation)
        if known.verb in FINAL:
            raise NotUndoable("operation", f"this {known.verb} cannot be undone", mend=FINAL[known.verb])
        if known.undone_by is not None:
            mend = f"undo({known.undone_by!r}) does it again"
            raise NotUndoable("operation", f"was taken back already, by {known.undone_by}", mend=mend)
        if self._ledger.forgotten(space, operation):
            problem = "a segment it linked was pruned or erased since, and with it what is known of its links before"
            raise NotUndoable("operation", problem, mend="link() and unlink() have them as they shall be")
        first: dict[str, int | None] = {}
        last: dict[str, int | None] = {}
        for id, before, after in changes:
            first.setdefault(id, before)
            last[id] = after

        def plan() -> Plan:
            versions = self._ledger.versions(space, list(first))
            targets = {id: before for id, before in first.items() if before != last[id]}
            for id, before in targets.items():
                self._as_left(space, id, versions.get(id, []), before, last[id])
            return Plan(revisions=self._saying(space, versions, targets), relinks=relinks)

        done = self._revise(space, plan, distinct=True, why=Why(verb="undo", undoes=known.id))
        return self._ledger.operation(space, done.operation)[0]

    def _as_left(
        self, namespace: str, id: str, versions: Sequence[Segment], before: int | None, after: int | None
    ) -> None:
        """Raises NotUndoable where a segment, of which these are all versions, is not as an operation left it."""
        if not versions:
            raise NotUndoable("operation", f"segment {id} was erased since", mend=FINAL["erase"])
        now = versions[-1]
        if (now.ended_at is None) != (after is not None) or now.version != (before if after is None else after):
            later = self._ledger.operations(namespace, id, limit=1)
            by = f" by {later[0].id} ({later[0].verb})" if later else ""
            raise NotUndoable("operation", f"segment {id} was changed since{by}", mend="undo what came after it first")

    def _saying(
        self, namespace: str, versions: Mapping[str, Sequence[Segment]], targets: Mapping[str, int | None]
    ) -> list[Revision]:
        """What has segments, of which these are all ``versions``, say what the target version of each said, None:
        nothing."""
        said = {
            id: version
            for id, target in targets.items()
            for version in versions[id]
            if target is not None and version.version == target
        }
        known = self._ledger.identities(namespace, [version.seq for version in said.values()])
        return [
            Revision(
                id=id,
                version=versions[id][-1].version,
                draft=draft_of(said[id], known[said[id].seq]) if id in said else None,
                ended=versions[id][-1].ended_at is not None,
            )
            for id in targets
        ]

    def restore(
        self,
        as_of: datetime | str | float,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
    ) -> Operation:
        """Have everything in a scope say again what it said at ``as_of``, links included; ``undo`` takes that back.

        What was erased since stays erased. Raises InvalidInput.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        moment = parse_time(as_of, "as_of")
        if moment is None or moment > datetime.now(UTC):
            raise InvalidInput("as_of", "is not in the past", mend="name the time to go back to")
        whole = scope == Scope(namespace=scope.namespace)

        def plan() -> Plan:
            with self._ledger.reading():
                then, now = (
                    {row.id: row for row in self._ledger.fetch(scope.namespace, seqs.tolist())}
                    for seqs in (
                        self._ledger.select(scope, EVERY_STATE, AsOf(known=moment, superseded=True), -1)[0],
                        self._ledger.select(scope, None, None, -1)[0],
                    )
                )
                differing = [
                    id
                    for id in {**then, **now}
                    if id not in then or id not in now or then[id].version != now[id].version
                ]
                versions = self._ledger.versions(scope.namespace, differing)
                relinks = self._ledger.relinked(scope.namespace, moment)
            held = {**then, **now}
            targets = {id: then[id].version if id in then else None for id in differing}
            return Plan(
                revisions=self._saying(scope.namespace, versions, targets),
                relinks=[each for each in relinks if whole or (each.source in held and each.target in held)],
            )

        why = Why(verb="restore", detail={"as_of": moment.isoformat()})
        done = self._revise(scope.namespace, plan, distinct=True, why=why)
        return self._ledger.operation(scope.namespace, done.operation)[0]


def named(scope: Scope, namespace: str | None, filters: object, verb: str) -> None:
    """Raises InvalidInput where nothing says what ``verb`` shall remove."""
    if namespace is None and not filters and scope == Scope(namespace=scope.namespace):
        mend = "say what: user_id=, agent_id=, run_id=, session=, filters=, or namespace= for all of it"
        raise InvalidInput("scope", f"{verb}() would remove a whole namespace nobody named", mend=mend)


def nothing_in(category: tuple[str, ...]) -> NotFound:
    """That a category is empty."""
    mend = "memspan tree, or memory.tree(), lists the categories"
    return NotFound(f"nothing is in the category {' / '.join(category)!r}", mend=mend)
