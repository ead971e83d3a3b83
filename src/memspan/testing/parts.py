"""What a ledger and a view promise, and what their tests and those of encoders are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from memspan.activations.tokens import Activation, Basis
from memspan.drafting import Batch, Common
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.errors import EncoderMismatch, IdempotencyConflict, InvalidInput, NotFound, StoreClosed
from memspan.filtering import parse_filter
from memspan.ledger.base import (
    SEPARATOR,
    VERDICT,
    Idempotency,
    Ledger,
    Link,
    Relink,
    Revised,
    Revision,
    Snapshot,
    Use,
    Why,
    microseconds,
)
from memspan.records import AsOf, Edge, Judgement, Message, Piece, Scope
from memspan.views.base import Scored, Selection, Selections, View


def check(condition: object, message: str) -> None:
    """Fails with ``message``; under ``python -O`` an assert in a module that pytest does not rewrite says nothing."""
    if not condition:
        pytest.fail(message, pytrace=True)


def same(found: object, expected: object) -> None:
    """Fails unless the two are equal."""
    check(found == expected, f"found {found!r}, expected {expected!r}")


def drafts(
    *texts: str, namespace: str = "default", user_id: str | None = None, category: tuple[str, ...] = ()
) -> Batch:
    """Texts as a caller of ``Ledger.append`` hands them over, one segment each."""
    batch = _batch(Scope(namespace=namespace, user_id=user_id), category)
    for text in texts:
        batch.text(text)
    return batch


class WordEncoder(HashEncoder):
    """HashEncoder with a token activation for each word: the word's own vector, with a mark first and last."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__(dim)
        self.id = f"words-{dim}"
        self.spec = ""

    def encode(self, texts: Sequence[str]) -> Encoded:
        said = [["[begin]", *text.split()[: self.window], "[end]"] for text in texts]
        tokens = super().encode([word for words in said for word in words]).pooled
        ends = np.cumsum([len(words) for words in said])
        rows = [tokens[end - len(words) : end] for words, end in zip(said, ends, strict=True)]
        return Encoded(super().encode(texts).pooled, rows)

    def basis(self) -> Basis:
        """Where its token activations are kept: turned at random, as the signs of so many zeros would tell nothing."""
        turned = np.linalg.qr(np.random.default_rng(0).standard_normal((self.dim, self.dim)))[0].astype(np.float32)
        return Basis("of words", np.zeros(self.dim, np.float32), turned, "made up for tests")


def turns(*texts: str, session: str) -> Batch:
    """Texts as the turns of a conversation."""
    batch = _batch(Scope(session=session))
    for number, text in enumerate(texts):
        batch.message(Message(content=text), f"messages[{number}]")
    return batch


def _batch(scope: Scope, category: tuple[str, ...] = ()) -> Batch:
    cut = lambda text, media: [Piece(text=text, tokens=len(text.split()))]  # noqa: E731
    return Batch(cut, Common(scope=scope, category=category))


def activations_of(batch: Batch) -> dict[bytes, Activation]:
    """A vector for each text of a batch, and its letters as a token matrix."""
    pooled = HashEncoder(64).encode(list(batch.texts.values())).pooled.astype(np.float16)
    each = zip(batch.texts.items(), pooled, strict=True)
    return {content: Activation(vector, text.encode("utf-32")) for (content, text), vector in each}


def write(
    ledger: Ledger, *texts: str, encoded: bool = True, namespace: str = "default", user_id: str | None = None
) -> tuple[str, ...]:
    """Append ``texts``, with vectors unless ``encoded`` is False; returns the ids."""
    batch = drafts(*texts, namespace=namespace, user_id=user_id)
    return ledger.append(namespace, batch.drafts, activations=activations_of(batch) if encoded else {}).ids


class LedgerContract:
    """What every ledger promises. ``ledger``: an empty one whose store keeps vectors. ``again``: opens it once more."""

    @pytest.fixture
    def ledger(self) -> Iterator[Ledger]:
        raise pytest.UsageError("override the fixture `ledger`")

    @pytest.fixture
    def again(self) -> Callable[[], Ledger]:
        raise pytest.UsageError("override the fixture `again`")

    def seqs(self, ledger: Ledger, namespace: str = "default", **scope: str) -> list[int]:
        found: list[int] = ledger.select(Scope(namespace=namespace, **scope), None, None, -1)[0].tolist()
        return found

    def test_what_is_appended_is_there_in_order(self, ledger: Ledger) -> None:
        ids = write(ledger, "one", "two", "three")
        rows = ledger.listing(Scope(), None, 10, None)
        same([(row.id, row.text) for row in rows], list(zip(ids, ("one", "two", "three"), strict=True)))
        check(rows[0].seq < rows[1].seq < rows[2].seq, "seqs do not ascend")
        same(ledger.listing(Scope(), None, 1, ids[0])[0].id, ids[1])
        same(ledger.get("default", ids[1]), rows[1])
        same(ledger.fetch("default", [rows[2].seq, rows[0].seq, 10**9]), [rows[2], rows[0]])

    def test_another_connection_sees_every_write_at_once(self, ledger: Ledger, again: Callable[[], Ledger]) -> None:
        other = again()
        ids = write(ledger, "one")
        same(other.get("default", ids[0]), ledger.get("default", ids[0]))
        other.erase("default", ids)
        same(self.seqs(ledger), [])
        other.close()

    def test_the_same_content_again_is_counted_and_not_copied(self, ledger: Ledger) -> None:
        first = drafts("one", "two")
        ledger.append("default", first.drafts, activations=activations_of(first))
        added = ledger.append("default", drafts("two", "three").drafts, activations={})
        same((added.added, added.repeated, added.pending), (1, 1, 1))
        same([row.repeats for row in ledger.listing(Scope(), None, 10, None)], [0, 1, 0])

    def test_an_operation_is_done_once_and_its_key_is_bound_to_its_payload(self, ledger: Ledger) -> None:
        once = Idempotency(key="k", payload=b"1")
        same(ledger.replay("default", once), None)
        ids = ledger.append("default", drafts("one").drafts, activations={}, idempotency=once).ids
        for done in (
            ledger.replay("default", once),
            ledger.append("default", drafts("one").drafts, activations={}, idempotency=once),
        ):
            same(done and (done.ids, done.added), (ids, 0))
        same(ledger.replay("other", once), None)
        with pytest.raises(IdempotencyConflict):
            ledger.append(
                "default", drafts("two").drafts, activations={}, idempotency=Idempotency(key="k", payload=b"2")
            )
        same(len(self.seqs(ledger)), 1)

    def test_a_revision_is_a_new_row_with_the_same_id(self, ledger: Ledger) -> None:
        (id,) = write(ledger, "one")
        old = ledger.get("default", id)
        revised = ledger.revise("default", [Revision(id=id, version=1, draft=drafts("two").drafts[0])], {})
        check(isinstance(revised, Revised), "a revision says what it made")
        (new,) = revised.segments if revised else []
        same((new.id, new.version, new.text), (id, 2, "two"))
        check(new.seq > old.seq, "the new version is not the newest row")
        same(
            [(event.event, event.text) for event in ledger.history("default", id)], [("ADD", "one"), ("UPDATE", "two")]
        )
        same(self.seqs(ledger), [new.seq])
        same(ledger.rows("default").tolist(), [old.seq, new.seq])
        same(ledger.removals("default", 0)[1].tolist(), [old.seq])
        as_of = ledger.select(Scope(), None, AsOf(known=old.recorded_at), -1)[0].tolist()
        same(as_of, [old.seq])
        write(ledger, "three")
        with pytest.raises(InvalidInput):
            ledger.revise("default", [Revision(id=id, version=2, draft=drafts("three").drafts[0])], {})
        same(ledger.get("default", id), new)

    def test_several_are_revised_together_or_not_at_all(self, ledger: Ledger) -> None:
        one, two = write(ledger, "one", "two")

        def revised(*changes: tuple[str, int, str]) -> list[str] | None:
            several = [Revision(id=id, version=version, draft=drafts(text).drafts[0]) for id, version, text in changes]
            new = ledger.revise("default", several, {})
            return None if new is None else [row.text for row in new.segments]

        same(revised((two, 1, "two again"), (one, 1, "one again")), ["two again", "one again"])
        before = ledger.listing(Scope(), None, 10, None)
        same(revised((one, 2, "one more"), (two, 1, "by somebody who had not heard")), None)
        with pytest.raises(NotFound):
            revised((one, 2, "one more"), ("no id", 1, "nothing"))
        with pytest.raises(InvalidInput):
            revised((one, 2, "one more"), (two, 2, "one more"))
        same(ledger.listing(Scope(), None, 10, None), before)
        same([problem for _, _, problem in ledger.problems() if problem is not None], [])

    def test_an_edge_is_kept_once_and_holds_for_later_versions(self, ledger: Ledger) -> None:
        one, two, three = write(ledger, "one", "two", "three")
        for edge in (
            Edge(source=one, target=two, kind="reply"),
            Edge(source=one, target=two, kind="reply", weight=0.5),
            Edge(source=two, target=one, kind="aside"),
            Edge(source=three, target=two, kind="reply", weight=0.25),
        ):
            ledger.link("default", edge)
        old = ledger.get("default", two).seq
        ledger.revise("default", [Revision(id=two, version=1, draft=drafts("two again").drafts[0])], {})
        a, b, c = (ledger.get("default", id).seq for id in (one, two, three))
        answer, aside, other = Link(a, b, "reply", 0.5), Link(b, a, "aside", 1.0), Link(c, b, "reply", 0.25)
        same(ledger.links("default", [a]), sorted([answer, aside]))
        same(ledger.links("default", [b, c, 10**9]), sorted([answer, aside, other]))
        stale = [Link(a, old, "reply", 0.5), Link(old, a, "aside", 1.0), Link(c, old, "reply", 0.25)]
        same(ledger.links("default", [old]), sorted(stale))
        same(ledger.unlink("default", one, two, "aside"), 0)
        same(ledger.unlink("default", one, two, None), 1)
        same(ledger.unlink("default", one, two, None), 0)
        same(ledger.links("default", [a, b]), sorted([aside, other]))

    def test_an_edge_goes_with_either_end_and_is_between_what_is_there(self, ledger: Ledger) -> None:
        one, two, three = write(ledger, "one", "two", "three")
        (elsewhere,) = write(ledger, "one", namespace="other")
        a, b, c = (ledger.get("default", id).seq for id in (one, two, three))
        for target in ("no id", elsewhere):
            for ends in ((one, target), (target, one)):
                with pytest.raises(NotFound):
                    ledger.link("default", Edge(source=ends[0], target=ends[1], kind="reply"))
        same(ledger.links("default", [a, b, c]), [])
        for source, target in ((one, two), (two, three), (three, one)):
            ledger.link("default", Edge(source=source, target=target, kind="reply"))
        same(ledger.links("other", [a, b, c, ledger.get("other", elsewhere).seq]), [])
        same(ledger.unlink("other", one, two, None), 0)
        ledger.erase("default", [one])
        same(ledger.links("default", [a, b, c]), [Link(b, c, "reply", 1.0)])
        ledger.erase_scope(Scope(), None)
        same(ledger.unlink("default", two, three, None), 0)

    def test_uses_are_counted_and_forgotten_with_what_was_used(self, ledger: Ledger) -> None:
        one, two = write(ledger, "one", "two")
        seqs = [ledger.get("default", id).seq for id in (two, one)]
        heard = [microseconds(ledger.get("default", id).recorded_at) for id in (two, one)]
        late = datetime(2030, 1, 1, tzinfo=UTC)
        ledger.used("default", {one: Use(times=2, at=late, relevance=0.9), "no id": Use(times=1, at=late, relevance=1)})
        ledger.used("default", {one: Use(times=1, at=late - timedelta(days=1), relevance=0.2)})
        ledger.used("other", {two: Use(times=1, at=late, relevance=0.9)})
        known = ledger.standing("default", [*seqs, 10**9])
        same((known.accesses.tolist(), known.accessed_at.tolist()), ([0, 3, 0], [0, microseconds(late), 0]))
        same((known.relevance.tolist(), known.heard_at.tolist()[:2]), ([0.5, 0.9, 0.5], heard))
        check(known.importance[:2].tolist() == [0.5, 0.5] and np.isnan(known.importance[2]), f"{known.importance}")
        check(all(part.dtype == np.float64 for part in (known.accesses, known.relevance)), "not float64")
        ledger.used("default", {two: Use(times=1, at=late, relevance=0.1)})
        same(ledger.standing("default", seqs).relevance.tolist(), [0.5, 0.9])
        ledger.revise("default", [Revision(id=one, version=1, draft=drafts("one again").drafts[0])], {})
        same(ledger.standing("default", [ledger.get("default", one).seq]).accesses.tolist(), [3])
        ledger.erase("default", [one])
        ledger.used("default", {one: Use(times=1, at=late, relevance=1)})
        same(ledger.standing("default", seqs).accesses.tolist(), [1, 0])
        same([problem for _, _, problem in ledger.problems() if problem is not None], [])

    def test_voices_tell_who_said_a_row_and_whether_it_asks(self, ledger: Ledger) -> None:
        ledger.append("default", turns("Ana met Ben.", "Where?", session="s").drafts, activations={})
        known = ledger.voices("default", [*ledger.rows("default").tolist(), 10**9])
        same((known.roles, known.speakers), (("user", "user", None), (None, None, None)))
        same(known.asks.tolist(), [False, True, False])

    def test_a_judgement_is_kept_once_and_goes_with_its_segment(self, ledger: Ledger) -> None:
        one, two = write(ledger, "one", "two", user_id="ana")
        (elsewhere,) = write(ledger, "one", namespace="other")
        at = datetime(2030, 1, 1, tzinfo=UTC)
        good, bad = (
            Judgement(query="which?", id=one, useful=True, at=at),
            Judgement(query="what?", id=two, useful=False),
        )
        ledger.judge("default", [good, bad, replace(bad, query="which?")])
        ledger.judge("other", [Judgement(query="which?", id=elsewhere, useful=True)])
        for unknown in ("no id", elsewhere):
            with pytest.raises(NotFound):
                ledger.judge("default", [replace(good, useful=False), replace(good, id=unknown)])
        said = ledger.judgements("default")
        same([(each.query, each.id) for each in said], [("what?", two), ("which?", one), ("which?", two)])
        same([each.useful for each in said], [False, True, False])
        check(said[1].at == at and said[0].at is not None, f"said at {said[1].at}, {said[0].at}")
        ledger.judge("default", [replace(good, useful=False)])
        same([each.useful for each in ledger.judgements("default")], [False] * 3)
        ledger.revise("default", [Revision(id=one, version=1, draft=drafts("one again").drafts[0])], {})
        same(ledger.forget_judgements("default", "which?", two), 1)
        same(ledger.forget_judgements("nowhere", None, None), 0)
        same([each.id for each in ledger.judgements("default")], [two, one])
        ledger.erase("default", [two])
        same([each.id for each in ledger.judgements("default")], [one])
        ledger.erase_scope(Scope(), None)
        same(ledger.judgements("default"), [])
        same([each.id for each in ledger.judgements("other")], [elsewhere])
        same([problem for _, _, problem in ledger.problems() if problem is not None], [])

    def test_a_verdict_is_logged_turned_back_and_goes_with_either_segment(self, ledger: Ledger) -> None:
        old, new = write(ledger, "one", "two")
        (elsewhere,) = write(ledger, "one", namespace="other")

        def decided(weight: float | None, newer: str = new) -> list[tuple[str, str, bool]]:
            verdict = Relink(source=newer, target=old, kind=VERDICT, weight=weight)
            done = ledger.revise("default", [], {}, relinks=[verdict], why=Why(verb="reject"))
            check(done is not None and ledger.operation("default", done.operation)[0].verb == "reject", "not logged")
            return [(each.older, each.newer, each.accepted) for each in ledger.verdicts("default")]

        same(decided(0.0), [(old, new, False)])
        same(decided(1.0), [(old, new, True)])
        same(decided(1.0, elsewhere), [(old, new, True)])
        (last,) = ledger.operations("default", new, limit=1)
        (before,) = ledger.operation("default", last.id)[2]
        same((before.kind, before.weight), (VERDICT, 0.0))
        same(decided(None), [])
        same(ledger.links("default", ledger.rows("default").tolist()), [])
        decided(0.0)
        same(ledger.verdicts("other"), [])
        ledger.erase("default", [new])
        same(ledger.verdicts("default"), [])
        same([problem for _, _, problem in ledger.problems() if problem is not None], [])

    def test_the_structure_is_every_row_with_its_place_its_category_and_its_names(self, ledger: Ledger) -> None:
        said = turns("Ana met Ben.", "Where?", session="s")
        ledger.append("default", said.drafts, activations=activations_of(said))
        more = turns("In Kyoto.", session="s")
        (id,) = ledger.append("default", more.drafts, activations={}).ids
        ledger.append("default", turns("Hello.", session="t").drafts, activations={})
        ledger.append("default", drafts("alone", category=("A", "B")).drafts, activations={})
        ledger.revise("default", [Revision(id=id, version=1, draft=turns("In Osaka.", session="s").drafts[0])], {})
        rows = ledger.structure("default", 0, 100)
        same([row.seq for row in rows], ledger.rows("default").tolist())
        first, where, kyoto, hello, alone, osaka = rows
        check(first.group is not None and len(first.group) == 8, f"the group of a session is {first.group!r}")
        same([row.group == first.group for row in rows], [True, True, True, False, False, True])
        same([row.position for row in (first, where, kyoto, hello, osaka)], [0, 1, 2, 0, 2])
        same((alone.group, alone.category, first.category), (None, ("A", "B"), ()))
        same([row.names.split(SEPARATOR)[0] for row in rows if row.names is not None], [""] * 6)
        same([set((row.names or "").split(SEPARATOR)[1:]) for row in (first, kyoto)], [{"ana", "ben"}, {"kyoto"}])
        same(ledger.structure("default", where.seq, 2), [kyoto, hello])
        same(ledger.structure("other", 0, 100), [])
        while ledger.trim_mentions("default", kyoto.seq):
            pass
        names = [row.names is None for row in ledger.structure("default", 0, 100)]
        same(names, [True, True, True, False, False, False])

    def test_a_deletion_leaves_a_tombstone_and_no_content(self, ledger: Ledger) -> None:
        one, two = write(ledger, "one", "two")
        seq = ledger.get("default", one).seq
        entry = ledger.last_removal("default")
        same(ledger.erase("default", [one, one, "no id"]).segments, 1)
        with pytest.raises(NotFound):
            ledger.get("default", one)
        same([(event.event, event.text) for event in ledger.history("default", one)], [("ERASE", None)])
        same(ledger.known("default", list(drafts("one").texts)), set())
        same(ledger.known("default", list(drafts("two").texts)), set(drafts("two").texts))
        same(ledger.tail_postings("default", "one", 0).tolist(), [])
        same(ledger.removals("default", entry)[1].tolist(), [seq])
        same([row.id for row in ledger.listing(Scope(), None, 10, None)], [two])

    def test_a_scope_is_deleted_whole_and_nothing_else(self, ledger: Ledger) -> None:
        write(ledger, "one", "two", user_id="ana")
        write(ledger, "one", user_id="ben")
        write(ledger, "one", user_id="ana", namespace="other")
        same(ledger.erase_scope(Scope(user_id="ana"), parse_filter({"text": "two"})).segments, 1)
        same(ledger.erase_scope(Scope(user_id="ana"), None).segments, 1)
        same([row.user_id for row in ledger.listing(Scope(), None, 10, None)], ["ben"])
        same([row.user_id for row in ledger.listing(Scope(namespace="other"), None, 10, None)], ["ana"])

    def test_no_call_reaches_into_another_namespace(self, ledger: Ledger) -> None:
        *_, id = write(ledger, "three", "two", "one")  # seqs may be counted in each namespace
        write(ledger, "one two", namespace="other")
        seq = ledger.get("default", id).seq
        for missing in ("other", "nowhere"):
            for call in (ledger.get, ledger.history, ledger.document):
                with pytest.raises(NotFound):
                    call(missing, id)
            with pytest.raises(NotFound):
                ledger.revise(missing, [Revision(id=id, version=1, draft=drafts("two").drafts[0])], {})
            same(ledger.erase(missing, [id]).segments, 0)
            same(ledger.fetch(missing, [seq]), [])
            same(ledger.vectors_of(missing, [seq])[0].tolist(), [])
            same(ledger.tokens_of(missing, [seq]).seqs.tolist(), [])
            same(ledger.links(missing, [seq]), [])
            with pytest.raises(NotFound):
                ledger.judge(missing, [Judgement(query="one", id=id, useful=True)])
            check(np.isnan(ledger.standing(missing, [seq]).importance).all(), "standing of another namespace")
            check(seq not in [row.seq for row in ledger.structure(missing, 0, 10)], "structure of another namespace")
            check(seq not in ledger.rows(missing), "rows of another namespace")
            check(seq not in ledger.tail_postings(missing, "one", 0), "postings of another namespace")
            check(seq not in [row for row, _ in ledger.tail_terms(missing, 0, 10)], "terms of another namespace")
            check(seq not in [row.seq for row in ledger.texts(missing, 0, 10**9, 10)], "texts of another namespace")
            check(seq not in ledger.vectors(missing, 0, 10)[0], "vectors of another namespace")
        same(ledger.namespaces(), ["default", "other"])

    def test_what_has_no_vector_waits_until_it_comes(self, ledger: Ledger) -> None:
        write(ledger, "one", "two", encoded=False)
        write(ledger, "one", encoded=False, namespace="other")
        same((ledger.count_pending("default"), ledger.count_pending(None)), (2, 3))
        waiting = ledger.pending("default", 1)[0]
        same((waiting.text, waiting.namespace), ("one", "default"))
        same(ledger.encoded(activations_of(drafts("one"))), 2)
        same(ledger.pending_seqs("default").tolist(), [waiting.seq + 1])
        seqs, vectors = ledger.vectors("default", 0, 10)
        same((seqs.tolist(), vectors.shape, vectors.dtype), ([waiting.seq], (1, 64), np.dtype(np.float32)))
        ledger.encoded(activations_of(drafts("nobody waits for this")))
        same(ledger.known("default", list(drafts("nobody waits for this").texts)), set())

    def test_token_matrices_come_back_for_the_rows_that_have_one(self, ledger: Ledger) -> None:
        write(ledger, "one", "two", "three")
        write(ledger, "four", encoded=False)
        every = [*self.seqs(ledger), 10**9]
        found = ledger.tokens_of("default", every[::-1])
        same(found.seqs.tolist(), every[:3])
        same(found.codes.tobytes(), b"".join(text.encode("utf-32") for text in ("one", "two", "three")))
        same(found.sizes.tolist(), [16, 16, 24])
        same(len(ledger.tokens_of("default", []).seqs), 0)

    def test_a_token_matrix_stays_as_long_as_somebody_says_that(self, ledger: Ledger) -> None:
        (id,) = write(ledger, "one")
        write(ledger, "one", namespace="other")
        check(ledger.activation_bytes()["tensors"] > 0 == ledger.activation_bytes()["lost"], "no matrix is kept")
        ledger.erase("default", [id])
        same(len(ledger.tokens_of("other", self.seqs(ledger, "other")).seqs), 1)
        ledger.erase_scope(Scope(namespace="other"), None)
        same([ledger.activation_bytes()[name] for name in ("tensors", "references")], [0, 0])
        ledger.collect()
        same(ledger.activation_bytes()["bytes"], 0)

    def test_another_encoding_is_made_beside_the_one_in_use_and_switched_to_at_once(self, ledger: Ledger) -> None:
        write(ledger, "one", "two")
        encoding = ledger.begin_encoding("another")
        same(ledger.begin_encoding("another"), encoding)
        waiting = ledger.unencoded("default", encoding, 0, 10)
        same([row.text for row in waiting], ["one", "two"])
        made = {row.content: Activation(np.full(8, 1, np.float16), b"new " * 4) for row in waiting}
        ledger.keep_encoding("default", made, encoding)
        same(ledger.count_unencoded(encoding), 0)
        same(ledger.vectors("default", 0, 10)[1].shape, (2, 64))
        write(ledger, "three")
        same(ledger.use_encoding(encoding, "another", "", {"default": waiting[-1].seq}, vectors=True), False)
        (late,) = ledger.unencoded("default", encoding, waiting[-1].seq, 10)
        ledger.keep_encoding("default", {late.content: Activation(np.full(8, 1, np.float16), None)}, encoding)
        same(ledger.use_encoding(encoding, "another", "", {"default": late.seq}, vectors=True), True)
        same(ledger.value("encoder"), "another")
        same(ledger.vectors("default", 0, 10)[1].shape, (3, 8))
        same(ledger.tokens_of("default", self.seqs(ledger)).codes.tobytes(), b"new " * 8)
        ledger.drop_encodings()
        check(ledger.activation_bytes()["tensors"] <= 2, "matrices of the encoding before are still there")

    def test_the_tail_gives_each_occurrence_of_a_term(self, ledger: Ledger) -> None:
        write(ledger, "echo echo echo", "silence", "one echo")
        first, _, last = self.seqs(ledger)
        (term,) = set(drafts("echo").drafts[0].terms)
        same(sorted(ledger.tail_postings("default", term, 0).tolist()), [first, first, first, last])
        same(ledger.tail_postings("default", term, first).tolist(), [last])
        same([seq for seq, _ in ledger.tail_terms("default", first, 10)], [first + 1, last])
        while ledger.trim_tail("default", first):
            pass
        same(ledger.tail_postings("default", term, first).tolist(), [last])
        same([row.text for row in ledger.texts("default", 0, first, 10)], ["echo echo echo"])

    def test_a_selection_has_seqs_in_order_and_how_many_terms_each_row_has(self, ledger: Ledger) -> None:
        write(ledger, "lisbon porto faro", "lisbon", user_id="ana")
        write(ledger, "porto", user_id="ben")
        seqs, counted = ledger.select(Scope(user_id="ana"), None, None, -1)
        same((seqs.dtype, counted.dtype, counted.tolist()), (np.dtype(np.int64), np.dtype(np.int32), [3, 1]))
        same(ledger.select(Scope(), parse_filter({"user_id": {"ne": "ana"}}), None, int(seqs[0]))[1].tolist(), [1])
        same(ledger.count_after("default", int(seqs[0])), 2)

    def test_snapshots_and_values_are_kept(self, ledger: Ledger, again: Callable[[], Ledger]) -> None:
        write(ledger, "one")
        first = Snapshot(namespace="default", view="v", position=1, rows=1, file="a", checksum="c")
        ledger.put_snapshot(first, None)
        same((ledger.snapshot("default", "v"), ledger.snapshot("default", "w")), (first, None))
        second = replace(first, position=2, file="b")
        ledger.put_snapshot(second, None)
        ledger.put_values({"encoder": "new"}, replace=True)
        with pytest.raises(EncoderMismatch):
            ledger.put_snapshot(first, "old")
        ledger.put_values({"color": "red"}, replace=False)
        ledger.put_values({"color": "blue"}, replace=False)
        other = again()
        same((other.snapshot("default", "v"), other.value("color")), (second, "red"))
        ledger.put_values({"color": "blue"}, replace=True)
        ledger.drop_snapshot("default", "v")
        same((other.snapshot("default", "v"), other.value("color"), other.value("shape")), (None, "blue", None))
        other.close()

    def test_reads_within_reading_see_one_moment(self, ledger: Ledger) -> None:
        write(ledger, "one")
        with ThreadPoolExecutor(1) as pool, ledger.reading():
            before = self.seqs(ledger)
            pool.submit(write, ledger, "two").result()
            same(self.seqs(ledger), before)
        same(len(self.seqs(ledger)), 2)

    def test_a_write_that_fails_leaves_nothing(self, ledger: Ledger) -> None:
        batch = drafts("one", "two")
        broken = replace(batch.drafts[0], piece=None, identity=b"another")  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r".+"):
            ledger.append("default", [*batch.drafts, broken], activations={})
        same((self.seqs(ledger), ledger.count_pending(None)), ([], 0))

    def test_several_threads_may_write_and_read_at_once(self, ledger: Ledger) -> None:
        def work(number: int) -> int:
            for step in range(10):
                write(ledger, f"thread {number} step {step}", user_id=f"user{number}")
                same(len(self.seqs(ledger, user_id=f"user{number}")), step + 1)
            return number

        with ThreadPoolExecutor(4) as pool:
            same(list(pool.map(work, range(4))), [0, 1, 2, 3])
        same(len(self.seqs(ledger)), 40)

    def test_everything_read_back_is_what_was_written(self, ledger: Ledger) -> None:
        write(ledger, "one", "two")
        (id,) = write(ledger, "three", encoded=False)
        ledger.revise("default", [Revision(id=id, version=1, draft=drafts("four").drafts[0])], {})
        same([problem for _, _, problem in ledger.problems() if problem is not None], [])
        ledger.tidy()
        same(len(self.seqs(ledger)), 3)

    def test_what_was_closed_refuses(self, ledger: Ledger) -> None:
        ledger.close()
        ledger.close()
        with pytest.raises(StoreClosed):
            ledger.namespaces()
        with pytest.raises(StoreClosed):
            write(ledger, "one")


class ViewContract:
    """What every view promises. ``ledger`` and ``view``: an empty store on disk; a view of it that keeps a snapshot of
    ``rows`` rows or fewer. ``ask`` says how it is searched."""

    rows = 32

    @pytest.fixture
    def ledger(self) -> Iterator[Ledger]:
        raise pytest.UsageError("override the fixture `ledger`")

    @pytest.fixture
    def view(self, ledger: Ledger) -> View:
        raise pytest.UsageError("override the fixture `view`")

    @pytest.fixture
    def folder(self) -> Path:
        raise pytest.UsageError("override the fixture `folder`: where the view keeps its snapshots")

    def again(self, ledger: Ledger, folder: Path) -> View:
        """Another view of the same store, as another process has it."""
        raise pytest.UsageError("override the method `again`")

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        """What ``view`` finds for ``text``, best first."""
        raise pytest.UsageError("override the method `ask`")

    def best(self, ledger: Ledger, view: View, text: str, k: int = 1, **scope: str) -> list[str]:
        selection = Selections(ledger).of(Scope(**scope))
        found = self.ask(view, selection, text)
        check(found.seqs.dtype == np.int64 and found.scores.dtype == np.float32, "not int64 and float32")
        check(np.isin(found.seqs, selection.seqs).all(), "rows that are not in the selection")
        check(len(np.unique(found.seqs)) == len(found.seqs), "a row twice")
        return [row.text for row in ledger.fetch(selection.namespace, found.top(k).seqs.tolist())]

    def fill(self, ledger: Ledger, start: int = 0, user_id: str | None = None) -> list[str]:
        """Write ``rows`` texts that share no word but their last two."""
        texts = [
            f"wq{'bcdfghkmnp'[step // 10]}{'bcdfghkmnp'[step % 10]}x stands here"
            for step in range(start, start + self.rows)
        ]
        write(ledger, *texts, user_id=user_id)
        return texts

    def test_a_row_is_found_as_soon_as_it_is_written(self, ledger: Ledger, view: View) -> None:
        same(self.best(ledger, view, "zwieback"), [])
        write(ledger, "zwieback in the drawer")
        same(self.best(ledger, view, "zwieback"), ["zwieback in the drawer"])
        self.fill(ledger)
        write(ledger, "kumquats in the drawer")
        same(self.best(ledger, view, "kumquats"), ["kumquats in the drawer"])

    def test_only_rows_of_the_selection_are_found(self, ledger: Ledger, view: View) -> None:
        write(ledger, "zwieback of ana", user_id="ana")
        write(ledger, "zwieback of ben", user_id="ben")
        write(ledger, "zwieback elsewhere", namespace="other")
        for _ in range(2):
            same(self.best(ledger, view, "zwieback", 5, user_id="ben"), ["zwieback of ben"])
            same(self.best(ledger, view, "zwieback", 5, namespace="other"), ["zwieback elsewhere"])
            self.fill(ledger, user_id="ana")
            view.compact("default")

    def test_folding_the_tail_changes_where_rows_are_and_not_whether_they_are_found(
        self, ledger: Ledger, view: View, folder: Path
    ) -> None:
        texts = self.fill(ledger)
        same(view.status("default")["tail"], self.rows)
        check(view.compact("default"), "nothing was folded")
        status = view.status("default")
        same((status["rows"], status["tail"], status["failure"]), (self.rows, 0, None))
        check(view.size() > 0, "no file was written")
        check(not view.compact("default"), "it was folded again without need")
        late = self.fill(ledger, start=50)
        for reader in (view, self.again(ledger, folder)):
            for text in (*texts, *late):
                same(self.best(ledger, reader, text), [text])

    def test_removed_rows_are_not_found_before_and_after_folding(self, ledger: Ledger, view: View) -> None:
        ids = write(ledger, "zwieback one", "zwieback two", "zwieback three")
        self.fill(ledger)
        ledger.erase("default", ids[:1])
        same(set(self.best(ledger, view, "zwieback", 2)), {"zwieback two", "zwieback three"})
        view.compact("default")
        ledger.erase("default", ids[1:2])
        same(self.best(ledger, view, "zwieback"), ["zwieback three"])
        check(view.compact("default"), "what was removed is still in the snapshot")
        same(self.best(ledger, view, "zwieback"), ["zwieback three"])

    def test_another_process_uses_a_new_snapshot_at_its_next_search(
        self, ledger: Ledger, view: View, folder: Path
    ) -> None:
        texts = self.fill(ledger)
        other = self.again(ledger, folder)
        same(self.best(ledger, other, texts[3]), [texts[3]])
        view.compact("default")
        late = self.fill(ledger, start=50)
        view.compact("default")
        same([self.best(ledger, other, text)[0] for text in (texts[3], late[4])], [texts[3], late[4]])
        same(other.failure, None)

    @pytest.mark.parametrize("how", ["removed", "cut", "changed"])
    def test_a_damaged_file_costs_no_row_and_is_reported_and_mended(
        self, ledger: Ledger, view: View, folder: Path, how: str
    ) -> None:
        texts = self.fill(ledger)
        view.compact("default")
        same(view.problems("default"), [])
        (file,) = (file for file in folder.iterdir() if file.stat().st_size)
        raw = file.read_bytes()
        if how == "removed":
            file.unlink()
        else:
            file.write_bytes(raw[:-9] if how == "cut" else raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
        for reader in (view, self.again(ledger, folder)):
            same(len(reader.problems("default")), 1)
            same([self.best(ledger, reader, text)[0] for text in texts], texts)
        check(reader.failure, "the damage was swallowed")
        check(reader.compact("default"), "the damage was not mended")
        same((reader.failure, reader.problems("default")), (None, []))
        same([self.best(ledger, reader, text)[0] for text in texts], texts)

    def test_it_can_be_built_from_the_ledger_alone(self, ledger: Ledger, view: View) -> None:
        texts = self.fill(ledger)
        seen: list[tuple[int, int]] = []
        check(
            view.compact("default", force=True, progress=lambda done, total, what: seen.append((done, total))),
            "nothing was built",
        )
        check(seen and all(0 < done <= total for done, total in seen), f"progress was {seen}")
        same([self.best(ledger, view, text)[0] for text in texts], texts)

    def test_what_a_crash_left_is_swept_away(self, ledger: Ledger, view: View, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        leftover = folder / f"{view.name}-0123456789ab.part"
        leftover.write_bytes(b"half a snapshot")
        self.fill(ledger)
        view.compact("default")
        check(not leftover.exists(), f"{leftover} is still there")
        same(view.problems("default"), [])
