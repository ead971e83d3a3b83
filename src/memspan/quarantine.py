"""``Quarantine``: the part of ``Memory`` by which some of it is believed less, or kept from being read."""

from __future__ import annotations

from collections.abc import Sequence

from memspan import arguments
from memspan.drafting import redrafted
from memspan.errors import InvalidInput
from memspan.ledger.base import Why
from memspan.records import State, Trust
from memspan.revising import Plan, Revising
from memspan.segmenting import check_text
from memspan.trust import trusted


class Quarantine(Revising):
    """An open store that tells what it is told by whom."""

    def quarantine(self, id: str | Sequence[str], reason: str | None = None, *, namespace: str | None = None) -> int:
        """Keep one segment or several from every search and context, without removing them; returns how many there
        were that were not so already.

        ``filters={"state": "quarantined"}`` finds them, ``release`` and ``undo`` bring them back. Their source loses
        trust meanwhile. ``reason`` is told by ``operations``, and stays where they are erased. Raises NotFound,
        InvalidInput, also where one was merged into another; then nothing was changed.
        """
        detail = {} if reason is None else {"reason": check_text(reason, "reason")}
        return self._stated(id, None, "quarantined", Why(verb="quarantine", detail=detail), namespace)

    def release(self, id: str | Sequence[str], *, namespace: str | None = None) -> int:
        """Have segments that were quarantined found again; returns how many there were. Raises NotFound, InvalidInput;
        then nothing was changed."""
        return self._stated(id, "quarantined", None, Why(verb="release"), namespace)

    def trust(self, *, namespace: str | None = None) -> list[Trust]:
        """Who said what a namespace holds, by class of source and agent, and how far each is to be believed, the most
        trusted first.

        Worked out anew each time from what is kept: what was of use or not (``feedback``), what was decided to be
        replaced by what another source said, and what is quarantined. See ``memspan.trust``.
        """
        space = self._scope(namespace, None, None, None, None).namespace
        found = [
            trusted(
                source,
                agent_id,
                segments=segments,
                useful=useful,
                rejected=rejected,
                contradicted=contradicted,
                quarantined=quarantined,
            )
            for source, agent_id, segments, useful, rejected, contradicted, quarantined in self._ledger.outcomes(space)
        ]
        return sorted(found, key=lambda each: (-each.trust, each.source, each.agent_id or ""))

    def _stated(
        self, id: str | Sequence[str], before: State | None, after: State | None, why: Why, namespace: str | None
    ) -> int:
        """Have segments that are in one state be in another; those that are in the other stay."""
        space = self._scope(namespace, None, None, None, None).namespace
        ids = dict.fromkeys(arguments.ids(id))

        def plan() -> Plan:
            rows = {row.id: row for row in (self._ledger.get(space, each) for each in ids)}
            for row in rows.values():
                if row.state not in (before, after):
                    mend = "name the segment it was merged into"
                    raise InvalidInput("id", f"segment {row.id} is {row.state}", mend=mend)
            return Plan(
                revisions=[redrafted(row, None, {"state": after})[0] for row in rows.values() if row.state != after]
            )

        if not plan().revisions:
            return 0
        return len(self._revise(space, plan, why=why).segments)
