"""Arena files: what is appended is read back without a copy, what is torn or damaged is never taken for whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.activations.arena import START, ArenaFile, Arenas, ranges
from memspan.errors import InvalidInput, StoreCorrupt

PAYLOADS = st.lists(st.binary(min_size=0, max_size=900), min_size=1, max_size=30)


def appended(file: ArenaFile, payloads: list[bytes], at: int = START) -> tuple[list[int], int]:
    return file.append(payloads, at)


@given(PAYLOADS, PAYLOADS, st.booleans())
def test_what_is_appended_is_read_back_whichever_extent_it_came_to_lie_in(
    tmp_path_factory: pytest.TempPathFactory, first: list[bytes], second: list[bytes], on_disk: bool
) -> None:
    path = tmp_path_factory.mktemp("arena") / "a.bin" if on_disk else None
    file = ArenaFile(path, 4096)
    offsets, end = appended(file, first)
    more, end = appended(file, second, end)
    placed = list(zip([*offsets, *more], [*first, *second], strict=True))
    assert all(file.read(offset, len(payload)).tobytes() == payload for offset, payload in placed)
    assert all(file.whole(offset, len(payload)) for offset, payload in placed)
    assert list(file.scan()) == [(offset, len(payload)) for offset, payload in placed]
    file.close()
    if path is not None:
        again = ArenaFile(path, 4096)
        assert list(again.scan()) == [(offset, len(payload)) for offset, payload in placed]
        again.close()


def test_growing_moves_nothing_that_a_reader_holds(tmp_path: Path) -> None:
    file = ArenaFile(tmp_path / "a.bin", 4096)
    (offset,), end = file.append([b"held"], START)
    held = file.read(offset, 4)
    for number in range(64):
        _, end = file.append([bytes([number]) * 1000], end)
    again = file.read(offset, 4)
    assert np.shares_memory(held, again)
    assert held.tobytes() == b"held"
    assert not held.flags.writeable


def test_a_reader_sees_what_another_process_appends_to_what_it_has_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = ArenaFile(path)
    (offset,), end = file.append([b"one"], START)
    assert file.read(offset, 3).tobytes() == b"one"
    script = (
        "import sys; from pathlib import Path; from memspan.activations.arena import ArenaFile;"
        "f = ArenaFile(Path(sys.argv[1])); print(f.append([b'two'], int(sys.argv[2]))[0][0])"
    )
    told = subprocess.run([sys.executable, "-c", script, path, str(end)], capture_output=True, check=True, text=True)
    assert file.read(int(told.stdout), 3).tobytes() == b"two"


def test_a_file_takes_the_space_of_what_is_in_it(tmp_path: Path) -> None:
    file = ArenaFile(tmp_path / "a.bin")
    file.append([bytes(range(256)) * 64], START)
    file.sync()
    assert file.size() == 64 << 20
    assert (tmp_path / "a.bin").stat().st_blocks * 512 < 1 << 20


def test_a_file_that_grows_by_steps_is_as_long_as_it_must_be_and_old_views_stay(tmp_path: Path) -> None:
    file = ArenaFile(tmp_path / "a.bin", 1 << 20, step=4096)
    reader = ArenaFile(tmp_path / "a.bin", 1 << 20, step=4096, create=False)
    (offset,), end = file.append([b"held"], START)
    held = reader.read(offset, 4)
    placed = []
    for number in range(20):
        (at,), end = file.append([bytes([number]) * 1000], end)
        placed.append(at)
        assert file.size() == -(-end // 4096) * 4096
    assert [int(reader.read(at, 1000)[999]) for at in placed] == list(range(20))
    assert held.tobytes() == b"held"
    together = reader.gather(np.array(placed[::-1]), np.full(20, 992))
    assert together.reshape(20, -1)[:, 5].tolist() == list(range(19, -1, -1))


@pytest.mark.parametrize("bit", [0, 3, 77, 8 * 40 - 1])
def test_a_flipped_bit_is_noticed_and_its_place_named(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "a.bin"
    file = ArenaFile(path)
    (offset, other), _ = file.append([bytes(40), b"other"], START)
    with path.open("r+b") as raw:
        raw.seek(offset + bit // 8)
        raw.write(bytes([1 << bit % 8]))
    with pytest.raises(StoreCorrupt, match=rf"a\.bin is damaged at byte {offset} \(40 bytes\)"):
        file.check(offset, 40)
    file.check(other, 5)


def test_what_a_crash_left_behind_is_not_read_and_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = ArenaFile(path)
    (first,), end = file.append([b"acknowledged"], START)
    (torn,), _ = file.append([b"never acknowledged"], end)
    with path.open("r+b") as raw:
        raw.seek(torn + 4)
        raw.write(bytes(8))
    assert list(ArenaFile(path).scan()) == [(first, 12)]
    (second,), _ = file.append([b"next"], end)
    assert list(file.scan()) == [(first, 12), (second, 4)]


def test_a_file_cut_short_loses_what_was_in_the_part_that_is_gone_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = ArenaFile(path)
    (first, second), _ = file.append([b"here", b"gone" * 100], START)
    file.close()
    os.truncate(path, second + 10)
    again = ArenaFile(path)
    assert again.whole(first, 4)
    assert not again.whole(second, 400)


def test_what_is_erased_can_be_read_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = ArenaFile(path)
    (secret, other), _ = file.append([b"a secret", b"other"], START)
    file.erase(secret, 8)
    assert b"a secret" not in path.read_bytes()
    assert list(file.scan()) == [(secret, 8), (other, 5)]


def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"the picture of somebody's cat")
    with pytest.raises(StoreCorrupt, match="not an arena"):
        ArenaFile(path)
    assert path.read_bytes() == b"the picture of somebody's cat"


def test_a_payload_larger_than_an_extent_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    file = ArenaFile(tmp_path / "a.bin", 4096)
    with pytest.raises(InvalidInput, match="payload"):
        file.append([b"small", bytes(5000)], START)
    assert list(file.scan()) == []


@given(st.lists(st.integers(0, 60).map(lambda units: bytes([units]) * units * 16), min_size=1, max_size=40), st.data())
def test_payloads_of_many_files_come_together_in_the_order_asked(payloads: list[bytes], data: st.DataObject) -> None:
    arenas = Arenas(None, 4096)
    places = []
    for number, _, part in arenas.append(1, START, 2, [(str(n).encode(), each) for n, each in enumerate(payloads)]):
        places += [(number, offset, len(payloads[int(key)])) for key, offset in part]
    assert len(places) == len(payloads)
    order = data.draw(st.permutations(range(len(payloads))))
    together = arenas.gather(np.array([places[at] for at in order], np.int64))
    assert together.tobytes() == b"".join(payloads[at] for at in order)


def test_ranges_are_one_after_the_other() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
