"""``Pruning``: the part of ``Memory`` by which what has faded goes, into an archive, and comes back.

What goes is whole in a cube, and the cube on the disk, before anything is removed. Whatever is written of a segment
while that is made keeps it: then all is looked at again.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from memspan import archives, arguments
from memspan.activations.arena import sync_directory
from memspan.errors import InvalidInput, NotFound, NotUndoable
from memspan.exporting import export
from memspan.filtering import parse_filter
from memspan.forgetting import DAY, ForgettingCurve, curve_named, strength
from memspan.importing import Import
from memspan.kinds import KINDS
from memspan.ledger.base import Seqs, Why
from memspan.ledger.rows import uuid7
from memspan.records import Filter, Junction, Operation, Scope, Segment
from memspan.reports import Exported, Fading, Pruned
from memspan.revising import Revising
from memspan.scrubbing import PRUNED
from memspan.segmenting import shown, summary
from memspan.views.base import Progress

IMPORTANT = 0.9  # from which a segment stays however weak it is
CUBE = archives.named("cube")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """Which segments go: of these ``kinds``, weaker than ``below`` by ``curve`` and older than ``age`` days; and what
    has expired, of any kind but core where no ``kinds`` were named."""

    curve: ForgettingCurve
    below: float
    age: float
    kinds: tuple[str, ...] | None

    @property
    def fading(self) -> tuple[str, ...]:
        return self.kinds or tuple(name for name, kind in KINDS.items() if kind.prunable)

    @property
    def expiring(self) -> tuple[str, ...]:
        return self.kinds or tuple(name for name, kind in KINDS.items() if not kind.always)


class Pruning(Revising):
    """An open store in which memories fade."""

    def prune(
        self,
        *,
        below: float | None = None,
        older_than: timedelta | float | None = None,
        kinds: str | Sequence[str] | None = None,
        curve: str = "ebbinghaus",
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        dry_run: bool = True,
        archive: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Pruned:
        """Tell what has faded or expired in a scope; with ``dry_run=False`` remove it, after all of it was archived.

        What goes: segments whose strength by ``curve`` ("ebbinghaus" or "fsrs") is less than ``below`` (None: 0.05, by
        fsrs 0.5) and that were heard more than ``older_than`` ago (a timedelta, or days); and what has expired, however
        strong. What stays: core memory; procedural memory unless ``kinds`` names it; what is at least 0.9 important, or
        was of use by ``feedback``, unless it has expired; what is quarantined; and the parts of a document of which
        another part stays.

        Versions, links, use and judgements go into a cube: the new file ``archive``, or else one in the directory
        "pruned" of the store. ``undo`` of the operation brings them back as long as the cube lies there. No search, no
        ``as_of`` and no ``history`` finds what is removed. A cube is not encrypted: an encrypted store must be told
        where it may lie, as must one in memory. Raises InvalidInput, MissingExtra, StoreError; then nothing was
        removed.
        """
        arguments.flags(dry_run=dry_run)
        arguments.progress(progress)
        scope, parsed = self._scope(namespace, user_id, agent_id, run_id, session), parse_filter(filters)
        model = curve_named(curve)
        rule = _Rule(
            curve=model,
            below=model.faded if below is None else arguments.threshold(below, "below", "strength is in [0, 1]"),
            age=_days(older_than),
            kinds=_kinds(kinds),
        )
        key = str(uuid.UUID(bytes=uuid7()))
        target = None if dry_run else self._cube(archive, key)
        self._projection.write_uses()  # what was recalled a moment ago is strong
        try:
            while True:  # until nobody else has written of one of them between our reading and our writing
                with self._ledger.reading():
                    found = self._fading(scope, parsed, rule)
                    if target is None or not found.fading:
                        return replace(found, dry_run=dry_run)
                    ids = [each.id for each in found.fading]
                    stamps = self._ledger.stamps(scope.namespace, ids)
                    written = self._put_away(scope, ids, target, progress)
                why = Why(verb="prune", detail={"archive": self._told(target)}, operation=key)
                if self._ledger.prune(scope.namespace, stamps, why):
                    return replace(found, archive=str(target), bytes=written.bytes, operation=key, dry_run=False)
        finally:
            if target is not None:
                self._discard(scope.namespace, key, target)

    def undo(self, operation: str, *, namespace: str | None = None) -> Operation:
        """Take back an operation: what it changed says again what it said before. That is an operation too, and can be
        undone. What was pruned comes back from its archive, as it was.

        Raises NotFound, and NotUndoable when something has changed since, or what it would need is not there any more;
        then nothing was changed.
        """
        scope = self._scope(namespace, None, None, None, None)
        known, changes, _ = self._ledger.operation(scope.namespace, operation)
        if known.verb != "prune":
            return super().undo(operation, namespace=namespace)
        ids = [each.id for each in changes]
        if len(self._ledger.stamps(scope.namespace, ids)) == len(ids):  # fewer: it was interrupted, and goes on
            mend = "operations() tells what came after it; undo that"
            raise NotUndoable("operation", f"was taken back already, by {known.undone_by or 'an import'}", mend=mend)
        file = Path(known.detail["archive"]) if self.path is None else self.path / known.detail["archive"]
        if not file.is_file():
            problem = f"what was pruned is not at {file} any more"
            raise NotUndoable("operation", problem, mend="put it there again, or import it from where it is now")
        taking = Import(self._ledger, self._projection, file, CUBE, scope, self._cut, None)
        done = taking.run(revive=True, dry_run=False, progress=None, why=Why(verb="undo", undoes=known.id))
        self._projection.settle(scope.namespace)
        own = self.path is not None and file.parent == self.path / PRUNED
        if own and len(self._ledger.stamps(scope.namespace, ids)) == len(ids):
            file.unlink()  # all of it is here again
        if done.operation is None:
            problem = "all that was pruned was said again since"
            raise NotUndoable("operation", problem, mend="delete that first, if it shall be what it was")
        return self._ledger.operation(scope.namespace, done.operation)[0]

    def _fading(self, scope: Scope, filters: Filter | None, rule: _Rule) -> Pruned:
        """What goes by the rule now, and what stays although it is weak."""
        seqs, _ = self._ledger.select(scope, filters, None, -1)
        known = self._ledger.standing(scope.namespace, seqs.tolist())
        moment = time.time() * 1e6
        left = strength(known, moment, rule.curve)
        now = datetime.fromtimestamp(moment / 1e6, UTC)
        kinds = np.array(known.kinds, object)
        out = np.isin(seqs, self._where(scope, filters, "expires_at", "lte", now)) & np.isin(kinds, rule.expiring)
        weak = (left < rule.below) & (known.stored_at < moment - rule.age * DAY) & np.isin(kinds, rule.fading) & ~out
        held = np.isin(seqs, self._where(scope, filters, "state", "eq", "quarantined"))
        out, weak = out & ~held, weak & ~held
        important = weak & (known.importance >= IMPORTANT)
        first = np.flatnonzero(out | (weak & ~important))
        first = first[np.lexsort((seqs[first], left[first], ~out[first]))]
        rows = self._ledger.fetch(scope.namespace, seqs[first].tolist())
        found = [(row, _fade(row, bool(out[at]), float(left[at]))) for row, at in zip(rows, first, strict=True)]
        useful = {said.id for said in self._ledger.judgements(scope.namespace) if said.useful}
        going = [(row, each) for row, each in found if each.reason == "expired" or each.id not in useful]
        torn = self._torn(scope.namespace, [row for row, _ in going])
        fading = tuple(each for row, each in going if row.document_id not in torn)
        kept = {
            "important": int(important.sum()),
            "useful": len(found) - len(going),
            "document": len(going) - len(fading),
        }
        return Pruned(
            namespace=scope.namespace,
            curve=rule.curve.name,
            below=rule.below,
            segments=len(seqs),
            fading=fading,
            kept={why: count for why, count in kept.items() if count},
        )

    def _where(self, scope: Scope, filters: Filter | None, field: str, operator: str, value: object) -> Seqs:
        """The rows in scope of which this holds too."""
        also = parse_filter({field: {operator: value}})
        both = [part for part in (filters, also) if part is not None]
        return self._ledger.select(scope, Junction(kind="AND", parts=both), None, -1)[0]

    def _torn(self, namespace: str, rows: Sequence[Segment]) -> set[str | None]:
        """The documents that would lose some of their segments and not all."""
        parts = Counter(row.document_id for row in rows if row.document_id is not None)
        return {id for id, count in parts.items() if count < len(self._ledger.unchanged(namespace, id) or ())}

    def _cube(self, given: str | os.PathLike[str] | None, operation: str) -> Path:
        """Where the archive of an operation shall stand. Raises InvalidInput where something does already."""
        if given is None:
            if self.path is None or self._ledger.keys is not None:
                why = (
                    f"the store is {self.where}, no directory"
                    if self.path is None
                    else "a cube is not encrypted as this store is"
                )
                mend = "name a file, where it may lie in clear: archive='pruned.memspan'"
                raise InvalidInput("archive", f"is needed: {why}", mend=mend)
            return self.path / PRUNED / f"{operation}.memspan"
        target = arguments.path(given)
        if target.suffix.lower() not in CUBE.suffixes:
            raise InvalidInput("archive", f"{target.name!r} is no name of a cube", mend="end it in .memspan")
        if target.exists():
            raise InvalidInput("archive", f"{target} is there already", mend="name another file, so that both stay")
        return target

    def _told(self, target: Path) -> str:
        """How the log calls an archive: one in the store by its place there, for a store may be moved."""
        own = self.path is not None and target.is_relative_to(self.path)
        return target.relative_to(self.path or target).as_posix() if own else str(target)

    def _put_away(self, scope: Scope, ids: Sequence[str], target: Path, progress: Progress | None) -> Exported:
        """Write all there is of these segments into a cube, safe on the disk when this returns."""
        written = export(
            self._ledger,
            Scope(namespace=scope.namespace),
            None,
            target,
            CUBE,
            history=True,
            compat=False,
            key=None,
            recorded=self._recorded,
            about={"store_id": self._ledger.value("store_id"), "schema": self._ledger.counts()["schema"]},
            progress=progress,
            ids=ids,
        )
        sync_directory(target.parent)
        return written

    def _discard(self, namespace: str, operation: str, target: Path) -> None:
        """Remove an archive where the operation did not remove what is in it; else it stays, whatever came after."""
        try:
            self._ledger.operation(namespace, operation)
        except NotFound:
            target.unlink(missing_ok=True)


def _fade(row: Segment, expired: bool, left: float) -> Fading:
    return Fading(
        id=row.id,
        kind=row.kind,
        reason="expired" if expired else "faded",
        strength=left,
        time=row.time,
        about=summary(row.text),
    )


def _days(age: object) -> float:
    """Days, from a timedelta or a number of them; None is none."""
    if age is None:
        return 0.0
    days = age / timedelta(days=1) if isinstance(age, timedelta) else arguments.number("older_than", age)
    if days < 0:
        raise InvalidInput("older_than", f"{shown(age)} lies in the future", mend="give a timedelta, or days")
    return days


def _kinds(given: object) -> tuple[str, ...] | None:
    """Kinds that can fade, one or several; None where none was named."""
    if given is None:
        return None
    several = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple, set)) else ()
    fading = [name for name, kind in KINDS.items() if not kind.always]
    if not several or any(kind not in fading for kind in several):
        raise InvalidInput("kinds", f"{shown(given)} names no kind that fades", mend=f"use {', '.join(fading)}")
    return several
