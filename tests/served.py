"""A server of memspan in a thread of this process, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from memspan import Memory
from memspan.server.app import create_app
from memspan.server.door import Settings


@contextmanager
def served(memory: Memory, **settings: Any) -> Iterator[str]:
    """The address of a server over ``memory``, until the end of the block."""
    app = create_app(memory, Settings(**{"logs": False, **settings}))
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
