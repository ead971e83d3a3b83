"""Embeddings kept by content: what an encoder made of a text is read back and never made again.

In one SQLite file, which several processes may use at once. A row is found by the sha256 of the encoder's id and the
text, and holds the pooled vector in float32 and the token activations in float16, with a checksum; no text is in it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.bench.measures import Wrapped
from memspan.config import Config
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import InvalidInput

APPLICATION: Final = 0x6D656D62  # says whose file it is, in the header of every SQLite file
BATCH: Final = 256  # rows read or written at once
PATIENCE: Final = 60.0  # seconds to wait for another process that writes

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS embedding (
    key BLOB PRIMARY KEY, pooled BLOB NOT NULL, tokens BLOB, checksum INTEGER NOT NULL
)"""


class Embedding(NamedTuple):
    """What is kept of a text: ``pooled`` float32[dim]; ``tokens`` float16[t, dim], None where the encoder has none."""

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float16] | None


def default_file() -> Path:
    """Where embeddings are kept unless somebody says: in memspan's cache directory."""
    return Config.load().cache / "embeddings.sqlite"


class Cached(Wrapped):
    """An encoder that encodes each text once: kept in memory until ``forget``, and for good in ``file`` where one is
    named. Safe to use from many threads.

    What is encoded anew comes back as it will be read later: tokens have been float16. Raises InvalidInput naming
    ``cache`` for a file that is something else, damaged, or cannot be used.
    """

    def __init__(self, inner: Encoder, file: Path | None = None) -> None:
        super().__init__(inner)
        self.encoded = 0
        """How many texts were encoded because nobody had before."""
        self._kept: dict[str, Embedding] = {}
        self._lock = threading.Lock()
        self._file = None if file is None else _File(file, inner.dim)

    def encode(self, texts: Sequence[str]) -> Encoded:
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            if new and self._file is not None:
                keys = {_key(self.id, text): text for text in new}
                self._kept |= {keys[key]: found for key, found in self._file.read(keys)}
                new = [text for text in new if text not in self._kept]
            for start in range(0, len(new), BATCH):  # what is made is kept, also where somebody interrupts the rest
                self._make(new[start : start + BATCH])
            found = [self._kept[text] for text in texts]
        if not found:
            return self.inner.encode(())
        tokens = [each.tokens.astype(np.float32) for each in found if each.tokens is not None]
        return Encoded(np.stack([each.pooled for each in found]), tokens if len(tokens) == len(found) else ())

    def _make(self, texts: Sequence[str]) -> None:
        encoded = self.inner.encode(texts)
        tokens: list[NDArray[np.float16] | None] = [each.astype(np.float16) for each in encoded.tokens]
        tokens = tokens or [None] * len(texts)
        made = {text: Embedding(*each) for text, *each in zip(texts, encoded.pooled, tokens, strict=True)}
        self.encoded += len(made)
        self._kept |= made
        if self._file is not None:
            self._file.write({_key(self.id, text): each for text, each in made.items()})

    def forget(self) -> None:
        """Let go of what is kept in memory."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _key(encoder: str, text: str) -> bytes:
    return hashlib.sha256(f"{encoder}\0{text}".encode("utf-8", "surrogatepass")).digest()


class _File:
    """The file, open; rows of vectors of ``dim`` numbers."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        with self._mended():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            with self._mended():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        (owner,) = self._database.execute("PRAGMA application_id").fetchone()
        if owner != APPLICATION:
            if owner or self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                mend = "name another file, or one that is not there yet"
                raise InvalidInput("cache", f"{self._path} is no cache of embeddings", mend=mend)
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(f"PRAGMA application_id = {APPLICATION}")
            self._database.execute(_SCHEMA)
            self._database.execute("COMMIT")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")  # a row that a power cut tears is told by its checksum

    def read(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Embedding]]:
        """Of ``keys`` those that are there."""
        left = iter(keys)
        with self._mended():
            while some := list(islice(left, BATCH)):
                marks = ",".join("?" * len(some))
                query = f"SELECT key, pooled, tokens, checksum FROM embedding WHERE key IN ({marks})"
                for key, pooled, tokens, checksum in self._database.execute(query, some):
                    if _checksum(key, pooled, tokens) != checksum or len(pooled) != 4 * self._dim:
                        raise sqlite3.DatabaseError("a row is not what was written")
                    states = None if tokens is None else np.frombuffer(tokens, np.float16).reshape(-1, self._dim)
                    yield key, Embedding(np.frombuffer(pooled, np.float32), states)

    def write(self, made: Mapping[bytes, Embedding]) -> None:
        """Keep what is not there yet."""
        rows = []
        for key, each in made.items():
            pooled, tokens = each.pooled.tobytes(), None if each.tokens is None else each.tokens.tobytes()
            rows.append((key, pooled, tokens, _checksum(key, pooled, tokens)))
        with self._mended():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _mended(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            problem = f"{self._path} cannot be used ({error})"
            raise InvalidInput("cache", problem, mend="name a file you can write, on a local disk with room") from error
        except sqlite3.DatabaseError as error:
            problem = f"{self._path} is damaged, or no cache of embeddings ({error})"
            raise InvalidInput("cache", problem, mend="name another file, or delete this one") from error


def _checksum(key: bytes, pooled: bytes, tokens: bytes | None) -> int:
    return zlib.crc32(tokens or b"", zlib.crc32(pooled, zlib.crc32(key)))
