"""Stores written by every release stay readable: they open, verify, say what they said, and take new memories."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from make import HERE, QUESTIONS, TICKET, make, seen

from memspan import IdempotencyConflict, Memory

RELEASES = sorted(file.parent for file in HERE.glob("*/ledger.db.gz"))


def schema(ledger: Path) -> int:
    database = sqlite3.connect(ledger)
    (number,) = database.execute("PRAGMA user_version").fetchone()
    database.close()
    return int(number)


def unpacked(release: Path, target: Path) -> tuple[Path, dict[str, Any]]:
    target.mkdir()
    (target / "ledger.db").write_bytes(gzip.decompress((release / "ledger.db.gz").read_bytes()))
    return target, json.loads((release / "expected.json").read_text(encoding="utf-8"))


def holds(now: Any, then: Any) -> bool:
    """Whether ``now`` says all that ``then`` said; a later version may say more."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and holds(now[name], value) for name, value in then.items())
    if isinstance(then, list):
        return len(now) == len(then) and all(holds(*pair) for pair in zip(now, then, strict=True))
    return bool(now == then)


def readable(release: Path, tmp_path: Path) -> None:
    store, expected = unpacked(release, tmp_path / "store")
    written = schema(store / "ledger.db")
    with Memory(store) as memory:
        newest = memory.stats()["schema"]
        backups = {file.name: schema(file) for file in store.glob("ledger.db.before-*")}
        assert backups == ({f"ledger.db.before-{written + 1:04d}": written} if written < newest else {})
        assert memory.verify()["problems"] == []
        associated(memory, expected)
        assert holds(seen(memory, expected["marks"]), expected)
        assert memory.rebuild()
        assert holds(seen(memory, expected["marks"]), expected)
        associated(memory, expected)
        context = memory.context("Where did Ana move?", user_id="ana", budget=200)
        assert "I moved to Lisbon in May." in context.text
        before = memory.stats()["versions"]
        again = memory.add("Said four times.", occurred_at="1969-07-20T20:17:40Z")
        assert (again.added, again.repeated) == (0, 1)
        assert memory.add(**TICKET).ids == (expected["marks"]["ticket"],)  # a retry that comes a release later
        with pytest.raises(IdempotencyConflict):
            memory.add(**{**TICKET, "content": "Something else."})
        assert memory.add("Written by a later version.").added == 1
        assert memory.stats()["versions"] == before + 1
        assert memory.search("a later version", k=1)[0].text == "Written by a later version."
        assert memory.erase(user_id="ana").segments == 6
        assert memory.verify()["problems"] == []


def associated(memory: Memory, expected: dict[str, Any]) -> None:
    """The tree and the graph are there too, whether the release knew of them or not."""
    for question, answer in expected["answers"].items():
        for recipe in ("default", "dsm"):
            assert answer in [hit.text for hit in memory.search(question, recipe=recipe)]
    texts = [segment["text"] for segment in expected["segments"]["default"] if segment["session"] == "2026-05-30"]
    first = memory.get_all(session="2026-05-30", limit=1)[0]
    assert {near.text for near in memory.neighbors(first.id, "next")} == {texts[1]}
    assert {near.path[0].via for near in memory.neighbors(first.id, "mentions")} == {"ana"}
    parts = memory.document(expected["marks"]["document"]).segments
    assert [near.id for near in memory.neighbors(parts[0], "next")] == [parts[1]]
    assert {(node.label, node.segments) for node in memory.tree().children if node.kind == "category"} == {
        ("Bees", len(parts)),
        ("Life", 1),
        ("Work", 1),
    }
    memory.link(first.id, parts[0], "reply")
    assert [near.id for near in memory.neighbors(first.id, "reply")] == [parts[0]]
    assert memory.unlink(first.id, parts[0]) == 1
    judged = memory.stats()["judgements"]
    memory.feedback("which hive?", parts[0], False)
    assert memory.stats()["judgements"] == judged + 1
    memory.feedback("which hive?", parts[0], None)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_the_store_of_a_release_is_readable(release: Path, tmp_path: Path) -> None:
    readable(release, tmp_path)


def test_a_store_made_now_is_readable(tmp_path: Path) -> None:
    make(tmp_path / "now")
    readable(tmp_path / "now", tmp_path)
    sizes = [file.stat().st_size for file in (tmp_path / "now").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 40_000
    assert json.loads((tmp_path / "now" / "expected.json").read_text())["answers"] == QUESTIONS
