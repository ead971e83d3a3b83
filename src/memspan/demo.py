"""Real input that is on every machine: the documentation that ships inside Python itself.

The language reference's topics (``pydoc_data.topics``) and the docstrings of the standard library, read from its source
files without importing any of them, become one text file each; the files are ingested like any other document.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspan.errors import MemspanError

if TYPE_CHECKING:
    from memspan.memory import Memory

LEAST_TOKENS = 100_000

QUESTIONS = (
    "How do I catch several exceptions in one clause?",
    "When does the else clause of a loop run?",
    "How do I run a command and capture its output?",
    "How do I cache the results of a function so that it is not called twice with the same arguments?",
    "How do I count the most common elements of a list?",
)

MODULES = (
    "abc argparse ast asyncio base64 bisect calendar codecs collections configparser contextlib copy csv dataclasses "
    "datetime decimal difflib enum fileinput fnmatch fractions functools getpass glob graphlib gzip hashlib heapq "
    "inspect ipaddress json linecache locale logging mimetypes operator os pathlib pickle platform pprint queue random "
    "re secrets shelve shlex shutil signal socket socketserver sqlite3 ssl statistics string subprocess tarfile "
    "tempfile textwrap threading timeit traceback types typing uuid warnings weakref zipfile"
)
"""The modules of the standard library whose docstrings are read: those that everyday questions are about."""

Progress = Callable[[int, int, str], None]

_RULE = re.compile(r"^[=*\-~^]+$", re.MULTILINE)  # the line under a heading, which differs with its depth


def write_documents(directory: Path) -> list[Path]:
    """Write one text file for each topic and each module into ``directory``; the files, in order.

    A file that already says the same is left alone. Raises MemspanError where this Python came without documentation.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, text in documents():
        file = directory / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            aside = file.with_suffix(".part")
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, file)
        files.append(file)
    return files


def documents() -> Iterator[tuple[str, str]]:
    """File name and text of each document: first the topics, then the modules, both in alphabetical order."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise MemspanError(
            "this Python came without its documentation (pydoc_data.topics)",
            mend="install your system's full Python package, or use a Python from python.org",
        ) from error
    bodies = {name: " ".join(_RULE.sub("", text).split("\n", 2)[-1].split()) for name, text in topics.items()}
    for name in sorted(topics):
        # Many topics ("try", "for") are sections of a longer one ("compound") once more: one copy is enough.
        if not any(bodies[name] in body and len(bodies[name]) < len(body) for body in bodies.values()):
            yield f"topic-{name}.txt", topics[name].strip() + "\n"
    library = Path(sysconfig.get_path("stdlib"))
    for name in MODULES.split():
        source = next((p for p in (library / f"{name}.py", library / name / "__init__.py") if p.is_file()), None)
        if source is None:
            continue
        parts = list(_docstrings(ast.parse(source.read_bytes()), name))
        if parts:
            yield (
                f"module-{name}.md",
                "\n\n".join(f"{'#' * depth} {title}\n\n{text}" for depth, title, text in parts) + "\n",
            )


def _docstrings(tree: ast.Module, module: str) -> Iterator[tuple[int, str, str]]:
    """Depth, title and text of each public docstring of a module, in the order of its source."""
    if text := ast.get_docstring(tree):
        yield 1, module, text
    waiting: list[tuple[int, str, ast.AST]] = [(2, module, node) for node in reversed(tree.body)]
    while waiting:
        depth, prefix, node = waiting.pop()
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        path = f"{prefix}.{node.name}"
        if text := ast.get_docstring(node):
            signature = "" if isinstance(node, ast.ClassDef) else f"({ast.unparse(node.args)})"
            yield depth, path + signature, text
        if isinstance(node, ast.ClassDef):
            waiting.extend((depth + 1, path, child) for child in reversed(node.body))


def remember(memory: Memory, files: list[Path], progress: Progress) -> dict[str, Any]:
    """Ingest ``files``, passing over those that ``memory`` has already; what was done and what it holds now.

    ``documents``, ``new``, ``unchanged`` count files; ``segments`` and ``tokens`` (by the encoder's tokenizer) count
    everything in the store. Raises MemspanError if there are fewer than LEAST_TOKENS, as that would show nothing.
    """
    new = 0
    for done, file in enumerate(files):
        progress(done, len(files), f"storing {file.stem}")
        part = "Language" if file.name.startswith("topic-") else "Library"
        new += memory.add_file(file, category=f"Python / {part}", wait=False).added > 0
    if memory.stats()["pending"]:
        memory.compact(progress=progress)
    held = memory.stats()
    if held["tokens"] < LEAST_TOKENS:
        raise MemspanError(
            f"the documentation of this Python gave only {held['tokens']:,} tokens, fewer than {LEAST_TOKENS:,}",
            mend="use a Python that was installed with its library's source files",
        )
    return {
        "documents": len(files),
        "new": new,
        "unchanged": len(files) - new,
        "segments": held["segments"],
        "tokens": held["tokens"],
    }
