"""Keeps a small store as this version of memspan writes it: ``python tests/formats/make.py``.

Run once per release, before it is published; what it writes is committed and never made again, so that every later
version is held to read it. ``<version>/ledger.db.gz`` is the store, ``<version>/expected.json`` what must be read
from it.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import memspan
from memspan import Event, Memory, as_dict

HERE = Path(__file__).resolve().parent

GUIDE = """# Keeping bees

Before you begin, ask your neighbours.

## The hive

""" + "\n\n".join(
    f"Frame number {frame} hangs in the hive. " + " ".join(f"Cell {frame}-{cell} holds honey." for cell in range(30))
    for frame in range(6)
)
QUESTIONS = {
    "Where did Ana move?": "I moved to Lisbon in May.",
    "Which river is in the picture?": "Look!\n[shares a picture: the river Tejo at night]",
    "里斯本": "我五月搬到了里斯本。",
    "Which ticket was closed?": "Ticket XJ-4471 was closed.",
}

TICKET: dict[str, Any] = {
    "content": "Ticket XJ-4471 was opened.",
    "idempotency_key": "ticket",
    "category": ["Work"],
    "importance": 0.0,
}


def fill(memory: Memory) -> dict[str, Any]:
    """Something of everything a store can hold; returns the ids of what was removed, and of the document."""
    memory.add(
        [
            {"role": "user", "name": "Ana", "content": "I moved to Lisbon in May.", "time": "2026-05-30T14:00:00Z"},
            {"role": "assistant", "content": "How do you like it there?", "time": "2026-05-30T14:00:05.000001Z"},
            {
                "role": "user",
                "name": "Ana",
                "content": [
                    {"type": "text", "text": "Look!"},
                    {"type": "image_url", "image_url": {"url": "x"}, "caption": "the river Tejo at night"},
                ],
            },
            {"role": "user", "name": "Ana", "content": "ok"},
            {"role": "user", "name": "Ana", "content": "ok"},
        ],
        user_id="ana",
        agent_id="guide",
        run_id="7",
        session="2026-05-30",
        metadata={"mood": {"happy": True, "level": 0.75}, "tags": ["move", "été", None, 2**60]},
    )
    memory.add("我五月搬到了里斯本。", user_id="ana", category="Life / Moves", importance=1.0, source="tool")
    ticket = memory.add(**TICKET).ids[0]
    for _ in range(4):
        memory.add("Said four times.", occurred_at="1969-07-20T20:17:40Z")
    memory.update(ticket, "Ticket XJ-4471 was closed.", metadata={"by": "Bob"})
    gone = memory.add("This was taken back.", user_id="ana").ids[0]
    memory.erase(gone)
    memory.add("Another tenant's secret.", namespace="other", user_id="ana")
    memory.feedback("Which ticket?", ticket)
    document = memory.add(GUIDE, category="Bees", occurred_at="2001-02-03").document_id
    return {"gone": gone, "document": document, "ticket": ticket}


def seen(memory: Memory, marks: dict[str, Any]) -> dict[str, Any]:
    """What a reader of the store sees, as plain JSON values."""
    counted = ("segments", "versions", "repeats", "tombstones", "documents")
    return {
        "marks": marks,
        "segments": {
            space: [as_dict(segment) for segment in memory.get_all(namespace=space, limit=1_000)]
            for space in ("default", "other")
        },
        "histories": {name: [_event(each) for each in memory.history(marks[name])] for name in ("gone", "ticket")},
        "document": as_dict(memory.document(marks["document"])),
        # not by the default recipe, whose weights are for encoders that know what words mean
        "answers": {question: memory.search(question, k=1, recipe="flat")[0].text for question in QUESTIONS},
        "stats": {name: memory.stats()[name] for name in counted},
    }


def _event(event: Event) -> dict[str, Any]:
    """An event as the first release told it, which called it a deletion when a segment was removed."""
    told = as_dict(event)
    return {**told, "event": "DELETE" if event.event == "ERASE" else event.event}


def make(target: Path) -> None:
    """Write the store and what is seen in it to the directory ``target``."""
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as aside:
        store = Path(aside) / "store"
        with Memory(store, encoder="hash") as memory:
            expected = seen(memory, fill(memory))
            if not memory.verify()["ok"] or expected["answers"] != QUESTIONS:
                raise SystemExit(f"this store is not one to keep: {memory.verify()}, {expected['answers']}")
        small = Path(aside) / "ledger.db"
        ledger = sqlite3.connect(store / "ledger.db")
        ledger.execute("VACUUM INTO ?", (str(small),))
        ledger.close()
        (target / "ledger.db.gz").write_bytes(gzip.compress(small.read_bytes(), mtime=0))
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(HERE / memspan.__version__)
    print(f"Commit tests/formats/{memspan.__version__}/ and never change it.")
