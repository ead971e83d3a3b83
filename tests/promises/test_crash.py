"""A process killed at any moment loses nothing it was told is kept."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import started

from memspan import Memory
from memspan.encoders.base import Encoder
from memspan.testing import WordEncoder


class Expected:
    """What the store must hold: every acknowledged write, and of the last one, if not acknowledged, all or nothing."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.gone: set[str] = set()
        self.open: dict[str, Any] = {}

    def hear(self, line: dict[str, Any]) -> None:
        if "added" in line:
            self.texts.update(zip(line["added"], self.open["adding"], strict=True))
        elif "updated" in line:
            self.texts[line["updated"]] = self.open["text"]
        elif "deleted" in line:
            self.gone.update(line["deleted"])
            for id in line["deleted"]:
                del self.texts[id]
        self.open = {} if {"added", "updated", "deleted"} & line.keys() else line

    def settle(self, memory: Memory) -> None:
        """Take over what became of the write that was under way: done whole, or not at all."""
        held = {segment.id: segment.text for segment in memory.get_all(limit=100_000)}
        if "adding" in self.open:
            done = {id: text for id, text in held.items() if text in self.open["adding"]}
            assert len(done) in (0, len(self.open["adding"])), "half of one add is there"
            self.texts.update(done)
        elif "updating" in self.open and held[self.open["updating"]] == self.open["text"]:
            self.texts[self.open["updating"]] = self.open["text"]
        elif "deleting" in self.open:
            done_ids = [id for id in self.open["deleting"] if id not in held]
            assert len(done_ids) in (0, len(self.open["deleting"])), "half of one delete is done"
            for id in done_ids:
                self.gone.add(id)
                del self.texts[id]
        self.open = {}
        assert held == self.texts


def lines_until_killed(store: Path, run: int, choose: random.Random) -> Iterator[dict[str, Any]]:
    """Everything the process said before it was killed, at a random moment after a random number of lines."""
    seed, left = choose.randrange(1 << 30), choose.randint(1, 60)
    with started("churn", store, run, seed) as process:
        for line in process.lines():
            yield line
            left -= 1
            if left == 0:
                moment = time.perf_counter() + choose.random() * 0.01
                while time.perf_counter() < moment:
                    pass
                process.kill()
        assert process.ended() == -9, "it ended before it was killed"


def campaign(store: Path, kills: int, seed: int, encoder: str | Encoder = "hash") -> None:
    choose = random.Random(seed)
    expected = Expected()
    asked = missed = 0
    for run in range(kills):
        for line in lines_until_killed(store, run, choose):
            expected.hear(line)
        with Memory(store, encoder=encoder) as memory:
            expected.settle(memory)
            assert memory.verify() == {"ok": True, "segments": memory.stats()["versions"], "problems": []}, (seed, run)
            newest = list(expected.texts.items())[-5:]
            for id, text in [*newest, *choose.sample(list(expected.texts.items()), min(5, len(expected.texts)))]:
                found = memory.search(text.split()[0], k=3, recipe="keyword")
                assert [hit.id for hit in found] == [id], (seed, run)
                asked += 1
                missed += memory.search(text, k=1, recipe="semantic")[0].id != id
            assert memory.stats()["pending"] == 0, "what waited for its vector was served by the searches"
            if encoder != "hash":
                kept = memory.stats()["activations"]
                assert kept["lost"] == 0, "what was acknowledged was on the disk"
                assert kept["references"] == memory._ledger.counts()["vectors"]
            for id in choose.sample(sorted(expected.gone), min(3, len(expected.gone))):
                assert [event.event for event in memory.history(id)] == ["ERASE"]
    assert missed <= 1 + asked // 500, "a graph is approximate, but not more than this"


def test_every_acknowledged_write_survives_a_killed_process(tmp_path: Path) -> None:
    campaign(tmp_path / "store", kills=5, seed=20)


def test_every_acknowledged_tensor_survives_a_killed_process(tmp_path: Path, words: WordEncoder) -> None:
    campaign(tmp_path / "store", kills=3, seed=21, encoder=words)


@pytest.mark.soak
def test_every_acknowledged_tensor_survives_two_hundred_kills(tmp_path: Path, words: WordEncoder) -> None:
    campaign(tmp_path / "store", kills=200, seed=random.SystemRandom().randrange(1 << 30), encoder=words)


@pytest.mark.soak
def test_every_acknowledged_write_survives_two_hundred_kills(tmp_path: Path) -> None:
    campaign(tmp_path / "store", kills=200, seed=random.SystemRandom().randrange(1 << 30))
