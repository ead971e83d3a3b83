"""The matrix of embeddings: its rows are the segments in the order of time, its values what was stored."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import Memory
from memspan.errors import NotFound
from memspan.pictures import heatmap
from memspan.pictures.files import line
from memspan.pictures.heatmap import Heated, bands, draw

from .pages import HOSTILE, Page, assert_it_keeps_to_itself, read


def drawn(memory: Memory, folder: Path, **options: Any) -> tuple[Heated, Page]:
    report = draw(memory, folder / "heat.html", **options)
    return report, read(folder / "heat.html")


def matrix_of(page: Page) -> np.ndarray:
    return page.array("values", "<i2").reshape(page.data["bands"], -1) * (page.data["top"] / 32_767)


def test_a_row_is_a_segment_the_oldest_first(told: Memory, tmp_path: Path) -> None:
    report, page = drawn(told, tmp_path)
    segments, vectors = told.embeddings()
    order = sorted(range(len(segments)), key=lambda at: segments[at].time)
    assert (report.rows, report.bands, report.dims) == (50, 50, vectors.shape[1])
    np.testing.assert_allclose(matrix_of(page), vectors[order], atol=1e-4)
    assert page.lines("texts") == [line(segments[at].text, 160) for at in order]
    assert page.array("times", "<f8")[::2].tolist() == [segments[at].time.timestamp() for at in order]


def test_many_rows_are_averaged_to_bands(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "MOST_BANDS", 10)
    memory.add([{"role": "user", "content": f"turn {number}"} for number in range(25)])
    report, page = drawn(memory, tmp_path)
    _, vectors = memory.embeddings()
    assert (report.rows, report.bands) == (25, 9)
    assert page.array("borders", "<u4").tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]
    np.testing.assert_allclose(matrix_of(page)[1], vectors[3:6].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(matrix_of(page)[8], vectors[24], atol=1e-4)
    assert page.lines("texts") == [f"turn {number}" for number in range(0, 25, 3)]


@pytest.mark.parametrize("rows", [1, 2, 999, 1_000, 1_001, 1_999, 2_000, 100_000])
def test_bands_hold_every_row_once_and_are_not_too_many(rows: int) -> None:
    sizes = np.diff(bands(rows))
    assert sizes.sum() == rows
    assert len(sizes) <= 1_000
    assert len(set(sizes[:-1].tolist())) <= 1
    assert sizes.min() > 0


def test_the_page_keeps_to_itself_and_holds_texts_as_data(told: Memory, tmp_path: Path) -> None:
    _, page = drawn(told, tmp_path)
    assert_it_keeps_to_itself(page)
    assert {line(text, 160) for text in HOSTILE} <= set(page.lines("texts"))


def test_one_row_and_equal_rows_are_drawn(memory: Memory, tmp_path: Path) -> None:
    memory.add("Always the same.", session="s")
    assert drawn(memory, tmp_path)[0].rows == 1
    memory.add("Always the same.", session="t")
    assert drawn(memory, tmp_path)[0].rows == 2
    draw(memory, tmp_path / "heat.svg")


def test_a_picture_has_a_title_axes_and_a_scale(told: Memory, tmp_path: Path) -> None:
    draw(told, tmp_path / "heat.svg", session="ana's talk")
    root = ElementTree.parse(tmp_path / "heat.svg").getroot()
    texts = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
    for shown in ("3 segments in default", "dimension", "segment, in the order of time"):
        assert shown in texts
    for name in ("a.png", "b.png"):
        draw(told, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_to_draw_says_so(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing to draw"):
        draw(memory, tmp_path / "heat.html")
    assert not (tmp_path / "heat.html").exists()
