"""Clocks that do not agree: what another machine recorded in the future is changed here now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory, Segment
from memspan.archives.jsonl import version_of
from tests.archives.conftest import out

AHEAD = "2999-01-01T00:00:00.500000+00:00"
LAST = "9999-12-31T23:59:59.999999+00:00"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder=None) as memory:
        yield memory


def _archive(path: Path, *segments: dict[str, Any]) -> Path:
    lines = [{"type": "memspan", "format": 1}, *({"type": "segment", "source": "user", **each} for each in segments)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _again(memory: Memory, tmp_path: Path) -> tuple[bytes, Memory]:
    first = out(memory, tmp_path / "first.jsonl")
    other = Memory(tmp_path / "other", encoder=None)
    other.import_from(tmp_path / "first.jsonl")
    return first, other


ID = "01a21698-0000-7000-8000-000000000000"


@pytest.mark.parametrize("recorded_at", [AHEAD, LAST])
def test_what_was_recorded_in_the_future_is_changed_after_that_and_goes_on_whole(
    memory: Memory, tmp_path: Path, recorded_at: str
) -> None:
    memory.import_from(_archive(tmp_path / "a.jsonl", {"id": ID, "text": "Said first.", "recorded_at": recorded_at}))
    memory.update(ID, "Said later.")
    times = [event.at for event in memory.history(ID)]
    assert times[1] - times[0] == timedelta(microseconds=recorded_at != LAST)
    first, other = _again(memory, tmp_path)
    with other:
        assert {event.text for event in other.history(ID)} == {"Said first.", "Said later."}
        if recorded_at != LAST:
            assert other.get(ID).text == "Said later."
            assert out(other, tmp_path / "again.jsonl") == first


def test_a_version_that_ended_before_it_was_recorded_stands_where_it_ended(memory: Memory, tmp_path: Path) -> None:
    now = "2026-01-01T00:00:00+00:00"
    old = {"id": ID, "text": "Said first.", "recorded_at": AHEAD, "ended_at": now}
    new = {"id": ID, "version": 2, "text": "Said later.", "recorded_at": now}
    for number, order in enumerate(((new, old), (old, new))):
        memory.import_from(_archive(tmp_path / f"{number}.jsonl", *order), namespace=str(number))
        assert memory.get(ID, namespace=str(number)).text == "Said later."
        assert [event.version for event in memory.history(ID, namespace=str(number))] == [1, 2]
    first = out(memory, tmp_path / "first.jsonl", namespace="0")
    assert out(memory, tmp_path / "second.jsonl", namespace="1") == first.replace(
        b'"namespace": "0"', b'"namespace": "1"'
    )


def test_what_another_system_says_without_a_time_comes_after_the_end_of_time(memory: Memory, tmp_path: Path) -> None:
    told = {"id": "1", "hash": "x", "user_id": "ana"}
    for memo, more in (("Likes tea.", {"updated_at": LAST}), ("Likes coffee.", {})):
        (tmp_path / "mem0.json").write_text(json.dumps([{**told, "memory": memo, **more}]))
        assert memory.import_from(tmp_path / "mem0.json").added == 1
    (held,) = memory.get_all()
    assert len(memory.history(held.id)) == 2


def test_a_version_of_a_document_that_was_replaced_elsewhere_ends_no_sooner_than_it_began(
    memory: Memory, tmp_path: Path
) -> None:
    (note := tmp_path / "note.md").write_text("# One\n\nFirst words.")
    (id,) = memory.add_file(note).ids
    memory.export_to(tmp_path / "first.jsonl")
    with Memory(tmp_path / "beside", encoder=None) as beside:
        beside.import_from(tmp_path / "first.jsonl")
        note.write_text("# One\n\nOther words.")
        memory.add_file(note)
        for text in ("Changed beside.", "Changed beside again."):  # after the note was replaced here
            beside.update(id, text)
        beside.export_to(tmp_path / "second.jsonl")
        out(memory, tmp_path / "third.jsonl")
        memory.import_from(tmp_path / "second.jsonl")
        beside.import_from(tmp_path / "third.jsonl")
        assert beside.get_all()[0].text == memory.get_all()[0].text == "# One\n\nOther words."
    said = [event.text for event in memory.history(id) if event.event != "DELETE"]
    assert said[1:] == ["Changed beside.", "Changed beside again."]
    first, other = _again(memory, tmp_path)
    with other:
        assert out(other, tmp_path / "again.jsonl") == first
        assert all(row.ended_at is None or row.ended_at >= row.recorded_at for row in _versions(first))


def _versions(archive: bytes) -> list[Segment]:
    values = map(json.loads, archive.splitlines())
    return [version_of(value).segment for value in values if value["type"] == "segment"]
