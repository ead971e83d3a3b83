"""A server keeps what it acknowledged, whoever kills it, and tells nobody of another's namespace under load."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx
import pytest

from memspan import Memory
from memspan.bench.serve import serving

SPACES = ("red", "blue")
CLIENTS = 64


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    return tmp_path / "store"


class Writers:
    """Threads that add, update and delete over HTTP until they are not answered, and what they were told is kept."""

    def __init__(self, url: str, threads: int, run: int) -> None:
        self.acknowledged: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        """Ids, each with its text, or None where it was deleted."""
        self.open: list[str] = []
        """Texts of adds and updates that were under way when the answer did not come."""
        self.unsure: set[str] = set()
        """Ids of updates and deletes of which no answer came."""
        self._url = url
        self._run = run
        self._pool = ThreadPoolExecutor(threads)
        self._working = [self._pool.submit(self._work, number) for number in range(threads)]

    def join(self) -> None:
        """Wait until none is answered any more. Raises what one of them found wrong."""
        self._pool.shutdown()
        for each in self._working:
            each.result()

    def _work(self, number: int) -> None:
        choose = random.Random(number)
        mine: list[str] = []
        with httpx.Client(base_url=f"{self._url}/v1/namespaces/default", timeout=60) as client:
            for step in count():
                text = f"Run {self._run}, writer {number}, step {step}: the kettle is {choose.choice(SPACES)}."
                way = choose.random() if mine else 0.0
                id = choose.choice(mine) if way > 0.7 else ""
                try:
                    if way <= 0.7:
                        answer = client.post("/segments", json={"content": text, "wait": way < 0.4})
                    elif way <= 0.9:
                        answer = client.patch(f"/segments/{id}", json={"text": text})
                    else:
                        answer = client.delete(f"/segments/{id}")
                except httpx.HTTPError:
                    self.unsure.add(id)
                    self.open.append(text)
                    return
                assert answer.status_code in (200, 201), answer.text
                if way <= 0.7:
                    (id,) = answer.json()["ids"]
                    mine.append(id)
                if way > 0.9:
                    mine.remove(id)
                self.acknowledged.put((id, None if way > 0.9 else text))


def killed_under_load(tmp_path: Path, store: Path, kills: int) -> None:
    kept: dict[str, str] = {}
    for run in range(kills):
        with serving(tmp_path / f"log{run}", "--store", str(store), "--no-logs") as server:
            writers = Writers(server.url, 8, run)
            told = [writers.acknowledged.get(timeout=60) for _ in range(60 + 13 * run)]
            server.process.kill()
            writers.join()
        assert server.process.returncode == -signal.SIGKILL
        while not writers.acknowledged.empty():
            told.append(writers.acknowledged.get())
        for id, text in told:
            if text is None:
                del kept[id]
            else:
                kept[id] = text
        with serving(tmp_path / "again", "--store", str(store)) as server, Memory(server.url) as memory:
            held = {each.id: each.text for each in memory.get_all(limit=10_000)}
            for id, text in kept.items():
                if id not in writers.unsure:
                    assert held.get(id) == text, (run, id)
            newer = [text for id, text in held.items() if kept.get(id) != text]
            assert set(newer) <= set(writers.open), "only what was under way may be there besides"
            assert memory.verify()["problems"] == []
        kept = held


def test_every_acknowledged_write_survives_a_server_that_is_killed_under_load(tmp_path: Path, store: Path) -> None:
    killed_under_load(tmp_path, store, kills=1)


@pytest.mark.soak
def test_every_acknowledged_write_survives_fifty_killed_servers(tmp_path: Path, store: Path) -> None:
    killed_under_load(tmp_path, store, kills=50)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found in /proc")
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path, store: Path) -> None:
    with serving(tmp_path / "log", "--store", str(store), "--workers", "2", "--no-logs") as server:
        workers = serving_pids(server.process.pid)
        writers = Writers(server.url, 8, 0)
        told = [writers.acknowledged.get(timeout=60) for _ in range(60)]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        writers.join()
        with Memory(server.url) as memory:  # it asks again until the new ones answer
            held = {each.id: each.text for each in memory.get_all(limit=10_000)}
        assert not serving_pids(server.process.pid) & workers
        server.process.terminate()
        assert server.process.wait(60) == 0
    while not writers.acknowledged.empty():
        told.append(writers.acknowledged.get())
    for id, text in dict(told).items():
        if id not in writers.unsure:
            assert held.get(id) == text


def serving_pids(parent: int) -> set[int]:
    """The workers of a server: its children that hold a socket open and are not the one that tracks resources."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


class Clients:
    """64 clients at once, in two namespaces with a key each, that check what they are answered."""

    def __init__(self, url: str, keys: dict[str, str]) -> None:
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        self.http = httpx.Client(base_url=url, timeout=120, limits=limits)
        self.keys = keys
        self.kept: dict[str, dict[str, str]] = {space: {} for space in SPACES}
        self._lock = threading.Lock()

    def work(self, number: int, rounds: int, end: float | None) -> None:
        """``rounds`` of what a client does, or as many as are done by ``end``."""
        space, other = SPACES[number % 2], SPACES[1 - number % 2]
        for step in count():
            if step >= rounds and (end is None or time.monotonic() > end):
                return
            text = f"The {space} kettle of client {number} is on shelf {step}."
            (id,) = self.ask(space, 201, "POST", "/segments", json={"content": text})["ids"]
            with self._lock:
                self.kept[space][id] = text
                foreign = next(iter(self.kept[other]), None)
            hits = self.ask(space, 200, "POST", "/search", json={"query": f"the {other} kettle on shelf {step}"})[
                "hits"
            ]
            context = self.ask(space, 200, "POST", "/context", json={"query": "kettle", "budget": 300})
            page = self.ask(space, 200, "GET", "/segments", params={"limit": 20})["segments"]
            texts = [each["text"] for each in (*hits, *page)]
            assert texts
            assert not any(f"The {other}" in each for each in (*texts, context["text"]))
            assert self.ask(space, 200, "GET", f"/segments/{id}")["text"] == text
            if foreign is not None:
                self.ask(space, 404, "GET", f"/segments/{foreign}")
            self.ask(other, 403, "GET", "/segments", key=self.keys[space])

    def ask(self, space: str, status: int, method: str, path: str, key: str | None = None, **sent: object) -> dict:  # type: ignore[type-arg]
        headers = {"X-API-Key": key or self.keys[space]}
        answer = self.http.request(method, f"/v1/namespaces/{space}{path}", headers=headers, **sent)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        told: dict = answer.json()  # type: ignore[type-arg]
        return told


def crowded(tmp_path: Path, store: Path, workers: int, rounds: int, seconds: float | None = None) -> None:
    with Memory(store) as memory:
        keys = {space: str(memory.create_api_key(space, namespaces=space).secret) for space in SPACES}
    with serving(tmp_path / "log", "--store", str(store), "--workers", str(workers)) as server:
        clients = Clients(server.url, keys)
        end = None if seconds is None else time.monotonic() + seconds
        with clients.http, ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(clients.work, number, rounds, end) for number in range(CLIENTS)]:
                done.result()
        assert '"status": 5' not in server.log.read_text()
    with Memory(store) as memory:
        for space in SPACES:
            held = memory.get_all(limit=100_000, namespace=space)
            assert {each.id: each.text for each in held} == clients.kept[space]
            operations = memory.operations(limit=100_000, namespace=space)
            assert {each.actor for each in operations} == {space}


def test_64_clients_in_two_namespaces_lose_nothing_and_see_only_their_own(tmp_path: Path, store: Path) -> None:
    crowded(tmp_path, store, workers=2, rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_64_clients_in_two_namespaces_for_a_minute(tmp_path: Path, store: Path, workers: int) -> None:
    crowded(tmp_path, store, workers, rounds=1, seconds=60)
