"""Any interleaving of what changes a memory, against a plain model: all versions in lists, and time as an index."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from memspan import Memory, NotFound, NotUndoable, Segment

FIRST, STEPS = datetime(2020, 1, 1, tzinfo=UTC), 40


class Said(NamedTuple):
    """What one version says."""

    text: str
    importance: float
    valid_from: datetime | None = None
    valid_to: datetime | None = None


class Past(NamedTuple):
    """A moment, and the version that each segment had then."""

    at: datetime
    versions: dict[str, int]


class Done(NamedTuple):
    """An operation, and the version of each segment before and after it."""

    id: str
    changes: dict[str, tuple[int | None, int | None]]


class Away(NamedTuple):
    """What a prune took out: all versions of a segment, which one is current, and which was at each moment so far."""

    said: list[Said]
    now: int
    past: list[int | None]


class Truth(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="memspan-truth-")
        self.pruned: list[tuple[str, dict[str, Away]]] = []
        self.memory = Memory(":memory:", encoder=None)
        self.said: dict[str, list[Said]] = {}  # every version of what was not erased
        self.now: dict[str, int] = {}  # the versions that are current
        self.past: list[Past] = []
        self.done: list[Done] = []
        self.undone: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        self.memory.close()
        self.folder.cleanup()

    # What the model does

    def words(self) -> str:
        self.count += 1
        return f"Statement number {self.count}."

    def say(self, id: str, said: Said) -> None:
        self.said.setdefault(id, []).append(said)
        self.now[id] = len(self.said[id])

    def ended(self, before: dict[str, int]) -> None:
        """Note what the last operation did, and when it was over."""
        touched = {id: (before.get(id), self.now.get(id)) for id in {*before, *self.now}}
        changes = {id: change for id, change in touched.items() if change[0] != change[1]}
        if changes:
            self.done.append(Done(self.memory.operations(limit=1)[0].id, changes))
        self.past.append(Past(datetime.now(UTC), dict(self.now)))

    def pick(self, at: int) -> str:
        return sorted(self.now)[at % len(self.now)]

    # What happens

    @rule(n=st.integers(1, 3))
    def add(self, n: int) -> None:
        before, words = dict(self.now), [self.words() for _ in range(n)]
        added = self.memory.add([{"role": "user", "content": text} for text in words])
        for id, text in zip(added.ids, words, strict=True):
            self.say(id, Said(text, 0.5))
        self.ended(before)
        assert added.operation == self.done[-1].id

    @precondition(lambda self: self.now)
    @rule(at=st.integers(0), importance=st.sampled_from([None, 0.25, 0.75]))
    def update(self, at: int, importance: float | None) -> None:
        before, id = dict(self.now), self.pick(at)
        text, old = self.words(), self.said[id][-1]
        self.memory.update(id, text, importance=importance)
        self.say(id, old._replace(text=text, importance=old.importance if importance is None else importance))
        self.ended(before)

    @precondition(lambda self: self.now)
    @rule(at=st.lists(st.integers(0), min_size=1, max_size=3))
    def delete(self, at: list[int]) -> None:
        before, ids = dict(self.now), {self.pick(each) for each in at}
        assert self.memory.delete(list(ids)) == len(ids)
        for id in ids:
            del self.now[id]
        self.ended(before)

    @precondition(lambda self: len(self.now) > 1)
    @rule(at=st.integers(0), since=st.integers(0, 3), step=st.integers(1))
    def supersede(self, at: int, since: int, step: int) -> None:
        before, old = dict(self.now), self.pick(at)
        new = self.pick(sorted(self.now).index(old) + 1 + step % (len(self.now) - 1))
        moment = FIRST.replace(year=2020 + since)
        one, other = self.said[old][-1], self.said[new][-1]
        if one.valid_from is not None and one.valid_from >= moment:
            return
        self.memory.supersede(old, new, at=moment)
        if one.valid_to is None or one.valid_to > moment:
            self.say(old, one._replace(valid_to=moment))
        if other.valid_from is None and (other.valid_to is None or other.valid_to > moment):
            self.say(new, other._replace(valid_from=moment))
        self.ended(before)

    @precondition(lambda self: self.now)
    @rule(at=st.integers(0))
    def erase(self, at: int) -> None:
        id = self.pick(at)
        assert self.memory.erase(id).segments == 1
        del self.now[id], self.said[id]
        for past in self.past:
            past.versions.pop(id, None)
        self.past.append(Past(datetime.now(UTC), dict(self.now)))
        with pytest.raises(NotFound):
            self.memory.get(id)

    @precondition(lambda self: self.now)
    @rule(at=st.lists(st.integers(0), min_size=1, max_size=3))
    def prune(self, at: list[int]) -> None:
        ids = sorted({self.pick(each) for each in at})
        self.count += 1
        done = self.memory.prune(
            below=1.0,
            older_than=0,
            filters={"id": {"in": ids}},
            dry_run=False,
            archive=f"{self.folder.name}/{self.count}.memspan",
        )
        away = {}
        for id in ids:
            away[id] = Away(self.said.pop(id), self.now.pop(id), [past.versions.pop(id, None) for past in self.past])
        self.pruned.append((str(done.operation), away))
        self.past.append(Past(datetime.now(UTC), dict(self.now)))

    @precondition(lambda self: self.pruned)
    @rule(at=st.integers(0))
    def bring_back(self, at: int) -> None:
        """As if it had never been away."""
        operation, away = self.pruned.pop(at % len(self.pruned))
        self.memory.undo(operation)
        for id, gone in away.items():
            self.said[id], self.now[id] = gone.said, gone.now
            for number, past in enumerate(self.past):
                version = gone.past[number] if number < len(gone.past) else gone.now
                if version is not None:
                    past.versions[id] = version
        self.past.append(Past(datetime.now(UTC), dict(self.now)))

    @precondition(lambda self: self.done)
    @rule(at=st.integers(0))
    def undo(self, at: int) -> None:
        before, done = dict(self.now), self.done[at % len(self.done)]
        as_left = all(id in self.said and self.now.get(id) == after for id, (_, after) in done.changes.items())
        # an end is as the operation left it only where nobody brought the segment back and ended it again
        for id, (was, after) in done.changes.items():
            as_left = as_left and (after is not None or (id in self.said and len(self.said[id]) == was))
        if done.id in self.undone or not as_left:
            with pytest.raises(NotUndoable):
                self.memory.undo(done.id)
            return
        assert self.memory.undo(done.id).undoes == done.id
        for id, (was, _) in done.changes.items():
            if was is None:
                del self.now[id]
            else:
                self.say(id, self.said[id][was - 1])
        self.ended(before)
        # taking back what took something back does that again
        self.undone = {each.id for each in self.memory.operations(limit=10_000) if each.undone_by is not None}

    @precondition(lambda self: self.past)
    @rule(at=st.integers(0))
    def restore(self, at: int) -> None:
        before, past = dict(self.now), self.past[at % len(self.past)]
        self.memory.restore(past.at)
        for id in {*self.now, *past.versions}:
            wanted = past.versions.get(id)
            if wanted is None:
                del self.now[id]
            elif self.now.get(id) != wanted:
                self.say(id, self.said[id][wanted - 1])
        self.ended(before)

    # What must hold

    @invariant()
    def says_what_the_model_says(self) -> None:
        rows = self.memory.get_all(include_superseded=True, limit=10_000)
        assert _plain(rows) == self.model(self.now)
        today = datetime.now(UTC)
        held = {
            id: version
            for id, version in self.now.items()
            if (said := self.said[id][version - 1])
            and (said.valid_to is None or said.valid_to > today)
            and (said.valid_from is None or said.valid_from <= today)
        }
        assert _plain(self.memory.get_all(limit=10_000)) == self.model(held)

    @precondition(lambda self: self.past)
    @rule(at=st.integers(0))
    def as_of_is_a_replay_to_that_moment(self, at: int) -> None:
        past = self.past[at % len(self.past)]
        rows = self.memory.get_all(as_of=past.at, include_superseded=True, limit=10_000)
        assert _plain(rows) == self.model(past.versions)

    @rule()
    def verifies(self) -> None:
        assert self.memory.verify()["problems"] == []

    def model(self, versions: dict[str, int]) -> dict[str, tuple[int, Said]]:
        return {id: (version, self.said[id][version - 1]) for id, version in versions.items()}


def _plain(rows: list[Segment]) -> dict[str, Any]:
    return {row.id: (row.version, Said(row.text, row.importance, row.valid_from, row.valid_to)) for row in rows}


def run(examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Truth,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happened_it_says_what_a_plain_model_says() -> None:
    run(12)


@pytest.mark.soak
def test_a_long_campaign_of_the_same() -> None:
    run(400)
