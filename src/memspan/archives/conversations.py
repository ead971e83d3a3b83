"""The conversations.json of an export of chats: by itself, in the folder it was unpacked to, or in the zip it came in.

Large exports have several: conversations-000.json, and so on. A zip is read from within; nothing is unpacked, and the
names in it are never used as paths.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from memspan.archives.base import Report, entries
from memspan.errors import InvalidInput

HEAD = 1 << 16
MOST_PACKED = 100  # bytes out of each byte of a zip: chats as JSON pack 5 to 20 times
SMALL = 64 << 20  # bytes that come out of any zip

_NAME = re.compile(r"(?:.*[/\\])?conversations(?:[-_]?\d+)?\.json", re.IGNORECASE | re.DOTALL)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError)


def opening(path: Path, head: bytes) -> bytes:
    """The first bytes of the first conversations.json at ``path``, a file that begins with ``head``; none where there
    is no such file."""
    if not path.is_dir() and not head.startswith(b"PK\3\4"):
        return head
    try:
        with ExitStack() as opened:
            for _, file in _files(path, opened):
                return file.peek(HEAD)
    except (InvalidInput, *_UNREADABLE):
        pass
    return b""


def conversations(path: Path, report: Report) -> Iterator[tuple[str, Any]]:
    """What is in all of them, and where it stands. Raises InvalidInput naming ``path`` where there is none, where one
    is no JSON, or where a zip is damaged, locked, or holds far more than it weighs."""
    found = False
    with ExitStack() as opened:
        for name, file in _files(path, opened):
            found = True
            with _readable(path):
                for where, _, value in entries(file, name, report):
                    yield where, value
    if not found:
        problem = f"{path.name} holds no conversations.json"
        raise InvalidInput("path", problem, mend="name the zip, the folder or the file of the export")


def _files(path: Path, opened: ExitStack) -> Iterator[tuple[str, BufferedReader]]:
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if _NAME.fullmatch(file.name) and file.is_file():
                yield file.name, BufferedReader(opened.enter_context(file.open("rb", buffering=0)), HEAD)
    elif zipfile.is_zipfile(path):
        with _readable(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
        for member in sorted(archive.infolist(), key=lambda each: each.filename):
            if _NAME.fullmatch(member.filename) and member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                with _readable(path):
                    most = max(SMALL, MOST_PACKED * min(member.compress_size, path.stat().st_size))
                    raw = _Bounded(opened.enter_context(archive.open(member)), most, path.name)
                    yield member.filename.replace("\\", "/").rpartition("/")[2], BufferedReader(raw, HEAD)
    else:
        yield path.name, BufferedReader(opened.enter_context(path.open("rb", buffering=0)), HEAD)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except _UNREADABLE as error:
        problem = f"{path.name} cannot be read ({error})"
        raise InvalidInput("path", problem, mend="fetch the export again, or unpack it yourself") from error


class _Bounded(io.RawIOBase):
    """What is unpacked from a zip, as long as it is not more than ``most`` bytes."""

    def __init__(self, file: IO[bytes], most: int, name: str) -> None:
        self._file = file
        self._left = most
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raw = self._file.read(len(buffer))
        self._left -= len(raw)
        if self._left < 0:
            problem = f"{self._name} holds over {MOST_PACKED} times what it weighs"
            raise InvalidInput("path", problem, mend="it is no export of chats; unpack it yourself if you trust it")
        buffer[: len(raw)] = raw
        return len(raw)
