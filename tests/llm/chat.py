"""A chat server on this machine, over real sockets: it says what a test has scripted, or what a model says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Messages = list[dict[str, str]]
Answer = str | dict[str, Any] | tuple[int, Any]
"""A text; a whole choice; or a status and a body."""


@dataclass
class Server:
    """``script``: what the next requests get, then ``model`` answers. ``hold``: requests wait for it first."""

    model: Callable[[Messages, int], Answer]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    script: list[Answer] = field(default_factory=list)
    usage: bool = True
    hold: threading.Event | None = None

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(body)
        self.headers.append(headers)
        if self.hold is not None:
            self.hold.wait(10)
        said = self.script.pop(0) if self.script else self.model(body["messages"], body.get("max_tokens", 0))
        if isinstance(said, tuple):
            return said
        choice = {"message": {"role": "assistant", "content": said}} if isinstance(said, str) else said
        choice = {"index": 0, "finish_reason": "stop", **choice}
        words = sum(len(message["content"].split()) for message in body["messages"])
        used = {"prompt_tokens": words, "completion_tokens": len(str(choice["message"]["content"]).split())}
        told = {"usage": used} if self.usage else {}
        return 200, {"object": "chat.completion", "model": body["model"], "choices": [choice], **told}


@contextmanager
def serving(model: Callable[[Messages, int], Answer]) -> Iterator[Server]:
    state = Server(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            status, answer = state.answer(dict(self.headers), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
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
