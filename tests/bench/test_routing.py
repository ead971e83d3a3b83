"""The routing bench: a store through the front door, judged against comparing with every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memspan.bench import routing
from memspan.errors import InvalidInput


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """1,300 rows in 20 groups."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(20, 16))[np.arange(1_300) % 20] + 0.3 * random.normal(size=(1_300, 16))
    np.save(tmp_path / "rows.npy", (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16))
    return tmp_path / "rows.npy"


def test_the_report_says_what_each_width_of_the_beam_finds_and_costs(vectors: Path) -> None:
    told: list[str] = []
    report = routing.run(
        segments=1_200, vectors=vectors, queries=50, progress=lambda done, total, what: told.append(what)
    )
    assert (report["segments"], report["queries"], report["dim"]) == (1_200, 50, 16)
    for name in ("grown", "built"):
        beams = report[name]["beams"]
        assert [found["beam"] for found in beams] == list(routing.BEAMS)
        assert all(found["comparisons"]["mean"] <= found["comparisons"]["most"] <= 1_200 + 50 for found in beams)
        assert beams[-1]["recall@10"] == 1  # as wide as the whole tree
        assert beams[-1]["comparisons"]["most"] == 1_200
    assert "holds from a beam of" in report["bar"]
    assert {"adding", "comparing with all", "growing", "tree", "routing"} <= set(told)
    shown = routing.table(report)
    assert "1,200 segments, 50 queries" in shown
    assert shown.count("recall@10 ") == 3


def test_queries_are_not_in_the_store_and_a_short_file_fills_it_with_the_rest(vectors: Path) -> None:
    report = routing.run(segments=2_000, vectors=vectors, queries=100)
    assert (report["segments"], report["queries"]) == (1_200, 100)


def test_what_recall_is_measured_against_is_the_exact_nearest(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "BEAMS", (1,))
    monkeypatch.setattr("memspan.views.forest.LEAF", 8)
    narrow = routing.run(segments=1_200, vectors=vectors, queries=50)["built"]["beams"][0]
    assert 0 < narrow["recall@10"] < 0.8  # eight rows cannot hold the ten nearest
    assert narrow["comparisons"]["most"] < 400
    assert "MISSED" in routing._bar([narrow])


def test_without_a_file_the_texts_of_this_python_are_encoded() -> None:
    report = routing.run(segments=1_000, queries=20, encoder="hash")
    assert (report["segments"], report["encoder"][:4]) == (1_000, "hash")


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("segments", {"segments": 10}),
        ("queries", {"segments": 1_000, "queries": 0}),
        ("queries", {"segments": 1_000, "queries": 501}),
        ("vectors", {"segments": 1_000, "vectors": Path("nowhere.npy")}),
        ("encoder", {"segments": 1_000, "encoder": "none"}),
    ],
)
def test_what_cannot_be_measured_is_refused(argument: str, given: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        routing.run(**given)  # type: ignore[arg-type]
    assert caught.value.argument == argument


def test_a_file_of_anything_but_vectors_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(2_000, np.float32))
    with pytest.raises(InvalidInput, match=r"float32\[2000\]"):
        routing.run(segments=1_000, vectors=tmp_path / "flat.npy")
