"""Whatever is done to a store in whatever order, it answers as a plain list would."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memspan import IdempotencyConflict, InvalidInput, Memory, NotFound, recipes, tuning
from memspan.testing import WordEncoder

COMMON = ("the kettle sings", "rain on tuesday", "no tickets left", "rain on wednesday")
CONSONANTS = "bcdfghkmnp"
VIEWS = ("lexical", "vectors", "tree", "graph")

NAMESPACES = st.sampled_from(("left", "right"))
USERS = st.sampled_from((None, "ana", "ben"))
SESSIONS = st.sampled_from((None, "s1"))
PICKS = st.integers(0, 10_000)
CATEGORIES = st.sampled_from(((), ("A",), ("A", "B"), ("A", "B", "C"), ("D",)))
RELATIONS = st.sampled_from(("related", "reply"))
WEIGHTS = {"related": 1.0, "reply": 0.9}  # what is left of a stated weight


@dataclass(frozen=True)
class Row:
    """One memory as the list knows it. ``key`` is what makes a second add of the same a repeat."""

    id: str
    namespace: str
    user: str | None
    session: str | None
    role: str | None
    text: str
    importance: float
    key: tuple[Any, ...]
    versions: tuple[str, ...]
    category: tuple[str, ...] = ()
    repeats: int = 0


@dataclass(frozen=True)
class Past:
    """What was there at a time."""

    at: datetime
    rows: tuple[Row, ...]


@dataclass
class Model:
    """The list: rows in the order of their newest versions."""

    rows: list[Row] = field(default_factory=list)
    gone: list[Row] = field(default_factory=list)
    operations: dict[tuple[str, str], tuple[Any, tuple[str, ...]]] = field(default_factory=dict)
    pasts: list[Past] = field(default_factory=list)
    links: dict[tuple[str, str, str], float] = field(default_factory=dict)
    judgements: dict[tuple[str, str, str], bool] = field(default_factory=dict)  # namespace, query, id
    learned: dict[str, int] = field(default_factory=dict)  # adjustments by namespace

    def same(self, namespace: str, key: tuple[Any, ...]) -> Row | None:
        return next((row for row in self.rows if (row.namespace, row.key) == (namespace, key)), None)

    def swap(self, old: Row, new: Row) -> None:
        self.rows[self.rows.index(old)] = new

    def within(self, namespace: str, user: str | None) -> list[Row]:
        return [row for row in self.rows if row.namespace == namespace and user in (None, row.user)]

    def drop(self, rows: list[Row]) -> None:
        self.gone += rows
        self.rows = [row for row in self.rows if row not in rows]
        dead = {row.id for row in rows}
        self.links = {edge: weight for edge, weight in self.links.items() if dead.isdisjoint(edge[:2])}
        self.judgements = {said: useful for said, useful in self.judgements.items() if said[2] not in dead}

    def renew(self, old: Row, **changes: Any) -> None:
        """A new version of a row: from now on the newest."""
        new = replace(old, repeats=0, **changes)
        self.rows.remove(old)
        self.rows.append(replace(new, versions=(*old.versions, new.text)))


class Store(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the list, and compares what came back."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for view in VIEWS:
            self.patch.setattr(f"memspan.views.{view}.SNAPSHOT_ROWS", 6)
        self.patch.setattr("memspan.projection.TENDED_ROWS", 5)
        self.patch.setattr("memspan.views.adjacency.DEGREE", 2)  # rows know fewer of their nearest than there are
        few = {name: replace(recipe, candidates=3) for name, recipe in recipes.RECIPES.items()}
        self.patch.setattr(recipes, "RECIPES", few)  # graphs of a few rows are walked too, not only scanned
        self.folder = Path(tempfile.mkdtemp(prefix="memspan-machine-"))
        self.store = self.folder / "store"
        basis = WordEncoder().basis()
        self.patch.setattr("memspan.store.shipped", lambda id: basis)
        self.patch.setattr("memspan.activations.arena.EXTENT", 4_096)  # several files of a few texts
        self.patch.setattr("memspan.reencoding.BATCH", 3)
        self.memory = self.opened()
        self.model = Model()
        self.count = 0

    def opened(self) -> Memory:
        return Memory(self.store, encoder=WordEncoder())

    def teardown(self) -> None:
        try:
            self.memory.compact()
            report = self.memory.verify()
            assert report["problems"] == []
            assert [view["failure"] for view in self.memory.stats()["views"].values()] == [None] * 4
            assert self.memory.stats()["pending"] == 0
            self.memory.close()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    def fresh(self) -> str:
        """A text whose first word no other text has."""
        self.count += 1
        digits = "".join(CONSONANTS[int(digit)] for digit in str(self.count))
        return f"zq{digits}x {COMMON[self.count % len(COMMON)]}"

    def picked(self, pick: int) -> Row:
        return self.model.rows[pick % len(self.model.rows)]

    # Writing

    def note(self, row: Row) -> None:
        """Take over one added segment."""
        known = self.model.same(row.namespace, row.key)
        if known is None:
            self.model.rows.append(row)
        else:
            assert known.id == row.id
            self.model.swap(known, replace(known, repeats=known.repeats + 1))

    @rule(
        ns=NAMESPACES, user=USERS, session=SESSIONS, common=st.booleans(), pick=PICKS, wait=st.booleans(), level=PICKS,
        category=CATEGORIES,
    )  # fmt: skip
    def add_text(
        self, ns: str, user: str | None, session: str | None, common: bool, pick: int, wait: bool, level: int,
        category: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        text = COMMON[pick % len(COMMON)] if common else self.fresh()
        importance = level % 11 / 10
        key = (user, session, None, text, 0)
        known = self.model.same(ns, key)
        where: dict[str, Any] = {"namespace": ns, "user_id": user, "session": session, "category": category}
        added = self.memory.add(text, importance=importance, wait=wait, **where)
        assert (added.added, added.repeated) == ((0, 1) if known else (1, 0))
        self.note(Row(added.ids[0], ns, user, session, None, text, importance, key, (text,), category))

    @rule(ns=NAMESPACES, user=USERS, roles=st.lists(st.sampled_from(("user", "assistant")), min_size=1, max_size=4),
          pick=PICKS, wait=st.booleans())  # fmt: skip
    def add_messages(self, ns: str, user: str | None, roles: list[str], pick: int, wait: bool) -> None:
        texts = [COMMON[pick % 3] if (pick >> turn) % 3 == 0 else self.fresh() for turn in range(len(roles))]
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        added = self.memory.add(turns, namespace=ns, user_id=user, session="s2", wait=wait)
        assert len(added.ids) == len(turns)
        said: dict[tuple[str, str], int] = {}
        for id, role, text in zip(added.ids, roles, texts, strict=True):
            again = said.get((role, text), 0)
            said[role, text] = again + 1
            key = (user, "s2", role, text, again)
            self.note(Row(id, ns, user, "s2", role, text, 0.5, key, (text,)))

    @rule(ns=NAMESPACES, name=st.sampled_from(("k1", "k2")), variant=st.integers(0, 1))
    def add_once(self, ns: str, name: str, variant: int) -> None:
        text = f"{COMMON[variant]} by {name}"
        before = self.model.operations.get((ns, name))
        if before is not None and not any(row.id in before[1] for row in self.model.rows):
            before = None  # a key goes with all that its call wrote: it came with a hash of that
        if before is not None and before[0] != variant:
            with pytest.raises(IdempotencyConflict):
                self.memory.add(text, namespace=ns, idempotency_key=name)
            return
        added = self.memory.add(text, namespace=ns, idempotency_key=name)
        if before is not None:
            assert (added.added, added.ids) == (0, before[1])
            return
        self.model.operations[ns, name] = (variant, added.ids)
        self.note(Row(added.ids[0], ns, None, None, None, text, 0.5, (None, None, None, text, 0), (text,)))

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS, common=st.booleans())
    def update_text(self, pick: int, common: bool) -> None:
        row = self.picked(pick)
        text = COMMON[pick % len(COMMON)] if common else self.fresh()
        key = row.key if text == row.text else (row.user, row.session, row.role, text, 0)
        other = self.model.same(row.namespace, key)
        if other is not None and other.id != row.id:
            with pytest.raises(InvalidInput):
                self.memory.update(row.id, text, namespace=row.namespace)
            return
        new = self.memory.update(row.id, text, namespace=row.namespace)
        assert (new.id, new.text, new.version) == (row.id, text, len(row.versions) + 1)
        self.model.renew(row, text=text, key=key)

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS, level=PICKS)
    def update_importance(self, pick: int, level: int) -> None:
        row = self.picked(pick)
        importance = level % 11 / 10
        assert self.memory.update(row.id, importance=importance, namespace=row.namespace).importance == importance
        self.model.renew(row, importance=importance)

    @precondition(lambda self: self.model.rows)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=3), elsewhere=st.booleans())
    def delete(self, picks: list[int], elsewhere: bool) -> None:
        rows = list({row.id: row for row in map(self.picked, picks)}.values())
        namespace = {"left": "right", "right": "left"}[rows[0].namespace] if elsewhere else rows[0].namespace
        there = [row for row in rows if row.namespace == namespace]
        assert self.memory.erase([row.id for row in rows], namespace=namespace).segments == len(there)
        self.model.drop(there)

    @rule(ns=NAMESPACES, user=USERS, least=st.sampled_from((None, 0.3, 0.8)))
    def delete_all(self, ns: str, user: str | None, least: float | None) -> None:
        if user is None and least is None:
            return
        rows = [row for row in self.model.within(ns, user) if least is None or row.importance >= least]
        filters = None if least is None else {"importance": {"gte": least}}
        assert self.memory.erase(namespace=ns, user_id=user, filters=filters).segments == len(rows)
        self.model.drop(rows)

    @precondition(lambda self: self.model.rows)
    @rule(one=PICKS, other=PICKS, relation=RELATIONS, weight=st.sampled_from((0.25, 0.5, 1.0)))
    def link(self, one: int, other: int, relation: str, weight: float) -> None:
        a, b = self.picked(one), self.picked(other)
        if a.id == b.id or a.namespace != b.namespace:
            with pytest.raises(InvalidInput if a.id == b.id else NotFound):
                self.memory.link(a.id, b.id, relation, weight, namespace=a.namespace)
            return
        self.memory.link(a.id, b.id, relation, weight, namespace=a.namespace)
        self.model.links[a.id, b.id, relation] = weight

    @precondition(lambda self: self.model.links)
    @rule(pick=PICKS, relation=st.none() | RELATIONS, elsewhere=st.booleans())
    def unlink(self, pick: int, relation: str | None, elsewhere: bool) -> None:
        a, b, _ = sorted(self.model.links)[pick % len(self.model.links)]
        namespace = next(row.namespace for row in self.model.rows if row.id == a)
        if elsewhere:
            other = {"left": "right", "right": "left"}[namespace]
            assert self.memory.unlink(a, b, relation, namespace=other) == 0
            return
        gone = [edge for edge in self.model.links if edge[:2] == (a, b) and relation in (None, edge[2])]
        assert self.memory.unlink(a, b, relation, namespace=namespace) == len(gone)
        for edge in gone:
            del self.model.links[edge]

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS, query=st.sampled_from(COMMON), useful=st.none() | st.booleans(), elsewhere=st.booleans())
    def feedback(self, pick: int, query: str, useful: bool | None, elsewhere: bool) -> None:
        row = self.picked(pick)
        if elsewhere:
            with pytest.raises(NotFound):
                self.memory.feedback(query, row.id, useful, namespace={"left": "right", "right": "left"}[row.namespace])
            return
        self.memory.feedback(query, row.id, useful, namespace=row.namespace)
        if useful is None:
            self.model.judgements.pop((row.namespace, query, row.id), None)
        else:
            self.model.judgements[row.namespace, query, row.id] = useful

    @rule(ns=NAMESPACES, weight=st.sampled_from((-9.0, 2.0)))
    def learn(self, ns: str, weight: float) -> None:
        new = tuning.Adjustment(weights={"keyword": weight, "semantic": -weight}, bias=weight, questions=10,
                                fitted_at=datetime.now(UTC), judgements=10, before=0.5, after=0.6)  # fmt: skip
        self.memory._ledger.change_value(tuning.key(ns), lambda raw: tuning.changed(raw, new))
        self.model.learned[ns] = min(self.model.learned.get(ns, 0) + 1, tuning.KEPT)

    @rule(ns=NAMESPACES)
    def untune(self, ns: str) -> None:
        known = self.model.learned.get(ns, 0)
        assert self.memory.untune(ns) == (known > 0)
        self.model.learned[ns] = max(known - 1, 0)

    @rule(ns=NAMESPACES, old=CATEGORIES.filter(bool), new=CATEGORIES | st.none())
    def move_category(self, ns: str, old: tuple[str, ...], new: tuple[str, ...] | None) -> None:
        within = [row for row in self.model.within(ns, None) if row.category[: len(old)] == old]
        if (new or ())[: len(old)] == old:
            with pytest.raises(InvalidInput):
                self.memory.move_category(old, new, namespace=ns)
        elif not within:
            with pytest.raises(NotFound):
                self.memory.move_category(old, new, namespace=ns)
        else:
            assert self.memory.move_category(old, new, namespace=ns) == len(within)
            for row in within:
                self.model.renew(row, category=(*(new or ()), *row.category[len(old) :]))

    # What becomes of a store

    @rule()
    def compact(self) -> None:
        self.memory.compact()
        assert self.memory.verify()["problems"] == []

    @rule()
    def rebuild(self) -> None:
        self.memory.rebuild()
        assert self.memory.verify()["problems"] == []

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = self.opened()

    @rule(open=st.booleans())
    def lose_the_views(self, open: bool) -> None:
        if not open:
            self.memory.close()
        with ExitStack() as locks:
            for view in VIEWS:  # none is being written
                locks.enter_context(FileLock(self.store / f"{view}.lock"))
            shutil.rmtree(self.store / "views", ignore_errors=True)
        if not open:
            self.memory = self.opened()

    @rule(pick=PICKS, cut=st.booleans(), open=st.booleans())
    def damage_a_snapshot(self, pick: int, cut: bool, open: bool) -> None:
        self.memory.close()
        files = [file for file in sorted((self.store / "views").glob("*.safetensors")) if file.stat().st_size]
        if files:
            file = files[pick % len(files)]
            raw = file.read_bytes()
            at = pick * 7919 % len(raw)
            file.write_bytes(raw[:at] if cut else raw[:at] + bytes([raw[at] ^ 0x5A]) + raw[at + 1 :])
        self.memory = self.opened()
        if open:
            self.memory.search("the kettle", namespace="left")

    @rule(level=st.sampled_from(("none", "1bit", "4bit", "f16")), stop=st.booleans())
    def encode_anew(self, level: str, stop: bool) -> None:
        def interrupt(done: int, total: int, what: str) -> None:
            if stop and what == "encoding anew":
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            self.memory.reencode(tokens=level, progress=interrupt)
        assert [problem for *_, problem in self.memory._ledger.problems() if problem] == []  # views may be lost

    @rule(pick=PICKS, gone=st.booleans())
    def damage_an_arena(self, pick: int, gone: bool) -> None:
        self.memory.close()
        files = sorted((self.store / "activations").glob("*.bin"))
        if files:
            file = files[pick % len(files)]
            if gone:
                file.unlink()
            else:
                os.truncate(file, pick % 4_096)
        self.memory = self.opened()
        self.memory.compact()
        assert self.memory.stats()["activations"]["lost"] == 0
        assert self.memory.verify()["problems"] == []

    @rule()
    def remember_the_time(self) -> None:
        self.model.pasts.append(Past(datetime.now(UTC), tuple(self.model.rows)))

    # Reading

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS)
    def search_finds_what_is_there(self, pick: int) -> None:
        row = self.picked(pick)
        first = row.text.split()[0]
        live = {other.id: other for other in self.model.within(row.namespace, row.user)}
        scope: dict[str, Any] = {"namespace": row.namespace, "user_id": row.user}
        unique = first.startswith("zq")
        by_word = self.memory.search(first, k=5 if unique else 100, recipe="keyword", **scope)
        by_meaning = self.memory.search(row.text, k=5, recipe="semantic", **scope)
        both = self.memory.search(row.text, k=10, **scope)
        led = self.memory.search(row.text, k=10, recipe="dsm", **scope)
        if unique:
            assert [hit.id for hit in by_word] == [row.id]
        if self.memory.stats()["pending"] == 0:
            assert by_meaning[0].text == row.text
        for hit in (*by_word, *by_meaning, *both, *led):
            assert hit.text == live[hit.id].text
            assert 0 <= hit.score <= 1

    @precondition(lambda self: self.model.links)
    @rule(pick=PICKS, relation=st.none() | RELATIONS)
    def what_was_linked_is_reached_and_nothing_else(self, pick: int, relation: str | None) -> None:
        start = sorted(self.model.links)[pick % len(self.model.links)][pick % 2]
        namespace = next(row.namespace for row in self.model.rows if row.id == start)
        expected: dict[str, float] = {}
        for (a, b, kind), weight in self.model.links.items():
            if start in (a, b) and relation in (None, kind):
                other = b if start == a else a
                expected[other] = max(expected.get(other, 0.0), weight * WEIGHTS[kind])
        kinds = list(WEIGHTS) if relation is None else relation
        found = self.memory.neighbors(start, kinds, limit=1_000, namespace=namespace)
        assert {near.id: near.strength for near in found} == pytest.approx(expected)
        texts = {row.id: row.text for row in self.model.rows}
        assert all(near.text == texts[near.id] for near in found)

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS, kinds=st.none() | st.sampled_from(("next", "mentions", "similar")))
    def whatever_a_row_leads_to_is_there(self, pick: int, kinds: str | None) -> None:
        row = self.picked(pick)
        there = {other.id: other.text for other in self.model.within(row.namespace, None) if other.id != row.id}
        found = self.memory.neighbors(row.id, kinds, hops=2, limit=1_000, namespace=row.namespace)
        assert all(near.text == there[near.id] for near in found)
        assert len({near.id for near in found}) == len(found)

    @precondition(lambda self: self.model.gone)
    @rule(pick=PICKS)
    def what_is_gone_stays_gone(self, pick: int) -> None:
        row = self.model.gone[pick % len(self.model.gone)]
        with pytest.raises(NotFound):
            self.memory.get(row.id, namespace=row.namespace)
        assert [event.event for event in self.memory.history(row.id, namespace=row.namespace)] == ["ERASE"]
        for recipe in ("keyword", "semantic"):
            hits = self.memory.search(row.text, k=10, recipe=recipe, namespace=row.namespace)
            assert row.id not in {hit.id for hit in hits}

    @precondition(lambda self: self.model.rows)
    @rule(pick=PICKS)
    def history_has_every_version(self, pick: int) -> None:
        row = self.picked(pick)
        events = self.memory.history(row.id, namespace=row.namespace)
        assert tuple(event.text for event in events) == row.versions
        assert [event.event for event in events] == ["ADD"] + ["UPDATE"] * (len(row.versions) - 1)

    @precondition(lambda self: self.model.pasts)
    @rule(pick=PICKS, ns=NAMESPACES)
    def the_past_is_what_it_was(self, pick: int, ns: str) -> None:
        past = self.model.pasts[pick % len(self.model.pasts)]
        alive = {row.id for row in self.model.rows}
        then = {row.id: row.text for row in past.rows if row.namespace == ns and row.id in alive}
        for text in [*list(then.values())[:3], COMMON[0]]:
            for recipe in ("keyword", "semantic"):
                hits = self.memory.search(text, k=50, recipe=recipe, namespace=ns, as_of=past.at)
                assert {hit.id: hit.text for hit in hits}.items() <= then.items()
                if recipe == "keyword" and text in then.values():
                    assert text in {hit.text for hit in hits}

    @invariant()
    def what_was_said_of_it_is_kept(self) -> None:
        for namespace in ("left", "right"):
            said = {(namespace, each.query, each.id): each.useful for each in self.memory._ledger.judgements(namespace)}
            assert said == {key: useful for key, useful in self.model.judgements.items() if key[0] == namespace}

    @invariant()
    def everything_is_listed_in_order(self) -> None:
        for namespace in ("left", "right"):
            listed = self.memory.get_all(namespace=namespace, limit=10_000)
            assert [(row.id, row.text, row.user_id, row.repeats, row.importance, row.category) for row in listed] == [
                (row.id, row.text, row.user, row.repeats, row.importance, row.category)
                for row in self.model.within(namespace, None)
            ]


class Filled(Store):
    """The same, from a store that has snapshots already."""

    @initialize()
    def fill(self) -> None:
        for turn in range(24):
            self.add_text(("left", "right")[turn % 2], (None, "ana", "ben")[turn % 3], None, False, 0, True, turn)
        self.compact()


QUICK = settings(
    max_examples=5, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(QUICK, max_examples=400, stateful_step_count=80)

TestAStoreAnswersAsAListWould = Store.TestCase
TestAStoreAnswersAsAListWould.settings = QUICK
TestAStoreWithSnapshotsAnswersAsAListWould = Filled.TestCase
TestAStoreWithSnapshotsAnswersAsAListWould.settings = QUICK


@pytest.mark.soak
class TestAStoreAnswersAsAListWouldForLong(Filled.TestCase):  # type: ignore[name-defined,misc]
    settings = LONG
