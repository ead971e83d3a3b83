"""The parts of MemBank: HGNS, pointers, buffer, registry, index, adapters."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memspan.errors import InvalidInput, NotFound, StoreClosed
from memspan.membank import (
    HGNSHierarchy,
    MemMapBuffer,
    MockAdapter,
    PointerRecord,
    Registry,
    SearchResult,
    VectorIndex,
    hash_activation,
    hash_text,
    hgns_attribute_convergence,
    hgns_compress,
    hgns_compress_with_indices,
    hgns_gradient_1d,
    make_pointer,
    multilevel_gradient,
    saliency_mask,
)

numbers = st.floats(-100, 100, width=32)
vectors = st.integers(2, 60).flatmap(lambda dim: arrays(np.float32, dim, elements=numbers))

# HGNS


@given(vectors, st.integers(1, 12), st.integers(0, 6))
def test_the_gradient_is_that_of_the_straight_lines_between_entries(
    vector: np.ndarray[Any, Any], k: int, level: int
) -> None:
    step = 1 / k**level
    at = np.arange(len(vector), dtype=np.float64)
    line = vector.astype(np.float64)
    quotient = (np.interp(at + step, at, line) - np.interp(at, at, line)) / step
    assert hgns_gradient_1d(vector, k, level) == pytest.approx(quotient, abs=1e-2, rel=1e-4)


def test_the_multilevel_gradient_weighs_each_level_by_its_step() -> None:
    vector = np.array([1, 3, 2], np.float32)
    assert multilevel_gradient(vector, k=10, levels=3) == pytest.approx(np.array([2, -1, 0]) * 0.111)


@given(vectors, st.data())
def test_compression_keeps_the_most_salient_entries_where_they_stand(
    vector: np.ndarray[Any, Any], data: st.DataObject
) -> None:
    target = data.draw(st.integers(1, len(vector) - 1))
    for saliency, salience in (("gradient", np.abs(multilevel_gradient(vector))), ("magnitude", np.abs(vector))):
        kept, indices = hgns_compress_with_indices(vector, target, saliency=saliency)  # type: ignore[arg-type]
        assert (np.diff(indices.astype(int)) > 0).all()
        assert np.array_equal(kept, vector[indices])
        mask = saliency_mask(vector, target, saliency=saliency)  # type: ignore[arg-type]
        assert np.array_equal(np.flatnonzero(mask), indices)
        assert salience[mask].min() >= salience[~mask].max()
        assert np.array_equal(hgns_compress(vector, target, saliency=saliency), kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0, -1, 8, 9])
def test_a_target_that_compresses_nothing_is_refused(target: int) -> None:
    with pytest.raises(ValueError, match="target_dim"):
        hgns_compress(np.ones(8, np.float32), target)


@given(vectors, st.floats(0.05, 1))
def test_attribute_convergence_ends_where_entries_no_longer_differ(vector: np.ndarray[Any, Any], eta: float) -> None:
    end = hgns_attribute_convergence(vector, eta=eta, epsilon=1e-3)
    assert float(np.linalg.norm(eta * hgns_gradient_1d(end))) < 1e-3
    assert end[-1] == vector[-1]


@pytest.mark.parametrize("options", [{"eta": 0}, {"eta": 1.5}, {"eta": float("nan")}, {"epsilon": 0}, {"k": 0}])
def test_a_convergence_that_would_not_come_is_refused(options: Any) -> None:
    with pytest.raises(InvalidInput):
        hgns_attribute_convergence(np.ones(4, np.float32), **options)


@given(arrays(np.float32, (5, 64), elements=numbers), st.sampled_from(["gradient", "magnitude"]))
def test_a_batch_is_compressed_as_each_of_its_rows(rows: np.ndarray[Any, Any], saliency: Any) -> None:
    hierarchy = HGNSHierarchy(saliency=saliency)
    batch = hierarchy.compress_batch(rows)
    for number, row in enumerate(rows):
        one = hierarchy.compress(row, "text", "model")
        assert (one.source_text, one.model_id) == ("text", "model")
        for level in (0, 1, 2):
            assert np.array_equal(one.get_level(level), batch.get_level(level)[number])
        assert np.array_equal(one.level1_indices, batch.level1_indices[number])
        assert set(one.level2_indices.tolist()) <= set(one.level1_indices.tolist())


def test_levels_have_the_sizes_of_the_readme() -> None:
    hierarchy = HGNSHierarchy()
    assert hierarchy.dims_for(256) == {"level0": 256, "level1": 84, "level2": 21}
    ratio = hierarchy.compression_ratio(256)
    assert ratio == {"level1_ratio": pytest.approx(0.33, abs=0.01), "level2_ratio": pytest.approx(0.08, abs=0.01)}
    for dim in (2, 3, 7, 4096):
        levels = hierarchy.compress(np.ones(dim, np.float32))
        assert 1 <= len(levels.level2) <= len(levels.level1) < dim
    with pytest.raises(ValueError, match="cannot be compressed"):
        hierarchy.dims_for(1)


@pytest.mark.parametrize("wrong", [np.ones((2, 8), np.float32), np.ones(8), [1.0] * 8, np.float32(1)])
def test_only_one_axis_of_float32_is_compressed(wrong: Any) -> None:
    with pytest.raises(ValueError, match="give float32"):
        HGNSHierarchy().compress(wrong)
    with pytest.raises(ValueError, match="is none"):
        HGNSHierarchy().compress(np.ones(8, np.float32)).get_level(3)


@pytest.mark.parametrize("wrong", [np.ones((2, 8), np.float32), np.ones(8), [1.0] * 8, np.zeros(0, np.float32)])
def test_the_functions_of_hgns_take_one_axis_of_float32_only(wrong: Any) -> None:
    for call in (
        hgns_gradient_1d,
        multilevel_gradient,
        lambda values: saliency_mask(values, 1),
        lambda values: hgns_compress(values, 1),
        lambda values: hgns_compress_with_indices(values, 1),
        hgns_attribute_convergence,
    ):
        with pytest.raises(ValueError, match="give float32"):
            call(wrong)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e39])
def test_what_is_not_finite_has_no_cosine(wrong: float) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        HGNSHierarchy.cosine_similarity([wrong, 1], [1, 1])
    with pytest.raises(InvalidInput, match="finite"):
        HGNSHierarchy.aligned_cosine_similarity([1, 1], [0, 1], [wrong, 1], [0, 1])
    index = VectorIndex(2)
    with pytest.raises(InvalidInput, match="finite"):
        index.add([wrong, 1], "id")
    with pytest.raises(InvalidInput, match="finite"):
        index.search([wrong, 1])
    assert index.size == 0


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1, 1e20, 1e38])
def test_a_cosine_does_not_depend_on_how_long_the_vectors_are(scale: float) -> None:
    vector = np.array([3 * scale, 0.5 * scale], np.float32)
    assert HGNSHierarchy.cosine_similarity(vector, [3, 0.5]) == pytest.approx(1)
    index = VectorIndex(2)
    index.add(vector, "id")
    assert index.search(np.array([3, 0.5]))[0].score == pytest.approx(1)


def test_aligned_cosines_compare_entries_at_the_same_indices() -> None:
    aligned, plain = HGNSHierarchy.aligned_cosine_similarity, HGNSHierarchy.cosine_similarity
    assert aligned([3, 4], [1, 5], [3, 4], [1, 5]) == pytest.approx(1)
    assert aligned([3, 4], [1, 5], [3, 4], [0, 2]) == 0
    assert aligned([3, 4], [1, 5], [4, 3], [5, 9]) == pytest.approx(16 / 25)
    assert plain([3, 4], [4, 3]) == pytest.approx(24 / 25)
    assert plain([0, 0], [1, 2]) == 0
    with pytest.raises(InvalidInput, match="a_idx"):
        aligned([3, 4], [1], [3], [1])
    with pytest.raises(InvalidInput, match="shape"):
        plain([1, 2], [1, 2, 3])


# Pointers and buffer


def test_a_pointer_knows_what_it_points_to_and_survives_json() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    pointer = make_pointer(raw, 64, (2, 3), "float32", "model", 1, "text", {"turn": 1})
    assert (pointer.ptr_id, pointer.source_text_hash) == (hash_activation(raw), hash_text("text"))
    assert (pointer.nbytes, pointer.ref_count, pointer.is_alive) == (24, 1, True)
    assert PointerRecord.from_json(pointer.to_json()) == pointer
    pointer.retain()
    assert [pointer.release(), pointer.release(), pointer.release()] == [False, True, True]
    assert not pointer.is_alive
    for wrong in ("", "{}", '{"ptr_id": 1}', "[]"):
        with pytest.raises(ValueError, match="no pointer record"):
            PointerRecord.from_json(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ptr_id": 5},
        {"buffer_offset": "x"},
        {"buffer_offset": -1},
        {"shape": "ab"},
        {"shape": [1.5]},
        {"dtype": 1},
        {"dtype": "no such"},
        {"model_id": 2},
        {"hgns_level": True},
        {"source_text_hash": 0},
        {"ref_count": None},
        {"metadata": []},
    ],
)
def test_a_pointer_of_json_has_fields_of_the_right_kinds(wrong: Any) -> None:
    fields = json.loads(make_pointer(b"12345678", 64, (2,), "float32", "model", 1, "text").to_json())
    with pytest.raises(ValueError, match="no pointer record"):
        PointerRecord.from_json(json.dumps(fields | wrong))


def test_hashes_are_those_of_sha256() -> None:
    assert hash_text("") == hash_activation(b"") == hash_activation(np.zeros(0, np.float32))
    assert hash_text("").startswith("e3b0c44298fc1c14")


@pytest.mark.parametrize("path", [None, "deep/buffer.mmap"])
def test_a_buffer_gives_back_what_was_written_as_views_that_nobody_can_change(tmp_path: Path, path: str | None) -> None:
    with MemMapBuffer(None if path is None else tmp_path / path, 1 << 20) as buffer:
        assert buffer.stats()["used_bytes"] == 0
        given_arrays = [np.arange(n, dtype=kind).reshape(-1, 2) for n in (2, 256) for kind in ("f4", "f2", "i8", "u1")]
        pointers = [buffer.write(array, "model", 0, "text", {"n": 1}) for array in given_arrays]
        for array, pointer in zip(given_arrays, pointers, strict=True):
            view = buffer.deref(pointer)
            assert (view.dtype, view.tolist()) == (array.dtype, array.tolist())
            assert not view.flags.writeable
            assert not view.flags.owndata
        stats = buffer.stats()
        assert 0 < stats["used_bytes"] == buffer.used_bytes <= stats["capacity_bytes"]
        assert stats["utilization"] == stats["used_bytes"] / stats["capacity_bytes"]
        with pytest.raises(InvalidInput, match="array"):
            buffer.write(np.array([object()]), "model", 0, "text")
    with pytest.raises(StoreClosed):
        buffer.deref(pointers[0])


def test_a_buffer_reopens_after_the_last_whole_record(tmp_path: Path) -> None:
    with MemMapBuffer(tmp_path / "buffer.mmap") as buffer:
        pointer = buffer.write(np.arange(5), "model", 0, "one")
        used = buffer.used_bytes
    with MemMapBuffer(tmp_path / "buffer.mmap") as buffer:
        assert buffer.used_bytes == used
        second = buffer.write(np.arange(7), "model", 0, "two")
        assert buffer.deref(pointer).tolist() == list(range(5))
        assert buffer.deref(second).tolist() == list(range(7))


def test_an_array_keeps_its_shape_whatever_its_axes_and_records_of_fields_are_refused() -> None:
    with MemMapBuffer() as buffer:
        for array in (np.array(3.0), np.zeros((0, 4)), np.asfortranarray(np.arange(6.0).reshape(2, 3))):
            view = buffer.deref(buffer.write(array, "model", 0, "text"))
            assert (view.shape, view.tolist()) == (array.shape, array.tolist())
        with pytest.raises(InvalidInput, match="array"):
            buffer.write(np.zeros(2, [("a", "i4"), ("b", "f4")]), "model", 0, "text")


def test_threads_write_to_one_buffer() -> None:
    with MemMapBuffer() as buffer:
        pointers: list[tuple[int, PointerRecord]] = []

        def work(number: int) -> None:
            for n in range(50):
                value = 50 * number + n
                pointers.append((value, buffer.write(np.full(9, value), "model", 0, "text")))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pointers) == 200
        for value, pointer in pointers:
            assert (buffer.deref(pointer) == value).all()


# Registry


def pointer(number: int, *, level: int = 0, model: str = "model", text: str = "text") -> PointerRecord:
    return make_pointer(bytes([number]) * 8, 64 * number, (2,), "float32", model, level, text, {"n": number})


@pytest.mark.parametrize("path", [":memory:", "registry.db"])
def test_a_registry_keeps_counts_and_finds(tmp_path: Path, path: str) -> None:
    registry = Registry(path if path == ":memory:" else tmp_path / path)
    one, two = pointer(1), pointer(2, level=1, model="other", text="another")
    assert [registry.put(one), registry.put(two), registry.put(one)] == [True, True, False]
    found = registry.get(one.ptr_id)
    assert found is not None
    assert (found.ref_count, found.metadata, found.shape) == (2, {"n": 1}, (2,))
    assert registry.exists(two.ptr_id)
    assert not registry.exists("00" * 32)
    assert registry.get("no hash at all") is None
    assert [each.ptr_id for each in registry.get_by_text("another")] == [two.ptr_id]
    assert [each.ptr_id for each in registry.get_by_text(hash_text("another"))] == [two.ptr_id]
    assert [each.ptr_id for each in registry.get_by_level(1)] == [two.ptr_id]
    assert [each.ptr_id for each in registry.get_by_model("model")] == [one.ptr_id]
    assert registry.gc_candidates() == []
    assert [registry.release(one.ptr_id), registry.release(one.ptr_id), registry.release(one.ptr_id)] == [
        False,
        True,
        True,
    ]
    assert [each.ptr_id for each in registry.gc_candidates()] == [one.ptr_id]
    assert registry.stats() == {
        "total_pointers": 2,
        "live_pointers": 1,
        "dead_pointers": 1,
        "by_level": {"level_0": 1, "level_1": 1, "level_2": 0},
    }
    assert registry.invalidate_model("other") == 1
    assert registry.delete(one.ptr_id)
    assert not registry.delete(one.ptr_id)
    with pytest.raises(NotFound):
        registry.release(one.ptr_id)
    registry.close()
    registry.close()
    with pytest.raises(StoreClosed):
        registry.get(one.ptr_id)


def test_a_registry_takes_no_pointer_whose_ids_are_no_hashes() -> None:
    registry = Registry()
    good = pointer(1)
    for wrong in ({"ptr_id": "ptr_a"}, {"source_text_hash": "h1"}, {"ptr_id": " " * 64}, {"ptr_id": "zz" * 32}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            registry.put(replace(good, **wrong))
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            registry.put_many([good, replace(good, **wrong)])
    with pytest.raises(InvalidInput, match="dtype"):
        registry.put(replace(good, dtype="no such"))
    assert registry.stats()["total_pointers"] == 0
    assert not registry.exists("ptr_a")
    assert registry.get_by_text("h1") == []


def test_a_registry_takes_many_at_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    many = [make_pointer(n.to_bytes(4, "big"), n, (1,), "float32", "m", 0, "t") for n in range(1_000)]
    rows = registry.put_many(many)
    assert rows.keys() == {each.ptr_id for each in many}
    assert registry.rows_of([each.ptr_id for each in many]) == rows
    assert registry.stats()["total_pointers"] == 1_000
    registry.close()


# Index


@pytest.mark.parametrize("backend", ["faiss", "numpy"])
def test_an_index_ranks_by_cosine(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "numpy":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    index = VectorIndex(3, 1)
    assert index.backend == backend
    assert index.search([1, 0, 0]) == []
    for name, vector in (("x", [2, 0, 0]), ("y", [0, 1, 0]), ("xy", [5, 5, 0])):
        index.add(vector, name)
    assert index.size == 3
    found = index.search([1, 0.1, 0], top_k=9)
    assert [(result.ptr_id, result.rank, result.hgns_level) for result in found] == [
        ("x", 0, 1),
        ("xy", 1, 1),
        ("y", 2, 1),
    ]
    assert found[0].score == pytest.approx(1 / 1.01**0.5, abs=1e-6)
    assert isinstance(found[0], SearchResult)
    for wrong in ([1, 2], [[1, 2, 3]]):
        with pytest.raises(ValueError, match="shape"):
            index.add(wrong, "wrong")
        with pytest.raises(ValueError, match="shape"):
            index.search(wrong)


# MockAdapter


def test_an_index_takes_the_dimensions_of_any_activation() -> None:
    index = VectorIndex(65_536)
    index.add(np.ones(65_536, np.float32), "id")
    assert index.search(np.ones(65_536), 20_000)[0].score == pytest.approx(1)
    with pytest.raises(InvalidInput, match="dim"):
        VectorIndex(65_537)


def test_a_mock_gives_the_same_in_every_process() -> None:
    code = (
        "from memspan.membank import MockAdapter, hash_activation;"
        "print(hash_activation(MockAdapter(64).encode('one text')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == hash_activation(MockAdapter(64).encode("one text"))


def test_shared_words_bring_texts_closer_in_a_mock() -> None:
    adapter = MockAdapter(256)
    adapter.validate()
    adapter.warmup()
    cat, again, dog, train = adapter.encode_batch(
        ["the cat sat down", "Down sat the cat.", "the dog sat down", "trains to Lisbon leave"]
    )
    assert cat @ again == pytest.approx(1)
    assert cat @ dog > 0.5 > 0.3 > abs(float(cat @ train))
    assert np.linalg.norm(adapter.encode("")) == pytest.approx(1)
    assert not np.array_equal(cat, MockAdapter(256, "v2").encode("the cat sat down"))
    assert adapter.encode_batch([]).shape == (0, 256)
    for wrong in (1, 0, True, 2.5):
        with pytest.raises(ValueError, match="hidden_dim"):
            MockAdapter(wrong)  # type: ignore[arg-type]
