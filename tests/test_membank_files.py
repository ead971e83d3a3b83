"""MemBank's files: other sessions, other processes, crashes, damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan.errors import EncoderMismatch, NewerStore, StoreCorrupt, StoreError
from memspan.membank import MemBank, MemMapBuffer, MockAdapter, Registry

TEXTS = ["The cat sat on the mat.", "Tomatoes want water every evening.", "The train to Lisbon leaves at noon."]


def opened(directory: Path, **options: Any) -> MemBank:
    options.setdefault("adapter", MockAdapter(64))
    return MemBank(buffer_path=directory / "memory.mmap", registry_path=directory / "memory.db", **options)


def release(bank: MemBank, text: str) -> None:
    for pointer in bank.registry.get_by_text(text):
        while not bank.registry.release(pointer.ptr_id):
            pass


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_what_was_ingested_is_there_when_the_files_are_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        first = bank.ingest(TEXTS[0], {"turn": 3})
        bank.ingest_batch(TEXTS)
        used = bank.stats()["buffer"]["used_bytes"]
    with opened(tmp_path) as bank:
        best = bank.recall("the cat on the mat", 1)[0]
        assert (best.text, best.ptr_level0.metadata, best.ptr_level0.ref_count) == (TEXTS[0], {"turn": 3}, 2)
        assert bank.rebuild_indexes() == 9
        assert not bank.ingest(TEXTS[0])["is_new"]
        assert bank.stats()["buffer"]["used_bytes"] == used
        assert best.ptr_level0.ptr_id == first["ptr_ids"]["l0"]
        bank.ingest("and something new")
    with opened(tmp_path) as bank:
        assert [bank.recall(text, 1)[0].text for text in [*TEXTS, "and something new"]] == [*TEXTS, "and something new"]


def test_the_saliency_may_change_between_sessions(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest_batch(TEXTS[:2])
    with opened(tmp_path, saliency="magnitude") as bank:
        bank.ingest(TEXTS[2])
        for levels in ([2], [2, 1], [2, 1, 0]):
            assert [bank.recall(text, 1, levels)[0].text for text in TEXTS] == TEXTS


def test_activations_of_another_model_are_not_compared(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest_batch(TEXTS)
    with opened(tmp_path, adapter=MockAdapter(64, "v2")) as bank:
        assert bank.recall(TEXTS[0]) == []
        bank.ingest(TEXTS[0])
        assert len(bank.recall(TEXTS[0])) == 1
        assert bank.registry.invalidate_model("mock-64-v1") == 9
        assert bank.stats()["registry"]["total_pointers"] == 3
        assert len(bank.recall(TEXTS[0])) == 1


def test_one_name_for_activations_of_two_sizes_is_refused(tmp_path: Path) -> None:
    class Named(MockAdapter):
        def model_id(self) -> str:
            return "one name"

    with opened(tmp_path, adapter=Named(64)) as bank:
        bank.ingest_batch(TEXTS)
    with pytest.raises(EncoderMismatch, match="one name"):
        opened(tmp_path, adapter=Named(32))


def test_two_banks_on_one_pair_of_files_see_what_the_other_does(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        for number, text in enumerate(TEXTS):
            (one if number % 2 else two).ingest(text)
            assert one.recall(text, 1)[0].text == two.recall(text, 1)[0].text == text
        many = [f"number{n} of many" for n in range(40)]
        two.ingest_batch(many)
        for text in many:
            release(one, text)
        assert one.gc()["collected"] == 120
        assert (tmp_path / "memory.mmap.1").exists()
        assert not (tmp_path / "memory.mmap").exists()
        assert two.recall(many[0], 1)[0].text not in many
        two.ingest("after the move")
        assert one.recall("after the move", 1)[0].text == "after the move"
        assert one.stats()["buffer"]["used_bytes"] == two.stats()["buffer"]["used_bytes"]
    with opened(tmp_path) as bank:
        assert [bank.recall(text, 1)[0].text for text in TEXTS] == TEXTS


WRITER = """
import sys
from memspan.membank import MemBank, MockAdapter
with MemBank(MockAdapter(64), sys.argv[1] + "/memory.mmap", sys.argv[1] + "/memory.db") as bank:
    for n in range(20):
        bank.ingest_batch([f"process{sys.argv[2]} text{n}a", f"process{sys.argv[2]} text{n}b", "shared by everybody"])
"""


def test_several_processes_write_to_one_pair_of_files_and_nothing_is_lost(tmp_path: Path) -> None:
    writers = [python(WRITER, str(tmp_path), str(number)) for number in range(4)]
    for writer in writers:
        _, told = writer.communicate(timeout=120)
        assert writer.returncode == 0, told
    with opened(tmp_path, candidate_multiplier="adaptive") as bank:
        assert bank.query_engine.size == 4 * 40 + 1
        assert [pointer.ref_count for pointer in bank.registry.get_by_text("shared by everybody")] == [80] * 3
        for level in (0, 1, 2):
            for pointer in bank.registry.get_by_level(level):
                bank.buffer.deref(pointer)


KILLED = """
import sys
from memspan.membank import MemBank, MockAdapter
bank = MemBank(MockAdapter(64), sys.argv[1] + "/memory.mmap", sys.argv[1] + "/memory.db")
for n in range(100_000):
    bank.ingest(f"text{n} of a process that will be killed")
    print(n, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(2):
        process = python(KILLED, str(tmp_path))
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged = max(acknowledged, int(line))
            if int(line) >= 25:
                process.kill()
                break
        process.communicate(timeout=60)
    with opened(tmp_path) as bank:
        assert bank.query_engine.size >= acknowledged + 1
        for pointer in bank.registry.get_by_level(0):
            bank.buffer.deref(pointer)
        text = f"text{acknowledged} of a process that will be killed"
        assert len(bank.registry.get_by_text(text)) == 3
        bank.ingest("life goes on")
        assert bank.recall("life goes on", 1)[0].text == "life goes on"


def test_bytes_that_a_crash_left_after_the_end_are_written_over(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest(TEXTS[0])
        bank.buffer.append([b"never committed" * 50], bank.buffer.end)
        used = bank.stats()["buffer"]["used_bytes"]
    with opened(tmp_path) as bank:
        assert bank.stats()["buffer"]["used_bytes"] == used
        bank.ingest(TEXTS[1])
        assert [bank.recall(text, 1)[0].text for text in TEXTS[:2]] == TEXTS[:2]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_flipped_bit_is_detected_and_named(tmp_path: Path, level: int) -> None:
    with opened(tmp_path) as bank:
        ids = bank.ingest_batch(TEXTS)[1]["ptr_ids"]
        pointer = bank.registry.get(ids[f"l{level}"])
        assert pointer is not None
    with (tmp_path / "memory.mmap").open("r+b") as file:
        file.seek(pointer.buffer_offset + 9)
        byte = file.read(1)[0]
        file.seek(pointer.buffer_offset + 9)
        file.write(bytes([byte ^ 4]))
    with opened(tmp_path) as bank:
        with pytest.raises(StoreCorrupt, match=rf"memory\.mmap.* {pointer.buffer_offset} "):
            bank.buffer.deref(pointer)
        with pytest.raises(StoreCorrupt):
            bank.recall(TEXTS[1], levels=[level])
        for text in (TEXTS[0], TEXTS[2]):
            assert bank.recall(text, 1, [level])[0].text == text


def test_a_buffer_that_was_cut_short_or_is_something_else_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest_batch(TEXTS)
    os.truncate(tmp_path / "memory.mmap", 100)
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="cut short"):
            opened(tmp_path)
    picture = b"a picture of a cat" * 1_000
    (tmp_path / "memory.mmap").write_bytes(picture)
    with pytest.raises(StoreCorrupt, match="not an arena"):
        opened(tmp_path)
    assert (tmp_path / "memory.mmap").read_bytes() == picture
    (tmp_path / "memory.mmap").unlink()
    with pytest.raises(StoreCorrupt, match="cut short"):
        opened(tmp_path)


def test_a_registry_that_is_something_else_or_newer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memory.db").write_bytes(b"a picture of a dog" * 100)
    with pytest.raises(StoreError):
        opened(tmp_path)
    assert (tmp_path / "memory.db").read_bytes() == b"a picture of a dog" * 100
    registry = Registry(tmp_path / "newer.db")
    registry.set_state(version=99)
    registry.close()
    with pytest.raises(NewerStore):
        Registry(tmp_path / "newer.db")


def test_an_old_buffer_with_a_new_registry_is_written_on_not_over(tmp_path: Path) -> None:
    with MemMapBuffer(tmp_path / "memory.mmap") as buffer:
        pointer = buffer.write(np.arange(8, dtype=np.float32), "model", 0, "a text of before")
    with opened(tmp_path) as bank:
        bank.ingest_batch(TEXTS)
        assert bank.buffer.deref(pointer).tolist() == list(range(8))


def test_with_a_registry_in_memory_a_buffer_may_still_be_a_file(tmp_path: Path) -> None:
    for _ in range(2):
        with MemBank(MockAdapter(64), tmp_path / "memory.mmap") as bank:
            bank.ingest_batch(TEXTS)
            assert bank.recall(TEXTS[0], 1)[0].text == TEXTS[0]
            assert bank.query_engine.size == 3
