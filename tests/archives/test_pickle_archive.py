"""Pickles of strangers: data is read in every protocol, anything else is refused by its name, in little memory."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import InvalidInput, Memory
from memspan.archives import named
from memspan.archives.pickle import NAMES, Numbers
from memspan.archives.unpickling import Refused, unpickled

from .conftest import Gadget, in_little_memory

DATA = {
    "embeddings": np.arange(12, dtype=np.float64).reshape(3, 4),
    "metadata": [
        {"conversation_id": f"conv_{i}", "summary": "ü\n" * i + "text", "timestamp": f"2025-04-{i + 1} 10:00:00",
         "more": [True, None, -1, 2**40, 2**70, 1.5, (), (1, 2, 3, 4), b"raw", b"", {"a": {}}]}
        for i in range(3)
    ],
}  # fmt: skip


def whole(value: Any) -> Any:
    """With arrays where they are."""
    if isinstance(value, Numbers):
        return value.array()
    return {key: whole(each) for key, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("old", [False, True], ids=["NumPy 2", "NumPy 1"])
@pytest.mark.parametrize("protocol", range(6))
def test_data_is_read_in_every_protocol(protocol: int, old: bool) -> None:
    raw = pickle.dumps(DATA, protocol)
    if old:  # the names have a length before them from protocol 4 on
        for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
            before = name.replace(b"_core", b"core")
            raw = raw.replace(b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(before)]) + before)
            raw = raw.replace(name, before)
        if protocol >= 4:  # and a frame has the length of what is in it
            raw = raw[:3] + struct.pack("<Q", len(raw) - 11) + raw[11:]
    read = whole(unpickled(raw, NAMES))
    assert np.array_equal(read["embeddings"], DATA["embeddings"])
    assert read["metadata"] == DATA["metadata"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), "<f4"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.arange(4, dtype="u1").reshape(2, 2),
        np.arange(24, dtype="<f2").reshape(2, 12)[:, ::2],
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_any_array_of_plain_numbers_is_read(array: Any, protocol: int) -> None:
    read = whole(unpickled(pickle.dumps(array, protocol), NAMES))
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Gadget(os.system, "echo ran > {}"), "system"),
        (Gadget(eval, "open('{}', 'w').write('ran')"), "eval"),
        (Gadget(np.load, "{}"), "load"),
        (OrderedDict(a=1), "OrderedDict"),
        (np.array([{}], object), "numpy.dtype"),
        (np.zeros(2, [("a", "f4")]), "numpy.dtype"),
        (np.float64(1.5), "scalar"),
        (Path("a"), "pathlib"),
        ({1, 2}, "set|EMPTY_SET"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_data_is_refused_by_its_name_and_never_run(
    tmp_path: Path, value: Any, name: str, protocol: int
) -> None:
    trace = tmp_path / "ran"
    if isinstance(value, Gadget):
        value = Gadget(value.call[0], value.call[1].format(trace))
    place = tmp_path / "a.pkl"
    place.write_bytes(pickle.dumps({**DATA, "more": value}, protocol))
    with Memory(tmp_path / "m", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match=rf"a\.pkl holds .*({name}).*refused"):
            memory.import_from(place, "pickle")
        assert memory.get_all() == []
    assert not trace.exists()


def array_of(shape: tuple[int, ...], raw: bytes = b"") -> bytes:
    """The pickle of an array that says it has this shape."""
    made = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00<NNNK\x00K\x00K\x00tb"
    state = b"(K\x01" + pickle.dumps(shape, 2)[2:-1] + kind + b"\x89B" + struct.pack("<I", len(raw)) + raw + b"t"
    return made + state + b"b."


HOSTILE = {
    "a memo of 4 billion places": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "bytes of 8 GiB": b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b".",
    "a byte array of 8 GiB": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",
    "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "a frame of 2**60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "very many lists": b"\x80\x02(" + b"]" * 400_000 + b"l.",
    "very many memo places": b"\x80\x04]" + b"\x94" * 400_000 + b".",
    "very many lists that are dropped": b"\x80\x02(" + b"]" * 400_000 + b"0" * 400_000 + b"N.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "an object somewhere else": b"P1\n.",
    "an instance": b"(ios\nsystem\n.",
    "a state for what is allowed": b"\x80\x02cnumpy\ndtype\nN}X\x08\x00\x00\x00__code__K\x01s\x86b.",
    "an allowed name called with nothing": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
    "a list called": b"\x80\x02])R.",
    "a key nested without end": b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns.",
    "items for a text": b"\x80\x02X\x01\x00\x00\x00aK\x01a.",
    "nothing on the stack": b"\x80\x020.",
    "no end": b"\x80\x02]",
    "nothing": b"",
    "an unknown operation": b"\x80\x02\xff.",
    "no mark": b"\x80\x02Nt.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_pickle_that_wants_more_than_it_has_is_refused_in_little_memory(tmp_path: Path, what: str) -> None:
    place = tmp_path / "a.pkl"
    place.write_bytes(HOSTILE[what])
    with in_little_memory(20 << 20), pytest.raises(InvalidInput, match=r"a\.pkl"):
        list(named("pickle").module.read(place, print))


@pytest.mark.parametrize("shape", [(10**9, 384), (2**62, 2**62), (-1, -1), (1, 2), (3,), (True, True)])
def test_an_array_that_says_another_shape_than_it_has_bytes_is_refused(shape: Any) -> None:
    assert whole(unpickled(array_of((1, 1), bytes(4)), NAMES)).shape == (1, 1)
    assert pickle.loads(array_of((1, 1), bytes(4))).shape == (1, 1)
    with in_little_memory(10 << 20), pytest.raises(Refused, match="an array of the shape"):
        unpickled(array_of(shape, bytes(4)), NAMES).array()


def test_an_array_of_nothing_in_more_columns_than_there_can_be_is_refused() -> None:
    with pytest.raises(Refused, match="an array of the shape"):
        unpickled(array_of((0, 2**70)), NAMES).array()


def test_what_holds_itself_and_what_doubles_without_end_is_told_row_by_row(tmp_path: Path) -> None:
    ring: list[Any] = []
    ring.append(ring)
    laughs: Any = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    row = {"conversation_id": "c", "summary": "text", "timestamp": "now"}
    rows = [{**row, "conversation_id": laughs}, {**row, "more": ring}, {**row, "more": laughs}, "no row", row]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"embeddings": np.ones((5, 2)), "metadata": rows}))
    with Memory(tmp_path / "m", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.pkl", "pickle")
        assert (done.added, done.failed) == (1, 4)


@pytest.mark.parametrize("value", [[], {"embeddings": []}, {"embeddings": [[1.0]], "metadata": []}, {"metadata": []}])
def test_other_data_is_no_archive(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with Memory(tmp_path / "m", encoder="hash") as memory, pytest.raises(InvalidInput, match="embeddings"):
        memory.import_from(tmp_path / "a.pkl", "pickle")


def test_an_array_that_is_refused_is_told_with_the_name_of_its_file(tmp_path: Path) -> None:
    array = array_of((10**9, 384), bytes(4))[2:-1]
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}(X\x0a\x00\x00\x00embeddings" + array + b"X\x08\x00\x00\x00metadata]u.")
    with Memory(tmp_path / "m", encoder="hash") as memory, pytest.raises(InvalidInput, match=r"a\.pkl holds an array"):
        memory.import_from(tmp_path / "a.pkl", "pickle")
