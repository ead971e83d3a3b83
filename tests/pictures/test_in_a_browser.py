"""The pages in a real browser: they are drawn, light and dark, and do what their words say; and nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from memspan import Memory
from memspan.pictures import heatmap, plot, timeline
from memspan.pictures.files import line
from memspan.pictures.map import draw as draw_map
from memspan.pictures.reduction import Plane
from memspan.records import Segment

from .chromium import Chromium
from .pages import HOSTILE

HOME, CORE = "#4269d0", "#efb118"  # the colours of the two largest groups of ``told``: equal counts, by name

DRAWN: dict[str, Callable[[Memory, Path], Any]] = {
    "map": lambda memory, file: draw_map(memory, file, query="tomatoes"),
    "plot": plot.draw,
    "heatmap": heatmap.draw,
    "timeline": timeline.draw,
}


def pixels(browser: Chromium) -> np.ndarray:
    """What is seen, float[height, width, 3] in [0, 1]."""
    return imread(io.BytesIO(browser.picture()))[:, :, :3]


def drawing(browser: Chromium) -> np.ndarray:
    """As ``pixels``, of the canvas alone."""
    x, y, wide, tall = browser.run(
        "(box => [box.x, box.y, box.width, box.height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    return pixels(browser)[int(y) : int(y + tall), int(x) : int(x + wide)]


def count(image: np.ndarray, color: str) -> int:
    """How many pixels have about this colour."""
    wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return int((np.abs(image - wanted).max(axis=2) < 0.12).sum())


def stage(browser: Chromium) -> tuple[float, float]:
    """Where the canvas begins on the screen."""
    box = browser.run("(({x, y}) => [x, y])(document.querySelector('canvas').getBoundingClientRect())")
    return box[0], box[1]


def place_of(browser: Chromium, text: str) -> tuple[float, float]:
    """Where on the screen the point with this text is."""
    left, top = stage(browser)
    x, y = browser.run(f"placeOf(points.texts.indexOf({json.dumps(text)}))")
    return left + x, top + y


def tip(browser: Chromium) -> str | None:
    return browser.run("at('tip').hidden ? null : at('tip').innerText")


def point_at(browser: Chromium, x: float, y: float) -> str | None:
    browser.mouse("mouseMoved", x, y)
    browser.settle()
    return tip(browser)


@pytest.fixture
def plotted(told: Memory, tmp_path: Path) -> Path:
    plot.draw(told, tmp_path / "plot.html")
    return tmp_path / "plot.html"


# ------------------------------------------------------------------------------------------------------------ all pages


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"map"}))
def test_a_page_is_drawn_light_and_dark_without_a_complaint(
    browser: Chromium, told: Memory, tmp_path: Path, name: str
) -> None:
    DRAWN[name](told, tmp_path / "page.html")
    seen = {}
    for dark in (False, True):
        browser.open(tmp_path / "page.html", dark=dark)
        seen[dark] = pixels(browser)
        assert browser.said == []
        assert browser.run("at('title').textContent") == "50 segments in default"
    assert seen[False].mean() > 0.75
    assert seen[True].mean() < 0.35
    browser.run("at('theme').click()")
    browser.settle()
    assert pixels(browser).mean() > 0.75
    assert browser.run("at('theme').textContent") == "Dark"


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_what_was_stored_cannot_act(browser: Chromium, told: Memory, tmp_path: Path, name: str) -> None:
    DRAWN[name](told, tmp_path / "page.html")
    if name == "map":
        browser.ask("Page.navigate", url=(tmp_path / "page.html").as_uri())
        browser.until("document.querySelector('.cell')")
    else:
        browser.open(tmp_path / "page.html")
    assert browser.run("document.querySelectorAll('img, script').length") == 2
    assert browser.said == []


@pytest.mark.parametrize("size", [(360, 640), (700, 400), (2_400, 1_300)])
def test_a_page_fits_small_and_large_windows(browser: Chromium, plotted: Path, size: tuple[int, int]) -> None:
    browser.open(plotted, size=size)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    places = browser.run("points.texts.map((_, number) => placeOf(number))")
    wide, tall = browser.run("[canvas.clientWidth, canvas.clientHeight]")
    assert all(0 <= x <= wide and 0 <= y <= tall for x, y in places)
    assert count(drawing(browser), CORE) > 50


# ------------------------------------------------------------------------------------------------------------- the plot


def test_pointing_at_a_point_shows_its_text_time_speaker_and_category(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    said = point_at(browser, *place_of(browser, "ana says hello"))
    assert said is not None
    assert said.splitlines() == ["ana says hello", "2024-03-05 10:00 · Ana", "session ana's talk"]
    assert "Work / Core" in (point_at(browser, *place_of(browser, "The ledger writes page 3 once.")) or "")
    left, top = stage(browser)
    assert point_at(browser, left + 2, top + 2) is None


def test_hostile_texts_are_shown_as_they_are(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    for text in HOSTILE:
        shown = point_at(browser, *place_of(browser, line(text, 160)))
        assert shown is not None
        assert " ".join(line(text, 160).split()) in " ".join(shown.split())
        assert browser.run(
            "[...at('tip').querySelectorAll('*')].every(part => ['DIV', 'SMALL'].includes(part.tagName))"
        )
    assert browser.said == []


def test_a_click_keeps_the_text_until_the_next_one(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    x, y = place_of(browser, "ana says hello")
    browser.click(x, y)
    left, top = stage(browser)
    assert "ana says hello" in (point_at(browser, left + 2, top + 2) or "")
    card = "at('tip').getBoundingClientRect().x"
    before = browser.run(card)
    browser.run("canvas.focus()")
    browser.press("ArrowLeft")
    assert browser.run(card) == pytest.approx(before + 60, abs=1)
    browser.click(left + 2, top + 2)
    assert tip(browser) is None


def test_words_that_are_searched_for_mark_the_points_that_have_them(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    before = count(drawing(browser), HOME)
    browser.press("/")
    browser.type("LEDGER once")
    browser.until("at('found').textContent")
    browser.settle()
    assert browser.run("at('found').textContent") == "20 of 50"
    after = drawing(browser)
    assert count(after, CORE) > 100
    assert count(after, HOME) < before / 4
    browser.press("Enter")
    first = tip(browser)
    assert "ledger" in (first or "")
    browser.press("Enter")
    assert "ledger" in (tip(browser) or "")
    assert tip(browser) != first
    browser.press("Escape")
    assert browser.run("[at('found').textContent, at('search').value]") == ["", ""]
    browser.run("at('reset').click()")
    browser.settle()
    assert count(drawing(browser), HOME) == before


def test_a_click_on_a_group_hides_it_and_a_double_click_shows_it_alone(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    assert count(drawing(browser), HOME) > 0
    box = "document.querySelectorAll('#legend button')[%d].getBoundingClientRect()"
    x, y = browser.run(f"(box => [box.x + 40, box.y + 8])({box % 0})")
    browser.click(x, y)
    assert browser.run("document.querySelector('#legend button').getAttribute('aria-pressed')") == "false"
    assert count(drawing(browser), HOME) == 0
    assert point_at(browser, *place_of(browser, "The tomatoes of row 3 want water.")) is None
    browser.click(x, y)
    assert count(drawing(browser), HOME) > 0
    browser.click(x, y)
    browser.click(x, y, count=2)
    assert browser.run("[...document.querySelectorAll('#legend [aria-pressed=true]')].length") == 1
    assert count(drawing(browser), CORE) == 0
    assert count(drawing(browser), HOME) > 0


def test_the_wheel_zooms_around_the_pointer_a_drag_moves_and_reset_shows_everything(
    browser: Chromium, plotted: Path
) -> None:
    browser.open(plotted)
    whole = browser.run("points.texts.map((_, number) => placeOf(number))")
    text = "The ledger writes page 3 once."
    x, y = place_of(browser, text)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
    browser.until("view.zoom > 1.5")
    assert place_of(browser, text) == pytest.approx((x, y), abs=2)
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x + 70, y - 40, button="left")
    browser.mouse("mouseReleased", x + 70, y - 40, button="left", clickCount=1)
    browser.settle()
    assert place_of(browser, text) == pytest.approx((x + 70, y - 40), abs=2)
    browser.run("at('reset').click()")
    browser.settle()
    assert browser.run("points.texts.map((_, number) => placeOf(number))") == whole


def test_two_fingers_zoom(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    for kind, apart in (("touchStart", 60), ("touchMove", 90), ("touchMove", 180), ("touchEnd", None)):
        points = [] if apart is None else [{"x": 500 - apart, "y": 400, "id": 0}, {"x": 500 + apart, "y": 400, "id": 1}]
        browser.ask("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert browser.run("view.zoom") == pytest.approx(3, rel=0.1)


def test_the_keys_move_zoom_and_reset(browser: Chromium, plotted: Path) -> None:
    browser.open(plotted)
    browser.run("canvas.focus()")
    start = browser.run("view.x")
    browser.press("ArrowRight")
    assert browser.run("view.x") > start
    browser.press("+")
    assert browser.run("view.zoom") == pytest.approx(1.4)
    browser.press("-")
    assert browser.run("view.zoom") == pytest.approx(1)
    browser.press("0")
    assert browser.run("[view.x, view.zoom]") == [start, 1]


def test_without_webgl_the_same_is_drawn_by_the_processor(
    browser: Chromium, browser_without_webgl: Chromium, plotted: Path
) -> None:
    seen = []
    for each, painter in ((browser, "webgl"), (browser_without_webgl, "flat")):
        each.open(plotted)
        assert each.run("canvas.dataset.painter") == painter
        assert "ana says hello" in (point_at(each, *place_of(each, "ana says hello")) or "")
        each.mouse("mouseMoved", 2, 2)
        each.settle()
        seen.append(drawing(each))
        each.run("at('search').value = 'ledger', search()")
        each.settle()
        assert count(drawing(each), HOME) == 0
        assert each.said == []
    inked = [np.abs(image - image[0, 0]).max(axis=2) > 0.15 for image in seen]
    assert inked[1].sum() == pytest.approx(inked[0].sum(), rel=0.4)
    assert (inked[0] & inked[1]).sum() > 0.7 * inked[0].sum()


def test_a_point_alone_is_in_the_middle(browser: Chromium, memory: Memory, tmp_path: Path) -> None:
    memory.add("Alone.")
    plot.draw(memory, tmp_path / "plot.html")
    browser.open(tmp_path / "plot.html")
    wide, tall = browser.run("[canvas.clientWidth, canvas.clientHeight]")
    assert browser.run("placeOf(0)") == pytest.approx((wide / 2, tall / 2), abs=3)
    assert "Alone." in (point_at(browser, *place_of(browser, "Alone.")) or "")


def test_points_on_one_spot_say_how_many_they_are(browser: Chromium, memory: Memory, tmp_path: Path) -> None:
    for number in range(4):
        memory.add("Always the same.", session=f"s{number}")
    plot.draw(memory, tmp_path / "plot.html")
    browser.open(tmp_path / "plot.html")
    assert "3 more on this spot" in (point_at(browser, *place_of(browser, "Always the same.")) or "")


@pytest.mark.parametrize("points", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_points_are_drawn_found_and_searched(browser: Chromium, tmp_path: Path, points: int) -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(points, 2)) + np.repeat([[0, 0], [6, 1]], points // 2, axis=0)
    said = datetime(2024, 1, 1, tzinfo=UTC)
    segments = [
        Segment(
            id=str(at),
            seq=at,
            version=1,
            namespace="n",
            recorded_at=said,
            text=f"note {at} of {'tea' if at % 4 else 'coffee'}, {' '.join(map(str, rng.integers(0, 999, 20)))}",
            category=("left",) if at < points // 2 else ("right",),
        )
        for at in range(points)
    ]
    raw = plot.page(segments, Plane(places=places), plot.coloured(segments, None), "many", "")
    assert len(raw) < 80 * points
    (tmp_path / "plot.html").write_bytes(raw)
    browser.open(tmp_path / "plot.html")
    assert count(drawing(browser), HOME) > 5_000
    assert count(drawing(browser), CORE) > 5_000
    browser.run("at('search').value = 'coffee', search()")
    assert browser.run("at('found').textContent") == f"{points // 4:,} of {points:,}"
    browser.run("at('search').value = 'note 17777 of', search()")
    assert browser.run("found.length") == 1
    x, y = place_of(browser, line(segments[17_777].text, 160))
    assert "note 17777 of" in (point_at(browser, x, y) or "")
    assert browser.said == []


# --------------------------------------------------------------------------------------------------------- the heat map


def test_the_heat_map_tells_row_and_value_under_the_pointer(browser: Chromium, told: Memory, tmp_path: Path) -> None:
    heatmap.draw(told, tmp_path / "heat.html")
    segments, vectors = told.embeddings()
    order = sorted(range(len(segments)), key=lambda at: segments[at].time)
    browser.open(tmp_path / "heat.html")
    left, top = stage(browser)
    wide, tall = browser.run("[canvas.clientWidth, canvas.clientHeight]")
    dims = vectors.shape[1]
    for row, dim in ((0, 0), (7, 100), (49, dims - 1)):
        said = point_at(browser, left + (dim + 0.5) / dims * wide, top + (row + 0.5) / 50 * tall) or ""
        assert line(segments[order[row]].text, 160) in said
        assert f"dimension {dim}: {vectors[order[row], dim]:.4f}".replace("-0.0000", "0.0000") in said
        assert f"row {row + 1}" in said
    browser.mouse("mouseWheel", left + 1, top + 1, deltaX=0, deltaY=-300)
    browser.until("view.zoom > 1.5")
    assert line(segments[order[0]].text, 160) in (point_at(browser, left + 1, top + 1) or "")


# --------------------------------------------------------------------------------------------------------- the timeline


def test_the_timeline_tells_bins_and_sessions_under_the_pointer(
    browser: Chromium, told: Memory, tmp_path: Path
) -> None:
    timeline.draw(told, tmp_path / "time.html")
    browser.open(tmp_path / "time.html")
    left, top = stage(browser)
    noon = int(datetime(2024, 3, 5, 12, tzinfo=UTC).timestamp() * 1_000)
    x = left + browser.run(f"across({noon})")
    said = point_at(browser, x, top + browser.run("TOP + room.tall - 3")) or ""
    assert said.splitlines() == ["2024-03-05: 4", "ana: 3", "no user: 1"]
    number = browser.run('sessions.names.indexOf("ana\'s talk")')
    box = browser.run(f"bar({number})")
    said = point_at(browser, left + box[0] + 1, top + box[1] + box[3] / 2) or ""
    assert said.splitlines() == [
        "ana's talk",
        "ana",
        "2024-03-05 10:00 – 2024-03-05 12:00",
        "3 segments",
        "ana says hello",
    ]


def test_zooming_into_the_timeline_counts_by_a_finer_unit(browser: Chromium, told: Memory, tmp_path: Path) -> None:
    timeline.draw(told, tmp_path / "time.html")
    browser.open(tmp_path / "time.html")
    assert browser.run("canvas.dataset.unit") == "day"
    left, top = stage(browser)
    begin = int(datetime(2024, 3, 5, 10, tzinfo=UTC).timestamp() * 1_000)
    for _ in range(8):
        x = browser.run(f"across({begin + 1_800_000})")
        browser.mouse("mouseWheel", left + x, top + 100, deltaX=0, deltaY=-300)
        browser.settle()
    browser.until("canvas.dataset.unit === 'hour'")
    x = browser.run(f"across({begin + 1_800_000})")
    assert point_at(browser, left + x, top + 100) == "2024-03-05 10:00: 1"
    browser.run("at('reset').click()")
    browser.until("canvas.dataset.unit === 'day'")


def test_a_group_that_is_hidden_is_neither_counted_nor_drawn(browser: Chromium, told: Memory, tmp_path: Path) -> None:
    timeline.draw(told, tmp_path / "time.html", color="category")
    browser.open(tmp_path / "time.html")
    assert count(drawing(browser), CORE) > 100
    browser.run("document.querySelectorAll('#legend button')[1].click()")
    browser.settle()
    assert count(drawing(browser), CORE) == 0


@pytest.mark.parametrize("sessions", [1, 300, pytest.param(3_000, marks=pytest.mark.soak)])
def test_one_session_and_thousands_are_legible(
    browser: Chromium, memory: Memory, tmp_path: Path, sessions: int
) -> None:
    for number in range(sessions):
        said = {"role": "user", "name": "Ana", "content": f"note {number}", "time": 1.7e9 + number * 9_000}
        memory.add([said], session=f"talk {number}", wait=False)
    timeline.draw(memory, tmp_path / "time.html")
    browser.open(tmp_path / "time.html")
    boxes = np.array(browser.run("[...sessions.lane].map((_, number) => bar(number))"))
    assert boxes[:, 2:].min() >= 2
    assert boxes[:, 0].min() >= 0
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 1_030
    for lane in np.unique(boxes[:, 1]):
        row = boxes[boxes[:, 1] == lane]
        assert (row[1:, 0] >= row[:-1, 0] + row[:-1, 2] - 1).all()
    assert count(drawing(browser), HOME) > 100
