"""The rules of the house, held by the build instead of by advice."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHON_FILES = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "bench").rglob("*.py"))
HEAVY = {
    "numpy",
    "onnxruntime",
    "faiss",
    "tokenizers",
    "httpx",
    "tantivy",
    "torch",
    "safetensors",
    "Stemmer",
    "sqlite3",
}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after ``statement``."""
    code = (
        f"import sys\n{statement}\nprint('\\n' + ' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.rstrip().rpartition("\n")[2].split())


@pytest.mark.parametrize("file", PYTHON_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_file_is_short_enough_to_be_read_at_once(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 700


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_source_file_says_what_it_is_for_and_leaves_nothing_undone(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert not re.findall(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b|being written", text)


def test_imports_point_down_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_memspan_loads_no_model_runtime_no_index_and_no_terminal_library() -> None:
    loaded = loaded_by("import memspan")
    assert not loaded & (HEAVY - {"numpy", "sqlite3"} | {"typer", "rich"})


def test_the_help_loads_nothing_heavy() -> None:
    assert not loaded_by("from memspan.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass") & HEAVY


def test_the_environment_is_read_by_the_configuration_alone() -> None:
    """But for how the command line prints (NO_COLOR, MEMSPAN_DEBUG); a server's key, which is a secret, so it is read
    where it is sent and is never part of a Config that may be printed; what `serve` hands over to its workers; and what
    Ray is told there, as it has no other ear."""
    readers = {
        file.relative_to(ROOT / "src/memspan").as_posix()
        for file in SOURCES
        if re.search(r"\benviron\b|\bgetenv\b", file.read_text(encoding="utf-8"))
    }
    printing, keys = {"cli/__init__.py", "cli/options.py"}, {"endpoint.py", "remote.py"}
    serving = {"cli/serving.py", "server/app.py", "server/observing.py"}
    assert readers <= {"config.py", *printing, *keys, *serving, "bulk/cluster.py"}


def test_every_public_name_is_there_and_documented() -> None:
    import memspan

    assert memspan.__all__ == sorted(memspan.__all__)
    for name in memspan.__all__:
        item = getattr(memspan, name)
        if not (inspect.isclass(item) or inspect.isfunction(item)):
            continue
        assert inspect.getdoc(item), name
        for method, function in inspect.getmembers(item, inspect.isfunction):
            if not method.startswith("_") and item.__module__.startswith("memspan"):
                assert inspect.getdoc(function), f"{name}.{method}"


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make check test" in script.read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"setup", "demo", "test", "check", "bench", "soak"} <= set(targets)
