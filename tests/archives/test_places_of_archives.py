"""Where archives may stand: files and folders. Anything else ends in a clear error, and is left as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan import InvalidInput, Memory, MemspanError, archives

NAMES = [format.name for format in archives.FORMATS]
MAY_BE_EMPTY = ("records", "mcp", "mem0", "chatgpt", "claude", "langgraph", "markdown")  # nothing was ever said there
WRITTEN = [format.name for format in archives.FORMATS if format.writes]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add("One thing.")
        yield memory


@pytest.mark.parametrize("name", [None, *NAMES])
def test_what_is_no_file_and_no_folder_is_never_waited_for(memory: Memory, tmp_path: Path, name: str | None) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.jsonl")
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InvalidInput, match="is no file and no folder"):
            memory.import_from(path, name)


@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_folder_of_pipes_and_folders_named_as_files_is_refused(
    memory: Memory, tmp_path: Path, name: str | None
) -> None:
    inside = ("embeddings.csv", "embeddings.npy", "faiss_index.bin", "metadata.json", "conversations.json", "a.md")
    (pipes := tmp_path / "pipes").mkdir()
    (folders := tmp_path / "folders").mkdir()
    for each in inside:
        os.mkfifo(pipes / each)
        (folders / each).mkdir()
    for folder in (pipes, folders):
        (folder / "meta.json").write_text("{}")
        (folder / "collection" / "one").mkdir(parents=True)
    os.mkfifo(pipes / "collection" / "one" / "storage.sqlite")
    (folders / "collection" / "one" / "storage.sqlite").mkdir()
    for folder in (pipes, folders):
        with pytest.raises(InvalidInput):
            memory.import_from(folder, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_or_folder_that_cannot_be_read_as_the_format_named_is_bad_input(
    memory: Memory, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").write_bytes(b"")
    with pytest.raises(InvalidInput):
        memory.import_from(tmp_path / "empty", name)
    if name not in MAY_BE_EMPTY:
        with pytest.raises(InvalidInput):
            memory.import_from(tmp_path / "nothing", name)
    with pytest.raises(InvalidInput, match="cannot be read"):
        memory.import_from("/proc/self/mem", "jsonl")
    with pytest.raises(InvalidInput, match="cannot be read"):
        memory.import_from("/" + "x" * 300, name)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pipe_or_a_link_to_itself_is_not_replaced_by_an_export(memory: Memory, tmp_path: Path, name: str) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    (loop := tmp_path / "loop").symlink_to(loop)
    for path in (pipe, loop, loop / "below"):
        with pytest.raises(InvalidInput):
            memory.export_to(path, name)
    assert pipe.is_fifo()
    assert loop.is_symlink()
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("name", ["csv", "npy", "faiss"])
def test_a_folder_with_something_in_the_way_keeps_the_files_of_the_export_before(
    memory: Memory, tmp_path: Path, name: str
) -> None:
    memory.export_to(folder := tmp_path / "folder", name)
    (folder / "metadata.json").unlink()
    (folder / "metadata.json").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    memory.add("Another thing.")
    with pytest.raises(MemspanError):
        memory.export_to(folder, name)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
