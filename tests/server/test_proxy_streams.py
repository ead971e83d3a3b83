"""Bytes go through as they come, whole or broken, and what is remembered of an answer never holds it up."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import served

from memspan import Memory
from memspan.server.proxy.dialects import DIALECTS

from .test_proxy import FACT, asks, posted, stored
from .upstream import Reply, Upstream, chunk, completion, response_stream, stream, upstream

EVENTS = {"Content-Type": "text/event-stream"}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Upstream, str, Memory]]:
    """One proxy for all the examples of a property."""
    with (
        upstream() as up,
        Memory(":memory:", encoder="hash") as memory,
        served(memory, upstream=up.url) as url,
    ):
        yield up, f"{url}/v1/chat/completions", memory


def cut(whole: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({edge % (len(whole) + 1) for edge in at}), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=40, deadline=None)
@given(
    whole=st.one_of(
        st.binary(min_size=1, max_size=300),
        st.lists(st.text(max_size=20), max_size=5).map(lambda texts: stream(*texts).body),
        st.just(stream("one", "two").body.replace(b"\n", b"\r\n")),
        st.just(response_stream("one", "two").body),
    ),
    at=st.lists(st.integers(0, 2_000), max_size=12),
    kind=st.sampled_from(["text/event-stream", "application/json", "application/octet-stream"]),
    status=st.sampled_from([200, 201, 404, 500]),
)
def test_whatever_comes_in_whatever_pieces_goes_through_to_the_byte(
    running: tuple[Upstream, str, Memory], whole: bytes, at: list[int], kind: str, status: int
) -> None:
    up, url, _ = running
    up.script = [Reply(status=status, headers={"Content-Type": kind}, chunks=cut(whole, at))]
    with httpx.stream("POST", url, json=asks("Go on.", stream=True)) as answer:
        got = b"".join(answer.iter_raw())
    assert (got, answer.status_code, answer.headers["content-type"]) == (whole, status, kind)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=8),
    at=st.lists(st.integers(0, 3_000), max_size=12),
    ends=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_a_streamed_answer_is_remembered_whole_in_whatever_pieces_it_came(
    texts: list[str], at: list[int], ends: bytes
) -> None:
    for dialect, made in zip(DIALECTS, (stream(*texts), response_stream(*texts)), strict=True):
        whole = b"".join(cut(made.body.replace(b"\n", ends), at))
        read = dialect.answer(whole, events=True)
        assert (read.text, read.ended) == ("".join(texts), True)


def pieces_until_broken(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What came before the connection broke, as it must."""
    with pytest.raises(httpx.RemoteProtocolError):
        yield from pieces


def test_an_answer_is_there_before_it_has_ended(memory: Memory) -> None:
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [Reply(headers=EVENTS, chunks=[chunk("The door "), chunk("is ")], waits=True)]
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asks(FACT, stream=True)) as answer:
            pieces = answer.iter_raw()
            got = next(pieces)
            while b"is " not in got:
                got += next(pieces)
            assert not up.left.is_set()
        assert up.left.wait(10), "the upstream was not told that nobody listens any more"
    assert got == chunk("The door ") + chunk("is ")
    assert stored(memory) == [("user", FACT)]  # what was cut off may say the opposite of what it would have said


def test_an_upstream_that_breaks_off_is_seen_to_have_broken_off(memory: Memory) -> None:
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [
            Reply(headers=EVENTS, chunks=[chunk("The door "), chunk("is ")], breaks=True),
            Reply(headers={**EVENTS, "Content-Length": "999"}, chunks=[chunk("The door ")], breaks=True),
        ]
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asks(FACT, stream=True)) as answer:
            got = b"".join(pieces_until_broken(answer.iter_raw()))
        assert httpx.get(f"{url}/health/live").status_code == 200
    assert got == chunk("The door ") + chunk("is ")
    assert stored(memory) == [("user", FACT)]


def test_a_client_that_leaves_before_the_answer_ends_the_work_on_it(memory: Memory) -> None:
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [Reply(waits=True)]
        where, body = urlsplit(url), json.dumps(asks(FACT)).encode()
        with socket.create_connection((where.hostname, where.port)) as leaving:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
            leaving.sendall(head.encode() + body)
            assert up.asked.wait(30)
        assert up.left.wait(30)
    assert stored(memory) == []


def test_a_stream_without_its_end_is_no_answer(memory: Memory) -> None:
    failed = b'data: {"error": {"message": "out of memory"}}\n\n'
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [Reply(headers=EVENTS, chunks=[chunk("The door "), failed])]
        assert posted(f"{url}/v1", asks(FACT)).content == chunk("The door ") + failed
        up.script = [Reply(headers=EVENTS, chunks=[chunk("One."), chunk("Two.", index=1), chunk("", reason="stop")])]
        posted(f"{url}/v1", asks("And now?", n=2))
    assert stored(memory) == [("user", FACT), ("user", "And now?")]


def test_tool_calls_in_a_stream_pass_and_the_words_beside_them_are_remembered(memory: Memory) -> None:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":'}}
    chunks = [chunk("Let me look."), chunk(None, tool_calls=[call]), chunk(None, reason="tool_calls")]
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [Reply(headers=EVENTS, chunks=chunks)]
        assert posted(f"{url}/v1", asks(FACT, stream=True)).content == b"".join(chunks)
    assert stored(memory) == [("user", FACT), ("assistant", "Let me look.")]


def test_an_answer_that_is_compressed_all_the_same_passes_and_is_remembered(memory: Memory) -> None:
    packed = gzip.compress(completion("It is blue.").body, mtime=0)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with upstream() as up, served(memory, upstream=up.url) as url:
        up.script = [Reply(headers=headers, chunks=[packed]), Reply(headers=headers, chunks=[b"no gzip"])]
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asks(FACT)) as answer:
            assert b"".join(answer.iter_raw()) == packed
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=asks("And now?")) as answer:
            assert b"".join(answer.iter_raw()) == b"no gzip"
    assert stored(memory) == [("user", FACT), ("assistant", "It is blue."), ("user", "And now?")]


def test_remembering_holds_nothing_up_and_its_failure_breaks_nothing() -> None:
    going = threading.Event()

    def redact(text: str) -> str:
        assert going.wait(30)
        if "broken" in text:
            raise RuntimeError("no")
        return text

    with Memory(":memory:", encoder="hash", redact=redact) as memory, upstream() as up:
        with served(memory, upstream=up.url, recall_timeout=10.0) as url:
            up.script = [stream("It is ", "blue.")]
            assert posted(f"{url}/v1", asks(FACT)).content == stream("It is ", "blue.").body  # and the end of it
            assert stored(memory) == []
            going.set()
            assert posted(f"{url}/v1", asks("This is broken.")).status_code == 200
            assert FACT in json.dumps(up.last.json)  # what was said a moment ago is known by then
            assert posted(f"{url}/v1", asks("And now?")).status_code == 200
            assert 'memspan_failures_total{code="RuntimeError"} 1.0' in httpx.get(f"{url}/metrics").text
        said = [text for role, text in stored(memory) if role == "user"]
    assert said == [FACT, "And now?"]
