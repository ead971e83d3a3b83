"""A backup holds one moment, whoever writes meanwhile; and a backup that is cut off costs none of those before it."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import Process, started

from memspan import Memory, backups, restore
from memspan.testing import WordEncoder

WRITERS = 8


@contextmanager
def writing(store: Path, seed: int) -> Iterator[list[int]]:
    """Eight processes that count up and one that writes in every way, deletes and compacts; what each has acknowledged
    so far, kept up as they tell it."""
    acknowledged = [0] * WRITERS
    tasks = [("count_up", str(number)) for number in range(WRITERS)] + [("churn", "99", str(seed))]
    processes = [Process(task, store, *arguments) for task, *arguments in tasks]
    begun = [threading.Event() for _ in processes]

    def listen(number: int) -> None:
        for line in processes[number].lines():
            if number < WRITERS:
                acknowledged[number] = line.get("last", 0)
            begun[number].set()

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(len(processes))]
    for thread in threads:
        thread.start()
    try:
        assert all(each.wait(120) for each in begun)
        yield acknowledged
        assert all(process.running() for process in processes), "one of them failed"
    finally:
        for process in processes:
            process.kill()
        for thread, process in zip(threads, processes, strict=True):
            thread.join()
            process.stop()


def prefixes(memory: Memory) -> list[int]:
    """How far each writer had come: its numbers up to there are there, each once, and no call is there by half."""
    told: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number in range(WRITERS):
        for segment in memory.get_all(user_id=str(number), limit=100_000):
            step, last = segment.text.split(" by ")[0].split(" of ")
            told[number].append((int(step), int(last)))
        steps = sorted(told[number])
        assert [step for step, _ in steps] == list(range(1, len(steps) + 1)), number
        assert not steps or steps[-1][0] == steps[-1][1], "half of a call is there"
    return [len(told[number]) for number in range(WRITERS)]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arenas as small as they are here are copied ahead of the moment, as large ones are."""
    monkeypatch.setattr("memspan.ledger.copying.SMALL", 1 << 12)


def campaign(tmp_path: Path, count: int, seed: int) -> None:
    choose = random.Random(seed)
    store, place = tmp_path / "store", tmp_path / "backups"
    Memory(store, encoder=WordEncoder()).close()
    before = [0] * WRITERS
    with writing(store, seed) as acknowledged, Memory(store, encoder=WordEncoder()) as memory:
        for number in range(1, count + 1):
            moment = time.perf_counter() + choose.random() * 0.3
            while time.perf_counter() < moment:
                memory.search("kettle", k=1)
            told = acknowledged.copy()
            assert memory.backup(place, keep=choose.choice((None, 5))).number == number
            restore(place, tmp_path / f"{number}")
            with Memory(tmp_path / f"{number}", encoder=WordEncoder()) as restored:
                assert restored.verify()["problems"] == [], (seed, number)
                held = prefixes(restored)
                assert restored.stats()["activations"]["lost"] == 0
                assert restored.search("kettle")
            assert all(was <= has for was, has in zip(told, held, strict=True)), (seed, number, told, held)
            assert all(was <= has for was, has in zip(before, held, strict=True))
            before = held
    assert sum(before) > WRITERS
    for kept in backups.kept(place):
        assert backups.check(place, kept.number) == kept


@pytest.mark.usefixtures("ahead")
def test_a_backup_under_eight_writers_restores_to_a_prefix_of_what_each_wrote(
    tmp_path: Path, words: WordEncoder
) -> None:
    campaign(tmp_path, count=3, seed=31)


@pytest.mark.soak
@pytest.mark.usefixtures("ahead")
def test_fifty_backups_under_eight_writers_restore_to_a_prefix_of_what_each_wrote(
    tmp_path: Path, words: WordEncoder
) -> None:
    campaign(tmp_path, count=50, seed=random.SystemRandom().randrange(1 << 30))


def killed(tmp_path: Path, kills: int, seed: int) -> None:
    choose = random.Random(seed)
    store, place = tmp_path / "store", tmp_path / "backups"
    acknowledged: dict[int, int] = {}
    for run in range(kills):
        seed_of_run, left = choose.randrange(1 << 30), choose.randint(1, 6)
        with started("back_up", store, place, seed_of_run) as process:
            for told in process.lines():
                if "number" in told:
                    acknowledged[told["number"]] = told["segments"]
                left -= 1
                if left == 0:
                    moment = time.perf_counter() + choose.random() * 0.06
                    while time.perf_counter() < moment:
                        pass
                    process.kill()
            assert process.ended() == -9
        if not acknowledged:
            continue
        kept = backups.kept(place)
        assert max(acknowledged) <= kept[-1].number <= max(acknowledged) + 1
        for each in kept:
            assert each.segments >= acknowledged.get(each.number, 0)
            assert backups.check(place, each.number) == each
        chosen = choose.choice(kept)
        restore(place, tmp_path / f"{run}", at=chosen.number)
        with Memory(tmp_path / f"{run}", encoder=WordEncoder()) as restored:
            assert restored.verify()["problems"] == []
            assert restored.stats()["segments"] == chosen.segments
    with Memory(store, encoder=WordEncoder()) as memory:
        last = memory.backup(place, keep=1)
    assert backups.kept(place) == [last]
    assert not list(place.glob("*.part")), "what was cut off is gone"


@pytest.mark.soak
def test_a_killed_backup_costs_none_of_those_before_it(tmp_path: Path, words: WordEncoder) -> None:
    killed(tmp_path, kills=6, seed=32)


@pytest.mark.soak
def test_a_hundred_killed_backups_cost_none_of_those_before_them(tmp_path: Path, words: WordEncoder) -> None:
    killed(tmp_path, kills=100, seed=random.SystemRandom().randrange(1 << 30))
