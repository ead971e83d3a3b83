"""The promises of a store, kept on PostgreSQL: by many processes, by clients and a server that are killed."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from postgres import database
from postgres_faults import Killable
from running import Process, started
from test_crash import campaign
from test_processes import writers_and_readers
from test_state_machine import Store
from test_truth_state_machine import Truth

from memspan import Memory
from memspan.testing import WordEncoder

psycopg = pytest.importorskip("psycopg")
address = pytest.importorskip("memspan.ledger.postgres.connections").database


class OnPostgres(Store):
    """The same rules; what damages files finds none."""

    def __init__(self, server: str) -> None:
        self.stack = ExitStack()
        self.url = self.stack.enter_context(database(server))
        super().__init__()
        self.store.mkdir()

    def opened(self) -> Memory:
        return Memory(self.url, encoder=WordEncoder())

    def teardown(self) -> None:
        with self.stack:
            super().teardown()


class TruthOnPostgres(Truth):
    def __init__(self, server: str) -> None:
        self.stack = ExitStack()
        self.url = self.stack.enter_context(database(server))
        super().__init__()
        self.memory.close()
        self.memory = Memory(self.url, encoder=None)

    def teardown(self) -> None:
        with self.stack:
            super().teardown()


def run(machine: Any, examples: int, steps: int) -> None:
    few = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(machine, settings=few)  # type: ignore[no-untyped-call]


def test_it_answers_as_a_list_would(postgres_server: str) -> None:
    run(partial(OnPostgres, postgres_server), 2, 25)


def test_whatever_happened_it_says_what_a_plain_model_says(postgres_server: str) -> None:
    run(partial(TruthOnPostgres, postgres_server), 2, 25)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [OnPostgres, TruthOnPostgres])
def test_a_long_campaign_of_the_same(postgres_server: str, machine: Any) -> None:
    run(partial(machine, postgres_server), 200, 60)


def test_every_acknowledged_write_survives_a_killed_client(postgres: str) -> None:
    campaign(postgres, kills=3, seed=22)


@pytest.mark.soak
def test_every_acknowledged_write_survives_two_hundred_killed_clients(postgres: str, words: WordEncoder) -> None:
    campaign(postgres, kills=200, seed=23, encoder=words)


def test_what_four_processes_write_is_found_by_two_others_at_their_next_search(postgres: str) -> None:
    writers_and_readers(postgres, writers=4, each=12, readers=2, compactors=1)


def test_eight_processes_can_make_a_new_store_at_the_same_moment(postgres_server: str) -> None:
    with database(postgres_server) as url:
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute("DROP SCHEMA memspan CASCADE")
        with ExitStack() as stack:
            processes = [stack.enter_context(started("open_new", url)) for _ in range(8)]
            for process in processes:
                assert process.hear() == {"ready": True}
            for process in processes:
                process.tell("go")
            said = [line for process in processes for line in process.finish()]
        assert len({line["store"] for line in said}) == 1, "they opened one store"
        with Memory(url) as memory:
            assert {segment.id for segment in memory.get_all()} == {line["id"] for line in said}
            assert memory.verify()["ok"]


def test_a_forked_child_goes_on_writing_when_its_parent_has_closed_the_store(postgres: str) -> None:
    with started("fork", postgres) as process:
        assert process.finish() == [{"child": 0}]
    with Memory(postgres) as memory:
        assert memory.stats()["segments"] == 103
        assert memory.verify()["ok"]


def test_children_forked_while_threads_write_and_search_neither_hang_nor_lose_a_write(postgres: str) -> None:
    with started("fork_busily", postgres, 4) as process:
        (said,) = process.finish()
    assert said["children"] == [0] * 4
    with Memory(postgres) as memory:
        assert memory.stats()["segments"] == 60 + said["written"] + 4
        assert memory.verify()["problems"] == []


def eight_writers(url: str, each: int, namespaces: list[str]) -> None:
    """Eight processes write; a reader sees the rows of each namespace come in the order of their seqs, none late."""
    stopping = threading.Event()

    def follow(namespace: str) -> int:
        with Memory(url, encoder=None) as memory:
            last, polls = np.zeros(0, np.int64), 0
            while not stopping.is_set():
                rows = memory._ledger.rows(namespace)
                assert (rows[: len(last)] == last).all(), "a row came before one that was seen"
                last, polls = rows, polls + 1
            return polls

    with ExitStack() as stack:
        Memory(url, encoder="hash").close()
        pool = stack.enter_context(ThreadPoolExecutor(len(namespaces)))
        stack.callback(stopping.set)
        following = [pool.submit(follow, namespace) for namespace in namespaces]
        writing = [
            stack.enter_context(started("write", url, number, each, namespaces[number % len(namespaces)]))
            for number in range(8)
        ]
        said = [line for process in writing for line in process.finish()]
        stopping.set()
        assert all(polls.result() > 1 for polls in following)
    with Memory(url) as memory:
        held = {row.id: row for name in namespaces for row in memory.get_all(namespace=name, limit=100_000)}
        assert {(id, row.text, row.repeats) for id, row in held.items()} == {
            (line["id"], line["text"], 0) for line in said
        }
        for name in namespaces:
            seqs = memory._ledger.rows(name).tolist()
            assert seqs == list(range(1, len(seqs) + 1))
        assert memory.verify() == {"ok": True, "segments": 8 * each, "problems": []}


@pytest.mark.parametrize("namespaces", [["one"], ["one", "two", "three"]])
def test_a_reader_of_what_eight_processes_write_never_skips_a_row(postgres: str, namespaces: list[str]) -> None:
    eight_writers(postgres, 10, namespaces)


@pytest.mark.soak
@pytest.mark.parametrize("namespaces", [["one"], ["one", "two", "three"]])
def test_a_reader_of_what_eight_processes_write_five_hundred_times_never_skips_a_row(
    postgres: str, namespaces: list[str]
) -> None:
    eight_writers(postgres, 500, namespaces)


# A server that is killed


@pytest.fixture
def server() -> Iterator[Killable]:
    """One that keeps on the disk what it says it has."""
    with tempfile.TemporaryDirectory(prefix="memspan-pg-", ignore_cleanup_errors=True) as directory:
        server = Killable(Path(directory))
        try:
            with psycopg.connect(server.url, autocommit=True) as raw:
                assert raw.execute("SHOW fsync").fetchone() == ("on",)
                raw.execute("CREATE DATABASE promises")
            yield server
        finally:
            server.kill()


def heard(process: Process, more: int) -> list[dict[str, Any]]:
    """What it says until it has added so many more."""
    lines: list[dict[str, Any]] = []
    while sum("id" in line for line in lines) < more:
        lines.append(process.hear())
    return lines


def crashes(server: Killable, kills: int, writers: int = 3) -> None:
    url = address(server.url, "promises")
    Memory(url, encoder="hash").close()
    with ExitStack() as stack, ThreadPoolExecutor(writers) as pool:
        processes = [
            stack.enter_context(started("persist", url, number, ("one", "two")[number % 2]))
            for number in range(writers)
        ]
        for process in processes:
            assert process.hear() == {"ready": True}
        said: list[list[dict[str, Any]]] = [heard(process, 3) for process in processes]
        for _ in range(kills):
            server.kill()
            server.restart()
            for lines, more in zip(said, pool.map(lambda process: heard(process, 5), processes), strict=True):
                lines += more
        for lines, process in zip(said, processes, strict=True):
            lines += process.finish()
    with Memory(url) as memory:
        for number, lines in enumerate(said):
            rows = memory.get_all(namespace=("one", "two")[number % 2], user_id=str(number), limit=100_000)
            acknowledged = [(line["id"], line["text"], 0) for line in lines if "id" in line]
            assert [(row.id, row.text, row.repeats) for row in rows] == acknowledged
        assert memory.verify()["problems"] == []


def test_every_acknowledged_write_survives_a_killed_server_and_its_clients_go_on(server: Killable) -> None:
    crashes(server, kills=2)


@pytest.mark.soak
def test_every_acknowledged_write_survives_fifty_killed_servers(server: Killable) -> None:
    crashes(server, kills=50, writers=6)


def test_a_killed_writer_leaves_no_lock(postgres: str) -> None:
    Memory(postgres, encoder="hash").close()
    with ExitStack() as stack:
        others = stack.enter_context(started("persist", postgres, 7, "default"))
        assert others.hear() == {"ready": True}
        for run in range(4):
            with started("churn", postgres, run, run) as process:
                for _ in range(6 + run):
                    process.hear()
                process.kill()
            heard(others, 3)
        others.finish()
    with Memory(postgres) as memory:
        assert memory.verify()["problems"] == []
