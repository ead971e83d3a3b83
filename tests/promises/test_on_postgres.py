"""The promises of a store, kept on PostgreSQL: by many processes, by clients and a server that are killed."""

from __future__ import annotations

import random
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
from test_erasure import everything, filled, only
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
    run(partial(OnPostgres, postgres_server), 1, 25)


def test_whatever_happened_it_says_what_a_plain_model_says(postgres_server: str) -> None:
    run(partial(TruthOnPostgres, postgres_server), 1, 25)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [OnPostgres, TruthOnPostgres])
def test_a_long_campaign_of_the_same(postgres_server: str, machine: Any) -> None:
    run(partial(machine, postgres_server), 200, 60)


def test_every_acknowledged_write_survives_a_killed_client(postgres: str) -> None:
    campaign(postgres, kills=2, seed=22)


@pytest.mark.soak
def test_every_acknowledged_write_survives_two_hundred_killed_clients(postgres: str, words: WordEncoder) -> None:
    campaign(postgres, kills=200, seed=23, encoder=words)


def test_what_four_processes_write_is_found_by_two_others_at_their_next_search(postgres: str) -> None:
    writers_and_readers(postgres, writers=4, each=8, readers=2, compactors=1)


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
    eight_writers(postgres, 6, namespaces)


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
        for run in range(3):
            with started("churn", postgres, run, run) as process:
                for _ in range(6 + run):
                    process.hear()
                process.kill()
            heard(others, 3)
        others.finish()
    with Memory(postgres) as memory:
        assert memory.verify()["problems"] == []


# Erasure


def tables(url: str) -> bytes:
    """All that the tables hold of texts and bytes."""
    with psycopg.connect(url) as raw:
        names = raw.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'memspan' ORDER BY 1").fetchall()
        blocks = []
        for (name,) in names:
            with raw.cursor().copy(f"COPY memspan.{name} TO STDOUT (FORMAT BINARY)") as copy:
                blocks += [bytes(block) for block in copy]
    return b"".join(blocks).lower()


def test_what_was_erased_is_in_no_table_and_all_else_stays(postgres: str, tmp_path: Path, words: WordEncoder) -> None:
    choose = random.Random(24)
    with Memory(postgres, encoder=words) as memory, Memory(postgres, encoder=words) as beside:
        filled(memory, choose, 40, tmp_path)
        for _ in range(2):
            current = memory.get_all(limit=100_000)
            beside.search(current[0].text, k=3)
            ids = {row.id for row in choose.sample(current, choose.choice((1, 5)))}
            gone = [row for rows in memory._ledger.versions("default", sorted(ids)).values() for row in rows]
            stays = everything(memory, tmp_path / "all.jsonl", ids)
            secrets = {word.lower() for word in only(memory, gone)}
            assert any(word.encode() in tables(postgres) for word in secrets)
            erased = memory.erase(sorted(ids), vacuum=True, verify=True)
            assert (erased.segments, erased.due, erased.vacuumed) == (len(ids), (), True)
            assert erased.receipt is not None
            assert erased.receipt.ok
            assert erased.receipt.bytes > 0
            assert everything(memory, tmp_path / "all.jsonl", ids) == stays
            memory.export_to(tmp_path / "all.jsonl")
            said, held = (tmp_path / "all.jsonl").read_text("utf-8").lower(), tables(postgres)
            assert [word for word in secrets if word.encode() in held and word not in said] == []
            assert not {hit.id for hit in beside.search(gone[0].text, k=50)} & ids
        assert memory.verify()["problems"] == []


def test_a_look_for_what_was_erased_finds_what_is_not(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as memory:
        memory.add("The kettle Zqbcdfghkmnp sings.")
        memory.erase(memory.add("rain on tuesday").ids[0])
        with psycopg.connect(postgres) as raw:
            raw.execute("UPDATE memspan.segments SET tail = 'a secret Zqpnmkhgfdcb'")
            raw.execute("INSERT INTO memspan.pending VALUES (1, 1)")
        receipt = memory.verify_erasure("rain on tuesday")
        assert receipt.ok
        vector = memory.verify_erasure("The kettle Zqbcdfghkmnp sings!")
        assert vector.ok, "what is still said is no trace"
        with psycopg.connect(postgres) as raw:
            raw.execute("INSERT INTO memspan.mentions VALUES (99, 1, 'Zqforgotten')")
        assert {trace.file for trace in memory.verify_erasure("It was Zqforgotten.").found} == {"table mentions"}


def test_what_was_erased_is_in_no_file_of_the_tables_of_a_server(server: Killable, words: WordEncoder) -> None:
    url = address(server.url, "promises")
    with Memory(url, encoder=words) as memory:
        memory.add([{"role": "user", "content": f"Zqbcdfg{step} is to go"} for step in range(60)], user_id="gone")
        memory.add([{"role": "user", "content": f"Zqkmnpv{step} stays"} for step in range(60)], user_id="kept")
        memory.compact()
        assert memory.erase(user_id="gone", vacuum=True).due == ()
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("CHECKPOINT")
        (oid,) = raw.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    held = b"".join(file.read_bytes() for file in (server.directory / "base" / str(oid)).iterdir()).lower()
    assert b"zqkmnpv" in held
    assert b"zqbcdfg" not in held


def test_an_erasure_that_somebody_reads_past_stays_due_until_they_have_gone(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as memory, psycopg.connect(postgres) as raw:
        id = memory.add("rain on tuesday").ids[0]
        raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        raw.execute("SELECT 1")
        erased = memory.erase(id, vacuum=True)
        assert "reading" in "".join(erased.due)
        assert memory._ledger.due() is not None
        raw.rollback()
        memory.compact()
        assert memory._ledger.due() is None
