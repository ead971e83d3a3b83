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


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of the cluster, which this process has joined: so the processes that work for it are started once."""
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("pandas", reason="Ray Data needs pandas")
    import ray

    command = [sys.executable, str(HERE / "nodes.py"), str(STORE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    ) as nodes:
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        told = next((line for line in nodes.stdout if line.startswith("cluster at ")), "")
        address = told.removeprefix("cluster at ").strip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            try:
                yield address
            finally:
                ray.shutdown()
                nodes.stdin.close()


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
