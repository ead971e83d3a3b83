"""A real Ray cluster of two nodes, each with one CPU, on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = (HERE.parent.parent / "src", HERE.parent)
STORE = 80 << 20  # bytes of a node's object store

Driver = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _warnings_of_ray() -> Iterator[None]:
    """Ray warns of its own defaults, and leaves it to the collector to close what it opened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Nodes:
    """The cluster, in a process of its own that is told what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._asks, self._tells = process.stdin, process.stdout
        self.address = self._heard("cluster at ")

    def tell(self, word: str) -> None:
        """Have it "lose" its second node, as when a machine's power fails, or "gain" another."""
        self._asks.write(f"{word}\n")
        self._asks.flush()
        self._heard("done")

    def end(self) -> None:
        self._asks.close()

    def _heard(self, beginning: str) -> str:
        line = next((line for line in self._tells if line.startswith(beginning)), "")
        return line.removeprefix(beginning).strip()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """The cluster, which this process has joined: so the processes that work for it are started once."""
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("pandas", reason="Ray Data needs pandas")
    import ray

    command, pipe = [sys.executable, str(HERE / "nodes.py"), str(STORE)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=_environment()) as process:
        nodes = Nodes(process)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
            try:
                yield nodes
            finally:
                ray.shutdown()
                nodes.end()


@pytest.fixture
def cluster(nodes: Nodes) -> str:
    """Its address."""
    return nodes.address


@pytest.fixture
def driver(cluster: str, tmp_path: Path) -> Driver:
    """Runs ``driver.py`` with these arguments in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HERE / "driver.py"), cluster, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=_environment(), timeout=600, cwd=tmp_path, check=False
        )

    return run


def _environment() -> dict[str, str]:
    """What new processes are started with: what is tested and these tests can be imported; Ray tells nobody, and keeps
    processes that were idle for a second, which it takes longer to start."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_idle_worker_killing_time_threshold_ms": "600000",
    }
