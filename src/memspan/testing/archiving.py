"""What a ledger promises to archives: it gives all that it has, and takes it back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memspan.activations.tokens import Activation
from memspan.drafting import draft_of, identity_of
from memspan.errors import EncoderMismatch, NotFound
from memspan.ledger.base import VERDICT, Ledger, Reference, Relink, Restorable, Revision, Taking, Use, Why
from memspan.records import Edge, Judgement, Scope, Segment, Usage, Verdict
from memspan.testing.parts import activations_of, check, drafts, same, write

LATER = timedelta(seconds=1)


def restorable(segment: Segment, identity: bytes = b"", **changes: object) -> Restorable:
    """A version as an archive hands it over."""
    changed: Segment = replace(segment, **changes)  # type: ignore[arg-type]
    return Restorable(
        id=changed.id,
        draft=draft_of(changed, identity or identity_of(changed)),
        version=changed.version,
        recorded_at=changed.recorded_at,
        heard_at=changed.heard_at,
        ended_at=changed.ended_at,
        repeats=changed.repeats,
    )


def everything(ledger: Ledger, namespace: str = "default") -> Taking:
    """All that is in a namespace, as one batch."""
    seqs = ledger.archive(Scope(namespace=namespace), None, history=True).tolist()
    identities = ledger.identities(namespace, seqs)
    return Taking(
        filings=list(ledger.filings(namespace)),
        versions=[restorable(row, identities[row.seq]) for row in ledger.fetch(namespace, seqs)],
        references=list(ledger.references(namespace)),
    )


class ArchivingContract:
    """What a ledger promises to archives. ``ledger``: an empty one whose store keeps vectors, as for LedgerContract."""

    @pytest.fixture
    def ledger(self) -> Iterator[Ledger]:
        raise pytest.UsageError("override the fixture `ledger`")

    def _lived_in(self, ledger: Ledger) -> list[str]:
        ids = list(write(ledger, "one", "two", "three"))
        old = ledger.get("default", ids[0])
        batch = drafts("one, changed")
        ledger.revise("default", [Revision(id=old.id, version=1, draft=batch.drafts[0])], activations_of(batch))
        ledger.link("default", Edge(source=ids[0], target=ids[1], kind="reply", weight=0.5))
        ledger.judge("default", [Judgement(query="what?", id=ids[1], useful=True)])
        verdict = Relink(source=ids[1], target=ids[0], kind=VERDICT, weight=0.0)
        ledger.revise("default", [], {}, relinks=[verdict])
        ledger.used("default", {ids[1]: Use(times=2, at=datetime.now(UTC), relevance=0.7)})
        ledger.erase("default", [ids[2]])
        return ids

    def test_what_is_archived_is_restored_as_it_was(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        first = everything(ledger)
        done = ledger.restore("copy", first)
        same((done.added, done.there, done.links), (3, 0, 1))
        copied = everything(ledger, "copy")
        same([each.id for each in copied.versions], [each.id for each in first.versions])
        same(
            [(each.version, each.recorded_at, each.ended_at) for each in copied.versions],
            [(each.version, each.recorded_at, each.ended_at) for each in first.versions],
        )
        same(copied.references, first.references)
        same([event.text for event in ledger.history("copy", ids[0])], ["one", "one, changed"])
        same([event.event for event in ledger.history("copy", ids[2])], ["ERASE"])
        same(ledger.restore("copy", first).added, 0)
        same([problem for _, _, problem in ledger.problems() if problem], [])

    def test_versions_are_sorted_by_time_whatever_order_they_come_in(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        first = everything(ledger)
        for version in reversed(first.versions):
            ledger.restore("copy", Taking(versions=[version]))
        same([event.text for event in ledger.history("copy", ids[0])], ["one", "one, changed"])
        same(ledger.get("copy", ids[0]).text, "one, changed")
        same(len(ledger.listing(Scope(namespace="copy"), None, 10, None)), 2)

    def test_a_version_between_others_has_those_after_it_counted_anew(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        one, two = (row for row in everything(ledger).versions if row.id == ids[0])
        segment = ledger.get("default", ids[0])
        between = one.recorded_at + (two.recorded_at - one.recorded_at) / 2
        new = restorable(segment, text="said elsewhere", version=2, recorded_at=between, heard_at=between)
        done = ledger.restore("default", Taking(versions=[new]))
        same((done.added, done.conflicts), (1, {ids[0]}))
        told = [(event.version, event.text) for event in ledger.history("default", ids[0])]
        same(told, [(1, "one"), (2, "said elsewhere"), (3, "one, changed")])
        same([problem for _, _, problem in ledger.problems() if problem], [])

    def test_what_is_said_here_already_is_told_under_which_id(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        other = "01a21698-0000-7000-8000-000000000000"
        stranger = restorable(ledger.get("default", ids[1]), id=other)
        words: list[Reference] = [Judgement(query="which?", id=other, useful=False, at=datetime.now(UTC))]
        done = ledger.restore("default", Taking(versions=[stranger], references=words))
        same((done.added, done.there, done.same), (0, 1, {other: ids[1]}))
        same({each.query for each in ledger.judgements("default")}, {"what?", "which?"})

    def test_what_was_deleted_stays_so_unless_it_is_revived(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        rows = [row for row in everything(ledger).versions if row.id == ids[1]]
        ledger.erase("default", [ids[1]])
        same(ledger.restore("default", Taking(versions=rows)).deleted, 1)
        with pytest.raises(NotFound):
            ledger.get("default", ids[1])
        same(ledger.restore("default", Taking(versions=rows), revive=True).added, 1)
        same(ledger.get("default", ids[1]).text, "two")

    def test_pruning_removes_all_or_nothing_and_nothing_of_which_anything_was_written(self, ledger: Ledger) -> None:
        one, two, _ = self._lived_in(ledger)
        same(ledger.rows_of("default", [two, one, "no id"]).tolist(), [1, 2, 4])
        later = datetime.now(UTC)
        writes: dict[str, Callable[[], object]] = {
            "use": lambda: ledger.used("default", {one: Use(times=1, at=later, relevance=0.1)}),
            "a judgement": lambda: ledger.judge("default", [Judgement(query="who?", id=one, useful=True)]),
            "a link": lambda: ledger.link("default", Edge(source=two, target=one, kind="reply")),
            "a weight": lambda: ledger.link("default", Edge(source=two, target=one, kind="reply", weight=0.1)),
            "a repeat": lambda: write(ledger, "two"),
            "an end": lambda: ledger.delete("default", [two]),
        }
        for what, written in writes.items():
            stamps = ledger.stamps("default", [one, two, "no id"])
            same(sorted(stamps), sorted([one, two]))
            written()
            check(not ledger.prune("default", stamps, Why(verb="prune")), f"{what} was not seen")
            same(len(ledger.rows_of("default", [one, two])), 3)
        why = Why(verb="prune", detail={"archive": "there"}, operation="01a21698-0000-7000-8000-000000000001")
        check(ledger.prune("default", ledger.stamps("default", [one, two]), why), "nothing was written since")
        same(ledger.rows_of("default", [one, two]).tolist(), [])
        (last,) = ledger.operations("default", limit=1)
        same((last.id, last.verb, last.segments, last.detail), (why.operation, "prune", 2, {"archive": "there"}))
        same([problem for _, _, problem in ledger.problems() if problem], [])

    def test_of_two_statements_the_later_counts_and_use_is_the_most(self, ledger: Ledger) -> None:
        ids = self._lived_in(ledger)
        (edge,) = (each for each in ledger.references("default") if isinstance(each, Edge))
        (usage,) = (each for each in ledger.references("default") if isinstance(each, Usage))
        told: list[Reference] = [
            replace(edge, weight=1.0, at=(edge.at or datetime.now(UTC)) - LATER),
            Judgement(query="what?", id=ids[1], useful=False, at=datetime.now(UTC) + LATER),
            replace(usage, times=1, relevance=0.9),
            Verdict(older=ids[0], newer=ids[1], accepted=True, at=datetime.now(UTC) - LATER),
        ]
        ledger.restore("default", Taking(references=told))
        found = {type(each): each for each in ledger.references("default")}
        same(found[Edge], edge)
        same(found[Usage], replace(usage, relevance=0.9))
        same(ledger.judgements("default")[0].useful, False)
        same([each.accepted for each in ledger.verdicts("default")], [False])
        later = Verdict(older=ids[0], newer=ids[1], accepted=True, at=datetime.now(UTC) + LATER)
        ledger.restore("default", Taking(references=[later]))
        same(ledger.verdicts("default"), [later])

    def test_a_dry_run_keeps_nothing_and_another_encoder_is_refused(self, ledger: Ledger) -> None:
        self._lived_in(ledger)
        first = everything(ledger)
        same(ledger.restore("copy", first, dry_run=True).added, 3)
        check("copy" not in ledger.namespaces(), "a namespace was made")
        ledger.put_values({"encoder": '"this"'}, replace=True)
        with pytest.raises(EncoderMismatch):
            ledger.restore("copy", first, {}, '"that"')
        check("copy" not in ledger.namespaces(), "a namespace was made")

    def test_vectors_that_come_along_are_kept_and_what_has_none_waits(self, ledger: Ledger) -> None:
        self._lived_in(ledger)
        given = activations_of(drafts("two"))
        first = everything(ledger)
        ledger.erase_scope(Scope(), None)
        done = ledger.restore("copy", first, dict[bytes, Activation](given))
        same(done.pending, 2)
        same(len(ledger.vectors("copy", -1, 10)[0]), 1)
