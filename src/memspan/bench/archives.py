"""Archives: what each format weighs, how long it takes out and in, and how much memory that needs.

Each export and import runs in a process of its own, whose peak resident memory the system tells. The clock runs inside
it, over the call alone; "in" includes encoding where the archive has no vectors, by an encoder that is no model and
quick. Whatever comes back is exported as JSON lines and compared with the original's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memspan.archives import FORMATS
from memspan.archives.base import weighed
from memspan.bench.measures import machine
from memspan.bench.speed import fresh, peak, texts
from memspan.memory import Memory
from memspan.views.base import Progress

ENCODER = "hash:384"  # as many dimensions as the default model has, without its time


def run(
    segments: int = 100_000,
    *,
    encoder: str = ENCODER,
    formats: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure each format that can be written, or ``formats``, with so many segments; a report of plain values.

    Raises InvalidInput, EncoderError, MissingExtra, MemspanError when a fresh process fails.
    """
    chosen = [each for each in FORMATS if each.writes and (formats is None or each.name in formats)]
    found = texts(segments)
    report: dict[str, Any] = {"benchmark": "archives", "segments": len(found), "encoder": encoder, "formats": {}}
    with tempfile.TemporaryDirectory(prefix="memspan-archives-") as scratch:
        store = Path(scratch, "store")
        with Memory(store, encoder=encoder) as memory:
            if progress is not None:
                progress(0, 0, "storing")
            turns = [{"role": "user", "content": text} for text in found]
            memory.add(turns, session="all")
            memory.export_to(expected := Path(scratch, "expected.jsonl"))
        report["open_mb"] = _measured("open", store, store, "", encoder)["peak_mb"]
        for done, each in enumerate(chosen):
            if progress is not None:
                progress(done, len(chosen), each.name)
            archive = Path(scratch, f"archive-{each.name}{each.suffixes[0] if each.suffixes else ''}")
            out = _measured("export", store, archive, each.name, encoder)
            back = Path(scratch, f"back-{each.name}")
            taken = _measured("import", back, archive, each.name, encoder)
            files = [archive] if archive.is_file() else sorted(archive.iterdir())
            with Memory(back, encoder=encoder) as memory:
                memory.export_to(again := Path(scratch, "again.jsonl"))
            report["formats"][each.name] = {
                "bytes": weighed(files),
                "out_s": out["seconds"],
                "out_mb": out["peak_mb"],
                "in_s": taken["seconds"],
                "in_mb": taken["peak_mb"],
                "vectors": each.vectors,
                "identical": again.read_bytes() == expected.read_bytes(),
            }
    report["machine"] = machine()
    return report


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, as Markdown."""
    rows = [
        f"{report['segments']:,} segments, vectors of {report['encoder']}; a process that only opens the store has"
        f" {report['open_mb']:,.0f} MiB",
        "",
        "| format | size | out | peak memory | in | peak memory | vectors | comes back byte for byte |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["formats"].items():
        rows.append(
            f"| {name} | {found['bytes'] / 1e6:,.1f} MB | {found['out_s']:.1f} s | {found['out_mb']:,.0f} MiB"
            f" | {found['in_s']:.1f} s | {found['in_mb']:,.0f} MiB | {'yes' if found['vectors'] else 'no'}"
            f" | {'yes' if found['identical'] else 'NO'} |"
        )
    return "\n".join(rows)


def _measured(verb: str, store: Path, archive: Path, format: str, encoder: str) -> dict[str, float]:
    code = "from memspan.bench.archives import alone; alone()"
    told: dict[str, float] = json.loads(fresh(code, verb, str(store), str(archive), format, encoder))
    return told


def alone() -> None:
    """What the fresh process does: one call, and prints its seconds and the process's peak resident memory in MiB."""
    verb, store, archive, format, encoder = sys.argv[1:]
    with Memory(store, encoder=encoder) as memory:
        began = time.perf_counter()
        if verb == "export":
            memory.export_to(archive, format)
        elif verb == "import":
            memory.import_from(archive, format)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak() or 0.0}))
