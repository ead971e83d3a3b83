"""``Consolidating``: the part of ``Memory`` that puts in order what it holds, as sleep does.

What was said again makes way for the last telling of it, sessions are summed up, indexes are compacted. Nothing is lost
by it: what makes way is only out of sight, and comes back by ``undo``. Of a summary only the places of its sentences
are kept, so it never holds a word that the memory does not, and no search can find it instead of what was said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from memspan import arguments
from memspan.drafting import redrafted
from memspan.duplicates import survivors
from memspan.errors import BudgetTooSmall
from memspan.filtering import parse_filter
from memspan.ledger.base import DUPLICATE, Relink, Why
from memspan.records import NOW, Scope, Segment
from memspan.reports import Quote, Slept, Summary
from memspan.revising import Plan, Revising
from memspan.segmenting import Tokenizer, WordTokenizer, tokenizer_of
from memspan.summarising import Background, Sentence, quoted, sentences_of, summarise
from memspan.views.base import Progress

TOGETHER = 512  # segments that make way in one transaction
COMPARED = 4_096  # of the latest rows of a namespace, whose words tell what a session is about from what all are
SESSION_BUDGET = 100  # words and marks of the summary of a session
MOST_TOKENS = 1_000_000

Session = tuple[str | None, str | None, str | None, str]
"""(user_id, agent_id, run_id, session)"""


class Consolidating(Revising):
    """An open store whose content can be consolidated."""

    def sleep(self, *, namespace: str | None = None, dry_run: bool = False, progress: Progress | None = None) -> Slept:
        """Put a namespace in order: near-duplicates make way, sessions are summed up, every tail is compacted.

        A segment makes way where a later one, of the same speaker in the same scope, says all that it says (see
        ``memspan.duplicates``): it gets the state "merged", which searches pass over, and a link "duplicate" to that
        one. ``repetitions`` lists them, ``include_superseded`` shows them, ``undo(slept.operation)`` brings them back.
        ``dry_run`` only tells. It can be interrupted at any time, and goes on when called again; called again after
        that it does nothing. Raises InvalidInput, StoreError.
        """
        arguments.flags(dry_run=dry_run)
        arguments.progress(progress)
        scope = self._scope(namespace, None, None, None, None)
        tell = progress or (lambda done, total, what: None)
        tell(0, 0, "reading")
        rows = list(self._seen(scope, None))
        later = survivors(rows)
        pairs = [(rows[at], rows[to]) for at, to in enumerate(later.tolist()) if to != at]
        operation = None if dry_run else self._merge(scope.namespace, pairs, tell)
        gone = {old.id for old, _ in pairs}
        sessions = _sessions(row for row in rows if row.id not in gone)
        known = self._summaries(scope.namespace)
        stale = [session for session, said in sessions.items() if known.get(_key(session), ("",))[0] != _digest(said)]
        if not dry_run and (stale or len(known) != len(sessions)):
            self._sum_up(scope.namespace, sessions, known, stale, tell)
        return Slept(
            merged=len(pairs),
            kept=len({new.id for _, new in pairs}),
            duplicates=tuple((old.id, new.id) for old, new in pairs),
            summaries=len(stale),
            sessions=len(sessions),
            compacted=() if dry_run else tuple(self.compact(progress=progress)["rewritten"]),
            operation=operation,
            dry_run=dry_run,
        )

    def _merge(self, namespace: str, pairs: Sequence[tuple[Segment, Segment]], tell: Progress) -> str | None:
        """Have the first of each pair make way for the second; the operation, None where there was nothing to do."""
        operation: str | None = None
        for start in range(0, len(pairs), TOGETHER):
            tell(start, len(pairs), "merging")

            def plan(batch: Sequence[tuple[Segment, Segment]] = pairs[start : start + TOGETHER]) -> Plan:
                made = Plan()
                seqs = sorted({row.seq for pair in batch for row in pair})
                current = {row.seq for row in self._ledger.fetch(namespace, seqs) if row.ended_at is None}
                for old, new in batch:
                    if {old.seq, new.seq} <= current:  # neither has changed since they were compared
                        made.revisions.append(redrafted(old, None, {"state": "merged"})[0])
                        made.relinks.append(Relink(source=old.id, target=new.id, kind=DUPLICATE, weight=1.0))
                return made

            if plan().revisions:
                why = Why(verb="sleep", operation=operation)
                operation = self._revise(namespace, plan, why=why).operation
        return operation

    def repetitions(self, id: str, *, namespace: str | None = None) -> list[Segment]:
        """What made way for segment ``id`` because that says all it says, by when it was said: the times, sessions and
        metadata of each telling but the last. Raises NotFound."""
        space = self._scope(namespace, None, None, None, None).namespace
        found: list[Segment] = []
        reached = [self._ledger.get(space, id).seq]
        while reached:  # what made way for this one had others make way for it before
            links = self._ledger.links(space, reached)
            said = {link.source for link in links if link.kind == DUPLICATE and link.target in reached}
            fresh = sorted(said - {row.seq for row in found})
            found += [row for row in self._ledger.fetch(space, fresh) if row.state == "merged"]
            reached = fresh
        return sorted(found, key=lambda row: (row.time, row.seq))

    # Summaries

    def summary(
        self,
        *,
        budget: int = 200,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
    ) -> Summary:
        """What a session, or everything in scope, is about: its own sentences, at most ``budget`` tokens as a whole.

        Of several sessions each is summed up first, which ``sleep`` has done already where nothing came since, and then
        the sentences of those. Texts without a session stand for themselves. Nothing in scope gives an empty summary.
        Raises BudgetTooSmall, InvalidInput, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        most = arguments.count("budget", budget, most=MOST_TOKENS)
        counter = self._tokenizer if tokenizer is None else tokenizer_of(tokenizer)
        rows = list(self._seen(scope, parse_filter(filters)))
        sessions = _sessions(rows)
        background = self._background(scope.namespace)
        if len(sessions) < 2:
            found = sentences_of(rows)
        else:
            known = self._summaries(scope.namespace)
            found = sentences_of(row for row in rows if row.session is None)
            for each, said in sessions.items():
                digest, quotes = known.get(_key(each), ("", ()))
                found += _cited(said, quotes) if digest == _digest(said) else _best(said, background)
            found.sort(key=lambda each: (each.segment.time, each.segment.seq, each.start))
        return summarise(
            found,
            background,
            budget=most,
            tokenizer=counter,
            segments=len(rows),
            sessions=len(sessions),
            dated=len(sessions) > 1,
        )

    def _sum_up(
        self,
        namespace: str,
        sessions: Mapping[Session, Sequence[Segment]],
        known: Mapping[str, tuple[str, tuple[Quote, ...]]],
        stale: Sequence[Session],
        tell: Progress,
    ) -> None:
        """Keep the places of the best sentences of each session, and of no others."""
        background = self._background(namespace)
        made = {_key(session): known[_key(session)] for session in sessions if _key(session) in known}
        for done, session in enumerate(stale):
            tell(done, len(stale), "summing up")
            best = _best(sessions[session], background)
            quotes = tuple(Quote(id=each.segment.id, start=each.start, end=each.end) for each in best)
            made[_key(session)] = _digest(sessions[session]), quotes
        plain = {
            key: [digest, [[each.id, each.start, each.end] for each in quotes]]
            for key, (digest, quotes) in sorted(made.items())
        }
        self._ledger.put_values({_place(namespace): json.dumps(plain)}, replace=True)

    def _summaries(self, namespace: str) -> dict[str, tuple[str, tuple[Quote, ...]]]:
        """By session: a digest of the segments that were summed up, and the places of the sentences chosen."""
        raw = json.loads(self._ledger.value(_place(namespace)) or "{}")
        return {
            key: (digest, tuple(Quote(id=id, start=start, end=end) for id, start, end in quotes))
            for key, (digest, quotes) in raw.items()
        }

    def _background(self, namespace: str) -> Background:
        seqs, _ = self._ledger.select(Scope(namespace=namespace), None, NOW, -1)
        rows = self._ledger.fetch(namespace, seqs[-COMPARED:].tolist())
        loose = [row for row in rows if row.session is None]
        return Background.of([*_sessions(rows).values(), *([loose] if loose else [])])


def _sessions(rows: Iterator[Segment] | Sequence[Segment]) -> dict[Session, list[Segment]]:
    """The segments of each session, in their order there."""
    found: dict[Session, list[Segment]] = {}
    for row in rows:
        if row.session is not None:
            found.setdefault((row.user_id, row.agent_id, row.run_id, row.session), []).append(row)
    return {session: sorted(said, key=lambda row: (row.position, row.seq)) for session, said in found.items()}


def _best(said: Sequence[Segment], background: Background) -> list[Sentence]:
    """The sentences of the summary of a session; none where each is longer than that may be."""
    found = sentences_of(said)
    try:
        made = summarise(
            found, background, budget=SESSION_BUDGET, tokenizer=WordTokenizer(), segments=len(said), sessions=1
        )
    except BudgetTooSmall:
        return []
    return _cited(said, made.citations)


def _cited(said: Sequence[Segment], quotes: Sequence[Quote]) -> list[Sentence]:
    return quoted(quotes, {row.id: row for row in said}.get)


def _digest(said: Sequence[Segment]) -> str:
    return sha256(repr([(row.id, row.version) for row in said]).encode()).hexdigest()[:32]


def _key(session: Session) -> str:
    return sha256(repr(session).encode()).hexdigest()[:32]


def _place(namespace: str) -> str:
    return f"summaries:{namespace}"
