"""An OpenAI client gets memory by changing its base URL: what goes up, what is remembered, and whose it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from served import served

from memspan import Memory
from memspan.quotation import END, PREAMBLE
from memspan.testing import WordEncoder

from .upstream import Reply, Upstream, completion, of_json, stream, upstream

FACT = "My spare key hangs behind the blue door."
QUESTION = "Where does my spare key hang?"


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as state:
        yield state


@pytest.fixture
def proxied(memory: Memory, up: Upstream) -> Iterator[str]:
    with served(memory, upstream=up.url) as url:
        yield f"{url}/v1"


def client(url: str, key: str = "sk-theirs", **headers: str) -> openai.OpenAI:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, default_headers=named)


def asks(*contents: Any, **more: Any) -> dict[str, Any]:
    """A request: what user and assistant said in turn."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"model": "m", "messages": turns, **more}


def posted(url: str, body: Any, path: str = "/chat/completions", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url + path, content=content, headers={"Content-Type": "application/json", **named}, timeout=30)


def stored(memory: Memory, **scope: Any) -> list[tuple[str | None, str]]:
    return [(segment.role, segment.text) for segment in memory.get_all(**scope)]


def recalled(up: Upstream) -> bool:
    return PREAMBLE in json.dumps(up.last.json)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_one_conversation_said_is_known_in_a_fresh_one(proxied: str, up: Upstream, streamed: bool) -> None:
    with client(proxied) as chat:

        def say(text: str) -> str:
            said = chat.chat.completions.create(**asks(text, stream=streamed))
            return "".join(each.choices[0].delta.content or "" for each in said) if streamed else (
                said.choices[0].message.content
            )  # fmt: skip

        replies = ["I will ", "remember."], ["Behind the ", "blue door [1]."]
        up.script = [stream(*texts) if streamed else completion("".join(texts)) for texts in replies]
        assert say(FACT) == "I will remember."
        assert say(QUESTION) == "Behind the blue door [1]."
    assert up.received[0].json["messages"] == asks(FACT)["messages"]
    (asked,) = up.received[1].json["messages"]
    block, _, question = asked["content"].rpartition("\n\n")
    assert (block.startswith(PREAMBLE), block.endswith(END), question) == (True, True, QUESTION)
    assert f"> user: {FACT}\n> assistant: I will remember." in block


def test_nothing_else_of_a_request_is_changed(memory: Memory, proxied: str, up: Upstream) -> None:
    memory.add(FACT)
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"where": "door"}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    body: dict[str, Any] = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "Ana", "content": [{"type": "text", "text": QUESTION}, picture, sound]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "A door: ünï\u2028code"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "temperature": 1e-7,
        "seed": 12345678901234567890,
        "logprobs": True,
        "n": 2,
        "stream_options": {"include_usage": True},
        "of_their_own": {"deep": [None, {}]},
    }
    posted(proxied, body)
    sent = up.last.json
    added = sent["messages"][1]["content"].pop(0)
    assert (added["type"], added["text"].startswith(PREAMBLE)) == ("text", True)
    assert sent == body
    assert list(sent) == list(body)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{ "model":"m",  "messages": [{"role":"user","content":"Who \\u0061m I?"}] }', {}),
        (b'{ "model":"m",  "messages": [{"role":"user","content":"Where is my spare key?"}] }', {"X_Memory": "off"}),
        (b'{ "model":"m",  "messages": [{"role":"user","content":"Where is my spare key?"}] }', {"X_Memory": "write"}),
        (b'{"messages": [{"role":"system","content":"Where is my spare key?"}]}', {}),
        (b'{"messages": "no list"', {}),
        (b'{"messages": [1, {"role": "assistant"}, null]}', {}),
        (b"[" * 100_000, {}),
        (b"", {}),
    ],
)
def test_a_request_without_anything_to_recall_goes_up_to_the_byte(
    memory: Memory, proxied: str, up: Upstream, body: bytes, headers: dict[str, str]
) -> None:
    if headers:
        memory.add(FACT)
    assert posted(proxied, body, **headers).status_code == 200
    assert up.last.body == body


def test_a_turn_is_remembered_once_however_often_the_conversation_is_sent(memory: Memory, up: Upstream) -> None:
    system = {"role": "system", "content": "You are a helpful assistant of the house."}
    said: list[dict[str, Any]] = [system]
    with served(memory, upstream=up.url) as url:
        for number in range(4):
            said.append({"role": "user", "content": f"The {number}th thing I tell you."})
            up.script = [completion(f"That was thing number {number}.")]
            posted(f"{url}/v1", {"model": "gpt", "messages": said})
            said.append({"role": "assistant", "content": f"That was thing number {number}."})
    assert stored(memory) == [(turn["role"], turn["content"]) for turn in said[1:]]
    assert [segment.repeats for segment in memory.get_all()] == [0] * 8
    assert memory.get_all()[1].metadata == {"model": "gpt"}
    assert not any(PREAMBLE in received.body.decode() for received in up.received)  # all of it was there to read


def test_of_tools_and_pictures_only_the_words_of_people_are_remembered(memory: Memory, up: Upstream) -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = asks([{"type": "text", "text": "What hangs here?"}, picture, {"type": "text", "text": "And where?"}])
    with served(memory, upstream=up.url) as url:
        up.script = [completion(None, reason="tool_calls", tool_calls=[call]), completion("A key hangs there.")]
        posted(f"{url}/v1", body)
        body["messages"] += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "the result of the tool"},
        ]
        posted(f"{url}/v1", body)
    assert stored(memory) == [("user", "What hangs here?\nAnd where?"), ("assistant", "A key hangs there.")]


def test_of_several_answers_none_is_remembered(memory: Memory, up: Upstream) -> None:
    choices = [{"index": at, "message": {"content": f"Answer {at}."}, "finish_reason": "stop"} for at in range(2)]
    with served(memory, upstream=up.url) as url:
        up.script = [of_json({"choices": choices})]
        posted(f"{url}/v1", asks(FACT, n=2))
    assert stored(memory) == [("user", FACT)]


def test_an_answer_that_is_only_begun_by_the_client_does_not_hide_the_question(memory: Memory, up: Upstream) -> None:
    with served(memory, upstream=up.url) as url:
        posted(f"{url}/v1", asks(FACT, "Sure, "))
    assert stored(memory) == [("user", FACT), ("assistant", "All right.")]


def test_what_was_recalled_does_not_come_back_as_memory(memory: Memory, up: Upstream) -> None:
    memory.add(FACT)
    with served(memory, upstream=up.url) as url:
        posted(f"{url}/v1", asks(QUESTION))
        (asked,) = up.last.json["messages"]
        up.script = [completion(asked["content"].replace(QUESTION, "So it says.")), completion(FACT)]
        posted(f"{url}/v1", asks("Quote all that you were given."))
        posted(f"{url}/v1", asks(f"{asked['content']}\n\nIs that so?"))
    texts = [text for _, text in stored(memory)]
    assert texts.count(FACT) == 1
    assert not any(PREAMBLE in text for text in texts)
    assert {"So it says.", f"{QUESTION}\n\nIs that so?"} <= set(texts)


def test_a_short_question_is_searched_for_with_the_one_before_it(up: Upstream) -> None:
    with Memory(":memory:", encoder=WordEncoder()) as memory:
        for number in range(300):
            memory.add(f"Somebody else mentioned the number {number} of a long list of things at some length.")
        memory.add(FACT)
        with served(memory, upstream=up.url, recall_budget=60) as url:
            posted(f"{url}/v1", asks("Tell me about my spare key.", "It is a key.", "And where is it?"))
    assert FACT in up.last.body.decode()


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_of_the_upstream_is_passed_on_and_nothing_is_remembered(
    memory: Memory, up: Upstream, status: int
) -> None:
    told = of_json({"error": {"message": "no", "type": "t", "code": "c", "param": None}}, status)
    told = Reply(status=status, headers={**told.headers, "Retry-After": "7", "X-Of-Theirs": "1"}, chunks=told.chunks)
    with served(memory, upstream=up.url) as url:
        up.script = [told, told]
        answer = posted(f"{url}/v1", asks(FACT))
        with client(f"{url}/v1") as chat, pytest.raises(openai.APIStatusError) as raised:
            chat.chat.completions.create(**asks(FACT))
    assert (answer.status_code, answer.content) == (status, told.body)
    assert (answer.headers["retry-after"], answer.headers["x-of-theirs"]) == ("7", "1")
    assert (raised.value.status_code, raised.value.code) == (status, "c")
    assert stored(memory) == []


def test_an_upstream_that_is_not_there_is_told_as_such(memory: Memory) -> None:
    with upstream() as gone:
        pass
    with served(memory, upstream=gone.url) as url:
        answer = posted(f"{url}/v1", asks(FACT))
    assert (answer.status_code, answer.json()["code"]) == (502, "LLMError")
    with served(memory) as url:
        answer = posted(f"{url}/v1", asks(FACT))
    assert answer.status_code == 404
    assert "--proxy" in answer.json()["mend"]
    assert stored(memory) == []


def test_where_memory_fails_the_chat_goes_on(memory: Memory, up: Upstream) -> None:
    with served(memory, upstream=up.url) as url:
        memory.api_keys = list  # type: ignore[method-assign]
        memory.api_key = lambda secret: None  # type: ignore[method-assign]
        memory.close()
        answer = posted(f"{url}/v1", asks(QUESTION))
        counted = httpx.get(f"{url}/metrics").text
    assert (answer.json()["choices"][0]["message"]["content"], answer.status_code) == ("All right.", 200)
    assert answer.headers["x-memory-error"] == "StoreClosed"
    assert up.last.json == asks(QUESTION)
    assert 'memspan_failures_total{code="StoreClosed"}' in counted


def test_a_recall_that_takes_too_long_is_not_waited_for(up: Upstream) -> None:
    going = threading.Event()

    class Held(WordEncoder):
        def encode(self, texts: Any) -> Any:
            going.wait(30)
            return super().encode(texts)

    with Memory(":memory:", encoder=Held()) as memory:
        memory.add(FACT, wait=False)
        with served(memory, upstream=up.url, recall_timeout=0.05, threads=4) as url:
            for _ in range(4):  # also when half of the threads hang in it
                answer = posted(f"{url}/v1", asks(QUESTION), X_Memory="read")
                assert (answer.status_code, answer.headers["x-memory-error"]) == (200, "StoreBusy")
                assert not recalled(up)
            assert httpx.get(f"{url}/health/ready").status_code == 200
            going.set()


def test_headers_tell_what_was_recalled(memory: Memory, proxied: str, up: Upstream) -> None:
    (known,) = memory.add(FACT).ids
    tokens = memory.context(QUESTION).tokens
    told = posted(proxied, asks(QUESTION)).headers
    assert (told["x-memory"], told["x-memory-ids"], told["x-memory-segments"]) == ("on", known, "1")
    assert int(told["x-memory-tokens"]) == tokens
    assert float(told["x-memory-ms"]) > 0
    assert "x-memory-ids" not in posted(proxied, asks(QUESTION), X_Memory="off").headers


@pytest.mark.parametrize(
    ("mode", "reads", "writes"), [("on", 1, 1), ("read", 1, 0), ("write", 0, 1), ("off", 0, 0), ("OFF", 0, 0)]
)
def test_a_request_says_what_is_done_with_memory(
    memory: Memory, up: Upstream, mode: str, reads: int, writes: int
) -> None:
    memory.add(FACT)
    with served(memory, upstream=up.url) as url:
        posted(f"{url}/v1", asks(QUESTION), X_Memory=mode)
    assert (recalled(up), len(stored(memory)) - 1) == (bool(reads), 2 * writes)


@pytest.mark.parametrize("headers", [{"X_Memory": "of"}, {"X_Memory_Budget": "much"}, {"X_Memory_Budget": "1000001"}])
def test_what_is_asked_of_memory_wrongly_is_refused_before_anything_is_sent(
    proxied: str, up: Upstream, headers: dict[str, str]
) -> None:
    answer = posted(proxied, asks(QUESTION), **headers)
    assert (answer.status_code, answer.json()["code"], up.received) == (400, "InvalidInput", [])


def test_the_block_is_bounded(memory: Memory, proxied: str, up: Upstream) -> None:
    for number in range(50):
        memory.add(f"Key number {number} hangs behind the blue door of house {number}.")
    for headers, most in (({}, 500), ({"X_Memory_Budget": "120"}, 120)):
        told = posted(proxied, asks(QUESTION), **headers).headers
        assert most // 2 < int(told["x-memory-tokens"]) <= most


def test_a_user_is_told_apart_by_the_field_or_the_header(memory: Memory, up: Upstream) -> None:
    with served(memory, upstream=up.url) as url:
        posted(f"{url}/v1", asks("I drink tea.", user="ana"), X_Memory_Session="one")
        posted(f"{url}/v1", asks("I drink coffee.", user="ana"), X_Memory_User="J%C3%B6rg")
        posted(f"{url}/v1", asks("I drink water.", safety_identifier="cleo"))
        posted(f"{url}/v1", asks("What do I drink when I am at home?", user="ana"), X_Memory="read")
    sent = up.last.body.decode()
    assert ("tea" in sent, "coffee" in sent, "water" in sent) == (True, False, False)
    said = {segment.text: (segment.user_id, segment.session) for segment in memory.get_all() if segment.role == "user"}
    assert said == {
        "I drink tea.": ("ana", "one"),
        "I drink coffee.": ("Jörg", None),
        "I drink water.": ("cleo", None),
    }


@pytest.mark.parametrize("user", ["", " ", 7, ["ana"], {"id": 1}, "x" * 300])
def test_a_user_that_is_no_name_gets_nobodys_memory(memory: Memory, up: Upstream, user: Any) -> None:
    memory.add(FACT, user_id="ana")
    with served(memory, upstream=up.url) as url:
        answer = posted(f"{url}/v1", asks(QUESTION, user=user))
    assert (answer.status_code, answer.headers["x-memory-error"]) == (200, "InvalidInput")
    assert not recalled(up)
    assert len(stored(memory)) == 1


def test_keys_of_this_server_are_never_sent_on(memory: Memory, up: Upstream) -> None:
    ours = memory.create_api_key("laptop", namespaces="default").secret
    assert ours is not None
    other = "ms_0123456789abcdef_" + "A" * 43
    cases: list[tuple[str | None, dict[str, str], str | None]] = [
        (None, {"Authorization": f"Bearer {ours}"}, None),
        (None, {"X-API-Key": ours}, None),
        (None, {"X-API-Key": ours, "Authorization": "Bearer sk-theirs"}, "Bearer sk-theirs"),
        (None, {"X-API-Key": ours, "Authorization": f"Bearer {other}", "Api-Key": ours}, None),
        ("sk-up", {"Authorization": f"Bearer {ours}"}, "Bearer sk-up"),
        ("sk-up", {"X-API-Key": ours, "Authorization": "Bearer sk-theirs"}, "Bearer sk-up"),
    ]
    for key, headers, sent in cases:
        with served(memory, upstream=up.url, upstream_key=key) as url:
            for path, body in (("/chat/completions", asks("Hello.")), ("/embeddings", {"input": "Hello."})):
                assert httpx.post(f"{url}/v1{path}", json=body, headers=headers).status_code == 200
                assert up.last.header("authorization") == sent
                assert not any("ms_" in value for _, value in up.last.headers)
    with served(memory, upstream=up.url, upstream_key="sk-up") as url:
        before = len(up.received)
        for headers in ({}, {"Authorization": "Bearer sk-theirs"}, {"X-API-Key": other}):
            assert httpx.post(f"{url}/v1/chat/completions", json=asks("Hello."), headers=headers).status_code == 401
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401
        assert len(up.received) == before


def test_a_key_opens_its_namespaces_only_and_its_rights_hold(memory: Memory, up: Upstream) -> None:
    memory.add(FACT, namespace="theirs")
    memory.add("My spare key is under the mat.", namespace="ours")
    key = memory.create_api_key("ours", namespaces="ours").secret
    reader = memory.create_api_key("reader", namespaces=["ours", "theirs"], rights="read").secret
    assert key is not None
    assert reader is not None
    with served(memory, upstream=up.url) as url:

        def status(key: str, **headers: str) -> int:
            return posted(f"{url}/v1", asks(QUESTION, user="theirs"), X_API_Key=key, **headers).status_code

        assert posted(f"{url}/v1", asks(QUESTION), X_API_Key=key).status_code == 200
        assert ("mat" in up.last.body.decode(), "door" in up.last.body.decode()) == (True, False)
        assert status(key) == 200
        assert "mat" not in up.last.body.decode()  # nor does `user` name a namespace
        before = len(up.received)
        assert status(key, X_Memory_Namespace="theirs") == 403
        assert status(key, X_Memory_Namespace="theirs", X_Memory="off") == 403
        assert status(reader, X_Memory_Namespace="theirs", X_Memory="write") == 403
        assert len(up.received) == before
        answer = posted(f"{url}/v1", asks(QUESTION), X_API_Key=reader, X_Memory_Namespace="theirs")
        assert (answer.status_code, answer.headers["x-memory"]) == (200, "read")
        assert "door" in up.last.body.decode()
    assert stored(memory, namespace="theirs") == [(None, FACT)]
    assert len(stored(memory, namespace="ours")) == 5


def test_headers_of_one_connection_or_of_this_server_stay_here(memory: Memory, up: Upstream) -> None:
    odd = {"Content-Type": "application/json", "Set-Cookie": "a=b", "Server": "theirs", "X-Memory-Ids": "theirs"}
    odd |= {"X-Request-ID": "req_theirs", "OpenAI-Processing-Ms": "12"}
    with served(memory, upstream=up.url) as url:
        up.script = [Reply(headers=odd, chunks=completion("Yes.").chunks)]
        headers = {"Cookie": "c=d", "X_Memory_User": "ana", "OpenAI_Organization": "org"}
        answer = posted(f"{url}/v1", asks(FACT), Accept_Encoding="gzip", User_Agent="theirs/1", **headers)
    sent = {name.lower(): value for name, value in up.last.headers}
    assert not {"cookie", "x-memory-user", "x-api-key"} & set(sent)
    assert (sent["openai-organization"], sent["user-agent"], sent["accept-encoding"]) == ("org", "theirs/1", "identity")
    assert sent["host"] == up.url.removeprefix("http://").removesuffix("/v1")
    assert ("set-cookie" in answer.headers, answer.headers["x-memory-ids"]) == (False, "")
    assert (answer.headers["x-request-id"], answer.headers["openai-processing-ms"]) == ("req_theirs", "12")
    assert len(answer.headers.get_list("date")) == len(answer.headers.get_list("server")) == 1


def test_what_keeps_no_state_is_passed_on_and_nothing_else(memory: Memory, up: Upstream) -> None:
    up.model = lambda received: of_json({"object": "list", "data": [], "path": received.path})
    with served(memory, upstream=up.url, upstream_key="sk-up") as url:
        base = f"{url}/v1"
        assert httpx.get(f"{base}/models?after=x").json()["path"] == "/v1/models?after=x"
        assert httpx.get(f"{base}/models/org/model:8b").json()["path"] == "/v1/models/org/model%3A8b"
        assert posted(base, b"\x00 any bytes", "/audio/transcriptions").json()["path"] == "/v1/audio/transcriptions"
        assert up.last.body == b"\x00 any bytes"
        with client(base) as chat:
            assert chat.models.list().data == []
        before = len(up.received)
        for method, path in (
            ("GET", "/files"),
            ("GET", "/responses/resp_1"),
            ("DELETE", "/models/m"),
            ("GET", "/chat/completions"),
            ("POST", "/namespace/x/segments"),
            ("GET", "/models/%2e%2e/files"),
            ("GET", "/models/..%2Ffiles"),
        ):
            assert httpx.request(method, base + path).status_code in (404, 405), path
        assert len(up.received) == before
    assert stored(memory) == []


def test_embeddings_come_back_as_they_are(proxied: str, up: Upstream) -> None:
    row = {"object": "embedding", "index": 0, "embedding": [0.25, -1.0]}
    up.script = [of_json({"object": "list", "data": [row], "model": "e", "usage": {"prompt_tokens": 1}})]
    with client(proxied) as chat:
        found = chat.embeddings.create(model="e", input="text", encoding_format="float")
    assert found.data[0].embedding == [0.25, -1.0]
    assert up.last.json == {"model": "e", "input": "text", "encoding_format": "float"}
    assert up.last.header("authorization") == "Bearer sk-theirs"
