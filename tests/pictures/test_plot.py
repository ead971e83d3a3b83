"""The map of the embeddings: what is near in meaning is near on paper, and every point says what it is."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.errors import InvalidInput, MissingExtra, NotFound
from memspan.pictures import groups, plot
from memspan.pictures.files import line
from memspan.pictures.plot import Plotted, draw
from memspan.pictures.reduction import pca, quantised

from .pages import HOSTILE, Page, assert_it_keeps_to_itself, read


def drawn(memory: Memory, folder: Path, **options: Any) -> tuple[Plotted, Page]:
    report = draw(memory, folder / "plot.html", **options)
    return report, read(folder / "plot.html")


# ------------------------------------------------------------------------------------------------------ the projection


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12))
def test_the_axes_are_those_along_which_the_vectors_differ_most(seed: int, n: int, dim: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    plane = pca(vectors)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.svd(centred, compute_uv=False)
    share = np.zeros(2)
    if n > 1:
        share[: min(2, len(lengths))] = (lengths**2 / (lengths**2).sum())[:2]
    np.testing.assert_allclose(plane.explained, share, atol=1e-5)
    np.testing.assert_allclose((plane.places**2).sum(axis=0), share * (centred**2).sum(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(plane.places.mean(axis=0), 0, atol=1e-5)
    if n > 2 and dim > 1:
        axes = centred.T @ plane.places
        largest, smallest = axes.max(axis=0), axes.min(axis=0)
        assert (largest >= -smallest - 1e-3 * np.abs(smallest)).all()


def test_the_same_vectors_in_another_order_are_at_the_same_places() -> None:
    vectors = np.random.default_rng(3).normal(size=(50, 8)).astype(np.float32)
    np.testing.assert_allclose(pca(vectors[::-1]).places[::-1], pca(vectors).places, atol=1e-4)


def test_vectors_beyond_one_chunk_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(4).normal(size=(50, 8)).astype(np.float32)
    whole = pca(vectors)
    monkeypatch.setattr("memspan.pictures.reduction.CHUNK", 7)
    np.testing.assert_allclose(pca(vectors).places, whole.places, atol=1e-5)


@pytest.mark.parametrize("places", [[[0.2, 0.3]], [[5.0, -1.0]] * 4, [[0.0, 1e-9], [1e-9, 0.0]]])
def test_points_in_one_place_are_in_the_middle(places: list[list[float]]) -> None:
    x, y = quantised(np.array(places))
    assert np.abs(np.concatenate([x, y]).astype(int) - 32_768).max() < 100


def test_both_axes_have_one_scale() -> None:
    x, y = quantised(np.array([[0.0, 0.0], [10.0, 5.0]]))
    assert (x[0], x[1]) == (0, 65_535)
    assert abs((int(y[1]) - int(y[0])) / 65_535 - 0.5) < 1e-4


# ------------------------------------------------------------------------------------------------------------ the page


def test_every_point_has_its_text_time_speaker_category_and_session(told: Memory, tmp_path: Path) -> None:
    report, page = drawn(told, tmp_path)
    segments, _ = told.embeddings()
    assert report.points == report.segments == len(segments) == 50
    assert report.bytes == (tmp_path / "plot.html").stat().st_size
    assert page.lines("texts") == [line(segment.text, 160) for segment in segments]
    assert page.array("time", "<f8").tolist() == [segment.time.timestamp() for segment in segments]
    for name, values in {
        "speaker": [segment.speaker or segment.role or "" for segment in segments],
        "category": [line(" / ".join(segment.category), 80) for segment in segments],
        "session": [line(segment.session or "", 60) for segment in segments],
    }.items():
        names = page.data[name][0]
        assert [names[at] for at in page.array(f"{name}.1", "<u4")] == values


def test_what_means_about_the_same_is_near_each_other(told: Memory, tmp_path: Path) -> None:
    _, page = drawn(told, tmp_path)
    places = np.stack([page.array(axis, "<u2").astype(float) for axis in "xy"], axis=1)
    texts = page.lines("texts")
    ledger, garden = ([at for at, text in enumerate(texts) if word in text] for word in ("ledger", "tomatoes"))
    apart = np.linalg.norm(places[ledger].mean(axis=0) - places[garden].mean(axis=0))
    assert apart > 3 * np.linalg.norm(places[ledger] - places[ledger].mean(axis=0), axis=1).mean()
    assert 0.1 < sum(drawn(told, tmp_path)[0].explained) <= 1


def test_what_was_stored_is_text_in_the_page_and_nothing_else(told: Memory, tmp_path: Path) -> None:
    _, page = drawn(told, tmp_path)
    assert_it_keeps_to_itself(page)
    for text in HOSTILE:
        assert line(text, 160) in page.lines("texts")


def test_the_same_memory_makes_the_same_file(told: Memory, tmp_path: Path) -> None:
    for name in ("a.html", "b.html", "a.svg", "b.svg"):
        draw(told, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_huge_hidden_and_reordering_texts_are_cut_and_cleaned(memory: Memory, tmp_path: Path) -> None:
    memory.add("start " + "x" * 300 + " end", category="\u202eevil\u0007")
    memory.add("a\nb\u2028c \u202eabc\u202c d\x1b[31m", session="s\u200f")
    memory.add(" \t" * 2_000 + "after much white space")
    report, page = drawn(memory, tmp_path)
    texts = page.lines("texts")
    assert len(texts) == report.points
    assert all(len(text) <= 160 for text in texts)
    assert "a b c abc d[31m" in texts
    assert any(text.endswith("after much white space") for text in texts)
    assert "evil" in page.data["category"][0]


# ----------------------------------------------------------------------------------------------------------- the groups


def test_points_are_coloured_by_category_where_there_are_any(told: Memory, tmp_path: Path) -> None:
    report, page = drawn(told, tmp_path)
    assert report.color == page.data["by"] == "category"
    assert report.groups["Work / Core"] == 20
    assert report.groups["Home"] == 20
    assert report.groups["no category"] == 6
    assert sum(report.groups.values()) == 50
    counts = np.bincount(page.array("group", "u1"))
    assert counts.tolist() == [count for _, count, _ in page.data["groups"]]


def test_any_field_can_be_asked_for(told: Memory, tmp_path: Path) -> None:
    assert drawn(told, tmp_path, color="session")[0].groups["ana's talk"] == 3
    assert drawn(told, tmp_path, color="speaker")[0].groups["Ben"] == 3
    assert drawn(told, tmp_path, color="user")[0].groups["ana"] == 3
    report, page = drawn(told, tmp_path, color="time")
    assert sum(report.groups.values()) == 50
    assert 6 <= len(report.groups) <= 8
    assert next(iter(report.groups)).startswith("2024-03-01")
    assert list(report.groups)[-1].endswith("2024-04-20")
    order = np.argsort(page.array("time", "<f8"), kind="stable")
    assert (np.diff(page.array("group", "u1")[order].astype(int)) >= 0).all()


def test_without_categories_it_is_the_session_then_the_speaker_then_time(memory: Memory, tmp_path: Path) -> None:
    memory.add("One.", occurred_at="2024-01-01")
    memory.add("Two.", occurred_at="2024-02-01")
    assert drawn(memory, tmp_path)[0].color == "time"
    memory.add([{"role": "user", "name": "Ana", "content": "Three."}])
    assert drawn(memory, tmp_path)[0].color == "speaker"
    memory.add([{"role": "user", "content": "Four."}], session="s")
    assert drawn(memory, tmp_path)[0].color == "session"


def test_the_rarest_share_a_grey(memory: Memory, tmp_path: Path) -> None:
    for number in range(14):
        for copy in range(20 - number):
            memory.add(f"note {copy} of {number}", category=f"kind {number:02}")
    report, page = drawn(memory, tmp_path)
    assert list(report.groups) == [*(f"kind {number:02}" for number in range(10)), "4 others"]
    assert report.groups["4 others"] == 10 + 9 + 8 + 7
    assert page.data["groups"][-1][2] == groups.OTHER
    assert len({color for _, _, color in page.data["groups"]}) == 11


def test_categories_are_taken_as_deep_as_there_are_colours(memory: Memory, tmp_path: Path) -> None:
    for outer in ("Home", "Work"):
        for inner in range(3):
            for leaf in range(4):
                memory.add(f"{outer} {inner} {leaf}", category=[outer, str(inner), str(leaf)])
    report, _ = drawn(memory, tmp_path)
    assert report.groups == {f"{outer} / {inner}": 4 for outer in ("Home", "Work") for inner in range(3)}


# ------------------------------------------------------------------------------------------------------ less and more


def test_one_point_is_drawn(memory: Memory, tmp_path: Path) -> None:
    memory.add("Alone.")
    report, page = drawn(memory, tmp_path)
    assert (report.points, report.explained, page.lines("texts")) == (1, (0.0, 0.0), ["Alone."])
    draw(memory, tmp_path / "plot.svg")


def test_points_that_are_all_alike_are_drawn_on_one_spot(memory: Memory, tmp_path: Path) -> None:
    for number in range(30):
        memory.add("Always the same.", session=f"s{number}")
    report, page = drawn(memory, tmp_path)
    assert (report.points, report.explained) == (30, (0.0, 0.0))
    assert len(set(page.array("x", "<u2").tolist())) == len(set(page.array("y", "<u2").tolist())) == 1


def test_of_too_many_an_even_sample_is_drawn_and_the_page_says_so(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "MOST_POINTS", 10)
    memory.add([{"role": "user", "content": f"turn {number}"} for number in range(91)])
    report, page = drawn(memory, tmp_path)
    assert (report.points, report.segments) == (10, 91)
    assert page.lines("texts") == [f"turn {number}" for number in range(0, 91, 10)]
    assert page.data["title"] == "10 of 91 segments in default"


def test_a_scope_and_a_filter_hold(told: Memory, tmp_path: Path) -> None:
    told.add("A secret.", namespace="other")
    assert drawn(told, tmp_path, user_id="ana")[0].points == 3
    assert drawn(told, tmp_path, filters={"category": "Home"})[0].points == 20 + len(HOSTILE)
    report, page = drawn(told, tmp_path, namespace="other")
    assert (report.points, page.lines("texts"), page.data["title"]) == (1, ["A secret."], "1 segment in other")


def test_a_picture_shows_points_groups_and_title(told: Memory, tmp_path: Path) -> None:
    report = draw(told, tmp_path / "plot.svg", color="speaker")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
    for shown in ("50 segments in default", "speaker", "Ana  3", "no speaker  44", "PCA"):
        assert shown in texts
    assert report.bytes == (tmp_path / "plot.svg").stat().st_size
    draw(told, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n")


# -------------------------------------------------------------------------------------------------------------- errors


def test_nothing_to_draw_says_so_and_leaves_the_file_as_it_was(told: Memory, tmp_path: Path) -> None:
    draw(told, tmp_path / "plot.html")
    before = (tmp_path / "plot.html").read_bytes()
    for scope in ({"namespace": "nobody"}, {"user_id": "nobody"}, {"filters": {"category": "Nowhere"}}):
        with pytest.raises(NotFound, match="nothing to draw") as caught:
            draw(told, tmp_path / "plot.html", **scope)  # type: ignore[arg-type]
        assert caught.value.mend
    assert (tmp_path / "plot.html").read_bytes() == before


def test_a_store_without_vectors_has_nothing_to_draw(tmp_path: Path) -> None:
    with Memory(tmp_path / "words", encoder=None) as words:
        words.add("Only words.")
        with pytest.raises(NotFound, match=r"nothing to draw.*no encoder"):
            draw(words, tmp_path / "plot.html")
    with Memory(tmp_path / "waiting", encoder="hash"):
        pass
    with Memory(tmp_path / "waiting", encoder=None) as waiting:
        waiting.add("It waits.")
        with pytest.raises(NotFound, match=r"nothing to draw.*no segment has a vector yet"):
            draw(waiting, tmp_path / "plot.html")
    assert not (tmp_path / "plot.html").exists()


@pytest.mark.parametrize(
    ("options", "argument"), [({"color": "colour"}, "color"), ({"method": "tsne"}, "method"), ({"color": ""}, "color")]
)
def test_a_wrong_choice_is_named_with_the_right_ones(
    told: Memory, tmp_path: Path, options: dict[str, str], argument: str
) -> None:
    with pytest.raises(InvalidInput, match=argument) as caught:
        draw(told, tmp_path / "plot.html", **options)  # type: ignore[arg-type]
    assert "use one of" in caught.value.mend
    assert not (tmp_path / "plot.html").exists()


def test_without_umap_it_says_what_to_install(told: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtra) as caught:
        draw(told, tmp_path / "plot.html", method="umap")
    assert caught.value.mend == 'pip install "memspan[umap]"'


def test_umap_needs_more_points_than_it_looks_at_around_each(memory: Memory, tmp_path: Path) -> None:
    memory.add("Alone.")
    with pytest.raises(InvalidInput, match="method"):
        draw(memory, tmp_path / "plot.html", method="umap")


def test_umap_keeps_neighbours_together(told: Memory, tmp_path: Path) -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed")
    report, page = drawn(told, tmp_path, method="umap")
    assert (report.method, report.explained, page.data["note"]) == ("umap", (), "UMAP")
    places = np.stack([page.array(axis, "<u2").astype(float) for axis in "xy"], axis=1)
    texts = page.lines("texts")
    ledger, garden = ([at for at, text in enumerate(texts) if word in text] for word in ("ledger", "tomatoes"))
    apart = np.linalg.norm(places[ledger].mean(axis=0) - places[garden].mean(axis=0))
    assert apart > np.linalg.norm(places[ledger] - places[ledger].mean(axis=0), axis=1).mean()
    before = (tmp_path / "plot.html").read_bytes()
    drawn(told, tmp_path, method="umap")
    assert (tmp_path / "plot.html").read_bytes() == before
