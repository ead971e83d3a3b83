"""The reranker behind HTTP, against a real server on this machine that has a small real model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from memspan.errors import InvalidInput, RerankerError
from memspan.rerankers import make
from memspan.rerankers.base import Reranker
from memspan.rerankers.http import HttpReranker
from memspan.rerankers.onnx import OnnxReranker
from memspan.testing import RerankerContract

from . import tiny

TEXTS = ["Ana moved to Lisbon.", "Ana: I live here.", "the blue door"]
QUESTION = "where does Ana live"


@dataclass
class Server:
    """A server with a model. ``always``: what it answers instead; ``twist`` changes the items of its answers."""

    model: Reranker
    url: str = ""
    logits: bool = False
    paths: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    script: list[int] = field(default_factory=list)
    always: tuple[int, Any] | None = None
    twist: Callable[[list[dict[str, Any]]], Any] = lambda items: items

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        self.paths.append(path)
        self.requests.append(body)
        self.headers.append(headers)
        if self.script:
            return self.script.pop(0), {}
        if self.always is not None:
            return self.always
        scores = self.model.rerank(body["query"], body["documents" if "model" in body else "texts"]).astype(float)
        if self.logits:
            scores = np.log(scores / (1 - scores))
        best = [(i, float(scores[i])) for i in np.argsort(-scores).tolist()]  # as servers answer: best first
        if "model" in body:
            return 200, {"results": self.twist([{"index": i, "relevance_score": score} for i, score in best])}
        return 200, self.twist([{"index": i, "score": score} for i, score in best])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxReranker:
    return OnnxReranker(tiny.make(tmp_path_factory.mktemp("model")))


@pytest.fixture
def server(model: OnnxReranker) -> Iterator[Server]:
    state = Server(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = state.answer(self.path, dict(self.headers), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()


Connect = Callable[..., HttpReranker]


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    made: list[HttpReranker] = []

    def connected(model: str | None = "m", **options: Any) -> HttpReranker:
        made.append(HttpReranker(server.url + "/v1", model, **{"delay": 0.0, **options}))
        return made[-1]

    yield connected
    for reranker in made:
        reranker.close()


class TestHttpReranker(RerankerContract):
    tolerance = 1e-5

    @pytest.fixture
    def reranker(self, connect: Connect) -> HttpReranker:
        return connect()


class TestHttpRerankerOfTei(RerankerContract):
    tolerance = 1e-5

    @pytest.fixture
    def reranker(self, connect: Connect) -> HttpReranker:
        return connect(None)


class TestHttpRerankerOfLogits(RerankerContract):
    tolerance = 1e-5

    @pytest.fixture
    def reranker(self, server: Server, connect: Connect) -> HttpReranker:
        server.logits = True
        return connect(logits=True)


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("http:org/m:latest@{url}/v1", {"model": "org/m:latest", "query": QUESTION, "documents": TEXTS}),
        ("tei:{url}/v1", {"query": QUESTION, "texts": TEXTS}),
    ],
)
def test_a_spec_names_server_model_and_form(
    server: Server, model: OnnxReranker, spec: str, asked: dict[str, object]
) -> None:
    reranker = make(spec.format(url=server.url))
    assert isinstance(reranker, HttpReranker)
    assert reranker.spec == spec.format(url=server.url)
    np.testing.assert_allclose(reranker.rerank(QUESTION, TEXTS), model.rerank(QUESTION, TEXTS), atol=1e-6)
    assert (server.paths, server.requests) == (["/v1/rerank"], [asked])
    reranker.close()


def test_texts_go_in_batches_and_blank_ones_not_at_all(server: Server, model: OnnxReranker, connect: Connect) -> None:
    texts = [*TEXTS, " ", *TEXTS, ""]
    scores = connect(batch=2).rerank(QUESTION, texts)
    assert [len(request["documents"]) for request in server.requests] == [2, 2, 2]
    np.testing.assert_allclose(scores[:3], model.rerank(QUESTION, TEXTS), atol=1e-6)
    assert np.array_equal(scores[:3], scores[4:7])
    assert (scores[3], scores[7]) == (0, 0)


def test_logits_are_not_taken_for_scores(server: Server, connect: Connect) -> None:
    server.logits = True
    with pytest.raises(RerankerError, match=r"which are logits; write http-logits:"):
        connect().rerank(QUESTION, TEXTS)
    with pytest.raises(RerankerError, match="which are logits; start it without raw scores"):
        connect(None).rerank(QUESTION, TEXTS)
    told = make(f"http-logits:m@{server.url}/v1")
    assert isinstance(told, HttpReranker)
    assert told.rerank(QUESTION, TEXTS).argmax() == 1
    told.close()


def test_a_failure_that_may_pass_is_tried_again_once(server: Server, connect: Connect) -> None:
    server.script = [503]
    assert connect().rerank(QUESTION, TEXTS).shape == (3,)
    server.script = [503, 429]
    with pytest.raises(RerankerError, match=r"/v1/rerank \(model 'm'\) answered 429"):
        connect().rerank(QUESTION, TEXTS)


def test_a_refusal_is_final_and_shows_no_key(server: Server, connect: Connect) -> None:
    server.always = 401, {"error": "wrong key sk-secret"}
    with pytest.raises(RerankerError, match=r"401: .*wrong key \*\*\*") as caught:
        connect(api_key="sk-secret").rerank(QUESTION, TEXTS)
    assert "sk-secret" not in str(caught.value)
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer sk-secret"]


def test_keys_in_the_environment_go_to_their_own_servers_alone(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MEMSPAN_API_KEY", "OPENAI_API_KEY", "JINA_API_KEY", "CO_API_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    connect().rerank(QUESTION, TEXTS)
    assert "Authorization" not in server.headers[0]


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        reranker = HttpReranker(f"http://127.0.0.1:{taken.getsockname()[1]}", None, delay=0)
        with pytest.raises(RerankerError, match=r"/rerank cannot be reached.*start the server"):
            reranker.rerank("q", ["a"])
        reranker.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>hello</html>", "no scores"),
        ({"data": []}, "no scores"),
        ({"results": None}, "no scores"),
        ({"results": [{"index": 0}]}, "no scores"),
        ({"results": [{"index": 0, "relevance_score": "high"}]}, "no scores"),
        ({"results": []}, "indices"),
        ({"results": [{"index": 1, "relevance_score": 0.5}]}, "indices"),
        ({"results": [{"index": 0, "relevance_score": 0.5}] * 2}, "indices"),
        ({"results": [{"index": "0", "relevance_score": 0.5}]}, "indices"),
        ({"results": [{"index": 0, "relevance_score": None}]}, "not finite"),
        ({"results": [{"index": 0, "relevance_score": float("nan")}]}, "not finite"),
        ([{"index": 0, "score": [0.5]}], "not finite"),
    ],
)
def test_an_answer_that_is_not_one_good_score_each_is_an_error(
    server: Server, connect: Connect, answer: object, message: str
) -> None:
    server.always = 200, answer
    with pytest.raises(RerankerError, match=message):
        connect().rerank("q", ["a"])


@pytest.mark.parametrize(("argument", "value"), [("batch", 0), ("retries", -1), ("delay", -1), ("timeout", 0)])
def test_a_setting_out_of_range_is_refused_by_name(argument: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=argument):
        HttpReranker("http://host/v1", "m", **{argument: value})  # type: ignore[arg-type]
