"""Claude's memory tool: each command, what it answers, and that no path leads out of /memories."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anthropic", reason="needs anthropic")

from anthropic.lib.tools import ToolError

from memspan import Memory
from memspan.integrations.anthropic import MemspanAsyncMemoryTool, MemspanMemoryTool


class Claude:
    """Gives commands as the tool runner does; ``fails`` is the text of the error that one ends with."""

    def __init__(self, memory: Memory, **options: Any) -> None:
        self.tool = MemspanMemoryTool(memory, **options)

    def __call__(self, command: str, path: str | None = None, **more: Any) -> str:
        named = {} if path is None else {"path": path}
        answer = self.tool.call({"command": command, **named, **more})
        assert isinstance(answer, str)
        return answer

    def fails(self, command: str, path: str | None = None, **more: Any) -> str:
        with pytest.raises(ToolError) as raised:
            self(command, path, **more)
        return str(raised.value)


@pytest.fixture
def claude(memory: Memory) -> Claude:
    return Claude(memory)


def test_the_tool_is_the_one_claude_knows(claude: Claude) -> None:
    assert claude.tool.to_dict() == {"type": "memory_20250818", "name": "memory"}


def test_a_file_that_is_created_is_viewed_with_its_lines_numbered(claude: Claude) -> None:
    assert (
        claude("create", "/memories/a.txt", file_text="one\n\ttwo\n") == "File created successfully at: /memories/a.txt"
    )
    shown = "Here's the content of /memories/a.txt with line numbers:\n     1\tone\n     2\t\ttwo\n     3\t"
    assert claude("view", "/memories/a.txt") == shown
    assert claude("view", "/memories/a.txt", view_range=[2, 2]).splitlines()[1:] == ["     2\t\ttwo"]
    assert claude("view", "/memories/a.txt", view_range=[2, -1]).splitlines()[1:] == ["     2\t\ttwo", "     3\t"]
    assert claude.fails("create", "/memories/a.txt", file_text="x") == "Error: File /memories/a.txt already exists"
    assert claude("view", "/memories/a.txt") == shown


def test_a_directory_is_listed_two_levels_deep_with_sizes_and_without_what_is_hidden(claude: Claude) -> None:
    header = "files and directories up to 2 levels deep in /memories, excluding hidden items and node_modules:"
    assert claude("view", "/memories") == f"Here're the {header}\n0B\t/memories"
    for path, size in (("b/c/deep.txt", 10), ("b/note.md", 1536), ("a.txt", 4), (".secret", 3), ("node_modules/x", 3)):
        claude("create", f"/memories/{path}", file_text="x" * size)
    assert claude("view", "/memories/").splitlines()[1:] == [
        "1.5K\t/memories",
        "4B\t/memories/a.txt",
        "1.5K\t/memories/b/",
        "10B\t/memories/b/c/",
        "1.5K\t/memories/b/note.md",
    ]
    assert claude("view", "/memories/b/c").splitlines()[1:] == ["10B\t/memories/b/c", "10B\t/memories/b/c/deep.txt"]


def test_one_place_is_replaced_and_shown_with_the_lines_around_it(claude: Claude) -> None:
    claude("create", "/memories/a.txt", file_text="1\n2\n3\n4\n5\n6\n7\n")
    answer = claude("str_replace", "/memories/a.txt", old_str="4", new_str="four\nand a half")
    first, *snippet = answer.splitlines()
    assert first.startswith("The memory file has been edited.")
    assert snippet == ["     2\t2", "     3\t3", "     4\tfour", "     5\tand a half", "     6\t5", "     7\t6"]
    assert claude.fails("str_replace", "/memories/a.txt", old_str="9", new_str="x") == (
        "No replacement was performed, old_str `9` did not appear verbatim in /memories/a.txt."
    )
    claude("create", "/memories/twice.txt", file_text="a\nx\na a")
    assert claude.fails("str_replace", "/memories/twice.txt", old_str="a", new_str="x") == (
        "No replacement was performed. Multiple occurrences of old_str `a` in lines: 1, 3, 3. "
        "Please ensure it is unique"
    )
    assert "did not appear" in claude.fails("str_replace", "/memories/a.txt", old_str="", new_str="x")
    assert claude("str_replace", "/memories/twice.txt", old_str="\nx", new_str="")
    assert claude("view", "/memories/twice.txt").splitlines()[1:] == ["     1\ta", "     2\ta a"]


def test_text_is_inserted_after_a_line(claude: Claude) -> None:
    claude("create", "/memories/a.txt", file_text="one\ntwo")
    assert claude("insert", "/memories/a.txt", insert_line=0, insert_text="zero\n") == (
        "The file /memories/a.txt has been edited."
    )
    claude("insert", "/memories/a.txt", insert_line=3, insert_text="three")
    claude("insert", "/memories/a.txt", insert_line=1, insert_text="half\u2028still the same line")
    lines = [line.partition("\t")[2] for line in claude("view", "/memories/a.txt").split("\n")[1:]]
    assert lines == ["zero", "half\u2028still the same line", "one", "two", "three", ""]
    assert claude.fails("insert", "/memories/a.txt", insert_line=6, insert_text="x") == (
        "Error: Invalid `insert_line` parameter: 6. It should be within the range of lines of the file: [0, 5]"
    )


def test_files_and_directories_are_renamed_and_deleted(claude: Claude) -> None:
    claude("create", "/memories/b/one.txt", file_text="1")
    claude("create", "/memories/b/c/two.txt", file_text="2")
    claude("create", "/memories/bc.txt", file_text="3")
    answer = claude("rename", old_path="/memories/b", new_path="/memories/d/e")
    assert answer == "Successfully renamed /memories/b to /memories/d/e"
    assert claude("view", "/memories/d/e/c/two.txt").endswith("     1\t2")
    assert claude.fails("view", "/memories/b") == "The path /memories/b does not exist. Please provide a valid path."
    assert claude("rename", old_path="/memories/bc.txt", new_path="/memories/x.txt")
    for taken in ("/memories/d", "/memories/d/e/one.txt", "/memories"):
        told = claude.fails("rename", old_path="/memories/x.txt", new_path=taken)
        assert told == f"Error: The destination {taken} already exists"
    assert "lies in" in claude.fails("rename", old_path="/memories/d", new_path="/memories/d/e/f")
    assert claude("delete", "/memories/d") == "Successfully deleted /memories/d"
    assert claude("view", "/memories").splitlines()[2:] == ["1B\t/memories/x.txt"]
    assert claude("create", "/memories/d", file_text="a file now")


@pytest.mark.parametrize(
    ("command", "more", "told"),
    [
        ("view", {}, "The path /memories/no does not exist. Please provide a valid path."),
        ("delete", {}, "Error: The path /memories/no does not exist"),
        ("insert", {"insert_line": 0, "insert_text": "x"}, "Error: The path /memories/no does not exist"),
        (
            "str_replace",
            {"old_str": "a", "new_str": "b"},
            "Error: The path /memories/no does not exist. Please provide a valid path.",
        ),
    ],
)
def test_what_is_not_there_is_told_as_the_documentation_says(
    claude: Claude, command: str, more: dict[str, Any], told: str
) -> None:
    assert claude.fails(command, "/memories/no", **more) == told


def test_a_directory_is_no_file_and_a_file_no_directory(claude: Claude) -> None:
    claude("create", "/memories/b/one.txt", file_text="1")
    assert "does not exist" in claude.fails("str_replace", "/memories/b", old_str="1", new_str="2")
    assert "does not exist" in claude.fails("insert", "/memories/b", insert_line=0, insert_text="2")
    assert "already exists" in claude.fails("create", "/memories/b", file_text="2")
    assert "is a file" in claude.fails("create", "/memories/b/one.txt/two.txt", file_text="2")
    assert "itself" in claude.fails("delete", "/memories")
    assert "itself" in claude.fails("rename", old_path="/memories", new_path="/memories/x")


@pytest.mark.parametrize(
    "path",
    [
        "/memories/../etc/passwd",
        "/memories/a/../../b",
        "/memories/..",
        "/memories/./a",
        "/memories//a",
        "/memories/%2e%2e/secret",
        "/memories/..%2fsecret",
        "/memories/%2E%2E%5Csecret",
        "/memories/..\\secret",
        "/memoriesX/a",
        "/etc/passwd",
        "memories/a",
        "",
        "/",
        "C:\\memories",
        "/memories/a\0b",
        "/memories/a\nb",
        "/memories/" + "x" * 2_000,
        "~/memories",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_by_every_command(claude: Claude, memory: Memory, path: str) -> None:
    claude("create", "/memories/safe.txt", file_text="safe")
    assert claude.fails("view", path).startswith("Error: ")
    assert claude.fails("create", path, file_text="x").startswith("Error: ")
    assert claude.fails("str_replace", path, old_str="a", new_str="b").startswith("Error: ")
    assert claude.fails("insert", path, insert_line=0, insert_text="x").startswith("Error: ")
    assert claude.fails("delete", path).startswith("Error: ")
    assert claude.fails("rename", old_path="/memories/safe.txt", new_path=path).startswith("Error: ")
    assert claude.fails("rename", old_path=path, new_path="/memories/x").startswith("Error: ")
    assert [segment.text for segment in memory.get_all()] == ["safe"]


@pytest.mark.parametrize("text", ["", "\n\n", "  a  \r\nb\r\n\n", "word " * 4_000 + "\n", "日本語\n" * 900])
def test_a_file_holds_exactly_what_was_written(claude: Claude, text: str) -> None:
    claude("create", "/memories/a.md", file_text=text)
    shown = claude("view", "/memories/a.md").split("\n")[1:]
    assert "\n".join(line.partition("\t")[2] for line in shown) == text


def test_what_is_overwritten_or_deleted_is_still_in_the_memory(claude: Claude, memory: Memory) -> None:
    claude("create", "/memories/ana.md", file_text="Ana drinks green tea.")
    before = memory.get_all()[0]
    claude("str_replace", "/memories/ana.md", old_str="green", new_str="black")
    assert [segment.text for segment in memory.get_all(as_of=before.recorded_at)] == ["Ana drinks green tea."]
    assert memory.search("tea", k=1)[0].text == "Ana drinks black tea."
    claude("delete", "/memories/ana.md")
    assert memory.search("tea") == []
    memory.undo(memory.operations(limit=1)[0].id)
    assert "black" in claude("view", "/memories/ana.md")
    assert memory.get_all()[0].category == ("memories",)


def test_two_users_have_two_directories(memory: Memory) -> None:
    ana, ben = Claude(memory, user_id="ana"), Claude(memory, user_id="ben")
    ana("create", "/memories/a.txt", file_text="of Ana")
    assert "does not exist" in ben.fails("view", "/memories/a.txt")
    ben("create", "/memories/a.txt", file_text="of Ben")
    ben.tool.clear_all_memory()
    assert "of Ana" in ana("view", "/memories/a.txt")


def test_a_text_that_cannot_be_stored_is_told_to_the_model(claude: Claude) -> None:
    assert "NUL" in claude.fails("create", "/memories/a.txt", file_text="a\0b")


def test_files_are_there_when_the_memory_is_opened_again(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        Claude(memory)("create", "/memories/a.txt", file_text="kept")
    with Memory(tmp_path / "store", encoder="hash") as memory:
        assert "kept" in Claude(memory)("view", "/memories/a.txt")


def test_the_asynchronous_tool_says_the_same(memory: Memory) -> None:
    tool = MemspanAsyncMemoryTool(memory)

    async def give(**command: Any) -> Any:
        return await tool.call(command)

    assert asyncio.run(give(command="create", path="/memories/a.txt", file_text="one")).startswith("File created")
    assert asyncio.run(give(command="insert", path="/memories/a.txt", insert_line=1, insert_text="two"))
    assert asyncio.run(give(command="str_replace", path="/memories/a.txt", old_str="one", new_str="1"))
    assert asyncio.run(give(command="rename", old_path="/memories/a.txt", new_path="/memories/b.txt"))
    assert asyncio.run(give(command="view", path="/memories/b.txt")).endswith("     1\t1\n     2\ttwo\n     3\t")
    assert asyncio.run(give(command="delete", path="/memories/b.txt"))
    assert asyncio.run(tool.clear_all_memory()) == "All memory cleared"
