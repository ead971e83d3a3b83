"""Markdown notes, read: a vault of Obsidian, a graph of Logseq, one file."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.errors import InvalidInput
from memspan.records import Segment

HIVES = """---
title: The hives
tags: [bees, "river side"]
created: 2024-03-01
aliases:
  - Beehives
---
# Three hives

They stand by the [[River|river]], as [[people/Ana]] said. See [the plan](plans/Spring%20plan.md#may) and [[Nowhere]].
"""


def vault(path: Path, **files: str) -> Path:
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def small(path: Path) -> Path:
    return vault(
        path,
        **{
            "hives.md": HIVES,
            "River.md": "# The river\n\nIt is cold. [[beehives]] stand there.",
            "people/Ana.markdown": "Keeps bees with [[the hives]].",
            "plans/Spring plan.md": "Buy a ladder. Back to [hives](../hives.md).",
            "2024-05-06.md": "Saw [[Ana]] today.",
        },
    )


def kept(memory: Memory) -> dict[str, Segment]:
    return {(memory.document(each.document_id or "").uri or "").rpartition("/")[2]: each for each in memory.get_all()}


@pytest.fixture(params=["yaml", "without"])
def _yaml(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "yaml", None)
    else:
        pytest.importorskip("yaml", reason="PyYAML is not installed")


@pytest.mark.usefixtures("_yaml")
def test_notes_are_documents_with_title_folder_front_matter_and_date(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(small(tmp_path / "vault"))
    assert (done.format, done.added, done.failed) == ("markdown", 5, 0)
    notes = kept(memory)
    hives = notes["hives.md"]
    document = memory.document(hives.document_id or "")
    assert (document.title, document.media) == ("The hives", "markdown")
    assert document.text == HIVES.partition("---\n# ")[2].join(("# ", ""))
    assert hives.metadata["tags"] == ["bees", "river side"]
    assert hives.metadata["aliases"] == ["Beehives"]
    assert (hives.occurred_at, hives.heading) == (datetime(2024, 3, 1, tzinfo=UTC), ("Three hives",))
    assert notes["2024-05-06.md"].occurred_at == datetime(2024, 5, 6, tzinfo=UTC)
    assert (notes["River.md"].occurred_at, notes["River.md"].source) == (None, "document")
    assert notes["Spring%20plan.md"].category == ("plans",)
    assert memory.document(notes["River.md"].document_id or "").title == "The river"


def test_links_lead_from_note_to_note(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(small(tmp_path / "vault"))
    notes = kept(memory)
    names = {each.id: name for name, each in notes.items()}

    def linked(name: str) -> set[str]:
        return {names[each.id] for each in memory.neighbors(notes[name].id, kinds="link")}

    assert done.links == 7
    assert linked("hives.md") == {"River.md", "Ana.markdown", "Spring%20plan.md"}
    assert linked("2024-05-06.md") == {"Ana.markdown"}
    assert linked("Ana.markdown") == {"hives.md", "2024-05-06.md"}


def test_hidden_files_and_what_lies_outside_are_left_out(memory: Memory, tmp_path: Path) -> None:
    root = vault(
        tmp_path / "vault",
        **{"a.md": "Inside.", ".obsidian/b.md": "Hidden.", ".c.md": "Hidden.", "logseq/bak/d.md": "Old.",
           "e.txt": "Text.", "empty.md": "", "blank.md": "---\ntitle: Nothing\n---\n\n"},
    )  # fmt: skip
    vault(tmp_path / "outside", **{"f.md": "Outside."})
    (root / "link.md").symlink_to(tmp_path / "outside" / "f.md")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    done = memory.import_from(root)
    assert [each.text for each in memory.get_all()] == ["Inside."]
    assert done.failed == 0


def test_a_folder_read_again_adds_nothing_and_a_changed_note_is_a_new_version(memory: Memory, tmp_path: Path) -> None:
    root = small(tmp_path / "vault")
    memory.import_from(root)
    done = memory.import_from(root)
    assert (done.added, done.links) == (0, 0)
    vault(root, **{"River.md": "# The river\n\nIt is warm.", "new.md": "New."})
    done = memory.import_from(root)
    assert (done.added, done.updated) == (2, 1)
    assert {each.text for each in memory.get_all()} >= {"# The river\n\nIt is warm.", "New."}
    assert len(memory.get_all()) == 6


def test_one_file_is_the_same_note_as_in_its_folder(memory: Memory, tmp_path: Path) -> None:
    root = vault(tmp_path / "vault", **{"a.md": "Inside."})
    assert memory.import_from(root / "a.md").added == 1
    assert memory.import_from(root).added == 0


def test_a_note_that_is_no_text_is_told_with_its_name_and_the_rest_is_imported(memory: Memory, tmp_path: Path) -> None:
    root = vault(tmp_path / "vault", **{"a.md": "Inside."})
    (root / "bad.md").write_bytes(b"\x00\x01\x02" * 100)
    done = memory.import_from(root)
    assert ([each.where for each in done.problems], done.added) == (["vault/bad.md"], 1)


HOSTILE = {
    "a bomb of aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "a tag": "a: !!python/object/apply:os.system ['true']",
    "too deep": "a: " + "[" * 50_000,
    "lists in lists": "- " * 20_000 + "a",
    "no mapping": "- a\n- b",
    "not a number": "a: .nan\nb: .inf",
    "spaces": "a" + " " * 60_000,
    "odd keys": "1: x\n? [a, b]\n: y\n2024-01-01: z",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("_yaml")
def test_front_matter_that_is_odd_costs_no_note(memory: Memory, tmp_path: Path, name: str) -> None:
    done = memory.import_from(vault(tmp_path / "vault", **{"a.md": f"---\n{HOSTILE[name]}\n---\nThe text.\n"}))
    assert (done.failed, [each.text for each in memory.get_all()]) == (0, ["The text."])


@pytest.mark.usefixtures("_yaml")
def test_a_value_that_yaml_cannot_read_is_taken_as_it_is_written(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(
        vault(tmp_path / "vault", **{"a.md": "---\ntitle: Ana: a life\ndate: someday\n---\nThe text.\n"})
    )
    (note,) = memory.get_all()
    assert (note.metadata["title"], note.metadata["date"], note.occurred_at) == ("Ana: a life", "someday", None)


def test_a_folder_without_notes_is_refused(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no Markdown"):
        memory.import_from(vault(tmp_path / "vault", **{"a.txt": "Text."}), "markdown")


def test_line_ends_of_windows_are_read(memory: Memory, tmp_path: Path) -> None:
    root = tmp_path / "vault"
    root.mkdir()
    (root / "a.md").write_bytes(b"\xef\xbb\xbf---\r\ntitle: Ana\r\n---\r\nThe text.\r\n")
    memory.import_from(root)
    (note,) = memory.get_all()
    titles: Any = memory.document(note.document_id or "").title
    assert (note.text, titles) == ("The text.", "Ana")
