"""The client of a server: what is its own beside what every memory promises (``MemoryContract``)."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from served import served

from memspan import (
    AccessDenied,
    InvalidInput,
    Memory,
    NotFound,
    StoreClosed,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from memspan.remote import AsyncMemory, Remote


@pytest.fixture(scope="module")
def inner() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as memory:
        yield memory


@pytest.fixture(scope="module")
def url(inner: Memory) -> Iterator[str]:
    with served(inner, max_body=100_000, max_k=50) as address:
        yield address


class Flaky:
    """A server that does to each request what is next in ``script``: "hang up", a status with headers, or an answer."""

    def __init__(self, *script: Any) -> None:
        self.script, self.seen = list(script), list[dict[str, str]]()
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                flaky.seen.append(dict(self.headers))
                todo = flaky.script.pop(0) if flaky.script else (500, {}, b"nothing")
                if todo == "hang up":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, body = todo
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Flaky:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


FOUND = (200, {}, json.dumps({"hits": []}).encode())
BUSY = {"code": "TooManyRequests", "detail": "slowly", "mend": "wait", "status": 429}
LATER = (429, {"Content-Type": "application/problem+json", "Retry-After": "0"}, json.dumps(BUSY).encode())


def test_a_memory_at_an_address_is_a_memory(url: str) -> None:
    with Memory(url, namespace="here") as memory:
        assert isinstance(memory, Memory)
        assert (memory.namespace, memory.path, repr(memory)) == ("here", None, f"<Memory {url!r} namespace='here'>")


def test_a_read_is_asked_again_after_a_lost_connection() -> None:
    with Flaky("hang up", "hang up", FOUND) as server, Memory(server.url) as memory:
        assert memory.search("ana") == []
        assert len(server.seen) == 3


def test_a_write_that_may_have_been_done_is_not_asked_again() -> None:
    with Flaky("hang up", FOUND) as server, Memory(server.url) as memory:
        with pytest.raises(Unreachable):
            memory.add("Once.")
        assert len(server.seen) == 1


def test_what_a_busy_server_did_not_do_is_asked_again() -> None:
    with Flaky(LATER, (201, {}, b'{"ids": [], "added": 0, "repeated": 0}')) as server, Memory(server.url) as memory:
        assert memory.add("Once.").ids == ()
        assert len(server.seen) == 2


def test_a_server_that_stays_busy_is_told() -> None:
    with Flaky(*[LATER] * 9) as server, Memory(server.url) as memory, pytest.raises(TooManyRequests):
        memory.search("ana")


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>"),
        (200, {}, b'{"something": "else"}'),
        (200, {}, b"not JSON"),
        (502, {}, b"bad gateway"),
        (500, {"Content-Type": "application/problem+json"}, b'{"code": "SystemExit"}'),
    ],
)
def test_what_is_no_server_of_memspan_is_told_as_that(answer: Any) -> None:
    with Flaky(answer) as server, Memory(server.url) as memory, pytest.raises(Unreachable) as caught:
        memory.search("ana")
    assert caught.value.mend


def test_a_server_that_is_not_there_is_told_with_how_to_start_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Memory(f"http://127.0.0.1:{port}") as memory, pytest.raises(Unreachable, match="memspan serve"):
        memory.get_all()


@pytest.mark.parametrize("address", ["http://", "http://user:pass@host", "http://host?x=1", "http://host#x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Memory(address)
    assert caught.value.argument == "path"


def test_a_passphrase_is_not_sent_as_a_key(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Memory(url, key="my secret passphrase")
    assert caught.value.argument == "key"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_SERVER_KEY", "ms_from_the_environment")
    monkeypatch.setenv("MEMSPAN_KEY", "a passphrase")
    with Flaky(FOUND) as server, Memory(server.url) as memory:
        memory.search("ana")
        assert server.seen[0]["Authorization"] == "Bearer ms_from_the_environment"
        assert "passphrase" not in str(server.seen)


@pytest.mark.parametrize("option", [{"encoder": "hash"}, {"reranker": "onnx:x"}, {"redact": "all"}, {"actor": "me"}])
def test_what_the_server_chose_cannot_be_chosen_by_a_client(url: str, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Memory(url, **option)
    assert caught.value.argument == next(iter(option))


def test_functions_and_files_of_the_client_stay_here(url: str) -> None:
    with Memory(url) as memory:
        memory.add("Ana.")
        with pytest.raises(InvalidInput, match="tokenizer"):
            memory.context("ana", tokenizer=len)
        with pytest.raises(InvalidInput, match="redact"):
            memory.search("ana", redact=str.upper)
        with pytest.raises(InvalidInput, match="encoder"):
            memory.rebuild(encoder="hash")
        with pytest.raises(StoreError, match="where the store is"):
            memory.backup("there")
        with pytest.raises(InvalidInput, match="format"):
            memory.export_to("folder", "csv")


def test_what_the_server_does_not_give_at_once_is_told(url: str) -> None:
    with Memory(url) as memory:
        with pytest.raises(InvalidInput) as caught:
            memory.search("ana", k=51)
        assert caught.value.argument == "k"
        with pytest.raises(TooLarge):
            memory.add("long " * 30_000)


def test_an_export_that_fails_leaves_the_file_as_it_was(url: str, tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"
    target.write_text("before")
    with Memory(url) as memory, pytest.raises(InvalidInput):
        memory.export_to(target, filters={"importance": {"near": 1}})
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_keys_say_what_a_client_may_do() -> None:
    with Memory(":memory:", encoder="hash") as inner, served(inner) as url:
        inner.add("Ana.", namespace="a")
        reader = inner.create_api_key("reader", namespaces="a", rights="read").secret
        writer = inner.create_api_key("writer", namespaces=["a", "b"]).secret
        with Memory(url) as memory, pytest.raises(Unauthorized):
            memory.get_all()
        with Memory(url, key="ms_0123456789abcdef_" + "x" * 43) as memory, pytest.raises(Unauthorized):
            memory.get_all()
        with Memory(url, key=reader, namespace="a") as memory:
            assert [row.text for row in memory.get_all()] == ["Ana."]
            for forbidden in (lambda: memory.add("x"), lambda: memory.erase("x"), lambda: memory.stats()):
                with pytest.raises(AccessDenied):
                    forbidden()
            with pytest.raises(AccessDenied):
                memory.get_all(namespace="b")
        with Memory(url, key=writer, namespace="b") as memory:
            memory.add("Ben.")
            assert memory.operations(limit=1)[0].actor == "writer"
            with pytest.raises(AccessDenied, match="admin"):
                memory.prune(dry_run=False)
        with Memory(url, key=writer) as memory, pytest.raises(AccessDenied, match="'default'"):
            memory.get_all()


def test_it_can_be_awaited(url: str) -> None:
    async def talk() -> None:
        async with AsyncMemory(url, namespace="awaited") as memory:
            added = await memory.add("Ana lives in Porto.", user_id="ana")
            hits, context = await asyncio.gather(memory.search("ana", k=1), memory.context("ana", budget=200))
            assert hits[0].id == added.ids[0]
            assert "Porto" in context.text
            with pytest.raises(NotFound):
                await memory.get("no-such-id")
            with pytest.raises(AttributeError):
                memory.backup  # noqa: B018 - that it is not there is the point
            with pytest.raises(TypeError):
                await memory.search()
        with pytest.raises(StoreClosed):
            await memory.search("ana")

    asyncio.run(talk())


def test_every_verb_of_a_memory_goes_over_http_or_says_why_not() -> None:
    for name in dir(Memory):
        if not name.startswith("_") and callable(getattr(Memory, name)):
            assert getattr(Remote, name) is not getattr(Memory, name), name
