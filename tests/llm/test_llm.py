"""A language model behind HTTP, against a real server on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from memspan import InvalidInput, LLMError
from memspan.config import Config
from memspan.llm import LLM, ChatEndpoint, Completion, make

from .chat import Server

ASKED = [{"role": "user", "content": "Who lives here?"}]

Connect = Callable[..., ChatEndpoint]


def test_nothing_is_sent_before_something_is_asked(server: Server, connect: Connect) -> None:
    llm = connect()
    assert (llm.id, llm.spec, repr(llm)) == (
        "http-m",
        f"http:m@{server.url}",
        f"ChatEndpoint({server.url!r}, 'm')",
    )
    assert server.requests == []


def test_a_question_goes_out_once_and_its_answer_and_cost_come_back(server: Server, connect: Connect) -> None:
    server.script = ["Ana lives here."]
    assert connect(extra={"seed": 1}).complete(ASKED, 7) == Completion(
        text="Ana lives here.", tokens_in=3, tokens_out=3
    )
    assert server.requests == [
        {"model": "m", "stream": False, "temperature": 0.0, "seed": 1, "max_tokens": 7, "messages": ASKED}
    ]


def test_a_server_that_does_not_count_is_not_made_to(server: Server, connect: Connect) -> None:
    server.usage = False
    answer = connect(temperature=None).complete(ASKED, 7)
    assert (answer.tokens_in, answer.tokens_out) == (None, None)
    assert "temperature" not in server.requests[0]


@pytest.mark.parametrize(
    ("choice", "ended"),
    [
        ({"message": {"content": "Ana li"}, "finish_reason": "length"}, "cut"),
        ({"message": {"content": None, "refusal": "no"}}, "refused"),
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "refused"),
        ({"message": {"content": "Ana"}, "finish_reason": None}, "finished"),
    ],
)
def test_how_an_answer_ended_is_told(server: Server, connect: Connect, choice: dict[str, Any], ended: str) -> None:
    server.script = [choice]
    assert connect().complete(ASKED, 7).ended == ended


def test_a_failure_that_may_pass_is_tried_again(server: Server, connect: Connect) -> None:
    server.script = [(429, {}), (503, {}), "Ana"]
    assert connect().complete(ASKED, 7).text == "Ana"
    assert len(server.requests) == 3


def test_a_server_that_fails_for_ever_is_given_up(server: Server, connect: Connect) -> None:
    server.script = [(500, {"error": "out of memory"})] * 9
    with pytest.raises(LLMError, match=r"/v1/chat/completions \(model 'm'\) answered 500: .*out of memory"):
        connect().complete(ASKED, 7)
    assert len(server.requests) == 3


def test_a_server_that_does_not_answer_is_given_up(server: Server, connect: Connect) -> None:
    server.hold = threading.Event()
    with pytest.raises(LLMError, match=r"did not answer within 0\.1 s"):
        connect(timeout=0.1, retries=0).complete(ASKED, 7)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        llm = ChatEndpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m", retries=0)
        with pytest.raises(LLMError, match=r"cannot be reached.*start the server"):
            llm.complete(ASKED, 7)
        llm.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>hello</html>",
        [],
        {"choices": []},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": ["Ana"]}}]},
    ],
)
def test_an_answer_without_a_message_is_an_error(server: Server, connect: Connect, answer: object) -> None:
    server.script = [(200, answer)]
    with pytest.raises(LLMError, match="answered with no message"):
        connect().complete(ASKED, 7)


def test_a_key_is_sent_and_never_shown(server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    llm = connect(api_key="sk-secret")
    llm.complete(ASKED, 7)
    connect().complete(ASKED, 7)
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer sk-secret", None]
    server.script = [(401, {"error": "wrong key sk-secret"})]
    with pytest.raises(LLMError) as caught:
        llm.complete(ASKED, 7)
    assert "sk-secret" not in f"{caught.value} {llm!r} {llm.spec} {llm.id}"


def test_a_spec_names_model_and_server(server: Server) -> None:
    llm = make(f"http:org/m@v1:latest@{server.url}")
    assert isinstance(llm, ChatEndpoint)
    assert (llm.model, llm.base_url) == ("org/m@v1:latest", server.url)
    assert make(llm) is llm
    assert isinstance(llm, LLM)
    assert (make(None), make("none")) == (None, None)


@pytest.mark.parametrize("spec", ["http:m", "http:@http://host/v1", "gpt", "", 7, "minilm:m@http://host/v1"])
def test_what_names_no_model_is_refused(spec: Any) -> None:
    with pytest.raises(InvalidInput, match=r"llm: .*write http:MODEL@http://HOST:PORT/v1"):
        make(spec)


def test_the_configuration_names_a_model_and_none_is_the_default() -> None:
    assert Config.load({}).llm == "none"
    assert Config.load({"MEMSPAN_LLM": "http:m@http://host/v1"}).llm == "http:m@http://host/v1"
