"""What people do on the page, in a real browser against a real server: by mouse, by keyboard, on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pictures.chromium import find
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import served

from memspan import Memory

PATIENCE = 60_000  # milliseconds for what shall come true: only a machine that is very busy needs them
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
VIEWS = ("", "search?q=Ben", "timeline", "tree", "conflicts", "log", "status")
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script> {{1}} [9] \u202e javascript:alert(1)'
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if (program := find()) is None:
        pytest.skip("there is no Chromium on this machine")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclass(slots=True)
class Visit:
    """A page that is open, the memory behind it, and what its console said."""

    page: Page
    memory: Memory
    address: str
    said: list[str] = field(default_factory=list)

    def go(self, place: str) -> None:
        self.page.goto("about:blank")  # so that only what the address says is known
        self.page.goto(f"{self.address}/#/{place}")
        self.ready()

    def ready(self) -> None:
        expect(self.page.locator("#main")).not_to_have_attribute("aria-busy", "true")

    def hold(self, secret: str | None) -> None:
        """Have the key already, as if it had been typed in."""
        held = f"sessionStorage.setItem('memspan.key', '{secret}')"
        self.page.add_init_script(f"if (location.protocol === 'http:') {held}")

    def button(self, name: str | re.Pattern[str]) -> Any:
        return self.page.get_by_role("button", name=name)


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server over a new memory; at the end its console must have said nothing."""
    with ExitStack() as stack:
        visits: list[Visit] = []

        def opened(memory: Memory | None = None, **options: Any) -> Visit:
            memory = memory or stack.enter_context(Memory(":memory:", encoder="hash"))
            address = stack.enter_context(served(memory))
            context = browser.new_context(viewport=options.pop("viewport", DESK), reduced_motion="reduce", **options)
            stack.callback(context.close)
            made = Visit(context.new_page(), memory, address)
            made.page.on(
                "console", lambda told: made.said.append(told.text) if told.type in ("error", "warning") else None
            )
            made.page.on("pageerror", lambda error: made.said.append(str(error)))
            visits.append(made)
            return made

        yield opened
        assert [made.said for made in visits] == [[]] * len(visits)


@pytest.fixture
def told(visit: Open) -> Visit:
    """A page over what two people said, and a few notes."""
    made = visit()
    tell(made.memory)
    return made


def tell(memory: Memory) -> None:
    memory.add(
        [
            {
                "role": "user",
                "name": "Ana",
                "content": "Where shall we meet Ben after the Lisbon fair?",
                "time": "2026-05-02T10:00",
            },
            {
                "role": "user",
                "name": "Ben",
                "content": "In the café by the river, at noon.",
                "time": "2026-05-02T10:01",
            },
        ],
        session="plans",
    )
    memory.add("Ben bought his boat at the Lisbon fair.", category="People / Ben", occurred_at="2026-04-20")
    memory.add("My budget for the trip is 900 euros.", category="Travel", occurred_at="2026-03-01", user_id="ana")
    memory.add("My budget for the trip is now 1200 euros.", category="Travel", occurred_at="2026-03-14", user_id="ana")
    memory.add(
        "The beam search keeps the best nodes.", category="Software / Architecture / Core", occurred_at="2026-02-01"
    )


# ---------------------------------------------------------------------------------------------------------- the search


def test_something_is_found_with_the_reasons_and_its_citation_opens_it(told: Visit) -> None:
    told.go("")
    page = told.page
    expect(page.get_by_role("heading", name="What do you remember?")).to_be_visible()
    expect(page.get_by_text("6 memories in default")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("where to meet Ben after the fair")
    page.keyboard.press("Enter")
    first = page.locator("article.hit").first
    expect(first.get_by_role("link").first).to_have_text("Where shall we meet Ben after the Lisbon fair?")
    first.get_by_text("Why it is here").click()
    expect(first.locator(".bars li").filter(has_text="Meaning")).to_be_visible()
    expect(first.locator(".path")).to_contain_text("it stands beside “In the café by the river, at noon.”")
    context = told.memory.context("where to meet Ben after the fair", budget=1000)
    expect(page.get_by_role("meter")).to_have_attribute("aria-valuenow", str(context.tokens))
    expect(page.locator(".gauge")).to_contain_text(f"{context.tokens} of 1,000 tokens · everything in scope fits")
    number = next(each.number for each in context.citations if "boat" in told.memory.get(each.ids[0]).text)
    page.get_by_role("link", name=f"[{number}]", exact=True).click()
    expect(page.locator("#text")).to_have_text("Ben bought his boat at the Lisbon fair.")
    expect(page).to_have_url(re.compile(r"#/segment/[0-9a-f-]{36}$"))


def test_the_context_is_shown_to_the_letter(told: Visit) -> None:
    told.go("search?q=boat&budget=60")
    context = told.memory.context("boat", budget=60)
    shown = told.page.locator(".sent p").all_text_contents()
    assert "\n".join(shown).replace(" \n", "\n") == re.sub("^$", " ", context.text, flags=re.M).replace(" \n", "\n")
    assert not context.complete
    expect(told.page.locator(".gauge")).to_contain_text(f"{context.tokens} of 60 tokens")


def test_a_budget_that_holds_nothing_tells_the_mend_and_the_hits_stay(told: Visit) -> None:
    told.go("search?q=boat&budget=3")
    alert = told.page.get_by_role("alert")
    expect(alert).to_contain_text("budget")
    expect(told.page.locator("article.hit").first).to_be_visible()
    told.said.clear()  # the browser itself tells of the status 400


def test_options_are_kept_in_the_address(told: Visit) -> None:
    told.go("search?q=budget")
    told.page.get_by_text("Options").click()
    told.page.get_by_label("User").fill("ana")
    told.page.get_by_label("Recipe").select_option("keyword")
    told.button("Search").click()
    expect(told.page).to_have_url(re.compile(r"recipe=keyword&user=ana"))
    expect(told.page.get_by_role("heading", name="2 hits")).to_be_visible()


def test_the_back_button_shows_the_hits_again(told: Visit) -> None:
    told.go("search?q=Ben")
    told.page.locator("a.said").first.click()
    expect(told.page.locator("#text")).to_be_visible()
    told.page.go_back()
    expect(told.page.locator("article.hit").first).to_be_visible()
    expect(told.page.get_by_role("searchbox")).to_have_value("Ben")
    told.page.go_forward()
    expect(told.page.locator("#text")).to_be_visible()
    told.button("Back").click()
    expect(told.page.locator("article.hit").first).to_be_visible()


def test_an_empty_memory_says_how_to_begin_and_takes_the_first_memory(visit: Open) -> None:
    made = visit()
    made.go("")
    expect(made.page.get_by_text("Nothing is remembered here yet")).to_be_visible()
    made.button("Add the first memory").click()
    made.page.get_by_label("What to remember").fill("I moved to Lisbon in May.")
    made.page.get_by_role("dialog").get_by_label("User").fill("ana")
    made.page.get_by_label("Category").fill("Life / Home")
    made.button("Remember").click()
    expect(made.page.locator("#text")).to_have_text("I moved to Lisbon in May.")
    (segment,) = made.memory.get_all()
    assert (segment.user_id, segment.category) == ("ana", ("Life", "Home"))


# -------------------------------------------------------------------------------------------------------- one memory


def test_a_memory_is_corrected_and_its_history_shows_what_changed(told: Visit) -> None:
    (id,) = told.memory.add("The spare key hangs behind the blue door.").ids
    told.go(f"segment/{id}")
    told.button("Edit").click()
    text = told.page.get_by_label("What to remember")
    text.fill("The spare key hangs behind the green door.")
    told.button("Save").click()
    expect(told.page.locator("#text")).to_have_text("The spare key hangs behind the green door.")
    expect(told.page.locator(".events ins")).to_have_text("green")
    expect(told.page.locator(".events del")).to_have_text("blue")
    assert told.memory.get(id).version == 2
    told.button("Undo").click()
    expect(told.page.locator("#text")).to_have_text("The spare key hangs behind the blue door.")


def test_a_memory_that_was_changed_meanwhile_is_not_overwritten(told: Visit) -> None:
    (id,) = told.memory.add("The spare key hangs behind the blue door.").ids
    told.go(f"segment/{id}")
    told.button("Edit").click()
    told.memory.update(id, "The spare key is lost.")
    told.page.get_by_label("What to remember").fill("The spare key is mine.")
    told.button("Save").click()
    expect(told.page.get_by_role("alert").filter(has_text="version")).to_be_visible()
    assert told.memory.get(id).text == "The spare key is lost."
    told.said.clear()  # the browser itself tells of the status 412


def test_a_memory_is_deleted_and_comes_back(told: Visit) -> None:
    (id,) = told.memory.add("A passing thought.").ids
    told.go(f"segment/{id}")
    told.button("Delete").click()
    expect(told.page.get_by_role("heading", name="This memory was deleted")).to_be_visible()
    expect(told.page.get_by_role("status").filter(has_text="Deleted")).to_be_visible()
    assert not [row for row in told.memory.get_all() if row.id == id]
    told.button("Undo").click()
    expect(told.page.locator("#text")).to_have_text("A passing thought.")
    assert told.memory.get(id).text == "A passing thought."


def test_the_log_takes_back_what_was_done_and_says_so(told: Visit) -> None:
    (id,) = told.memory.add("A passing thought.").ids
    told.memory.delete(id)
    told.go("log")
    rows = told.page.locator(".operations li")
    expect(rows.first).to_contain_text("Deleted")
    rows.first.get_by_role("button", name="Undo").click()
    expect(rows.first).to_contain_text("Took back (deleted)")
    expect(rows.nth(1)).to_contain_text("taken back")
    assert told.memory.get(id).text == "A passing thought."


def test_what_is_not_there_is_told_with_the_mend(told: Visit) -> None:
    told.go("segment/00000000-0000-7000-8000-000000000000")
    expect(told.page.get_by_role("heading", name="No such memory")).to_be_visible()
    told.said.clear()  # the browser itself tells of the status 404


def test_the_graph_is_walked_by_mouse_and_by_keyboard(told: Visit) -> None:
    first, second = (row.id for row in told.memory.get_all(session="plans"))
    told.go(f"segment/{first}")
    graph = told.page.locator("svg.graph")
    expect(graph.get_by_role("link", name="In the café by the river, at noon. (beside it)")).to_be_visible()
    graph.get_by_role("link", name="In the café").click()
    expect(told.page.locator("#text")).to_have_text("In the café by the river, at noon.")
    expect(told.page).to_have_url(re.compile(second))
    told.button("2 hops").click()
    expect(told.button("2 hops")).to_have_attribute("aria-pressed", "true")
    expect(told.button("2 hops")).to_be_focused()
    nodes = graph.locator("a.node")
    expect(graph.get_by_role("link", name="Ben bought his boat")).to_be_visible()
    told.page.keyboard.press("Tab")
    told.page.keyboard.press("Tab")
    expect(nodes.first).to_be_focused()
    told.page.keyboard.press("ArrowDown")
    expect(nodes.nth(1)).to_be_focused()
    told.page.keyboard.press("Enter")
    expect(told.page).not_to_have_url(re.compile(second))


# --------------------------------------------------------------------------------------------------- the other views


def test_a_conflict_is_accepted_and_that_can_be_undone(told: Visit) -> None:
    told.go("conflicts")
    pair = told.page.locator("article.pair").first
    expect(pair).to_contain_text("another number")
    expect(pair.locator("ins").last).to_have_text("1200")
    pair.get_by_role("button", name="The later one counts").click()
    expect(told.page.get_by_text("Nothing seems to contradict")).to_be_visible()
    assert told.memory.operations(limit=1)[0].verb == "accept"
    told.button("Undo").click()
    expect(pair).to_be_visible()
    pair.get_by_role("button", name="Both stand").click()
    expect(told.page.get_by_text("Nothing seems to contradict")).to_be_visible()
    assert told.memory.operations(limit=1)[0].verb == "reject"


def test_the_tree_is_browsed_by_keyboard_only(told: Visit) -> None:
    told.go("tree")
    page, item = told.page, told.page.get_by_role("treeitem")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "treeitem":
            break
    expect(item.filter(has_text="Everything").first).to_be_focused()
    page.keyboard.press("s")
    expect(page.locator('[role="treeitem"]:focus > .branch .name')).to_have_text("Software")
    for name in ("Architecture", "Core"):
        page.keyboard.press("ArrowRight")
        expect(page.locator('[role="treeitem"]:focus > ul > li .name').first).to_have_text(name)
        page.keyboard.press("ArrowRight")
        expect(page.locator('[role="treeitem"]:focus > .branch .name')).to_have_text(name)
    page.keyboard.press("Enter")
    expect(page.locator(".within .line")).to_have_text(re.compile("The beam search keeps the best nodes"))
    expect(page).to_have_url(re.compile("at=Software&at=Architecture&at=Core"))
    page.keyboard.press("ArrowLeft")
    expect(page.locator('[role="treeitem"]:focus > .branch .name')).to_have_text("Architecture")
    page.keyboard.press("ArrowLeft")
    expect(page.locator('[role="treeitem"]:focus')).to_have_attribute("aria-expanded", "false")


def test_the_timeline_zooms_into_what_is_dragged_over_and_out_again(told: Visit) -> None:
    told.go("timeline")
    window = told.page.locator(".window")
    expect(window).to_contain_text("6 memories from 1 Feb 2026 to 2 May 2026")
    box = told.page.locator(".chart svg").bounding_box()
    assert box is not None
    told.page.mouse.move(box["x"] + 2, box["y"] + 60)
    told.page.mouse.down()
    told.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=4)
    told.page.mouse.up()
    expect(window).to_contain_text("2 memories")
    expect(told.page.locator(".line")).to_have_count(2)
    told.page.go_back()
    expect(window).to_contain_text("6 memories")
    told.page.locator(".chart").focus()
    told.page.keyboard.press("+")
    expect(window).not_to_contain_text("6 memories")
    told.page.keyboard.press("0")
    expect(window).to_contain_text("6 memories")


def test_a_long_timeline_has_few_rows_and_goes_anywhere(visit: Open) -> None:
    made = visit()
    made.memory.add(
        [{"role": "user", "content": f"turn {n}", "time": 1.7e9 + 60 * n} for n in range(3_000)], session="long"
    )
    made.go("timeline")
    page, rows = made.page, made.page.locator(".line")
    expect(rows.first).to_contain_text("turn 0")
    rows.first.focus()
    page.keyboard.press("End")
    expect(page.locator(".line:focus")).to_contain_text("turn 2999")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".line:focus")).to_contain_text("turn 2998")
    assert rows.count() < 120
    page.keyboard.press("Home")
    expect(page.locator(".line:focus")).to_contain_text("turn 0")
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_text("turn 0")


def test_a_day_is_that_day_in_every_time_zone(visit: Open) -> None:
    made = visit(timezone_id="America/Los_Angeles")
    made.memory.add("Booked the flight.", occurred_at="2026-03-01")
    made.memory.add("Landed.", occurred_at="2026-03-02T01:30:00")
    made.go("timeline")
    expect(made.page.locator(".line time")).to_have_text(["1 Mar 2026", "1 Mar 202617:30"])


def test_another_namespace_shows_only_what_is_in_it(told: Visit) -> None:
    told.memory.add("Only for Acme.", namespace="acme")
    told.go("")
    told.page.get_by_label("Namespace").select_option("acme")
    expect(told.page.get_by_text("1 memory in acme")).to_be_visible()
    expect(told.page).to_have_url(re.compile(r"in=acme"))
    told.page.locator("a.card").click()
    expect(told.page.locator("#text")).to_have_text("Only for Acme.")
    told.go("search?q=boat&in=acme")
    expect(told.page.locator("article.hit")).to_have_count(1)


# -------------------------------------------------------------------------------------------------------------- keys


def test_a_key_is_made_and_revoked(told: Visit) -> None:
    told.go("status")
    expect(told.page.get_by_text("The server is ready")).to_be_visible()
    expect(told.page.get_by_text("There are no keys")).to_be_visible()
    told.button("Make a key").click()
    told.page.get_by_label("Name", exact=True).fill("laptop")
    told.button("Make it").click()
    secret = told.page.locator(".secret").inner_text()
    told.button("Done").click()
    row = told.page.get_by_role("row", name="laptop")
    expect(row).to_contain_text("read, write, admin")
    made = told.memory.api_key(secret)
    assert made is not None
    assert (made.name, made.namespaces) == ("laptop", ("*",))
    told.button("Make a key").click()
    told.page.get_by_label("Name", exact=True).fill("phone")
    told.button("Make it").click()
    other = told.page.locator(".secret").inner_text()
    told.button("Done").click()
    told.button("Revoke phone").click()
    told.button(re.compile("^Revoke$")).click()
    expect(told.page.get_by_role("row", name="phone")).to_contain_text("revoked")
    assert told.memory.api_key(other) is None
    assert told.memory.api_key(secret) is not None


def test_a_wrong_key_is_told_and_the_right_one_opens_the_memory(told: Visit) -> None:
    key = told.memory.create_api_key("laptop", namespaces="*", rights=["read", "write", "admin"])
    assert key.secret is not None
    told.page.goto(f"{told.address}/#/search?q=boat")
    dialog = told.page.get_by_role("dialog")
    expect(dialog).to_contain_text("This server asks for a key")
    dialog.get_by_label("API key").fill("ms_wrong")
    dialog.get_by_role("button", name="Open").click()
    expect(dialog).to_contain_text("This key does not open the memory")
    expect(dialog).to_contain_text("the API key is not valid")
    dialog.get_by_label("API key").fill(key.secret)
    dialog.get_by_role("button", name="Open").click()
    expect(told.page.locator("article.hit").first).to_contain_text("boat")
    assert told.page.evaluate("Object.values(localStorage).join() + document.cookie + location.href").find("ms_") < 0
    told.go("search?q=café")
    expect(told.page.locator("article.hit").first).to_be_visible()
    told.said.clear()  # the browser itself tells of the status 401


def test_a_key_that_may_only_read_is_told_what_it_may_not(told: Visit) -> None:
    key = told.memory.create_api_key("reader", namespaces="default", rights="read")
    (id,) = told.memory.add("A passing thought.").ids
    told.hold(key.secret)
    told.go(f"segment/{id}")
    told.button("Delete").click()
    expect(told.page.get_by_role("status").filter(has_text="has no right to write")).to_be_visible()
    assert told.memory.get(id)
    told.go("status")
    expect(told.page.get_by_text("may see keys")).to_be_visible()
    expect(told.page.locator(".numbers")).to_contain_text("in default")
    told.said.clear()  # the browser itself tells of the status 403


# ------------------------------------------------------------------------------------------- how it looks and behaves


def test_what_was_stored_is_shown_as_text_and_cannot_act(visit: Open) -> None:
    made = visit()
    for text in (HOSTILE, f"{HOSTILE} now 2 Ben", f"{HOSTILE} now 3 Ben"):
        made.memory.add(
            text, category=["Home", HOSTILE], session=HOSTILE, user_id=HOSTILE, metadata={HOSTILE[:80]: HOSTILE}
        )
    for view in VIEWS:
        made.go(view)
        expect(made.page.locator("#main h1")).to_have_count(1)
        assert made.page.evaluate("document.querySelectorAll('img, #main script').length") == 0, view
        assert not made.page.title().isdigit(), view
    made.go(f"segment/{made.memory.get_all()[0].id}")
    expect(made.page.locator("#text")).to_have_text(HOSTILE)
    assert made.page.evaluate("document.querySelectorAll('img, #main script').length") == 0


def test_nothing_is_wider_than_a_phone(visit: Open) -> None:
    made = visit(viewport=PHONE, has_touch=True)
    tell(made.memory)
    (id,) = made.memory.add("Unbroken" * 60, category=["Wide" * 40], user_id="u" * 90).ids
    made.memory.create_api_key("laptop" * 9, namespaces=["default", "other"], rights="read")
    admin = made.memory.create_api_key("admin", namespaces="*", rights=["read", "write", "admin"])
    made.hold(admin.secret)
    for view in (*VIEWS, f"segment/{id}"):
        made.go(view)
        assert made.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], view
        assert made.page.evaluate(
            "[...document.querySelectorAll('nav a')].every(a => a.getBoundingClientRect().height >= 40)"
        ), view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(visit: Open, scheme: str) -> None:
    made = visit(color_scheme=scheme)
    tell(made.memory)
    for view in (*VIEWS, f"segment/{made.memory.get_all()[0].id}"):
        made.go(view)
        assert made.page.evaluate(CONTRAST) == [], view
    bright = made.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (bright == "rgb(251, 250, 248)") == (scheme == "light")


def test_the_theme_is_chosen_and_kept(told: Visit) -> None:
    told.go("")
    told.button("Dark theme").click()
    expect(told.page.locator("html")).to_have_class("dark")
    told.go("log")
    expect(told.page.locator("html")).to_have_class("dark")
    told.button("Light theme").click()
    expect(told.page.locator("html")).to_have_class("light")


def test_the_keyboard_reaches_everything(told: Visit) -> None:
    told.go("search?q=Ben")
    page = told.page
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).not_to_be_focused()
    hits = page.locator("a.said")
    hits.first.focus()
    page.keyboard.press("ArrowDown")
    expect(hits.nth(1)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("a")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_server_that_went_away_is_told_with_the_mend(visit: Open) -> None:
    made = visit()
    made.memory.add("Something.")
    made.go("")
    made.page.route("**/v1/**", lambda route: route.abort())
    made.page.get_by_role("link", name="Log").click()
    expect(made.page.get_by_role("alert")).to_contain_text("The server does not answer")
    made.page.unroute("**/v1/**")
    made.button("Try again").click()
    expect(made.page.locator(".operations li")).to_have_count(1)
    made.said.clear()  # the browser itself tells of the lost connection
