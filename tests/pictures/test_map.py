"""The picture of a memory: what is drawn is what is stored, it fits, and nothing that was stored can act in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.errors import InvalidInput, MissingExtra, NotFound
from memspan.pictures.files import line
from memspan.pictures.map import (
    HEIGHT,
    HITS,
    MOST_CHILDREN,
    MOST_PARTS,
    WIDTH,
    cells,
    draw,
    outline,
    spread,
    squarified,
)
from memspan.records import Node

from .pages import HOSTILE, Page, assert_it_keeps_to_itself, read


def page_of(memory: Memory, folder: Path, **options: Any) -> Page:
    file = folder / "map.html"
    draw(memory, file, **options)
    return read(file)


def nodes(depth: int = 3) -> st.SearchStrategy[Node]:
    """Trees in which some segments of a part may be in none of its children, as those that wait for a vector."""

    def node(children: list[Node], own: int, label: str) -> Node:
        return Node(
            key=label,
            kind="cluster",
            path=(),
            label=label,
            segments=own + sum(child.segments for child in children),
            children=tuple(children),
        )

    leaf = st.builds(node, st.just([]), st.integers(0, 5_000), st.text(max_size=5))
    return st.recursive(
        leaf, lambda inner: st.builds(node, st.lists(inner, max_size=6), st.integers(0, 50), st.text(max_size=5))
    ).filter(lambda root: root.segments > 0)


# ---------------------------------------------------------------------------------------------------------- the layout


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=80), st.floats(20, 2_000), st.floats(20, 2_000))
def test_boxes_fill_their_box_in_areas_that_follow_the_sizes(sizes: list[int], width: float, height: float) -> None:
    sizes.sort(reverse=True)
    boxes = np.array(squarified(sizes, (3.0, 7.0, width, height)))
    areas = boxes[:, 2] * boxes[:, 3]
    np.testing.assert_allclose(areas / areas.sum(), np.array(sizes) / sum(sizes), rtol=1e-6)
    assert areas.sum() == pytest.approx(width * height)
    assert (boxes[:, :2] >= np.array([3.0, 7.0]) - 1e-6).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array([3.0 + width, 7.0 + height]) + 1e-6).all()
    assert not overlapping(boxes)


def overlapping(boxes: np.ndarray) -> bool:
    left, right = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shared = np.minimum(right[:, None], right[None]) - np.maximum(left[:, None], left[None])
    both = (shared > 1e-3).all(axis=2)
    return bool(both[~np.eye(len(boxes), dtype=bool)].any())


@given(nodes())
def test_the_segments_of_a_part_are_those_of_its_children_together(root: Node) -> None:
    parts, children = outline(root)
    assert parts[0].segments == root.segments
    assert len(parts) <= MOST_PARTS
    for at, inside in children.items():
        assert sum(parts[child].segments for child in inside) == parts[at].segments
        assert all(parts[child].parent == at for child in inside)


@given(nodes())
def test_cells_lie_inside_their_parent_and_beside_one_another(root: Node) -> None:
    parts, children = outline(root)
    for focus in children:
        drawn = {cell.part: cell for cell in cells(parts, children, focus, (0.0, 0.0, WIDTH, HEIGHT))}
        assert set(children[focus]) <= set(drawn)
        for parent in {parts[at].parent for at in drawn}:
            boxes = np.array([drawn[at][1:5] for at in children[parent]])
            assert not overlapping(boxes)
            x, y, width, height = drawn[parent][1:5] if parent in drawn else (0.0, 0.0, WIDTH, HEIGHT)
            assert (boxes[:, :2] >= np.array([x, y]) - 0.2).all()
            assert (boxes[:, :2] + boxes[:, 2:] <= np.array([x + width, y + height]) + 0.2).all()
            assert parent == focus or drawn[parent].opened


def test_what_is_too_small_to_draw_is_counted_together() -> None:
    leaves = tuple(
        Node(key=str(n), kind="cluster", path=(), label=f"leaf {n}", segments=n, examples=("text",))
        for n in range(1, 5_001)
    )
    groups = tuple(
        Node(key=f"g{n}", kind="category", path=(), label=f"group {n}", segments=sum(c.segments for c in some),
             children=some)
        for n in range(50)
        for some in [leaves[n * 100 : (n + 1) * 100]]
    )  # fmt: skip
    root = Node(key="", kind="category", path=(), label="", segments=sum(g.segments for g in groups), children=groups)
    parts, children = outline(root)
    assert len(parts) <= MOST_PARTS
    largest = max(groups, key=lambda group: group.segments)
    at = next(number for number, part in enumerate(parts) if part.label == largest.label)
    rest = parts[children[at][-1]]
    assert len(children[at]) == MOST_CHILDREN + 1
    assert (rest.kind, rest.label) == ("rest", "40 more")
    assert rest.segments == sum(sorted(child.segments for child in largest.children)[:40])
    assert len(list(cells(parts, children, 0, (0.0, 0.0, WIDTH, HEIGHT)))) < 600


def test_dots_that_lines_join_are_drawn_near_each_other() -> None:
    groups = [range(12), range(12, 24)]
    lines = [(a, b) for group in groups for a in group for b in group if a < b]
    places = spread([at % 12 == 0 for at in range(24)], [*lines, (0, 12)])
    assert (places >= 0).all()
    assert (places <= (WIDTH, HEIGHT)).all()
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    same = np.arange(24)[:, None] // 12 == np.arange(24)[None] // 12
    assert far[same].mean() < 0.6 * far[~same].mean()
    assert far[~np.eye(24, dtype=bool)].min() > 12
    assert spread([], []).shape == (0, 2)
    assert spread([True], []).tolist() == [[WIDTH / 2, HEIGHT / 2]]


@given(st.text(max_size=300), st.integers(1, 80))
def test_a_line_is_short_and_holds_nothing_that_controls_what_is_around_it(text: str, limit: int) -> None:
    shown = line(text, limit)
    assert len(shown) <= limit
    assert not [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


# ------------------------------------------------------------------------------------------------------------ the page


@pytest.fixture
def lived(memory: Memory) -> Memory:
    """A memory with categories two deep, a conversation, a stated link, and texts that would like to act."""
    for number in range(30):
        memory.add(f"The ledger writes page {number} once.", category="Software / Core")
        memory.add(f"The tomatoes of row {number} want water.", category="Home / Garden")
    for text in HOSTILE:
        memory.add(text, category=["Home", text])
    said = ["Is it far?", "Ana took the train to Lisbon.", "She forgot the key.", "Then we wait."]
    memory.add([{"role": "user", "name": "Ben", "content": text} for text in said], session="s1")
    first, *_, last = memory.get_all(session="s1")
    memory.link(first.id, last.id, "answers")
    return memory


def test_the_page_holds_the_tree_with_its_counts(lived: Memory, tmp_path: Path) -> None:
    parts = page_of(lived, tmp_path).data["parts"]
    counts = {(part[0], part[1]): part[2] for part in parts}
    assert parts[0][2] == 68
    assert counts["Software", "category"] == counts["Core", "category"] == 30
    assert counts["Garden", "category"] == 30
    assert counts["Home", "category"] == 30 + len(HOSTILE)
    core = next(part for part in parts if part[0] == "Core")
    assert parts[core[3]][0] == "Software"
    assert all(text.startswith("The ledger writes") for text in core[5])
    assert core[5]


def test_what_was_stored_is_text_in_the_page_and_nothing_else(lived: Memory, tmp_path: Path) -> None:
    page = page_of(lived, tmp_path, query="alert <script> onerror {data}")
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    texts = [dot[3] for dot in page.data["dots"]] + [text for part in page.data["parts"] for text in part[5]]
    for text in HOSTILE:
        assert line(text, 600) in texts
    assert page.data["query"] == "alert <script> onerror {data}"


def test_the_page_runs_its_own_script_and_asks_nothing_of_any_network(lived: Memory, tmp_path: Path) -> None:
    page = page_of(lived, tmp_path, query="Lisbon")
    assert_it_keeps_to_itself(page)


def test_the_script_of_the_page_is_well_formed(lived: Memory, tmp_path: Path) -> None:
    script = page_of(lived, tmp_path).inside["script"][-1]
    assert len(script.splitlines()) < 300
    if node := shutil.which("node"):
        (tmp_path / "map.js").write_text(script, encoding="utf-8")
        done = subprocess.run([node, "--check", tmp_path / "map.js"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_the_graph_shows_the_hits_and_what_leads_from_one_to_another(lived: Memory, tmp_path: Path) -> None:
    query = "who took the train to Lisbon?"
    hits = lived.search(query, k=HITS)
    data = page_of(lived, tmp_path, query=query).data
    ranked = {dot[2]: dot[3] for dot in data["dots"] if dot[2]}
    assert ranked == {rank: line(hit.text, 600) for rank, hit in enumerate(hits, 1)}
    ends = {
        (kind, *sorted((data["dots"][a][3], data["dots"][b][3]))): via
        for a, b, kind, via in data["lines"]
    }  # fmt: skip
    assert ("next", "Ana took the train to Lisbon.", "She forgot the key.") in ends
    assert ("answers", "Is it far?", "Then we wait.") in ends
    assert {kind for kind, *_ in ends} <= {"next", "mentions", "similar", "answers"}
    assert len({tuple(dot[:2]) for dot in data["dots"]}) == len(data["dots"]) <= 120
    for dot in data["dots"]:
        assert 0 <= dot[0] <= WIDTH
        assert 0 <= dot[1] <= HEIGHT


def test_a_query_that_finds_nothing_is_drawn_as_that(tmp_path: Path) -> None:
    with Memory(":memory:", encoder=None) as words:
        words.add("Only words are searched here.")
        data = page_of(words, tmp_path, query="xylophone").data
    assert (data["query"], data["dots"], data["lines"]) == ("xylophone", [], [])


@pytest.mark.parametrize("many", [2_500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_thousands_of_segments_make_a_small_page(tmp_path: Path, many: int) -> None:
    kinds = ["ledger", "tree", "garden", "train", "invoice", "budget", "review", "recipe", "flight", "map"]
    with Memory(":memory:", encoder="hash") as memory:
        for area in kinds[:5]:
            texts = [f"{kinds[n % 10]} {kinds[n // 10 % 10]} {area} note {n}" for n in range(many // 5)]
            memory.add([{"role": "user", "content": text} for text in texts], category=["Work", area], session=area)
        data = page_of(memory, tmp_path).data
    assert data["parts"][0][2] == many
    assert 20 < len(data["parts"]) <= MOST_PARTS
    assert max(len(view) for view in data["views"].values()) < 800
    assert (tmp_path / "map.html").stat().st_size < 1_000_000


def test_a_hit_with_very_many_neighbors_shows_the_strongest_of_them(memory: Memory, tmp_path: Path) -> None:
    for number in range(150):
        memory.add(f"Ana and Ben met Carla for the {number}. time in Lisbon.", session=f"s{number % 3}")
    data = page_of(memory, tmp_path, query="when did Ana meet Carla?").data
    assert sum(dot[2] > 0 for dot in data["dots"]) == HITS
    assert HITS < len(data["dots"]) <= 120
    assert all(data["dots"][a][2] or data["dots"][b][2] for a, b, _, _ in data["lines"])


def test_the_same_memory_makes_the_same_file(lived: Memory, tmp_path: Path) -> None:
    for name in ("a.html", "b.html", "a.svg", "b.svg"):
        draw(lived, tmp_path / name, query="Lisbon")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_shows_its_own_namespace_only(lived: Memory, tmp_path: Path) -> None:
    lived.add("The merger is secret.", namespace="other", category="Hidden")
    mine = page_of(lived, tmp_path, query="secret merger")
    assert "secret" not in json.dumps(mine.data["parts"] + mine.data["dots"])
    other = page_of(lived, tmp_path, query="secret merger", namespace="other")
    assert other.data["parts"][0][2] == 1
    assert [dot[3] for dot in other.data["dots"]] == ["The merger is secret."]


# ---------------------------------------------------------------------------------------------------------- the picture


def test_a_picture_shows_labels_counts_and_hits_as_text(lived: Memory, tmp_path: Path) -> None:
    drawn = draw(lived, tmp_path / "map.svg", query="who took the train to Lisbon?")
    root = ElementTree.parse(tmp_path / "map.svg").getroot()
    texts = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
    for shown in ("68 segments in default", "Software", "Garden", "Ana took the train to Lisbon.", "answers"):
        assert shown in texts
    assert not [element for element in root.iter() if element.tag.endswith("}script")]
    assert drawn.bytes == (tmp_path / "map.svg").stat().st_size
    assert drawn.hits == HITS
    draw(lived, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_signs_that_no_font_has_and_that_mean_formulas_are_drawn_as_they_are(memory: Memory, tmp_path: Path) -> None:
    first = memory.add("\u4f60\u597d costs $5 or $\\broken{", category="$x_1$ \U0001f995").ids[0]
    second = memory.add("_hidden \u0b95\u0bcd").ids[0]
    memory.link(first, second, "_under$")
    draw(memory, tmp_path / "map.svg", query="$5")
    texts = "".join(ElementTree.parse(tmp_path / "map.svg").getroot().itertext())
    assert "$5 or $\\broken{" in texts
    assert "_under$" in texts
    draw(memory, tmp_path / "map.png", query="$5")


def test_without_matplotlib_a_picture_says_what_to_install(
    lived: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra) as told:
        draw(lived, tmp_path / "map.png")
    assert "memspan[pictures]" in told.value.mend
    assert draw(lived, tmp_path / "map.html").segments == 68
    assert [file.name for file in tmp_path.glob("map*")] == ["map.html"]


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_file_that_cannot_be_drawn_is_refused_by_name(lived: Memory, tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    for name in ("map.pdf", "map", "absent/map.html", "taken.html"):
        with pytest.raises(InvalidInput, match="path") as told:
            draw(lived, tmp_path / name)
        assert told.value.mend
    assert sorted(file.name for file in tmp_path.iterdir()) == ["store", "taken.html"]


def test_what_was_drawn_before_stays_when_nothing_can_be_drawn(lived: Memory, tmp_path: Path) -> None:
    draw(lived, tmp_path / "map.html")
    before = (tmp_path / "map.html").read_bytes()
    with pytest.raises(NotFound):
        draw(lived, tmp_path / "map.html", namespace="empty")
    with pytest.raises(InvalidInput, match="query"):
        draw(lived, tmp_path / "map.html", query="  ")
    assert (tmp_path / "map.html").read_bytes() == before
