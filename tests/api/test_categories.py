"""``move_category``: renaming, moving and merging what users filed, all of it or nothing, and nothing of it lost."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NotFound, StoreFull
from memspan.records import Node

Open = Callable[..., Memory]
Path = tuple[str, ...]

FILED: dict[str, Path] = {
    "One.": ("A",),
    "Two.": ("A", "B"),
    "Three.": ("A", "B", "C"),
    "Four.": ("A", "D"),
    "Five.": ("AA",),
    "Six.": ("E", "A"),
    "Seven.": (),
}


@pytest.fixture
def filed(memory: Memory) -> Memory:
    for text, path in FILED.items():
        memory.add(text, category=path)
    return memory


def paths(memory: Memory, **scope: Any) -> dict[str, Path]:
    return {segment.text: segment.category for segment in memory.get_all(limit=1_000, **scope)}


def categories(node: Node) -> Iterator[tuple[Path, int]]:
    """Each category of a tree, and how many segments are in it and below."""
    for child in node.children:
        if child.kind == "category":
            yield child.path, child.segments
        yield from categories(child)


def agrees(memory: Memory, expected: dict[str, Path], **scope: Any) -> None:
    """Listing, filters and tree all say the same."""
    assert paths(memory, **scope) == expected
    every = {path[:level] for path in expected.values() for level in range(1, len(path) + 1)}
    counts = {path: sum(there[: len(path)] == path for there in expected.values()) for path in every}
    assert dict(categories(memory.tree(depth=32, **scope))) == counts
    for path, many in counts.items():
        found = memory.get_all(filters={"category": list(path)}, limit=1_000, **scope)
        assert len(found) == many == memory.tree(path, depth=1, **scope).segments
        assert all(segment.category[: len(path)] == path for segment in found)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("A", "F", {"One.": ("F",), "Two.": ("F", "B"), "Three.": ("F", "B", "C"), "Four.": ("F", "D")}),
        ("A / B", "A / G", {"Two.": ("A", "G"), "Three.": ("A", "G", "C")}),
        ("A / B", "E / H", {"Two.": ("E", "H"), "Three.": ("E", "H", "C")}),
        ("A / B", "A / D", {"Two.": ("A", "D"), "Three.": ("A", "D", "C")}),
        ("A / B", "A", {"Two.": ("A",), "Three.": ("A", "C")}),
        (["A", "B"], ["B"], {"Two.": ("B",), "Three.": ("B", "C")}),
        ("A > B > C", "AA", {"Three.": ("AA",)}),
        ("A", None, {"One.": (), "Two.": ("B",), "Three.": ("B", "C"), "Four.": ("D",)}),
        ("A", [], {"One.": (), "Two.": ("B",), "Three.": ("B", "C"), "Four.": ("D",)}),
        ("E / A", "AA", {"Six.": ("AA",)}),
    ],
    ids=[
        "rename",
        "rename below",
        "move",
        "merge",
        "up",
        "to the top",
        "a leaf",
        "away",
        "away by a list",
        "elsewhere",
    ],
)
def test_what_is_in_it_and_below_goes_with_it_and_nothing_else(
    filed: Memory, old: Any, new: Any, moved: dict[str, Path]
) -> None:
    before = {segment.text: segment for segment in filed.get_all()}
    assert filed.move_category(old, new) == len(moved)
    agrees(filed, FILED | moved)
    for segment in filed.get_all():
        was = before[segment.text]
        if segment.text in moved:
            assert (segment.id, segment.version, segment.position) == (was.id, was.version + 1, was.position)
        else:
            assert segment == was


def test_each_keeps_its_history_what_was_known_then_and_what_leads_to_it(filed: Memory) -> None:
    one, two = (next(row for row in filed.get_all() if row.text == text) for text in ("One.", "Two."))
    filed.link(one.id, two.id, "reply")
    then = filed.get_all()[-1].recorded_at
    assert filed.move_category("A / B", "Z") == 2
    assert [(event.event, event.version, event.text) for event in filed.history(two.id)] == [
        ("ADD", 1, "Two."),
        ("UPDATE", 2, "Two."),
    ]
    assert {hit.category for hit in filed.search("Two.", as_of=then) if hit.id == two.id} == {("A", "B")}
    assert {hit.category for hit in filed.search("Two.") if hit.id == two.id} == {("Z",)}
    assert [near.id for near in filed.neighbors(one.id, "reply")] == [two.id]
    assert filed.stats()["pending"] == 0, "what did not change needs no new vector"
    assert filed.verify()["ok"]


def test_it_is_found_by_its_new_place_and_no_more_by_the_old(opened: Open) -> None:
    memory = opened()
    for text, path in FILED.items():
        memory.add(text, category=path)
    memory.move_category("A / B", "Z")
    for _ in range(2):
        assert {hit.text for hit in memory.search("Two.", filters={"category": "Z"})} == {"Two.", "Three."}
        assert "Two." not in {hit.text for hit in memory.search("Two.", filters={"category": "A"})}
        with pytest.raises(NotFound):
            memory.tree("A / B")
        memory.close()
        memory = opened()
        memory.compact()


def test_where_nothing_is_nothing_is_moved(filed: Memory) -> None:
    before = filed.get_all()
    for old in ("B", "A / C", "Nowhere", "a"):
        with pytest.raises(NotFound) as caught:
            filed.move_category(old, "F")
        assert "memory.tree()" in caught.value.mend
    with pytest.raises(NotFound):
        filed.move_category("A", "F", namespace="other")
    assert filed.get_all() == before


@pytest.mark.parametrize(
    ("old", "new", "argument"),
    [
        ("", "F", "old"),
        (None, "F", "old"),
        ([], "F", "old"),
        ("A", "A", "new"),
        ("A", "A / B", "new"),
        (["A", "B"], "A > B > C", "new"),
        ("A", ["x"] * 31, "new"),
        ("A", ["x"] * 33, "new"),
        ("A", 7, "new"),
        (7, "F", "old"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_moved(filed: Memory, old: Any, new: Any, argument: str) -> None:
    before = filed.get_all()
    with pytest.raises(InvalidInput) as caught:
        filed.move_category(old, new)
    assert (caught.value.argument, bool(caught.value.mend)) == (argument, True)
    assert filed.get_all() == before


def test_as_deep_as_may_be_is_moved(filed: Memory) -> None:
    deep = tuple("x" * (step + 1) for step in range(30))
    assert filed.move_category("A", deep) == 4
    assert paths(filed)["Three."] == (*deep, "B", "C")
    assert filed.move_category(deep, "A") == 4
    agrees(filed, FILED)


def test_another_namespace_keeps_its_categories_and_every_scope_of_this_one_moves(memory: Memory) -> None:
    for user in ("ana", "ben"):
        memory.add("One.", category="A", user_id=user, session="s")
    memory.add("One.", category="A", namespace="other")
    assert memory.move_category("A", "B") == 2
    assert paths(memory, user_id="ana") == paths(memory, user_id="ben") == {"One.": ("B",)}
    agrees(memory, {"One.": ("A",)}, namespace="other")
    assert memory.move_category("A", "C", namespace="other") == 1
    assert paths(memory, user_id="ana") == {"One.": ("B",)}


@pytest.mark.embedded("writes to its file past the engine")
def test_a_move_that_fails_leaves_all_where_they_are(opened: Open) -> None:
    memory = opened()
    turns = [{"role": "user", "content": f"Note {number} " + f"{number} " * 40} for number in range(400)]
    memory.add(turns, category="A / B")
    before = memory.get_all(limit=1_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert memory.path is not None
    room = max(file.stat().st_size for file in memory.path.iterdir()) + 40_000
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        with pytest.raises(StoreFull):  # noqa: PT012 - how many it takes is not known
            for step in range(100):
                memory.move_category(("A / B", "C")[step % 2], ("C", "A / B")[step % 2])
                before = memory.get_all(limit=1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert memory.get_all(limit=1_000) == before
    assert len({segment.category for segment in before}) == 1
    agrees(memory, paths(memory))
    assert memory.verify()["ok"]


def test_what_others_change_meanwhile_is_not_lost(opened: Open) -> None:
    """Two threads of one memory and one of another on the same store; each change is a version of its own."""
    memory, other = opened(), opened()
    ids = memory.add([{"role": "user", "content": f"Note {number}."} for number in range(6)], category="A").ids
    rounds = 12
    failed: list[BaseException] = []

    def move() -> None:
        for step in range(rounds):
            memory.move_category("AB"[step % 2], "BA"[step % 2])

    def change(through: Memory, who: str) -> None:
        for step in range(rounds):
            for id in ids:
                through.update(id, f"{who} said {step} of {id}.")

    def run(act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except BaseException as error:  # noqa: BLE001 - the test tells it
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in ((move,), (change, memory, "ana"), (change, other, "ben"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    for id in ids:
        events = memory.history(id)
        assert [event.version for event in events] == list(range(1, 3 * rounds + 2))
        said = {event.text for event in events}
        assert all(f"{who} said {step} of {id}." in said for who in ("ana", "ben") for step in range(rounds))
        assert memory.get(id).category == ("A",)
    assert memory.verify()["ok"]


# Whatever is moved where


@pytest.fixture(scope="module")
def shared() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as opened:
        yield opened


_fresh = count()
PATHS = st.lists(st.sampled_from("ABC"), max_size=3).map(tuple)


@given(
    places=st.lists(PATHS, min_size=1, max_size=8),
    moves=st.lists(st.tuples(PATHS.filter(bool), PATHS), min_size=1, max_size=5),
)
def test_it_is_what_it_would_be_in_a_list(shared: Memory, places: list[Path], moves: list[tuple[Path, Path]]) -> None:
    namespace = f"n{next(_fresh)}"
    expected: dict[str, Path] = {}
    for number, path in enumerate(places):
        shared.add(f"Note {number}.", category=path, namespace=namespace)
        expected[f"Note {number}."] = path
    for old, new in moves:
        within = {text: path for text, path in expected.items() if path[: len(old)] == old}
        if new[: len(old)] == old:
            with pytest.raises(InvalidInput):
                shared.move_category(old, new, namespace=namespace)
        elif not within:
            with pytest.raises(NotFound):
                shared.move_category(old, new, namespace=namespace)
        else:
            assert shared.move_category(old, new, namespace=namespace) == len(within)
            expected |= {text: (*new, *path[len(old) :]) for text, path in within.items()}
    agrees(shared, expected, namespace=namespace)
