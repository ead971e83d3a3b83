"""``Conflicts``: the part of ``Memory`` that proposes what took the place of what, and takes decisions on that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from memspan import arguments
from memspan.conflicts import NEAR, compared, speakers
from memspan.errors import EncoderMismatch, InvalidInput
from memspan.filtering import parse_filter
from memspan.ledger.base import VERDICT, Relink, Why
from memspan.records import Filter, Operation, Scope, Segment
from memspan.reports import Conflict, Resolved
from memspan.revising import Plan, Revising
from memspan.segmenting import shown
from memspan.store import MOST_ROWS
from memspan.views.base import Selection, find_sorted

LIKELY = 0.5  # score from which a pair is proposed
SURE = 0.9  # and from which one is accepted without being looked at
TICK = timedelta(microseconds=1)

Policy = Literal["newer"] | Callable[[Conflict], bool | None]
"""What becomes of proposals: "newer" accepts each; a function says True (accept), False (reject) or None (leave)."""


class Conflicts(Revising):
    """An open store in which a later statement may turn out to have taken the place of an earlier one."""

    def conflicts(
        self,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 20,
        threshold: float = LIKELY,
        recent: int | None = None,
    ) -> list[Conflict]:
        """Pairs of statements of which the later may have taken the place of the earlier, best first, with reasons.

        Both are current and valid now, of one speaker (or one source, where nobody is named) and one ``user_id``,
        ``agent_id`` and ``run_id``. They are proposals: nothing changes until ``accept``; what was rejected comes again
        only where one of the two says something else by now. Up to 16,384 statements of one speaker all are compared,
        beyond that most. ``recent`` looks only for what the last so many segments replaced: seconds, not minutes, in
        a large memory. Raises EncoderMismatch where this memory has no encoder, InvalidInput.
        """
        scope, parsed = self._scope(namespace, user_id, agent_id, run_id, session), parse_filter(filters)
        most, least = arguments.count("limit", limit, most=100_000), arguments.threshold(threshold)
        last = None if recent is None else arguments.count("recent", recent, most=MOST_ROWS)
        return self._proposed(scope, parsed, least, last)[:most]

    def accept(self, older: str, newer: str, *, namespace: str | None = None) -> Operation:
        """Decide that ``newer`` took the place of ``older``: ``supersede``, and kept as a verdict. ``undo`` takes both
        back, and the pair is proposed again. Raises NotFound, InvalidInput."""
        space = self._scope(namespace, None, None, None, None).namespace
        return self._ledger.operation(space, self._accept(space, older, newer, Why(verb="accept")))[0]

    def reject(self, older: str, newer: str, *, namespace: str | None = None) -> Operation:
        """Decide that ``newer`` did not take the place of ``older``; the pair is not proposed again. ``undo`` takes
        that back. Raises NotFound, InvalidInput."""
        space = self._scope(namespace, None, None, None, None).namespace
        return self._ledger.operation(space, self._reject(space, older, newer, Why(verb="reject")))[0]

    def resolve(
        self,
        policy: Policy = "newer",
        *,
        threshold: float = SURE,
        dry_run: bool = True,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Resolved:
        """Decide every pair that scores at least ``threshold`` by a policy, best first: "newer" accepts it; a function
        of the Conflict answers True to accept, False to reject, None to leave it.

        Of several that would take the place of one statement the best does. With ``dry_run`` it only tells; else it is
        one operation, which ``undo`` takes back as a whole. Raises as ``conflicts``, and what the function raises, with
        what was decided before kept.
        """
        if policy != "newer" and not callable(policy):
            raise InvalidInput(
                "policy", f"there is no {shown(policy)}", mend="use 'newer', or a function of a Conflict"
            )
        arguments.flags(dry_run=dry_run)
        scope, parsed = self._scope(namespace, user_id, agent_id, run_id, session), parse_filter(filters)
        accepted, rejected, replaced = list[Conflict](), list[Conflict](), set[str]()
        operation: str | None = None
        for pair in self._proposed(scope, parsed, arguments.threshold(threshold)):
            if pair.older.id in replaced:
                continue
            verdict = policy(pair) if callable(policy) else True
            if verdict is None:
                continue
            decide = self._accept if verdict else self._reject
            if not dry_run:
                why = Why(verb="resolve", operation=operation)
                operation = decide(scope.namespace, pair.older.id, pair.newer.id, why)
            if verdict:
                replaced.add(pair.older.id)
            (accepted if verdict else rejected).append(pair)
        return Resolved(accepted=tuple(accepted), rejected=tuple(rejected), operation=operation, dry_run=bool(dry_run))

    def _accept(self, space: str, older: str, newer: str, why: Why) -> str:
        def plan() -> Plan:
            old, new = (self._ledger.get(space, id) for id in (older, newer))
            # of what was said at the same moment the later word counts, if by no more than that
            same = old.valid_from is not None and old.valid_from == new.time and new.valid_from is None
            made = self._superseding(space, older, newer, new.time + TICK if same else None)
            made.relinks.append(Relink(source=new.id, target=old.id, kind=VERDICT, weight=1.0))
            return made

        return self._revise(space, plan, why=why).operation

    def _reject(self, space: str, older: str, newer: str, why: Why) -> str:
        def plan() -> Plan:
            old, new = (self._ledger.get(space, id) for id in (older, newer))
            if old.id == new.id:
                raise InvalidInput("newer", "is the segment itself", mend="name the two of a pair")
            return Plan(relinks=[Relink(source=new.id, target=old.id, kind=VERDICT, weight=0.0)])

        return self._revise(space, plan, why=why).operation

    def _proposed(
        self, scope: Scope, filters: Filter | None, threshold: float, recent: int | None = None
    ) -> list[Conflict]:
        if self._nearest is None:
            mend = "open it with its encoder, or give it one: reencode(encoder='minilm')"
            raise EncoderMismatch("statements are compared by meaning, and this memory has no encoder", mend=mend)
        with self._ledger.reading():
            decided = {
                frozenset((verdict.older, verdict.newer)): verdict.at
                for verdict in self._ledger.verdicts(scope.namespace)
                if not verdict.accepted
            }
            found = [
                pair
                for pair in self._found(self._selections.of(scope, filters), recent)
                if pair.score >= threshold and not _stands(decided.get(frozenset((pair.older.id, pair.newer.id))), pair)
            ]
        return sorted(found, key=lambda pair: (-pair.score, -pair.newer.seq, -pair.older.seq))

    def _found(self, selection: Selection, recent: int | None) -> Iterator[Conflict]:
        """All that is found among the rows of a selection, one speaker after the other; only what the last
        ``recent`` of them say anew."""
        assert self._nearest is not None  # noqa: S101 - asked before
        rows = self._ledger.fetch(selection.namespace, selection.seqs.tolist())
        seqs = np.array([row.seq for row in rows], np.int64)
        since = 0 if recent is None or recent >= len(seqs) else seqs[-recent]
        for places in speakers(rows):
            within = selection.part(seqs[places])
            if not len(new := within.seqs[within.seqs >= since]):
                continue
            found, cosines = self._nearest(within, new, min(NEAR + 1, len(places)))
            involved = np.unique(np.concatenate([new, found[found >= 0]]))
            said = [rows[at] for at in places[np.isin(seqs[places], involved)].tolist()]
            near = np.full((len(said), found.shape[1]), -1)
            alike = np.zeros(near.shape, np.float32)
            asked, there = find_sorted(involved, new)[0], find_sorted(involved, found.ravel())
            near[asked], alike[asked] = np.where(there[1], there[0], -1).reshape(found.shape), cosines
            for pair in compared(said, near, alike):
                yield Conflict(older=said[pair.older], newer=said[pair.newer], reasons=pair.reasons, score=pair.score)


def _stands(decided: datetime | None, pair: Conflict) -> bool:
    """Whether a rejection holds: neither of the two has said something else since."""
    return decided is not None and max(_heard(pair.older), _heard(pair.newer)) <= decided


def _heard(segment: Segment) -> datetime:
    return segment.heard_at or segment.recorded_at
