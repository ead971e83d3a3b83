"""Bulk ingest: what a second machine adds, by a Ray cluster of one node and of two, each with one core of this machine.

The first node has the store, and what writes it, on its core. The clock runs from the first block that is written to
the end: what it takes until processes are started and models are loaded is told apart, as it is the same for a minute
of work and for a day.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memspan.bench.measures import encoder_of, machine, usable_cores
from memspan.bench.speed import fresh, texts
from memspan.errors import InvalidInput

Progress = Callable[[int, int, str], None]

NODES = (1, 2)
BAR = 1.5  # times the rate of one node that two reach at least
STORE = 128 << 20  # bytes of a node's object store


def run(segments: int = 20_000, *, encoder: str | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Take in ``segments`` texts with each number of nodes, each time into a new store; a report of plain values.

    Raises InvalidInput, EncoderError, MissingExtra, MemspanError where a fresh process fails.
    """
    measured_on = machine()
    if usable_cores() < max(NODES):
        problem = f"there are {usable_cores()} cores, and each node takes one"
        raise InvalidInput("nodes", problem, mend="run it on a machine with two cores")
    model = encoder_of(encoder)
    spec = "none" if model is None else str(getattr(model, "spec", ""))
    found = texts(segments)
    report: dict[str, Any] = {"benchmark": "bulk ingest", "segments": len(found), "encoder": spec, "nodes": {}}
    with tempfile.TemporaryDirectory(prefix="memspan-bulk-") as directory:
        table = Path(directory, "texts.jsonl")
        table.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
        for done, nodes in enumerate(NODES):
            if progress is not None:
                progress(done, len(NODES), f"{nodes} nodes")
            report["nodes"][nodes] = _measured(nodes, table, Path(directory, f"store-{nodes}"), spec)
    one, two = (report["nodes"][nodes]["segments_per_second"] for nodes in NODES)
    report["ratio"] = round(two / one, 2)
    report["bar"] = {"ratio": "at least", "value": BAR, "holds": two / one >= BAR}
    return report | {"machine": measured_on}


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = ["nodes  segments/s  seconds  until the first write"]
    for nodes, told in report["nodes"].items():
        rate, seconds, start = told["segments_per_second"], told["seconds"], told["start_seconds"]
        lines.append(f"{nodes:>5}  {rate:>10,.0f}  {seconds:>7,.1f}  {start:>21,.1f}")
    load = report["machine"]["load"]
    lines.append(f"\n{report['ratio']:.2f} times the rate of one node (at least {BAR}); load before: {load}")
    return "\n".join(lines)


def _measured(nodes: int, table: Path, store: Path, spec: str) -> dict[str, float]:
    code = "import sys; from memspan.bench.bulk import ingested; ingested(*sys.argv[1:])"
    printed = fresh(code, str(nodes), str(table), str(store), spec)
    told: dict[str, float] = json.loads(printed.splitlines()[-1])
    return told


def ingested(nodes: str, table: str, store: str, spec: str) -> None:
    """Take in a table by a cluster of so many nodes, and print what it took; for a process of its own."""
    from ray.cluster_utils import Cluster

    from memspan.bulk import BulkMemory

    cores = sorted(os.sched_getaffinity(0))
    cluster = Cluster()
    for core in cores[: int(nodes)]:
        os.sched_setaffinity(0, {core})  # what is started from here on inherits it
        cluster.add_node(num_cpus=1, object_store_memory=STORE, include_dashboard=False)
    os.sched_setaffinity(0, {cores[0]})
    started = time.perf_counter()
    first = early = 0.0
    with BulkMemory(store, encoder=spec) as memory:
        for told in memory.ingest([table], ray=cluster.address):
            if told.segments and not first:
                first, early = time.perf_counter(), told.segments
        ended = time.perf_counter()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    rate = (told.segments - early) / (ended - first)
    print(
        json.dumps(
            {
                "segments": told.segments,
                "encoded": told.encoded,
                "segments_per_second": round(rate, 1),
                "seconds": round(ended - first, 2),
                "start_seconds": round(first - started, 2),
            }
        )
    )
