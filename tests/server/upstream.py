"""An OpenAI-compatible server on this machine, over real sockets: it keeps what it received to the byte, and answers
the bytes that a test has scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Received:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``chunks``: what is written and flushed one after the other, with a Content-Length where there is one only.
    ``breaks``: the connection is closed before the end. ``waits``: no more comes until the other side has gone."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    chunks: Sequence[bytes] = ()
    breaks: bool = False
    waits: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def completion(text: str | None, *, reason: str = "stop", **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return of_json({"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def of_json(value: Any, status: int = 200) -> Reply:
    return Reply(status=status, chunks=[json.dumps(value, indent=1).encode()])


def chunk(text: str | None, *, reason: str | None = None, index: int = 0, **delta: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text, **delta}, "finish_reason": reason}
    event = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def stream(*texts: str, end: bytes = b"data: [DONE]\n\n", **options: Any) -> Reply:
    chunks = [b": a comment\n\n", *map(chunk, texts), chunk(None, reason="stop"), end]
    return Reply(headers={"Content-Type": "text/event-stream; charset=utf-8"}, chunks=chunks, **options)


def response(text: str, status: str = "completed", id: str = "resp_1") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": [{"type": "reasoning", "id": "r_1", "summary": []}, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def response_stream(*texts: str) -> Reply:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response("", "in_progress")}]
    events += [{"type": "response.output_text.delta", "delta": text, **where} for text in texts]
    events += [{"type": "response.completed", "response": response("".join(texts))}]
    chunks = [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    ]
    return Reply(headers={"Content-Type": "text/event-stream"}, chunks=chunks)


@dataclass
class Upstream:
    """``script``: what the next requests get, then ``model`` answers."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    script: list[Reply] = field(default_factory=list)
    model: Callable[[Received], Reply] = lambda received: completion("All right.")
    asked: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def last(self) -> Received:
        return self.received[-1]


@contextmanager
def upstream() -> Iterator[Upstream]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            received = Received(method=self.command, path=self.path, headers=self.headers.items(), body=body)
            state.received.append(received)
            state.asked.set()
            reply = state.script.pop(0) if state.script else state.model(received)
            chunked = len(reply.chunks) != 1
            try:
                if reply.waits and not reply.chunks:
                    self._left()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                else:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                for part in reply.chunks:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                if reply.waits:
                    self._left()
                elif reply.breaks:
                    self.close_connection = True
                elif chunked:
                    self.wfile.write(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_POST

        def _left(self) -> None:
            with suppress(ConnectionResetError):
                self.rfile.read(1)
            self.close_connection = True
            state.left.set()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            http.shutdown()
            thread.join()
