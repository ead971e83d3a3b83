"""Encoders without a model that keep count, die or refuse on purpose; the processes of the cluster import them too."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.segmenting import WordTokenizer


class Counting(HashEncoder):
    """Notes each text it encodes, and in which process, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(64)
        self.id, self.spec = "counting", ""
        self.directory = directory

    def encode(self, texts: Sequence[str]) -> Encoded:
        with (self.directory / f"{os.getpid()}.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{text.splitlines()[-1]}\n" for text in texts)
        return super().encode(texts)


def counted(directory: Path) -> Counter[str]:
    """How often each text was encoded, by its last line."""
    files = directory.glob("*.txt")
    return Counter(line for file in files for line in file.read_text(encoding="utf-8").splitlines())


class Dying(Counting):
    """Its process is killed when it is to encode one of ``fatal``, once for each of them."""

    def __init__(self, directory: Path, *fatal: str) -> None:
        super().__init__(directory)
        self.fatal = fatal

    def encode(self, texts: Sequence[str]) -> Encoded:
        for number, fatal in enumerate(self.fatal):
            if any(fatal in text for text in texts):
                once_killed(self.directory / f"killed-{number}")
        return super().encode(texts)


class DyingTokenizer(WordTokenizer):
    """Its process is killed when it is to count a text with ``fatal`` in it, once."""

    def __init__(self, mark: Path, fatal: str) -> None:
        self.mark, self.fatal = mark, fatal

    def count(self, texts: Sequence[str]) -> list[int]:
        if any(self.fatal in text for text in texts):
            once_killed(self.mark)
        return super().count(texts)


class DyingReader(Counting):
    """Who cuts a text with ``fatal`` in it is killed, once."""

    def __init__(self, directory: Path, fatal: str) -> None:
        super().__init__(directory)
        self.tokenizer = DyingTokenizer(directory / "killed", fatal)


class Refusing(Counting):
    """Takes no text with ``refused`` in it."""

    def __init__(self, directory: Path, refused: str) -> None:
        super().__init__(directory)
        self.refused = refused

    def encode(self, texts: Sequence[str]) -> Encoded:
        if any(self.refused in text for text in texts):
            raise ValueError("too strange")
        return super().encode(texts)


class Elsewhere(HashEncoder):
    """Is another one in every process but the one it was made in."""

    def __init__(self) -> None:
        super().__init__(64)
        self.spec, self.home = "", os.getpid()

    @property  # type: ignore[override]
    def id(self) -> str:
        return "here" if os.getpid() == self.home else "elsewhere"

    @id.setter
    def id(self, value: str) -> None:
        pass


def once_killed(mark: Path) -> None:
    """Kill this process as the system would when memory runs out, unless that was done for ``mark`` before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
