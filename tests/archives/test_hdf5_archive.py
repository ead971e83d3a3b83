"""HDF5 files of strangers: nothing outside the file is read, and nothing that is not in it takes memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from memspan import InvalidInput, Memory
from memspan.errors import MissingExtra

from .conftest import lived_in

TEXT = h5py.string_dtype()
KIND = np.dtype([(name, TEXT) for name in ("conversation_id", "summary", "timestamp")])
ROWS = np.array([(f"c{i}", f"Text {i}.", "2025-04-01 10:00:00") for i in range(3)], KIND)


def made(place: Path, **datasets: Any) -> h5py.File:
    """A file of three rows, but for these datasets (None: without it)."""
    file = h5py.File(place, "w")
    for name, data in {"embeddings": np.ones((3, 4)), "metadata": ROWS, **datasets}.items():
        if data is not None:
            file.create_dataset(name, data=data)
    return file


def external_link(file: h5py.File, place: Path) -> None:
    with made(place.with_name("other.h5")) as other:
        other.flush()
    file["embeddings"] = h5py.ExternalLink("other.h5", "/embeddings")


def external_data(file: h5py.File, place: Path) -> None:
    place.with_name("secret").write_bytes(bytes(96))
    file.create_dataset("embeddings", (3, 4), "f8", external=[(str(place.with_name("secret")), 0, 96)])


def virtual(file: h5py.File, place: Path) -> None:
    with made(place.with_name("other.h5")) as other:
        other.flush()
    layout = h5py.VirtualLayout((3, 4), "f8")
    layout[:] = h5py.VirtualSource(str(place.with_name("other.h5")), "embeddings", (3, 4))
    file.create_virtual_dataset("embeddings", layout)


def soft_link(file: h5py.File, place: Path) -> None:
    file["elsewhere"] = np.ones((3, 4))
    file["embeddings"] = h5py.SoftLink("/elsewhere")


def foreign_filter(file: h5py.File, place: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((3, 4))
    plist.set_filter(32013, h5py.h5z.FLAG_OPTIONAL, ())  # zfp, where it is installed
    space = h5py.h5s.create_simple((3, 4))
    h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F64LE, space, plist)


def billion_rows(file: h5py.File, place: Path) -> None:
    file.create_dataset("embeddings", (10**9, 384), "f4", chunks=(64, 384))


def large_pieces(file: h5py.File, place: Path) -> None:
    file.create_dataset("embeddings", (3, 4), "f8", maxshape=(None, 4), chunks=(10**6, 4), compression="gzip")


def group(file: h5py.File, place: Path) -> None:
    file.create_group("embeddings")


def texts(file: h5py.File, place: Path) -> None:
    file["embeddings"] = np.array([["a"] * 4] * 3, object)


def nothing(file: h5py.File, place: Path) -> None:
    file["embeddings"] = h5py.Empty("f4")


HOSTILE: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "a link to another file": (external_link, "is a link"),
    "a link within the file": (soft_link, "is a link"),
    "data in another file": (external_data, "other files"),
    "a virtual dataset": (virtual, "other files"),
    "a filter of somebody": (foreign_filter, "needs the filter 32013"),
    "a billion rows": (billion_rows, "says it has"),
    "pieces of 32 MB": (large_pieces, "in pieces of over"),
    "a group": (group, "is no dataset"),
    "texts for numbers": (texts, "not plain numbers"),
    "an empty dataset": (nothing, "is no dataset"),
    "no dataset": (lambda file, place: None, "is not there"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_dataset_that_is_not_all_in_the_file_is_refused(tmp_path: Path, what: str) -> None:
    change, told = HOSTILE[what]
    place = tmp_path / "a.h5"
    with made(place, embeddings=None) as file:
        change(file, place)
    with Memory(tmp_path / "m", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match=rf"a\.h5: embeddings .*{told}"):
            memory.import_from(place, "hdf5")
        assert memory.get_all() == []


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (np.ones((3, 4)), "no table with the columns"),
        (np.ones(3, [("conversation_id", "f4"), ("summary", "f4"), ("timestamp", "f4")]), "else than texts"),
        (ROWS[:2], "3 vectors and metadata 2 rows"),
        (ROWS[["conversation_id", "summary"]].astype(KIND.descr[:2] and np.dtype([("conversation_id", TEXT),
         ("summary", TEXT)])), "no table with the columns"),
    ],
)  # fmt: skip
def test_metadata_of_another_kind_is_refused(tmp_path: Path, metadata: Any, told: str) -> None:
    made(tmp_path / "a.h5", metadata=metadata).close()
    with Memory(tmp_path / "m", encoder="hash") as memory, pytest.raises(InvalidInput, match=told):
        memory.import_from(tmp_path / "a.h5", "hdf5")


def test_a_file_cut_short_or_damaged_is_refused(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "whole.h5")
    raw = (tmp_path / "whole.h5").read_bytes()
    damaged = bytearray(raw)
    damaged[600:4000] = bytes(3400)
    with Memory(tmp_path / "m", encoder="hash") as memory:
        for broken in (raw[:40], raw[: len(raw) // 2], bytes(damaged), b"\x89HDF\r\n\x1a\n"):
            (tmp_path / "broken.h5").write_bytes(broken)
            with pytest.raises(InvalidInput, match=r"broken\.h5"):
                memory.import_from(tmp_path / "broken.h5", "hdf5")
        assert memory.get_all() == []


def test_a_record_that_is_not_json_is_told_by_its_row(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        table = file["metadata"][:]
        table[1]["record"] = "{no JSON"
        file["metadata"][:] = table
        history = file["history"][:]
        history[1] = b"[1]"
        file["history"][:] = history
    with Memory(tmp_path / "m", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.h5", "hdf5")
        assert sorted(each.where for each in done.problems) == ["a.h5: history[1]", "a.h5[1]"]


def test_texts_cut_within_a_character_lose_that_character(tmp_path: Path) -> None:
    kind = np.dtype([("conversation_id", "S10"), ("summary", "S8"), ("timestamp", "S20")])
    rows = np.array([("c", "What’s ü"[:9].encode()[:8], "t")] * 3, kind)
    made(tmp_path / "a.h5", metadata=rows).close()
    with Memory(tmp_path / "m", encoder="hash") as memory:
        memory.import_from(tmp_path / "a.h5", "hdf5")
        assert {each.text for each in memory.get_all()} == {"What’s"}


def test_the_original_reads_our_file(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "a.h5")
        expected = {each.id: each.text for each in memory.get_all(limit=100)}
    with h5py.File(tmp_path / "a.h5", "r") as f:
        embeddings = np.array(f["embeddings"])
        metadata = np.array(f["metadata"])
    assert len(embeddings) == len(metadata) == len(expected)
    found = {
        metadata[idx]["conversation_id"].decode("utf-8"): metadata[idx]["summary"].decode("utf-8")
        for idx in range(len(metadata))
    }
    assert found == expected


MEASURED = """
import sys
from pathlib import Path
from memspan.archives.hdf5 import read
from memspan.errors import InvalidInput
import h5py, numpy

def most():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])

before = most()
try:
    for _ in read(Path(sys.argv[1]), lambda problem: None):
        pass
except InvalidInput as error:
    print(error.problem)
print(most() - before)
"""
LINUX = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells it of a process")


def grown(place: Path) -> int:
    """By how many MiB reading a file makes a process grow."""
    done = subprocess.run([sys.executable, "-c", MEASURED, place], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) >> 10


@LINUX
def test_an_eighth_of_a_gigabyte_that_folds_into_little_is_read_in_little_memory(tmp_path: Path) -> None:
    with made(tmp_path / "a.h5", embeddings=None, metadata=None) as file:
        shape = (8_192, 4096)
        file.create_dataset("embeddings", shape, "f4", chunks=(256, 4096), compression="gzip", fillvalue=1)
        block = np.ones((256, 4096), "f4")
        for start in range(0, shape[0], 256):
            file["embeddings"][start : start + 256] = block
        file.create_dataset("metadata", (shape[0],), np.dtype([(name, "S4") for name in KIND.names]), chunks=(4096,),
                            compression="gzip")  # fmt: skip
        file["metadata"][:] = np.array([(b"c", b"text", b"t")], file["metadata"].dtype).repeat(shape[0])
    assert (tmp_path / "a.h5").stat().st_size < 4 << 20
    assert grown(tmp_path / "a.h5") < 60


@LINUX
def test_a_long_text_that_every_row_points_to_is_refused(tmp_path: Path) -> None:
    with made(tmp_path / "a.h5", embeddings=np.ones((2000, 1)), metadata=None) as file:
        file.create_dataset("metadata", (2000,), KIND)
        file["metadata"][0] = ("c", "x" * (40 << 20), "t")
        at = file["metadata"].id.get_offset()
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    size = 3 * 16  # a length, an address and a number, for each of three texts
    for row in range(1, 2000):
        raw[at + row * size : at + (row + 1) * size] = raw[at : at + size]
    (tmp_path / "a.h5").write_bytes(raw)
    with h5py.File(tmp_path / "a.h5") as file:
        assert len(file["metadata"][1999]["summary"]) == 40 << 20
    assert grown(tmp_path / "a.h5") < 500
    with Memory(tmp_path / "m", encoder="hash") as memory, pytest.raises(InvalidInput, match="more text than there is"):
        memory.import_from(tmp_path / "a.h5", "hdf5")


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "a.h5").close()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with Memory(tmp_path / "m", encoder="hash") as memory:
        with pytest.raises(MissingExtra, match=r"memspan\[hdf5\]"):
            memory.import_from(tmp_path / "a.h5", "hdf5")
        with pytest.raises(MissingExtra, match=r"memspan\[hdf5\]"):
            memory.export_to(tmp_path / "b.h5")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.h5", "m"]


def test_history_keeps_lines_in_their_order(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        kinds = [json.loads(line)["type"] for line in file["history"]]
    assert kinds[0] == "memspan"
    assert kinds[1] == "document"
    assert kinds[-1] == "tombstone"
