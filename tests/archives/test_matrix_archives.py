"""Latent Memory's formats, a matrix and rows of metadata: everything comes back, and what does not fit is told."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NewerStore
from memspan.archives import named

from .conftest import in_little_memory, lived_in, out

PLACES = {"csv": "csv", "npy": "npy", "faiss": "faiss", "hdf5": "a.h5", "pickle": "a.pkl"}
FOLDERS = {"csv": "embeddings.csv", "npy": "embeddings.npy", "faiss": "faiss_index.bin"}
EACH = pytest.mark.parametrize("format", PLACES)
EACH_FOLDER = pytest.mark.parametrize("format", FOLDERS)

CONVERSATIONS = [
    "You requested an artistic image illustrating algorithmic feedback loops.",
    "Can you explain how reinforcement learning works in the context of LLMs?",
    "How can I use LLMs to improve my coding workflow?",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200).filter(
    lambda text: not text.isspace()
)
BAIT = st.builds(str.__add__, st.sampled_from(["=", "+", "-", "@", "\t=", '"', "'", ",", "\r\n", "\ufeff", "{"]), TEXTS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def seed(format: str, place: Path, embeddings: Any = None) -> Path:
    """What the original's scripts write: its Step1.py, and the index of its Step2.py."""
    rows = np.random.default_rng(0).random((3, 384)) if embeddings is None else np.asarray(embeddings)
    metadata = [
        {"conversation_id": f"conv_{i}", "summary": text, "timestamp": f"2025-04-{i + 1} 10:00:00"}
        for i, text in enumerate(CONVERSATIONS[: len(rows)])
    ]
    if format == "hdf5":
        kind = np.dtype([("conversation_id", "S10"), ("summary", "S200"), ("timestamp", "S20")])
        with h5py.File(place, "w") as file:
            file.create_dataset("embeddings", data=rows)
            file.create_dataset("metadata", data=np.array([tuple(row.values()) for row in metadata], dtype=kind))
        return place
    if format == "pickle":
        with place.open("wb") as file:
            pickle.dump({"embeddings": rows, "metadata": metadata}, file)
        return place
    place.mkdir()
    with (place / "metadata.json").open("w") as file:
        json.dump(metadata, file, indent=2)
    if format == "csv":  # as pandas' DataFrame.to_csv(index=False)
        lines = [",".join(map(str, range(rows.shape[1]))), *(",".join(map(repr, row)) for row in rows.tolist())]
        (place / "embeddings.csv").write_text("\n".join(lines) + "\n")
    elif format == "npy":
        np.save(place / "embeddings.npy", rows)
    else:
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows.astype("float32"))
        faiss.write_index(index, str(place / "faiss_index.bin"))
    return place


def again(place: Path, format: str, **how: Any) -> tuple[Any, bytes]:
    """What an import into an empty memory says, and what that gives out."""
    target = place.with_name(f"{place.name}-again")
    with Memory(target, encoder="hash") as memory:
        done = memory.import_from(place, format, **how)
        return done, out(memory, target.with_suffix(".jsonl"))


@EACH
def test_everything_comes_back_byte_for_byte_with_its_vectors(tmp_path: Path, format: str) -> None:
    with lived_in(tmp_path / "a") as memory:
        first = out(memory, tmp_path / "a.jsonl")
        told = memory.export_to(tmp_path / PLACES[format], format)
        assert told.bytes > 0
        assert told.versions > told.segments > 0
        done, second = again(tmp_path / PLACES[format], format)
        assert second == first
        assert (done.failed, done.pending, done.notes) == (0, 0, ())
        assert done.vectors == len({segment.text for segment in memory.get_all(limit=100)})  # equal texts have one
        assert memory.import_from(tmp_path / PLACES[format], format).added == 0


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(TEXTS | BAIT, min_size=1, max_size=3, unique=True),
    metadata=st.dictionaries(TEXTS | st.sampled_from(["type", "summary", "recorded_at"]), VALUES, max_size=3),
)
def test_any_text_and_any_metadata_come_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], metadata: dict[str, Any]
) -> None:
    place = tmp_path_factory.mktemp("any")
    with Memory(place / "a", encoder="hash:16") as memory:
        memory.add([{"role": "user", "content": text} for text in texts], metadata=metadata, session="s")
        memory.update(memory.get_all()[0].id, texts[-1] + " again")
        first = out(memory, place / "a.jsonl")
        for format, name in PLACES.items():
            memory.export_to(place / name, format)
            with Memory(":memory:", encoder="hash:16") as other:
                done = other.import_from(place / name, format)
                assert (done.failed, done.pending) == (0, 0)
                assert out(other, place / "b.jsonl") == first


@EACH
def test_a_huge_text_and_an_empty_memory_come_back(tmp_path: Path, format: str) -> None:
    with Memory(tmp_path / "a", encoder="hash") as memory:
        memory.add("ü" * 200_000 + " end")
        first = out(memory, tmp_path / "a.jsonl")
        memory.export_to(tmp_path / PLACES[format], format)
        assert again(tmp_path / PLACES[format], format)[1] == first
    with Memory(tmp_path / "none", encoder="hash") as memory:
        first = out(memory, tmp_path / "a.jsonl")
        memory.export_to(tmp_path / PLACES[format], format)
    with Memory(tmp_path / "still none", encoder="hash") as memory:
        assert memory.import_from(tmp_path / PLACES[format], format).read == 0
        assert out(memory, tmp_path / "b.jsonl") == first


@EACH
def test_the_vectors_are_those_of_the_store_to_the_last_bit(tmp_path: Path, format: str) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "csv", "csv")
        memory.export_to(tmp_path / PLACES[format], format)
    matrices = []
    for each in ("csv", format):
        module = named(each).module
        if each in FOLDERS:
            matrix = module.matrix_of(tmp_path / PLACES[each] / FOLDERS[each])
            matrices.append(np.array(list(matrix.vectors(print))))
        elif each == "hdf5":
            with h5py.File(tmp_path / PLACES[each]) as file:
                matrices.append(file["embeddings"][:])
        else:
            matrices.append(pickle.loads((tmp_path / PLACES[each]).read_bytes())["embeddings"])  # it is ours
    assert all(matrix.dtype == np.float32 for matrix in matrices)
    assert np.array_equal(*matrices)
    assert np.allclose(np.linalg.norm(matrices[0], axis=1), 1, atol=1e-3)


@EACH
def test_what_the_original_wrote_is_read_with_its_times(tmp_path: Path, format: str) -> None:
    place = seed(format, tmp_path / PLACES[format])
    with Memory(tmp_path / "m", encoder="hash") as memory:
        done = memory.import_from(place, format)
        assert (done.added, done.failed, done.vectors, done.pending) == (3, 0, 0, 0)  # whose vectors, it does not say
        found = {segment.text: segment for segment in memory.get_all()}
        assert sorted(found) == sorted(CONVERSATIONS)
        told = [(found[text].session, str(found[text].occurred_at)) for text in CONVERSATIONS]
        assert told == [(f"conv_{i}", f"2025-04-0{i + 1} 10:00:00+00:00") for i in range(3)]
        assert memory.import_from(place, format).added == 0


@EACH
def test_compat_writes_what_the_original_writes_and_nothing_else(tmp_path: Path, format: str) -> None:
    place = tmp_path / PLACES[format]
    with lived_in(tmp_path / "a") as memory:
        if format in FOLDERS:
            memory.export_to(place, format)  # what a whole export left there would not be of these rows
        memory.export_to(place, format, compat=True)
        segments = {each.id: each for each in memory.get_all(limit=100)}
    keys = ["conversation_id", "summary", "timestamp"]
    if format in FOLDERS:
        assert sorted(each.name for each in place.iterdir()) == sorted([FOLDERS[format], "metadata.json"])
        rows = json.loads((place / "metadata.json").read_text())
    elif format == "hdf5":
        with h5py.File(place) as file:
            assert sorted(file) == ["embeddings", "metadata"]
            table = file["metadata"][:]
        assert [(name, table.dtype[name].str) for name in table.dtype.names] == list(
            zip(keys, ["|S10", "|S200", "|S20"], strict=True)
        )
        assert {row["conversation_id"].decode() for row in table} == {id[-10:] for id in segments}
        assert all(row["summary"].decode() for row in table)  # cut between characters
        return
    else:
        data = pickle.loads(place.read_bytes())  # it is ours
        assert sorted(data) == ["embeddings", "metadata"]
        rows = data["metadata"]
    assert [list(row) for row in rows] == [keys] * len(segments)
    assert {row["conversation_id"]: row["summary"] for row in rows} == {
        id: segment.text for id, segment in segments.items()
    }


def test_ids_that_repeat_are_told_apart_and_what_is_no_time_stays_as_it_was_said(tmp_path: Path) -> None:
    place = seed("npy", tmp_path / "npy")
    rows = [
        {"conversation_id": 7, "summary": "One.", "timestamp": "March 28th, 11am", "title": "T", "type": "chat"},
        {"conversation_id": "7", "summary": "Two.", "timestamp": 1743156000},
        {"conversation_id": ["7"], "summary": "Three."},
    ]
    (place / "metadata.json").write_text(json.dumps(rows))
    with Memory(tmp_path / "m", encoder="hash") as memory:
        done = memory.import_from(place, "npy")
        assert (done.added, [each.where for each in done.problems]) == (2, ["metadata.json[2]"])
        one, two = sorted(memory.get_all(), key=lambda segment: segment.text)
        assert (one.session, two.session) == ("7", "7")
        assert one.metadata == {"timestamp": "March 28th, 11am", "title": "T", "type": "chat"}
        assert one.occurred_at is None
        assert str(two.occurred_at) == "2025-03-28 10:00:00+00:00"


# Files that are not what they say


@EACH
def test_a_vector_that_is_not_finite_is_told_and_its_text_is_kept(tmp_path: Path, format: str) -> None:
    rows = np.ones((3, 4))
    rows[1, 2] = np.nan
    done, _ = again(seed(format, tmp_path / PLACES[format], rows), format)
    assert (done.added, done.failed) == (3, 1)
    assert "NaN" in done.problems[0].problem
    assert done.problems[0].where.endswith(":3" if format == "csv" else "[1]")
    rows[1, 2] = np.inf
    tmp_path.joinpath("more").mkdir()
    assert again(seed(format, tmp_path / "more" / PLACES[format], rows), format)[0].failed == 1


@EACH
def test_with_strict_nothing_is_imported_where_a_vector_is_not_finite(tmp_path: Path, format: str) -> None:
    place = seed(format, tmp_path / PLACES[format], [[1.0, float("nan")]])
    with Memory(tmp_path / "m", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match="NaN"):
            memory.import_from(place, format, strict=True)
        assert memory.get_all() == []


@EACH_FOLDER
def test_more_rows_than_vectors_are_no_archive(tmp_path: Path, format: str) -> None:
    place = seed(format, tmp_path / format)
    (place / "metadata.json").write_text(json.dumps(json.loads((place / "metadata.json").read_text())[:2]))
    with pytest.raises(InvalidInput, match=r"3 vectors and metadata\.json 2 rows"):
        again(place, format)


@EACH_FOLDER
def test_a_matrix_of_another_width_than_its_history_says_is_no_archive(tmp_path: Path, format: str) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / format, format)
        count = len(json.loads((tmp_path / format / "metadata.json").read_text()))
    other = seed(format, tmp_path / "other", np.ones((3, 8)))
    (tmp_path / format / FOLDERS[format]).write_bytes((other / FOLDERS[format]).read_bytes())
    if count == 3:
        pytest.fail("the archive must have another count for this test to tell which")
    rows = json.loads((tmp_path / format / "metadata.json").read_text())[:3]
    (tmp_path / format / "metadata.json").write_text(json.dumps(rows))
    with pytest.raises(InvalidInput, match=r"vectors of 8 numbers.*says 256"):
        again(tmp_path / format, format)


def test_vectors_of_another_length_than_one_are_told_and_made_anew(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        first = out(memory, tmp_path / "a.jsonl")
        memory.export_to(tmp_path / "npy", "npy")
    file = tmp_path / "npy" / "embeddings.npy"
    matrix = np.load(file)
    matrix[0] *= 3
    matrix[1] = 3e38
    np.save(file, matrix)
    done, second = again(tmp_path / "npy", "npy")
    assert (second, done.failed, done.pending) == (first, 2, 0)
    assert "length 3" in done.problems[0].problem


def test_a_history_that_is_none_is_refused(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "csv", "csv")
    history = tmp_path / "csv" / "history.jsonl"
    lines = history.read_text().splitlines(keepends=True)
    history.write_text(lines[0].replace('"format": 1', '"format": 99') + "".join(lines[1:]))
    with pytest.raises(NewerStore):
        again(tmp_path / "csv", "csv")
    history.write_text("".join(lines[1:]))
    with pytest.raises(InvalidInput, match="begins with"):
        again(tmp_path / "csv", "csv")
    history.write_text(lines[0] + '{"type": "segment"}\nno JSON\n' + "".join(lines[1:]))
    assert [each.where for each in again(tmp_path / "csv", "csv")[0].problems] == ["history.jsonl:2", "history.jsonl:3"]


def npy(about: str, rest: bytes = b"") -> bytes:
    header = about.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + rest


def index(kind: bytes, dim: int, count: int, floats: int, rest: bytes = b"") -> bytes:
    return struct.pack("<4siqqq?iQ", kind, dim, count, 0, 0, True, 0, floats) + rest


SHAPE = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"
HOSTILE = {
    "npy of a billion rows": ("npy", npy(SHAPE % ("<f4", (10**9, 384)))),
    "npy of more rows than memory has addresses": ("npy", npy(SHAPE % ("<f4", (2**62, 2**10)))),
    "npy of fewer rows than bytes": ("npy", npy(SHAPE % ("<f4", (1, 2)), bytes(80))),
    "npy of objects": ("npy", npy(SHAPE % ("|O", (3, 4)), pickle.dumps(print))),
    "npy of records": ("npy", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 1)}", bytes(12))),
    "npy of one dimension": ("npy", npy(SHAPE % ("<f4", (12,)), bytes(48))),
    "npy of negative rows": ("npy", npy(SHAPE % ("<f4", (-3, 4)), bytes(48))),
    "npy with a call in its header": ("npy", npy("{'descr': print(1), 'fortran_order': False, 'shape': (3, 4)}")),
    "npy nested deep": ("npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 4000) + b"(" * 4000),
    "npy with a header of 4 GiB": ("npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}"),
    "npy that is empty": ("npy", b""),
    "csv with other columns": ("csv", b"a,b\n1,2\n1,2\n1,2\n"),
    "csv of a million columns": ("csv", ",".join(map(str, range(10**6))).encode() + b"\n"),
    "csv of one endless line": ("csv", b"0,1\n" + b"1" * (5 << 20)),
    "csv that is empty": ("csv", b""),
    "index of a billion vectors": ("faiss", index(b"IxFI", 384, 10**9, 384 * 10**9)),
    "index of more than it says": ("faiss", index(b"IxFI", 4, 3, 2**60, bytes(48))),
    "index of negative size": ("faiss", index(b"IxFI", -4, -3, 12, bytes(48))),
    "index of another kind": ("faiss", index(b"IwFl", 4, 3, 12, bytes(48))),
    "index that is empty": ("faiss", b""),
    "index cut short": ("faiss", index(b"IxFI", 4, 3, 12, bytes(48))[:20]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_asks_for_more_than_it_holds_is_refused_in_little_memory(tmp_path: Path, what: str) -> None:
    format, raw = HOSTILE[what]
    place = seed(format, tmp_path / format)
    (place / FOLDERS[format]).write_bytes(raw)
    with Memory(tmp_path / "m", encoder="hash") as memory:
        with in_little_memory(40 << 20), pytest.raises(InvalidInput, match=FOLDERS[format].replace(".", r"\.")):
            memory.import_from(place, format)
        assert memory.get_all() == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small memory in every format, to be damaged."""
    place = tmp_path_factory.mktemp("whole")
    with Memory(place / "m", encoder="hash:8") as memory:
        memory.add([{"role": "user", "content": f"Turn {i} ü"} for i in range(4)], session="s")
        memory.update(memory.add("Before.").ids[0], "After.", metadata={"a": [1, {"b": 2.5}]})
        memory.erase(memory.add("Gone.").ids)
        for format, name in PLACES.items():
            memory.export_to(place / name, format)
    return place


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), format=st.sampled_from(["csv", "npy", "faiss", "pickle"]))
def test_whatever_is_damaged_is_told_or_refused(whole: Path, data: st.DataObject, format: str) -> None:
    place = whole / PLACES[format]
    file = place if place.is_file() else data.draw(st.sampled_from(sorted(place.iterdir())))
    before = file.read_bytes()
    raw = bytearray(before)
    for at, length, new in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw)), st.integers(0, 12), st.binary(max_size=8)), min_size=1, max_size=4)
    ):
        raw[at : at + length] = new
    file.write_bytes(raw)
    try:
        for _ in named(format).module.read(place, lambda problem: None):
            pass
    except (InvalidInput, NewerStore):
        pass
    finally:
        file.write_bytes(before)


def test_lines_of_a_csv_that_are_no_vectors_are_told_by_their_number(tmp_path: Path) -> None:
    place = seed("csv", tmp_path / "csv", np.ones((3, 2)))
    (place / "embeddings.csv").write_bytes(b"0,1\r\n1.0,1.0\r\n1.0\r\n\r\n1.0,=1+1\r\n")
    done, _ = again(place, "csv")
    assert (done.added, [each.where for each in done.problems]) == (3, ["embeddings.csv:3", "embeddings.csv:5"])


def test_metadata_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    import os

    place = seed("npy", tmp_path / "npy")
    (place / "metadata.json").unlink()
    os.mkfifo(place / "metadata.json")
    assert not named("npy").module.recognises(place, b"")
    with pytest.raises(InvalidInput, match="there is no file"):
        again(place, "npy")


@pytest.mark.parametrize("kind", ["<f2", "<f8", ">f4", "<i8", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_any_plain_numbers_in_any_order_is_read(tmp_path: Path, kind: str, order: Any) -> None:
    rows = np.arange(12).reshape(3, 4).astype(kind)
    place = tmp_path / "embeddings.npy"
    np.save(place, np.asarray(rows, order=order))
    matrix = named("npy").module.matrix_of(place)
    assert np.array_equal(list(matrix.vectors(print)), rows.astype(np.float32))


def test_an_export_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    from memspan.archives.base import Contents, Header, Vectors

    def records() -> Any:
        raise RuntimeError("broken off")
        yield

    for format, name in PLACES.items():
        place = seed(format, tmp_path / name)
        files = [place] if place.is_file() else sorted(place.iterdir())
        before = [file.read_bytes() for file in files]
        header = Header(namespace="default", vectors=Vectors(encoder="x", dim=4))
        with pytest.raises(RuntimeError):
            named(format).module.write(place, Contents(header=header, records=records))
        assert [file.read_bytes() for file in files] == before
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(PLACES.values())


def test_an_index_of_ours_answers_in_faiss(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "faiss", "faiss")
    read = faiss.read_index(str(tmp_path / "faiss" / "faiss_index.bin"))
    rows = json.loads((tmp_path / "faiss" / "metadata.json").read_text())
    assert (type(read).__name__, read.ntotal, read.metric_type) == (
        "IndexFlatIP",
        len(rows),
        faiss.METRIC_INNER_PRODUCT,
    )
    scores, found = read.search(read.reconstruct_n(0, read.ntotal), 1)
    assert np.allclose(scores, 1, atol=1e-3)
    assert {rows[at]["summary"] for at in found[:, 0]} == {row["summary"] for row in rows}
