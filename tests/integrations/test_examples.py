"""Every example runs as it stands; a framework that is missing is told with the line that installs it; none is loaded
by memspan itself."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from memspan import MissingExtra

ROOT = Path(__file__).resolve().parent.parent.parent
FRAMEWORKS = {
    "langgraph": ("langgraph", "langgraph"),
    "langchain": ("langchain_core", "langchain"),
    "llamaindex": ("llama_index", "llamaindex"),
    "openai_agents": ("agents", "openai-agents"),
    "anthropic": ("anthropic", "anthropic"),
}
"""The package that each module needs, and the extra that has it."""
SAYS = {
    "langgraph_store": "recalled: ['My name is Ana and I drink green tea.']",
    "langchain_retriever": "retrieved: I moved to Lisbon in May.",
    "llamaindex_chat": "> user: My cat is called Tom.",
    "openai_agents_session": "> user: I live in Lisbon.",
    "anthropic_memory_tool": "found: # Ana\n\nDrinks black tea.",
}


def run(*arguments: str, directory: Path) -> str:
    environment = {**os.environ, "MEMSPAN_ENCODER": "hash", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_an_example_for_each_framework() -> None:
    files = {file.stem for file in (ROOT / "examples").glob("*.py")}
    assert files >= set(SAYS)
    assert {name for name in FRAMEWORKS for stem in SAYS if stem.startswith(name)} == set(FRAMEWORKS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_shows_what_is_remembered(name: str, tmp_path: Path) -> None:
    package = next(package for module, (package, _) in FRAMEWORKS.items() if name.startswith(module))
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    assert SAYS[name] in run(str(ROOT / "examples" / f"{name}.py"), directory=tmp_path)


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_a_framework_that_is_missing_is_told_with_the_line_that_installs_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra = FRAMEWORKS[module]
    name = f"memspan.integrations.{module}"
    for loaded in [each for each in sys.modules if each == name or each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra) as raised:
        importlib.import_module(name)
    assert raised.value.mend == f'pip install "memspan[{extra}]"'


def test_memspan_itself_loads_none_of_them(tmp_path: Path) -> None:
    packages = {package for package, _ in FRAMEWORKS.values()}
    code = "import sys, memspan.integrations; memspan.Memory; print(*sys.modules)"
    assert not packages & set(run("-c", code, directory=tmp_path).split())
