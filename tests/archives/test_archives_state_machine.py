"""Two memories that live apart and exchange archives, in any order: what each holds is what a plain model says."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memspan import Memory

SIDES = st.sampled_from((0, 1))
PICK = st.integers(0, 1_000)
FILES = st.sampled_from(("jsonl", "memspan", "parquet"))


class Apart(RuleBasedStateMachine):
    """The model of a side: for each id the set of (text, category) it has ever been, and the ids deleted there."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="memspan-apart-"))
        self.memories = [Memory(self.place / name, encoder=None) for name in ("a", "b")]
        self.known: list[dict[str, set[tuple[str, str]]]] = [{}, {}]
        self.deleted: list[set[str]] = [set(), set()]
        self.latest: dict[str, list[tuple[str, str]]] = {}
        self.files = 0
        self.said = 0
        self.ever = False  # whether anything was deleted

    def _some(self, side: int, pick: int) -> str | None:
        ids = sorted(self.known[side])
        return ids[pick % len(ids)] if ids else None

    @rule(side=SIDES, several=st.integers(1, 3))
    def add(self, side: int, several: int) -> None:
        self.said += 1
        text = f"Said number {self.said}."
        turns = [{"role": "user", "content": text}] * several  # equal turns of one call are all kept
        for id in self.memories[side].add(turns, session="s").ids:
            self.known[side][id] = {(text, "")}
            self.latest[id] = [(text, "")]

    @rule(side=SIDES, pick=PICK, category=st.booleans())
    def update(self, side: int, pick: int, category: bool) -> None:
        if (id := self._some(side, pick)) is None:
            return
        now = self.memories[side].get(id)
        self.said += 1
        if category:
            self.memories[side].update(id, category=f"C{self.said}")
            state = (now.text, f"C{self.said}")
        else:
            self.memories[side].update(id, f"Said otherwise, number {self.said}.")
            state = (f"Said otherwise, number {self.said}.", " / ".join(now.category))
        self.known[side][id].add(state)
        self.latest[id].append(state)

    @rule(side=SIDES, pick=PICK)
    def delete(self, side: int, pick: int) -> None:
        id = self._some(side, pick)
        # a version that the other side has not heard comes there as it was in the end: deleted
        if id is not None and self.known[1 - side].get(id, self.known[side][id]) >= self.known[side][id]:
            assert self.memories[side].delete(id) == 1
            del self.known[side][id]
            self.deleted[side].add(id)
            self.ever = True

    @rule(side=SIDES, pick=PICK, other=PICK)
    def link(self, side: int, pick: int, other: int) -> None:
        ends = self._some(side, pick), self._some(side, other)
        if ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
            self.memories[side].link(ends[0], ends[1], "reply")

    @rule(side=SIDES, pick=PICK, useful=st.booleans())
    def judge(self, side: int, pick: int, useful: bool) -> None:
        if (id := self._some(side, pick)) is not None:
            self.memories[side].feedback("what was said?", id, useful)

    @rule(giver=SIDES, twice=st.booleans(), suffix=FILES, history=st.booleans())
    def give(self, giver: int, twice: bool, suffix: str = "jsonl", history: bool = True) -> None:
        taker = 1 - giver
        self.files += 1
        file = self.place / f"{self.files}.{suffix}"
        self.memories[giver].export_to(file, history=history)
        done = self.memories[taker].import_from(file)
        assert done.failed == 0
        for id, states in self.known[giver].items():
            if id not in self.deleted[taker]:
                now = next(state for state in reversed(self.latest[id]) if state in states)
                self.known[taker].setdefault(id, set()).update(states if history else {now})
        if twice:
            again = self.memories[taker].import_from(file)
            assert (again.added, again.links, again.conflicts) == (0, 0, ())

    @rule(side=SIDES)
    def bring_back(self, side: int) -> None:
        """The other side's archive brings back what was deleted here."""
        self.files += 1
        file = self.place / f"{self.files}.jsonl"
        self.memories[1 - side].export_to(file)
        self.memories[side].import_from(file, restore_deleted=True)
        for id, states in self.known[1 - side].items():
            self.known[side].setdefault(id, set()).update(states)
            self.deleted[side].discard(id)

    @invariant()
    def each_holds_what_it_heard(self) -> None:
        for side, memory in enumerate(getattr(self, "memories", ())):
            held = {each.id: each for each in memory.get_all(limit=10_000)}
            assert held.keys() == self.known[side].keys()
            for id, states in self.known[side].items():
                history = [event for event in memory.history(id) if event.event != "DELETE"]
                assert {event.text for event in history} == {text for text, _ in states}
                versions = [event.version for event in history]
                assert versions == sorted(set(versions))
                # the latest of all that was heard is current, whoever said it
                last = next(state for state in reversed(self.latest[id]) if state in states)
                assert (held[id].text, " / ".join(held[id].category)) == last

    def teardown(self) -> None:
        for number, memory in enumerate(getattr(self, "memories", ())):
            assert memory.verify()["ok"]
            first = self.place / f"last-{number}.jsonl"
            memory.export_to(first)
            with Memory(self.place / f"empty-{number}", encoder=None) as empty:
                empty.import_from(first)
                empty.export_to(self.place / "again.jsonl")
                assert (self.place / "again.jsonl").read_bytes() == first.read_bytes()
        if hasattr(self, "memories"):
            if not self.ever:  # that something was out of sight for a while here does not travel
                for giver in (0, 1):
                    self.give(giver, False)
                for number, memory in enumerate(self.memories):
                    memory.export_to(self.place / f"end-{number}.jsonl")
                ends = [(self.place / f"end-{number}.jsonl").read_bytes() for number in (0, 1)]
                assert ends[0] == ends[1]
            for memory in self.memories:
                memory.close()
            shutil.rmtree(self.place)


class TestApart(Apart.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=10, stateful_step_count=20, deadline=None)


@pytest.mark.soak
class TestApartForLong(Apart.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=500, stateful_step_count=50, deadline=None)
