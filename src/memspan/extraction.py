"""``Extracting``: the part of ``Memory`` in which a language model writes facts and summaries beside what was said.

It runs when it is asked to and never in a write. What was said is read and never changed, merged or removed: what the
model wrote becomes segments of the source class "derived", each with the passages it cites. A part of a session is
asked about once for each version of it; what became of that is kept, and a failure is final until the part changes or
somebody asks for it again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final, Literal

from memspan import arguments, llm
from memspan.drafting import Batch, Common, hashed, redrafted
from memspan.errors import InvalidInput, NotFound
from memspan.facts import Budget, Extracted, Job, Meter, Statement, ask, parts, question
from memspan.filtering import parse_filter
from memspan.ledger.base import Revision, Why, cites
from memspan.llm import FORM, LLM, ChatEndpoint
from memspan.records import NOW, Scope, Segment
from memspan.revising import Plan, Revising
from memspan.views.base import Progress

ATTEMPTS: Final = 3  # of one job
SILENT: Final = 2  # calls in a row that the server did not answer, after which it is left alone
READ: Final = 4_096  # rows read at once

_SAID: Final = parse_filter({"source": {"ne": "derived"}})
_DERIVED: Final = parse_filter({"source": "derived"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Segments that one call is about."""

    scope: Scope
    key: str
    rows: Sequence[Segment]

    @property
    def version(self) -> str:
        """Names the versions of its segments, and says nothing of what they say."""
        return hashed(*(f"{row.id} {row.version}" for row in self.rows)).hex()


@dataclass(slots=True, kw_only=True)
class _Run:
    """What a run has done so far."""

    meter: Meter
    ids: list[str] = field(default_factory=list)
    ended: int = 0
    jobs: list[Job] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    left: int = 0
    silent: int = 0
    stopped: Literal["budget", "server"] | None = None
    problem: str | None = None
    operations: list[str] = field(default_factory=list)

    def told(self) -> Extracted:
        return Extracted(
            ids=tuple(self.ids),
            ended=self.ended,
            jobs=tuple(self.jobs),
            dropped=dict(self.dropped),
            left=self.left,
            stopped=self.stopped,
            problem=self.problem,
            calls=self.meter.calls,
            tokens_in=self.meter.tokens_in,
            tokens_out=self.meter.tokens_out,
            operations=tuple(self.operations),
        )


class Extracting(Revising):
    """An open store in which a language model can write."""

    def extract(
        self,
        llm: str | LLM | None = "auto",
        *,
        budget: Budget | None = None,
        again: bool = False,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        progress: Progress | None = None,
    ) -> Extracted:
        """Have a language model write facts and a summary of each session and document in scope that has changed.

        ``llm``: ``"auto"`` for the configured one, ``"http:MODEL@http://HOST:PORT/v1"``, an LLM, or None for no model:
        then only what does not hold any more is taken away. Each statement must quote its source, and its names,
        numbers, dates and denials must be there; what does not hold is dropped and counted. No call is made that may
        cost more than ``budget``. ``again`` also asks about what failed or was refused before.

        What was said is never changed. A failing server or model is no error here: ``jobs`` and ``stopped`` tell of it.
        Raises InvalidInput, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        arguments.flags(again=again)
        arguments.progress(progress)
        if budget is not None and not isinstance(budget, Budget):
            raise InvalidInput("budget", f"is a {type(budget).__name__}", mend="give a memspan.facts.Budget")
        model = self._language_model(llm)
        run = _Run(meter=Meter(budget or Budget()))
        self._end_unheld(scope, run)
        if model is not None:
            try:
                self._ask_about(scope, model, run, again, progress)
            finally:
                if isinstance(model, ChatEndpoint) and model is not llm:
                    model.close()
        return run.told()

    def _ask_about(self, scope: Scope, model: LLM, run: _Run, again: bool, progress: Progress | None) -> None:
        every = list(self._parts(scope, run.meter.budget))
        for done, part in enumerate(every, 1):
            self._one(model, part, run, again)
            if progress is not None:
                progress(done, len(every), "writing facts")
        if not run.left:
            self._end_others(scope, {part.key for part in every}, run)

    def _language_model(self, given: str | LLM | None) -> LLM | None:
        if given != "auto":
            return llm.make(given)
        if (model := llm.make(self._configured_llm)) is None:
            raise InvalidInput("llm", "none is configured", mend=f"give llm={FORM!r} or set MEMSPAN_LLM")
        return model

    def _one(self, model: LLM, part: _Part, run: _Run, again: bool) -> None:
        """Ask about a part, unless that is settled, or the run has come to its end."""
        earlier = self._job(part)
        known = earlier if earlier is not None and earlier.version == part.version else None
        if known is not None and (known.state == "done" or (known.state != "waiting" and not again)):
            run.jobs += [] if known.state == "done" else [known]
            return
        if run.stopped is None and not run.meter.allows(question(part.rows)):
            run.stopped = "budget"
        if run.stopped is not None:
            run.left += 1
            return
        tried = known.attempts if known is not None and known.state == "waiting" else 0
        job = Job(key=part.key, version=part.version, state="waiting", reason="unanswered", attempts=tried + 1)
        self._put_job(job)  # first, so that a part that ends the process is not asked about for ever
        reply = ask(model, part.rows, run.meter)
        run.dropped.update(reply.dropped)
        run.problem = reply.problem or run.problem
        if reply.state == "done":
            try:
                self._keep(model, part, reply.statements, run, first=earlier is None)
            except NotFound:  # a source was taken away while the model wrote: nothing was kept, the next run asks anew
                run.left += 1
                return
        state = "failed" if reply.state == "waiting" and job.attempts == ATTEMPTS else reply.state
        run.jobs.append(replace(job, state=state, reason=reply.reason))
        self._put_job(run.jobs[-1])
        run.silent = run.silent + 1 if reply.reason == "unanswered" else 0
        if run.silent == SILENT:
            run.stopped = "server"

    def _job(self, part: _Part) -> Job | None:
        """What became of a part, as it is now or was."""
        raw = self._ledger.value(f"extraction {part.key}")
        return None if raw is None else Job(**json.loads(raw), key=part.key)

    def _put_job(self, job: Job) -> None:
        told = {name: value for name, value in asdict(job).items() if name != "key"}
        self._ledger.put_values({f"extraction {job.key}": json.dumps(told)}, replace=True)

    # Reading

    def _parts(self, scope: Scope, budget: Budget) -> Iterator[_Part]:
        """What is in sight in ``scope`` and was said, by sessions and documents, in parts that a call can read."""
        rows = sorted(self._rows(scope, _SAID), key=lambda row: (*map(str, _group(row)), row.position, row.seq))
        for group, several in groupby(rows, key=_group):
            user_id, agent_id, run_id, session, _ = group
            whose = replace(scope, user_id=user_id, agent_id=agent_id, run_id=run_id, session=session)
            for number, part in enumerate(parts(list(several), budget)):
                yield _Part(scope=whose, key=hashed(scope.namespace, *group, number).hex(), rows=part)

    def _rows(self, scope: Scope, filters: Any) -> list[Segment]:
        with self._ledger.reading():
            seqs, _ = self._ledger.select(scope, filters, NOW, -1)
            every = seqs.tolist()
            return [
                row
                for start in range(0, len(every), READ)
                for row in self._ledger.fetch(scope.namespace, every[start : start + READ])
            ]

    # Writing

    def _keep(self, model: LLM, part: _Part, statements: Sequence[Statement], run: _Run, *, first: bool) -> None:
        """Write what a model said of a part, and unless it is the ``first`` time, end what it said before and not now.
        Raises NotFound."""
        versions = {row.id: row.version for row in part.rows}
        common = Common(scope=part.scope, source="derived", kind="semantic")
        batch = Batch(self._cut, common, redactor=self._redactor)
        for statement in statements:
            sources = tuple(dict.fromkeys(cite.id for cite in statement.cites))
            told = _metadata(model, part, statement, versions)
            batch.derived(statement.text, sources, told, statement.occurred_at)
        why, kept = Why(verb="extract"), dict[str, Mapping[str, Any]]()
        if statements:
            added = self._write(part.scope, batch, why=why)
            kept = {id: draft.metadata for id, draft in zip(added.ids, batch.drafts, strict=True)}
            why = replace(why, operation=added.operation)
            run.ids += kept
            run.operations += [] if added.operation is None else [added.operation]
            first = first and not added.repeated
        if first:
            return
        of_part = parse_filter({"source": "derived", "job": part.key})

        def plan() -> Plan:
            rows = {row.id: row for row in self._rows(part.scope, of_part)}
            rows |= {id: self._ledger.get(part.scope.namespace, id) for id in kept}
            return Plan(
                revisions=[
                    redrafted(row, None, {"metadata": kept[id]})[0] if id in kept else _ending(row)
                    for id, row in rows.items()
                    if id not in kept or row.metadata != kept[id]
                ]
            )

        self._end(part.scope.namespace, plan, why, run)

    def _end_unheld(self, scope: Scope, run: _Run) -> None:
        """End what cites a passage that is not there any more, or not in sight."""

        def plan() -> Plan:
            derived = self._rows(scope, _DERIVED)
            cited = {id for row in derived for id in cites(row.metadata)}
            versions = self._ledger.versions(scope.namespace, sorted(cited))
            return Plan(revisions=[_ending(row) for row in derived if not _holds(row, versions)])

        self._end(scope.namespace, plan, Why(verb="extract"), run)

    def _end_others(self, scope: Scope, keys: set[str], run: _Run) -> None:
        """End what was written of parts that there are not any more, as others have taken their segments."""

        def plan() -> Plan:
            rows = self._rows(scope, _DERIVED)
            return Plan(revisions=[_ending(row) for row in rows if row.metadata.get("job", "") not in {"", *keys}])

        self._end(scope.namespace, plan, Why(verb="extract"), run)

    def _end(self, namespace: str, plan: Callable[[], Plan], why: Why, run: _Run) -> None:
        if not (first := plan()).revisions:
            return
        done = self._revise(namespace, plan, why=why)
        run.ended += len(first.revisions) - len(done.segments)
        if done.operation not in run.operations:
            run.operations.append(done.operation)


def _group(row: Segment) -> tuple[str | None, ...]:
    """Which conversation or document a segment is of."""
    document = row.document_id if row.role is None else None  # a long turn is a document too
    return (row.user_id, row.agent_id, row.run_id, row.session, document)


def _metadata(model: LLM, part: _Part, statement: Statement, versions: Mapping[str, int]) -> Mapping[str, Any]:
    cited = [{**asdict(cite), "version": versions[cite.id]} for cite in statement.cites]
    return {"what": statement.kind, "by": model.id, "job": part.key, "cites": cited}


def _ending(row: Segment) -> Revision:
    return Revision(id=row.id, version=row.version, draft=None)


def _holds(row: Segment, versions: Mapping[str, Sequence[Segment]]) -> bool:
    """Whether all that a derived segment cites still says so and is believed. What was merged into another still is."""
    now = datetime.now(UTC)
    listed = row.metadata.get("cites")
    for cite in listed if isinstance(listed, list) else []:
        every = versions.get(cite["id"], ()) if isinstance(cite, Mapping) and isinstance(cite.get("id"), str) else ()
        if not every or (last := every[-1]).ended_at is not None or last.state == "quarantined":
            return False
        if any(end is not None and end <= now for end in (last.valid_to, last.expires_at)):
            return False
        said = next((each for each in every if each.version == cite.get("version")), last)
        start, end = cite.get("start"), cite.get("end")
        passage = slice(start, end) if isinstance(start, int) and isinstance(end, int) else slice(None)
        if last.text[passage] != said.text[passage]:
            return False
    return True
