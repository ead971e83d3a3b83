"""MemBank's files: other sessions, other processes, crashes, damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan.errors import EncoderMismatch, NewerStore, NotAStore, NotWritable, StoreCorrupt, StoreError
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


def flip(file: Path, at: int, bits: int = 4) -> None:
    with file.open("r+b") as opened_file:
        opened_file.seek(at)
        byte = opened_file.read(1)[0]
        opened_file.seek(at)
        opened_file.write(bytes([byte ^ bits]))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_flipped_bit_is_detected_and_named_and_the_text_encoded_again(tmp_path: Path, level: int) -> None:
    with opened(tmp_path) as bank:
        ids = bank.ingest_batch(TEXTS, [{"n": n} for n in range(3)])[1]["ptr_ids"]
        pointer = bank.registry.get(ids[f"l{level}"])
        assert pointer is not None
        flip(tmp_path / "memory.mmap", pointer.buffer_offset + 9)
        for call in (
            lambda: bank.buffer.deref(pointer),
            lambda: bank.query_engine.rebuild() if level == 2 else bank.recall(TEXTS[1], levels=[level]),
        ):
            with pytest.raises(StoreCorrupt, match=rf"memory\.mmap.* {pointer.buffer_offset} "):
                call()
        assert bank.rebuild_indexes() == 9
        for text in TEXTS:
            best = bank.recall(text, 1, [level])[0]
            assert (best.text, best.metadata) == (text, {"n": TEXTS.index(text)})
        fresh = bank.registry.get(pointer.ptr_id)
        assert fresh is not None
        assert fresh.buffer_offset != pointer.buffer_offset
        bank.buffer.deref(fresh)


def test_damage_that_is_met_when_the_files_are_opened_is_mended_by_encoding_again(tmp_path: Path) -> None:
    many = [f"text number {n} about word{n % 7} and thing{n % 11}" for n in range(60)]
    ways: list[list[int] | None] = [None, [2, 0], [2]]
    with opened(tmp_path) as bank:
        told = bank.ingest_batch(many)
        before = [[(one.text, one.final_score) for one in bank.recall(text, 9, way)] for way in ways for text in many]
        places = [record for record in bank.registry.records() if record.kind == "places"]
        ends = [bank.registry.get(one["ptr_ids"]["l2"]) for one in told[10:13]]
    for record in places[:2]:  # the last index becomes one that there is not
        flip(tmp_path / "memory.mmap", record.offset + record.size - 1, 0x80)
    for pointer in ends:  # the exponent of a float: nearly infinite
        assert pointer is not None
        flip(tmp_path / "memory.mmap", pointer.buffer_offset + 3, 0x40)
    with opened(tmp_path) as bank:
        after = [[(one.text, one.final_score) for one in bank.recall(text, 9, way)] for way in ways for text in many]
    assert [sorted(one) for one in after] == [sorted(one) for one in before]


def test_a_known_text_whose_records_are_damaged_is_stored_again_when_it_is_ingested(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        ids = bank.ingest_batch(TEXTS)[0]["ptr_ids"]
        pointer = bank.registry.get(ids["l0"])
        assert pointer is not None
        flip(tmp_path / "memory.mmap", pointer.buffer_offset)
        told = bank.ingest(TEXTS[0])
        assert (told["is_new"], told["ptr_ids"]) == (False, ids)
        best = bank.recall(TEXTS[0], 1)[0]
        assert (best.text, best.ptr_level0.ref_count) == (TEXTS[0], 2)
        assert np.array_equal(bank.buffer.deref(best.best_ptr), bank.adapter.encode(TEXTS[0]))


@pytest.mark.parametrize("length", [None, 0, 30, 100, 1_200])
def test_what_a_missing_or_shortened_buffer_held_is_encoded_again(tmp_path: Path, length: int | None) -> None:
    with opened(tmp_path) as bank:
        bank.ingest_batch(TEXTS, [{"n": n} for n in range(3)])
    if length is None:
        (tmp_path / "memory.mmap").unlink()
    else:
        os.truncate(tmp_path / "memory.mmap", length)
    for saliency in ("gradient", "magnitude"):
        with opened(tmp_path, saliency=saliency) as bank:
            for levels in ([2], [2, 1], [0]):
                found = [bank.recall(text, 1, levels)[0] for text in TEXTS]
                assert [(one.text, one.metadata["n"]) for one in found] == list(zip(TEXTS, range(3), strict=True))
            assert bank.stats()["registry"]["live_pointers"] == 9
            assert [pointer.ref_count for pointer in bank.registry.get_by_text(TEXTS[0])] == [1, 1, 1]


def test_texts_that_are_encoded_again_with_another_saliency_leave_no_pointer_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest_batch([*TEXTS, *TEXTS])
    (tmp_path / "memory.mmap").unlink()
    with opened(tmp_path, saliency="magnitude") as bank:
        assert bank.stats()["registry"]["total_pointers"] == 9
        assert [pointer.ref_count for pointer in bank.registry.get_by_text(TEXTS[0])] == [2, 2, 2]
        assert [bank.recall(text, 1, [2])[0].text for text in TEXTS] == TEXTS


def test_a_buffer_that_is_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    picture = b"a picture of a cat" * 1_000
    (tmp_path / "memory.mmap").write_bytes(picture)
    with pytest.raises(StoreCorrupt, match="not an arena"):
        opened(tmp_path)
    assert (tmp_path / "memory.mmap").read_bytes() == picture


def test_a_buffer_belongs_to_one_registry(tmp_path: Path) -> None:
    with MemBank(MockAdapter(64), tmp_path / "memory.mmap", tmp_path / "one.db") as one:
        one.ingest(TEXTS[0])
        for registry in (tmp_path / "two.db", ":memory:"):
            with pytest.raises(NotAStore, match=r"memory\.mmap.*another buffer_path, or delete"):
                MemBank(MockAdapter(64), tmp_path / "memory.mmap", registry)
        one.ingest(TEXTS[1])
        assert [one.recall(text, 1)[0].text for text in TEXTS[:2]] == TEXTS[:2]


def test_a_flipped_bit_in_what_says_whose_a_buffer_is_locks_nobody_out(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        bank.ingest(TEXTS[0])
    for at in (16, 24, 40, 50, 60):
        flip(tmp_path / "memory.mmap", at)
        with opened(tmp_path) as bank:
            assert bank.recall(TEXTS[0], 1)[0].text == TEXTS[0]


def test_compaction_does_not_write_over_the_file_of_another_registry(tmp_path: Path) -> None:
    with MemBank(MockAdapter(64), tmp_path / "memory.mmap.1", tmp_path / "other.db") as other:
        other.ingest(TEXTS[0])
        with opened(tmp_path) as bank:
            bank.ingest_batch(TEXTS)
            for text in TEXTS[:2]:
                release(bank, text)
            with pytest.raises(NotAStore, match=r"memory\.mmap\.1"):
                bank.gc()
            assert bank.recall(TEXTS[2], 1)[0].text == TEXTS[2]
        assert other.recall(TEXTS[0], 1)[0].text == TEXTS[0]


def test_an_activation_that_is_not_the_one_pointed_to_is_never_a_result(tmp_path: Path) -> None:
    with opened(tmp_path) as bank:
        pointer = bank.registry.get(bank.ingest(TEXTS[0])["ptr_ids"]["l0"])
        assert pointer is not None
        foreign = np.full(64, 0.125, np.float32).tobytes()
        bank.buffer.append([foreign], pointer.buffer_offset - 16)
        with pytest.raises(StoreCorrupt, match=rf" {pointer.buffer_offset} "):
            bank.recall(TEXTS[0])
        assert bank.rebuild_indexes() == 3
        assert bank.recall(TEXTS[0], 1)[0].final_score == pytest.approx(1)


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


@pytest.mark.parametrize("tables", ["pointers(ptr_id TEXT PRIMARY KEY, shape TEXT)", "mine(x)"])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, tables: str) -> None:
    with closing(sqlite3.connect(tmp_path / "memory.db")) as connection:
        connection.execute(f"CREATE TABLE {tables}")
        connection.commit()
    before = (tmp_path / "memory.db").read_bytes()
    with pytest.raises(NotAStore, match=r"memory\.db.*ingest old texts again"):
        opened(tmp_path)
    assert (tmp_path / "memory.db").read_bytes() == before
    assert not (tmp_path / "memory.mmap").exists()


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for buffer, registry in (("file/b.mmap", "r.db"), ("b.mmap", "file/r.db")):
        with pytest.raises(NotWritable):
            MemBank(MockAdapter(64), tmp_path / buffer, tmp_path / registry)


def test_a_buffer_without_a_registry_is_not_written_over(tmp_path: Path) -> None:
    with MemMapBuffer(tmp_path / "memory.mmap") as buffer:
        pointer = buffer.write(np.arange(8, dtype=np.float32), "model", 0, "a text of before")
    with pytest.raises(NotAStore, match="another buffer_path"):
        opened(tmp_path)
    with MemMapBuffer(tmp_path / "memory.mmap") as buffer:
        assert buffer.deref(pointer).tolist() == list(range(8))


def test_a_buffer_is_reopened_behind_its_last_record_though_an_early_one_is_damaged(tmp_path: Path) -> None:
    with MemMapBuffer(tmp_path / "buffer.mmap") as buffer:
        pointers = [buffer.write(np.full(8, n), "model", 0, "text") for n in range(4)]
        used = buffer.used_bytes
    flip(tmp_path / "buffer.mmap", pointers[1].buffer_offset)
    with MemMapBuffer(tmp_path / "buffer.mmap") as buffer:
        assert buffer.used_bytes == used
        buffer.write(np.full(80, 9), "model", 0, "new")
        assert [buffer.deref(pointers[n]).tolist() for n in (0, 2, 3)] == [[n] * 8 for n in (0, 2, 3)]
        with pytest.raises(StoreCorrupt):
            buffer.deref(pointers[1])


def test_two_banks_with_registries_in_memory_do_not_write_into_each_others_file(tmp_path: Path) -> None:
    with MemBank(MockAdapter(64), tmp_path / "b.mmap") as one, MemBank(MockAdapter(64), tmp_path / "b.mmap") as two:
        one.ingest(TEXTS[0])
        two.ingest(TEXTS[1])
        one.ingest(TEXTS[2])
        assert [one.recall(text, 1)[0].text for text in TEXTS[::2]] == TEXTS[::2]
        assert two.recall(TEXTS[1], 1)[0].text == TEXTS[1]


def test_with_a_registry_in_memory_a_buffer_may_still_be_a_file(tmp_path: Path) -> None:
    for _ in range(2):
        with MemBank(MockAdapter(64), tmp_path / "memory.mmap") as bank:
            bank.ingest_batch(TEXTS)
            assert bank.recall(TEXTS[0], 1)[0].text == TEXTS[0]
            assert bank.query_engine.size == 3
