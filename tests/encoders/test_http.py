"""The encoder behind HTTP, against a real server on this machine."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from memspan.encoders import make
from memspan.encoders.hash import HashEncoder
from memspan.encoders.http import HttpEncoder
from memspan.errors import EncoderError, InvalidInput
from memspan.testing import EncoderContract

Answer = tuple[int, dict[str, str], Any]
DIM = 64


@dataclass
class Server:
    """An embeddings server. ``script``: what the next requests get instead of an answer; ``twist`` changes answers."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    twist: Callable[[list[dict[str, Any]]], Any] = lambda data: data
    hold: threading.Event | None = None

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> Answer:
        self.requests.append(body)
        self.headers.append(headers)
        if self.hold is not None:
            self.hold.wait(10)
        if self.script:
            return self.script.pop(0)
        if self.always is not None:
            return self.always
        rows = 3 * HashEncoder(DIM).encode(body["input"]).pooled  # not of length 1: that is the client's part
        data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
        return 200, {}, {"object": "list", "data": self.twist(data), "model": body["model"]}


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/embeddings"
            status, headers, answer = state.answer(dict(self.headers), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # a client that ran out of patience

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            if state.hold is not None:
                state.hold.set()
            http.shutdown()
            thread.join()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., HttpEncoder]]:
    made: list[HttpEncoder] = []

    def connected(**options: Any) -> HttpEncoder:
        made.append(HttpEncoder(server.url, "m", **{"delay": 0.0, "timeout": 10, **options}))
        return made[-1]

    yield connected
    for encoder in made:
        encoder.close()


Connect = Callable[..., HttpEncoder]


class TestHttpEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, connect: Connect) -> HttpEncoder:
        return connect(window=100_000)


def test_nothing_is_sent_before_it_is_needed(server: Server, connect: Connect) -> None:
    encoder = connect()
    assert (encoder.id, encoder.window, encoder.spec) == ("http-m", 512, f"http:m@{server.url}")
    assert server.requests == []


def test_the_dimension_is_asked_for_once(server: Server, connect: Connect) -> None:
    encoder = connect()
    assert (encoder.dim, encoder.dim) == (DIM, DIM)
    encoder.encode(["a"])
    assert [request["input"] for request in server.requests] == [["dimension"], ["a"]]


def test_a_given_dimension_is_not_asked_for(server: Server, connect: Connect) -> None:
    assert connect(dim=5).dim == 5
    assert server.requests == []


def test_texts_go_in_batches_and_come_back_in_order(server: Server, connect: Connect) -> None:
    texts = [f"text {i}" for i in range(7)]
    pooled = connect(dim=DIM, batch=3).encode(texts).pooled
    assert [len(request["input"]) for request in server.requests] == [3, 3, 1]
    assert {request["model"] for request in server.requests} == {"m"}
    np.testing.assert_allclose(pooled, HashEncoder(DIM).encode(texts).pooled, atol=1e-6)


def test_blank_texts_are_not_sent(server: Server, connect: Connect) -> None:
    pooled = connect(dim=DIM).encode(["", "a", " \n"]).pooled
    assert [request["input"] for request in server.requests] == [["a"]]
    assert np.linalg.norm(pooled, axis=1).round(6).tolist() == [0, 1, 0]


def test_shuffled_answers_are_put_in_order_by_their_index(server: Server, connect: Connect) -> None:
    texts = ["one", "two", "three"]
    right = connect().encode(texts).pooled
    server.twist = lambda data: data[::-1]
    assert np.array_equal(connect().encode(texts).pooled, right)


def test_answers_without_an_index_are_in_order_already(server: Server, connect: Connect) -> None:
    right = connect().encode(["one", "two"]).pooled
    server.twist = lambda data: [{"embedding": item["embedding"]} for item in data]
    assert np.array_equal(connect().encode(["one", "two"]).pooled, right)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_failure_that_may_pass_is_tried_again(server: Server, connect: Connect, status: int) -> None:
    server.script = [(status, {}, {"error": "busy"}), (status, {}, {"error": "busy"})]
    assert connect(dim=DIM).encode(["a"]).pooled.shape == (1, DIM)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(server: Server, connect: Connect, status: int) -> None:
    server.always = (status, {}, {"error": "no"})
    with pytest.raises(EncoderError, match=rf"/v1/embeddings.* {status}: .*no"):
        connect(dim=DIM).encode(["a"])
    assert len(server.requests) == 1


def test_a_server_that_fails_for_ever_is_given_up(server: Server, connect: Connect) -> None:
    server.always = (500, {}, {"error": "out of memory"})
    with pytest.raises(EncoderError, match=r"answered 500: .*out of memory.*; see the server's log"):
        connect(dim=DIM, retries=2).encode(["a"])
    assert len(server.requests) == 3


def test_the_server_says_how_long_to_wait(server: Server, connect: Connect) -> None:
    server.script = [(429, {"Retry-After": "0.2"}, {})]
    start = time.monotonic()
    connect(dim=DIM).encode(["a"])
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("header", ["Sat, 01 Jan 2000 00:00:00 GMT", "soon", "-5", "nan"])
def test_a_wait_in_the_past_or_without_meaning_is_no_wait(server: Server, connect: Connect, header: str) -> None:
    server.script = [(503, {"Retry-After": header}, {})]
    assert connect(dim=DIM).encode(["a"]).pooled.shape == (1, DIM)


def test_a_wait_is_bounded(server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.endpoint._LONGEST_WAIT", 0.05)
    server.script = [(503, {"Retry-After": "86400"}, {}), (503, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, {})]
    assert connect(dim=DIM, delay=1000).encode(["a"]).pooled.shape == (1, DIM)


def test_a_server_that_does_not_answer_is_given_up(server: Server, connect: Connect) -> None:
    server.hold = threading.Event()
    with pytest.raises(EncoderError, match=r"did not answer within 0\.1 s"):
        connect(dim=DIM, timeout=0.1, retries=1).encode(["a"])
    assert len(server.requests) <= 2


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        encoder = HttpEncoder(url, "m", retries=1, delay=0)
        with pytest.raises(EncoderError, match=rf"{url}/embeddings .*cannot be reached.*start the server"):
            encoder.encode(["a"])
        encoder.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>hello</html>", "no embeddings"),
        ([], "no embeddings"),
        ({"data": None}, "no embeddings"),
        ({"data": [{"embedding": "text"}]}, "no embeddings"),
        ({"data": []}, "indices"),
        ({"data": [{"index": 0, "embedding": [1.0] * DIM}] * 2}, "indices"),
        ({"data": [{"index": 7, "embedding": [1.0] * DIM}]}, "indices"),
        ({"data": [{"index": "0", "embedding": [1.0] * DIM}]}, "indices"),
        ({"data": [{"index": 0, "embedding": []}]}, "no vector"),
        ({"data": [{"index": 0, "embedding": [float("nan")] * DIM}]}, "not finite"),
        ({"data": [{"index": 0, "embedding": [None] * DIM}]}, "not finite"),
        ({"data": [{"index": 0, "embedding": [1.0] * 3}]}, "3 dimensions instead of 64"),
    ],
)
def test_an_answer_that_is_not_one_good_vector_each_is_an_error(
    server: Server, connect: Connect, answer: object, message: str
) -> None:
    server.always = (200, {}, answer)
    with pytest.raises(EncoderError, match=message):
        connect(dim=DIM).encode(["a"])


def test_a_dimension_that_changes_is_an_error(server: Server, connect: Connect) -> None:
    encoder = connect(batch=1)
    assert encoder.dim == DIM
    server.twist = lambda data: [item | {"embedding": item["embedding"][:-1]} for item in data]
    with pytest.raises(EncoderError, match="63 dimensions instead of 64"):
        encoder.encode(["a"])


# -------------------------------------------------------------------------------------------------------------- secrets


def test_a_key_is_sent_and_never_shown(server: Server, connect: Connect) -> None:
    encoder = connect(dim=DIM, api_key="sk-secret")
    encoder.encode(["a"])
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    server.always = (401, {}, {"error": "Incorrect API key provided: sk-secret"})
    with pytest.raises(EncoderError) as caught:
        encoder.encode(["a"])
    assert "***" in str(caught.value)
    assert "sk-secret" not in f"{caught.value} {encoder!r} {encoder.spec} {encoder.id}"


def test_a_key_in_the_environment_goes_to_no_other_server(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    connect(dim=DIM).encode(["a"])
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "url", ["", "localhost:11434", "ftp://host/v1", "http://", "http://me:secret@host/v1", "http://host/v1?key=secret"]
)
def test_an_address_that_cannot_be_kept_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        HttpEncoder(url, "m")
    assert caught.value.argument == "base_url"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dim", 0),
        ("batch", 0),
        ("retries", -1),
        ("delay", -1),
        ("window", 0),
        ("timeout", 0),
        ("timeout", float("nan")),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(argument: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=argument):
        HttpEncoder("http://host/v1", "m", **{argument: value})  # type: ignore[arg-type]


def test_a_spec_names_model_and_server(server: Server) -> None:
    encoder = make(f"http:org/model:latest@{server.url}")
    assert isinstance(encoder, HttpEncoder)
    assert (encoder.model, encoder.base_url) == ("org/model:latest", server.url)
    np.testing.assert_allclose(encoder.encode(["a"]).pooled, HashEncoder(DIM).encode(["a"]).pooled, atol=1e-6)
    again = make(encoder.spec)
    assert isinstance(again, HttpEncoder)
    assert again.spec == encoder.spec
    encoder.close()
