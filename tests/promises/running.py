"""Starts the tasks of ``processes.py``: each a process of its own, all forked from one that has imported everything."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["processes"])


def begin(asks: Connection, tells: Connection, environment: dict[str, str], task: str, arguments: list[str]) -> None:
    """What a new process does: it takes these for its stdin, stdout and environment, and does its task."""
    import processes  # never where the tests are: it changes the engine's settings

    for number, pipe in enumerate((asks, tells)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    processes.TASKS[task](*arguments)


class Process:
    """A task of ``processes.py``: lines of JSON out, lines in."""

    def __init__(self, task: str, *arguments: object) -> None:
        with pytest.MonkeyPatch.context() as patch:  # Python 3.11 looks for what it shall preload only there
            patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
            forkserver.ensure_running()
        asks, asking = FORKS.Pipe(duplex=False)
        telling, tells = FORKS.Pipe(duplex=False)
        with asks, asking, telling, tells:
            told = (asks, tells, dict(os.environ), task, list(map(str, arguments)))
            self._process = FORKS.Process(target=begin, args=told)
            self._process.start()
            self._stdin = os.fdopen(os.dup(asking.fileno()), "w", encoding="utf-8")
            self._stdout = os.fdopen(os.dup(telling.fileno()), encoding="utf-8")

    def tell(self, line: object) -> None:
        self._stdin.write(json.dumps(line) + "\n")
        self._stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next line."""
        line: dict[str, Any] = json.loads(self._stdout.readline())
        return line

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it says until it ends, which it does only in whole lines."""
        for line in self._stdout:
            assert line.endswith("\n")
            yield json.loads(line)

    def hang_up(self) -> None:
        """Close its stdin."""
        self._stdin.close()

    def running(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> int | None:
        """Wait for its end: its exit code, or the signal that killed it, negative."""
        self._process.join(300)
        return self._process.exitcode

    def finish(self) -> list[dict[str, Any]]:
        """Close its stdin, read what it still says, and make sure it ended well."""
        self.hang_up()
        said = list(self.lines())
        assert self.ended() == 0
        return said

    def stop(self) -> None:
        self.kill()
        self._process.join()
        self._stdout.close()
        with suppress(BrokenPipeError):
            self._stdin.close()


@contextmanager
def started(task: str, *arguments: object) -> Iterator[Process]:
    process = Process(task, *arguments)
    try:
        yield process
    finally:
        process.stop()
