"""Where a benchmark makes its stores: in a scratch directory, or as databases of a server; all go when it ends."""

from __future__ import annotations

import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from memspan.config import SCHEMES
from memspan.errors import InvalidInput

SIZES = """
SELECT CASE WHEN i.indexrelid IS NULL THEN c.relname ELSE 'index ' || c.relname END,
    CASE WHEN i.indexrelid IS NULL THEN pg_table_size(c.oid) ELSE pg_relation_size(c.oid) END
FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE c.relnamespace = 'memspan'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY 2 DESC
"""


class Places(Protocol):
    """Makes room for stores."""

    def new(self, name: str) -> str:
        """What opens a store that is not there yet, the same one for the same name."""

    def bytes(self, name: str) -> int:
        """What the store ``name`` takes on the disk."""

    def parts(self, name: str) -> dict[str, int]:
        """The same by what it is made of: files, or tables and their indexes, the largest first."""


class Directories:
    """Stores below a directory."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def new(self, name: str) -> str:
        return str(self._scratch / name)

    def bytes(self, name: str) -> int:
        return sum(self.parts(name).values())

    def parts(self, name: str) -> dict[str, int]:
        sizes = Counter[str]()
        for file in (self._scratch / name).rglob("*"):
            if file.is_file():
                sizes[file.relative_to(self._scratch / name).parts[0]] += file.stat().st_size
        return dict(sizes.most_common())


class Databases:
    """Stores as databases of the server that ``url`` is an address of, whose user may create them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: dict[str, str] = {}

    def new(self, name: str) -> str:
        from memspan.ledger.postgres.connections import database

        if name not in self._made:
            self._made[name] = f"memspan_bench_{uuid.uuid4().hex[:12]}"
            self._say(f"CREATE DATABASE {self._made[name]}")
        return database(self._url, self._made[name])

    def bytes(self, name: str) -> int:
        return sum(self.parts(name).values())

    def parts(self, name: str) -> dict[str, int]:
        return dict(self._say(SIZES, self.new(name)))

    def drop(self) -> None:
        for made in self._made.values():
            self._say(f"DROP DATABASE IF EXISTS {made} WITH (FORCE)")

    def _say(self, sql: str, url: str | None = None) -> list[tuple[str, int]]:
        import psycopg

        from memspan.ledger.postgres.connections import mapped

        with mapped(url or self._url), psycopg.connect(url or self._url, autocommit=True) as raw:
            found = raw.execute(sql)
            return [] if found.description is None else found.fetchall()


@contextmanager
def places(store: str | None, prefix: str, beside: Path | None = None) -> Iterator[Places]:
    """Room on the server ``store`` names, or where it is None in a scratch directory, in ``beside`` where
    that is given. Raises InvalidInput for a
    directory, which a benchmark does not fill, MissingExtra, StoreError."""
    if store is None:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=beside) as scratch:
            yield Directories(Path(scratch))
        return
    if not store.startswith(SCHEMES):
        raise InvalidInput("store", f"{store} is no server", mend="give postgresql://..., or leave it out")
    made = Databases(store)
    try:
        yield made
    finally:
        made.drop()
