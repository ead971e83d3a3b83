"""A connection to PostgreSQL is lost: nothing is half done, nothing is done twice, and nobody waits forever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import lt
from typing import Any

import pytest
from postgres_faults import Cut, cut

from memspan import Memory
from memspan.errors import EncoderMismatch, InDoubt, StoreBusy

psycopg = pytest.importorskip("psycopg")

TEXT = "the kettle sings"
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
TERMINATED = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'memspan'"
)


@pytest.fixture
def way(postgres: str) -> Iterator[Cut]:
    with cut(postgres) as way:
        yield way


@pytest.fixture
def memory(postgres: str, way: Cut) -> Iterator[Memory]:
    with Memory(postgres, encoder="hash") as memory:
        memory.add("rain on tuesday")
    with Memory(f"{way.url}?connect_timeout=3", encoder="hash") as memory:
        yield memory


@pytest.fixture
def raw(postgres: str) -> Iterator[Any]:
    """A session of somebody else."""
    with psycopg.connect(postgres, autocommit=True, options="-c search_path=memspan,public") as raw:
        yield raw


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is about to be so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held(memory: Memory) -> list[tuple[str, int]]:
    return [(segment.text, segment.repeats) for segment in memory.get_all()]


WRITES = "INSERT INTO segments"


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize(
    ("where", "after"), [("BEGIN ISOLATION LEVEL READ COMMITTED", ""), (WRITES, ""), ("COMMIT", WRITES)]
)
def test_a_write_that_loses_its_connection_is_done_once(
    memory: Memory, way: Cut, where: str, after: str, answered: bool
) -> None:
    way.at(where, after=after, answered=answered)
    id = memory.add(TEXT).ids[0]
    assert way.done == 1
    assert held(memory) == [("rain on tuesday", 0), (TEXT, 0)]
    assert memory.get(id).text == TEXT
    assert memory.verify()["problems"] == []


@pytest.mark.parametrize("where", ["BEGIN ISOLATION LEVEL REPEATABLE READ", "FROM segments"])
def test_a_read_that_loses_its_connection_is_repeated(memory: Memory, way: Cut, where: str) -> None:
    way.at(where)
    assert [segment.text for segment in memory.get_all()] == ["rain on tuesday"]
    assert way.done == 1


def test_a_write_that_never_gets_through_is_given_up_after_a_few_tries(memory: Memory, way: Cut) -> None:
    way.at(WRITES, times=100)
    with pytest.raises(StoreBusy) as raised:
        memory.add(TEXT)
    assert way.done == 4
    assert raised.value.mend
    way.where = None
    assert held(memory) == [("rain on tuesday", 0)]


def test_whether_a_write_was_done_is_said_to_be_unknown_where_it_is_and_it_can_be_repeated(
    memory: Memory, way: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.ledger.postgres.connections.DOUBT_SECONDS", 0.5)
    way.at("COMMIT", after=WRITES, answered=True, closes=True)
    with pytest.raises(InDoubt) as raised:
        memory.add(TEXT, idempotency_key="once")
    assert "idempotency_key" in raised.value.mend
    way.closed, way.where = False, None
    assert memory.add(TEXT, idempotency_key="once").added == 0, "it was done"
    assert held(memory) == [("rain on tuesday", 0), (TEXT, 0)]


def test_a_deadlock_with_somebody_else_is_resolved_and_the_write_repeated(postgres: str, raw: Any) -> None:
    url = f"{postgres}&options=-c%20deadlock_timeout%3D200ms"
    with Memory(url, encoder="hash") as memory, ThreadPoolExecutor(1) as pool:
        memory.add(TEXT)
        raw.execute("SET deadlock_timeout = '60s'")
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM segments FOR UPDATE")
        again = pool.submit(memory.add, TEXT)  # has the head, and waits for the row
        until(lambda: waiting(raw))
        raw.execute("SELECT 1 FROM heads FOR UPDATE")
        raw.execute("COMMIT")
        assert again.result().repeated == 1
        assert held(memory) == [(TEXT, 1)]


def waiting(raw: Any) -> bool:
    """Whether somebody waits for a lock in this database."""
    return bool(raw.execute(BLOCKED).fetchone()[0])


def test_a_namespace_that_somebody_else_holds_is_busy_after_the_lock_timeout_of_the_address(
    postgres: str, raw: Any
) -> None:
    with Memory(f"{postgres}&options=-c%20lock_timeout%3D100ms", encoder="hash") as memory:
        memory.add(TEXT)
        memory.add(TEXT, namespace="other")
        with raw.transaction():
            raw.execute("SELECT 1 FROM heads ORDER BY namespace LIMIT 1 FOR UPDATE")
            with pytest.raises(StoreBusy, match="locked"):
                memory.add("rain on tuesday")
            assert [segment.text for segment in memory.get_all()] == [TEXT], "readers do not wait"
            memory.add("rain on tuesday", namespace="other")
        memory.add("rain on tuesday")


def test_a_statement_takes_no_longer_than_the_address_says(postgres: str, raw: Any) -> None:
    with Memory(f"{postgres}&options=-c%20statement_timeout%3D200ms", encoder="hash") as memory:
        memory.add(TEXT)
        with raw.transaction():
            raw.execute("LOCK TABLE segments IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreBusy, match="statement_timeout"):
                memory.get_all()
        assert held(memory) == [(TEXT, 0)]


def test_prepared_statements_that_a_pooler_does_not_know_are_done_without(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as memory:
        for _ in range(4):
            memory.add(TEXT)
        for _ in range(8):  # every connection there is
            with memory._ledger.connected() as raw:  # type: ignore[attr-defined]
                raw.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", prepare=False)
        for _ in range(4):
            memory.add(TEXT)
        assert held(memory) == [(TEXT, 7)]


def test_sessions_that_the_administrator_ends_are_replaced(postgres: str, raw: Any) -> None:
    with Memory(postgres, encoder="hash") as memory, ThreadPoolExecutor(3) as pool:
        memory.add("rain on tuesday", user_id="reader")
        stopping, done = threading.Event(), [0, 0, 0]

        def write(number: int) -> None:
            while not stopping.is_set():
                memory.add(f"{TEXT} {number} {done[number]}", user_id=str(number))
                done[number] += 1

        def read(number: int) -> None:
            while not stopping.is_set():
                assert [segment.text for segment in memory.get_all(user_id="reader")] == ["rain on tuesday"]
                done[number] += 1

        working = [pool.submit(act, number) for number, act in enumerate((write, write, read))]
        for _ in range(10):
            before = list(done)
            raw.execute(TERMINATED)
            until(lambda: any(each.done() for each in working) or all(map(lt, before, done)))  # noqa: B023
        stopping.set()
        for each in working:
            each.result()
        for number in range(2):
            texts = [f"{TEXT} {number} {step}" for step in range(done[number])]
            rows = memory.get_all(user_id=str(number), limit=10_000)
            assert [(row.text, row.repeats) for row in rows] == [(text, 0) for text in texts]
        assert memory.verify()["problems"] == []


def test_more_threads_than_connections_read_and_write_at_once(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as memory, ThreadPoolExecutor(24) as pool:
        memory.add("rain on tuesday")

        def use(number: int) -> None:
            memory.add(f"{TEXT} {number}", wait=number % 2 == 0)
            assert memory.search(f"{TEXT} {number}", k=1, recipe="keyword")

        list(pool.map(use, range(48)))
        assert len(memory.get_all(limit=100)) == 49


def test_who_waits_for_a_connection_longer_than_the_address_says_is_told(postgres: str) -> None:
    with Memory(f"{postgres}&connect_timeout=1", encoder="hash") as memory, ThreadPoolExecutor(8) as pool:
        memory.add(TEXT)
        full, let_on = threading.Barrier(9), threading.Event()

        def read() -> None:
            with memory._ledger.reading():
                full.wait(30)
                assert let_on.wait(30)

        readers = [pool.submit(read) for _ in range(8)]
        full.wait(30)
        with pytest.raises(StoreBusy, match="threads"):
            memory.get_all()
        let_on.set()
        for reader in readers:
            reader.result()
        assert held(memory) == [(TEXT, 0)]


def test_a_server_that_cannot_be_reached_is_told_at_once_when_a_store_is_opened_and_soon_when_it_is_used(
    memory: Memory, way: Cut, raw: Any
) -> None:
    way.closed = True
    with pytest.raises(StoreBusy, match="cannot be reached") as raised:
        Memory(way.url, encoder="hash")
    assert "see that the server runs" in raised.value.mend
    raw.execute(TERMINATED)
    with pytest.raises(StoreBusy):
        memory.get_all()
    way.closed = False
    assert held(memory) == [("rain on tuesday", 0)]


def test_a_writer_that_waited_while_another_encoder_was_chosen_is_told_so(postgres: str, raw: Any) -> None:
    with Memory(postgres, encoder="hash") as memory, ThreadPoolExecutor(1) as pool:
        memory.add(TEXT)
        recorded = memory._ledger.value("encoder")
        with raw.transaction():
            raw.execute("LOCK TABLE heads IN EXCLUSIVE MODE")
            late = pool.submit(memory._ledger.append, memory.namespace, [], activations={}, encoder=recorded)
            until(lambda: waiting(raw))
            raw.execute("UPDATE store SET value = 'null' WHERE key = 'encoder'")
        with pytest.raises(EncoderMismatch):
            late.result()


def test_one_process_at_a_time_has_the_turn(postgres: str) -> None:
    with Memory(postgres, encoder="hash") as one, Memory(postgres, encoder="hash") as two:
        with one._ledger.turn("encode") as mine:
            assert mine
            with two._ledger.turn("encode") as also, two._ledger.turn("scrub") as other:
                assert (also, other) == (False, True)
        with two._ledger.turn("encode", wait=True) as mine:
            assert mine
