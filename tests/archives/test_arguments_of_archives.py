"""What an export or an import is asked for: anything that makes no sense is refused before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memspan import InvalidInput, Memory

OF_EXPORT = ("history", "compat", "progress")
OF_IMPORT = ("restore_deleted", "vectors", "strict", "dry_run", "progress")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add("One thing.")
        memory.export_to(tmp_path / "a.jsonl")
        yield memory


@pytest.mark.parametrize("argument", OF_EXPORT)
@pytest.mark.parametrize("value", ["no", 0, 1.0, [], {}])
def test_an_export_refuses_what_is_no_flag(memory: Memory, tmp_path: Path, argument: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=argument):
        memory.export_to(tmp_path / "b.jsonl", **{argument: value})
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize("argument", OF_IMPORT)
@pytest.mark.parametrize("value", ["no", 0, 1.0, [], {}])
def test_an_import_refuses_what_is_no_flag(memory: Memory, tmp_path: Path, argument: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=argument):
        memory.import_from(tmp_path / "a.jsonl", namespace="other", **{argument: value})
    assert not memory.get_all(namespace="other")


@pytest.mark.parametrize("name", ["jsonl", "cube", "parquet"])
def test_a_format_that_was_never_latent_memorys_has_no_compatible_form(
    memory: Memory, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="compat"):
        memory.export_to(tmp_path / "b", name, compat=True)
    assert not (tmp_path / "b").exists()
