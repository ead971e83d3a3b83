"""An import is killed, or runs beside other writers, and in the end everything is there once."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from pathlib import Path

import pytest
from running import started

from memspan import Memory


def archive(place: Path, turns: int) -> bytes:
    """An archive with versions, a document, links and feedback."""
    with Memory(place / "origin", encoder="hash") as memory:
        said = [{"role": "user", "content": f"Turn number {number} of the talk."} for number in range(turns)]
        ids = memory.add(said, session="talk").ids
        for id in ids[::7]:
            memory.update(id, f"What {id} said was put otherwise.")
        for one, other in pairwise(ids):
            memory.link(one, other, "reply")
        memory.feedback("which turn?", ids[3])
        memory.export_to(place / "origin.jsonl")
    return (place / "origin.jsonl").read_bytes()


def killed(store: Path, file: Path, left: int, choose: random.Random) -> bool:
    """Import in a process that is killed a moment after ``left`` batches; False when it was done before."""
    with started("take", store, file) as process:
        for told in process.lines():
            if "added" in told:
                assert told["failed"] == 0
                return False
            left -= "done" in told
            if left == 0:
                moment = time.perf_counter() + choose.random() * 0.02
                while time.perf_counter() < moment:
                    pass
                process.kill()
        assert process.ended() == -9
    return True


def campaign(place: Path, turns: int, seed: int) -> None:
    choose = random.Random(seed)
    expected = archive(place, turns)
    batches = kills = 0
    while killed(place / "store", place / "origin.jsonl", batches := batches + choose.randint(1, 5), choose):
        kills += 1
    assert kills > 1
    with Memory(place / "store", encoder="hash") as memory:
        memory.export_to(place / "again.jsonl")
        assert (place / "again.jsonl").read_bytes() == expected
        memory.compact()
        assert memory.verify()["ok"]


def test_an_import_that_is_killed_again_and_again_ends_with_everything_once(tmp_path: Path) -> None:
    campaign(tmp_path, 80, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_imports_killed_for_long_end_with_everything_once(tmp_path: Path, seed: int) -> None:
    campaign(tmp_path, 1_000, seed=seed)


def test_two_imports_of_one_archive_and_a_writer_at_once_leave_everything_once(tmp_path: Path) -> None:
    archive(tmp_path, 200)
    store = tmp_path / "store"
    take = ("take", store, tmp_path / "origin.jsonl")
    with Memory(store, encoder="hash") as memory, started(*take) as one, started(*take) as other:
        for number in range(30):
            memory.add(f"Written beside the imports, number {number}.")
        told = [process.finish()[-1] for process in (one, other)]
        assert sum(each["added"] for each in told) == 229
        assert sum(each["there"] for each in told) == 229
        assert len(memory.get_all(limit=1_000)) == 230
        assert memory.verify()["ok"]
