"""A real server over a real memory, on a port of this machine that was free."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from memspan import Memory
from memspan.server.app import create_app
from memspan.server.door import Settings


@contextmanager
def serving(memory: Memory, settings: Settings | None = None) -> Iterator[str]:
    """Its base URL."""
    app = create_app(memory, settings or Settings(logs=False))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:  # asked before the server runs, a client waits in line
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
