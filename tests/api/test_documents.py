"""Long texts and files: cut into segments, found by their parts, put back together to the character."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NotFound, Segment

Open = Callable[..., Memory]

STORY = "\n\n".join(
    f"Chapter {n}. " + " ".join(f"In chapter {n} the traveller met guest {n * 40 + i}." for i in range(40))
    for n in range(6)
)
GUIDE = """# Guide

Some words before anything else.

## Install

Run the installer and wait.

## Use

### First steps

Open the window; the aardvark appears.
"""
PAGE = """<!doctype html><html><head><title>The page of birds</title><style>p {color: red}</style></head>
<body><nav>menu</nav><h1>Birds</h1><p>The heron stands in water &amp; waits.</p>
<h2>Food</h2><ul><li>fish</li><li>frogs</li></ul><script>alert("no")</script></body></html>
"""
CODE = '''"""A module."""


def greet(name: str) -> str:
    return f"hello {name}"


class Door:
    def open(self) -> None:
        """Open the portcullis."""
'''


def parts_of(memory: Memory, document_id: str, **scope: str) -> list[Segment]:
    return memory.get_all(filters={"document_id": document_id}, limit=10_000, **scope)


# Long texts


def test_a_long_text_is_cut_within_the_window_and_put_back_exactly(memory: Memory) -> None:
    added = memory.add(f"  {STORY}\n\n \t", user_id="ana", category="Books", metadata={"isbn": 1})
    assert added.document_id is not None
    parts = parts_of(memory, added.document_id)
    assert [part.id for part in parts] == list(added.ids)
    assert [part.position for part in parts] == list(range(len(parts)))
    assert len(parts) > 4
    assert all(0 < part.tokens <= 512 and part.text.strip() == part.text for part in parts)
    assert all(part.text.endswith(".") for part in parts)  # at the borders of sentences
    assert {(part.user_id, part.category, part.metadata["isbn"]) for part in parts} == {("ana", ("Books",), 1)}
    document = memory.document(added.document_id)
    assert document.text == f"  {STORY}\n\n \t"
    assert document.segments == added.ids
    assert (document.uri, document.title, document.media) == (None, None, "text")


@given(st.text(st.sampled_from(" \n\t\r\u2028.,a东é#'🙂\u0301x1>[]"), min_size=1, max_size=3_000))
def test_any_long_text_is_put_back_to_the_character(text: str) -> None:
    if not text.strip():
        return
    with Memory(":memory:", encoder="hash") as memory:
        whole = f"{text} and then some more. " * 3 + "The sentence before the last one is this. " * 90
        added = memory.add(whole)
        assert added.document_id is not None
        assert memory.document(added.document_id).text == whole


def test_the_same_long_text_again_is_a_repeat(memory: Memory) -> None:
    first = memory.add(STORY)
    again = memory.add(STORY)
    assert (again.ids, again.document_id, again.added) == (first.ids, first.document_id, 0)
    assert again.repeated == len(first.ids)


@pytest.mark.parametrize("as_message", [False, True], ids=["text", "message"])
def test_the_same_long_text_at_another_time_is_another_document(memory: Memory, as_message: bool) -> None:
    added = [
        memory.add([{"role": "user", "content": STORY}] if as_message else STORY, session="s", occurred_at=day)
        for day in ("2026-01-01", "2026-01-02")
    ]
    assert len({each.document_id for each in added}) == 2
    for each in added:
        assert each.document_id is not None
        assert memory.document(each.document_id).text == STORY


def test_the_same_long_message_twice_in_one_call_is_two_documents(memory: Memory) -> None:
    said = [{"role": "user", "content": STORY}, {"role": "user", "content": STORY}]
    added = memory.add(said, session="s")
    documents = {memory.get(id).document_id for id in added.ids}
    assert len(documents) == 2
    assert [memory.document(id).text for id in documents if id] == [STORY, STORY]
    assert memory.add(said, session="s").repeated == len(added.ids)


def test_a_document_of_another_namespace_is_not_found(memory: Memory) -> None:
    added = memory.add(STORY, namespace="theirs")
    assert added.document_id is not None
    with pytest.raises(NotFound, match="no document"):
        memory.document(added.document_id)
    assert memory.document(added.document_id, namespace="theirs").text == STORY


def test_a_document_that_was_deleted_is_not_found_and_can_be_added_again(memory: Memory) -> None:
    added = memory.add(STORY)
    assert added.document_id is not None
    assert memory.erase(filters={"document_id": added.document_id}).segments == len(added.ids)
    with pytest.raises(NotFound):
        memory.document(added.document_id)
    assert memory.stats()["documents"] == 0
    again = memory.add(STORY)
    assert again.added == len(added.ids)
    assert memory.document(again.document_id or "").text == STORY


def test_a_line_of_code_in_a_message_is_no_heading(memory: Memory) -> None:
    for fence in ("```", "~~~"):
        said = f"Try this:\n{fence}\nls\n{fence}\nand tell me."
        (id,) = memory.add([{"role": "user", "content": said}]).ids
        assert (memory.get(id).text, memory.get(id).heading) == (said, ())


# Files


@pytest.mark.parametrize(
    ("name", "text", "media", "title", "query", "answer", "heading"),
    [
        ("notes.txt", "Just one line of notes about a walrus.\n", "text", "notes.txt", "walrus", "walrus", ()),
        ("guide.md", GUIDE, "markdown", "Guide", "aardvark", "aardvark", ("Guide", "Use", "First steps")),
        ("page.html", PAGE, "html", "The page of birds", "heron water", "heron stands in water & waits", ("Birds",)),
        ("door.py", CODE, "code", "door.py", "portcullis", "Open the portcullis", ()),
    ],
)
def test_a_file_is_kept_under_its_title_and_headings(
    memory: Memory,
    tmp_path: Path,
    name: str,
    text: str,
    media: str,
    title: str,
    query: str,
    answer: str,
    heading: tuple[str, ...],
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    added = memory.add_file(file, user_id="ana", category="Docs", metadata={"lang": "en"})
    assert added.document_id is not None
    hit = memory.search(query, k=1)[0]
    assert answer in hit.text
    assert (hit.source, hit.category, hit.metadata, hit.document_id) == (
        "document",
        ("Docs",),
        {"lang": "en"},
        added.document_id,
    )
    assert set(heading) >= set(hit.heading[: len(heading)])
    document = memory.document(added.document_id)
    assert (document.uri, document.title, document.media) == (file.as_uri(), title, media)
    if media != "html":
        assert document.text == text
    else:
        assert "alert" not in document.text
        assert "color" not in document.text


def test_a_file_that_has_not_changed_is_skipped(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text(STORY)
    first = memory.add_file(file)
    again = memory.add_file(str(file))
    assert (again.ids, again.added, again.repeated, again.document_id) == (
        first.ids,
        0,
        len(first.ids),
        first.document_id,
    )
    assert memory.stats()["repeats"] == 0  # it was not said again, it was only looked at again
    assert memory.add_file(file, user_id="ana").added == len(first.ids)  # another scope has its own


def test_a_file_that_changed_replaces_what_it_said_and_as_of_still_sees_the_old(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "menu.txt"
    file.write_text("On the menu today: lobster.")
    old = memory.add_file(file)
    then = memory.get(old.ids[0]).recorded_at
    file.write_text("On the menu today: pumpkin.")
    new = memory.add_file(file)
    assert (new.added, new.document_id != old.document_id) == (1, True)
    assert [hit.text for hit in memory.search("menu today")] == ["On the menu today: pumpkin."]
    assert [segment.id for segment in memory.get_all()] == list(new.ids)
    assert [hit.text for hit in memory.search("menu today", as_of=then)] == ["On the menu today: lobster."]
    assert memory.history(old.ids[0])[0].text == "On the menu today: lobster."
    assert memory.document(new.document_id or "").text == "On the menu today: pumpkin."
    assert memory.stats()["documents"] == 1


def test_a_file_that_changed_and_changed_back_is_current_again(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "menu.txt"
    for text in ("lobster", "pumpkin", "lobster"):
        file.write_text(f"On the menu today: {text}.")
        added = memory.add_file(file)
        assert added.added == 1
    assert [segment.text for segment in memory.get_all()] == ["On the menu today: lobster."]
    assert memory.document(added.document_id or "").text == "On the menu today: lobster."
    assert memory.add_file(file).added == 0


def test_a_long_file_that_changed_in_the_middle_is_put_back_exactly(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "story.md"
    for text in (GUIDE + STORY, GUIDE + STORY.replace("guest 90.", "guest ninety, a very tall one."), GUIDE):
        file.write_text(text)
        added = memory.add_file(file)
        assert memory.document(added.document_id or "").text == text
        assert [segment.id for segment in memory.get_all(limit=1_000)] == list(added.ids)
    assert memory.verify()["ok"]


def test_two_files_with_the_same_text_are_two_documents(memory: Memory, tmp_path: Path) -> None:
    added = []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("The same words.")
        added.append(memory.add_file(tmp_path / name))
    assert added[0].ids != added[1].ids
    assert memory.stats()["documents"] == 2


def test_a_notebook_is_read_by_its_cells(memory: Memory, tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Whales\n", "They sing."]},
        {"cell_type": "code", "metadata": {}, "source": ["sing()"], "outputs": [], "execution_count": 1},
    ]
    file = tmp_path / "whales.ipynb"
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    memory.add_file(file)
    assert "They sing." in memory.search("whales sing")[0].text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.txt", b""),
        ("white.txt", b" \n\t "),
        ("binary.bin", bytes(range(256)) * 20),
        ("nul.txt", b"some text \x00 with a NUL"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name(memory: Memory, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        memory.add_file(tmp_path / name)
    assert caught.value.argument == "path"
    assert caught.value.mend
    assert memory.stats()["versions"] == 0


@pytest.mark.parametrize("name", ["missing.txt", ".", "missing/deeper.txt"])
def test_a_file_that_is_not_there_is_refused_by_name(memory: Memory, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        memory.add_file(tmp_path / name)
    assert caught.value.argument == "path"
    assert str(tmp_path) in caught.value.problem


def test_progress_of_a_large_text_is_told(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "large.txt"
    file.write_text("\n\n".join(f"Paragraph {i} is about thing {i}. " * 60 for i in range(1_100)))
    told: list[tuple[int, int, str]] = []
    added = memory.add_file(file, progress=lambda *step: told.append(step))
    assert added.added > 1_024
    assert added.pending == 0
    assert told
    assert all(0 <= done <= total and what for done, total, what in told)
    assert told[-1][0] == told[-1][1]


def test_when_a_document_happened_is_kept_for_each_part(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "diary.txt"
    file.write_text(STORY)
    added = memory.add_file(file, occurred_at="2001-02-03")
    assert {memory.get(id).occurred_at for id in added.ids} == {datetime(2001, 2, 3, tzinfo=UTC)}
