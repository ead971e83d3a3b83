"""What the ledgers over SQL databases share, and what each dialect does in its own way.

The mixins of this package say what a ledger does, in SQL that SQLite and PostgreSQL both understand: booleans are TRUE
and FALSE, the greater of two is ``greatest``, an upsert names its columns. What a dialect cannot say with the others is
a method here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from memspan.activations.tokens import Activation
from memspan.ledger.where import Clauses
from memspan.records import Draft


class Cursor(Protocol):
    """The rows a statement gave, and how many it changed."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction's way to the database."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor: ...
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Cursor: ...


class Transactions(Protocol):
    """Both kinds of transaction, and what is written differently from dialect to dialect within them. ``where`` says
    which rows are in a scope."""

    where: Clauses
    missing: str  # the tables and the condition, of an encoding, of the segments s that have no activation in it
    of_text: str  # the columns of s by which what is encoded is kept

    def reading(self) -> AbstractContextManager[Connection]:
        """A read transaction: nested uses on one thread share one moment of the store."""

    def newest(self) -> AbstractContextManager[Connection]:
        """A read transaction that begins now, whatever moment this thread reads in."""

    def writing(self) -> AbstractContextManager[Connection]:
        """A write transaction: committed and durable at the end, or rolled back whole."""

    def next_seqs(self, connection: Connection, number: int, count: int) -> int:
        """The first of the next ``count`` seqs, which are this transaction's to give."""

    def last_entry(self, connection: Connection, number: int) -> tuple[int, bytes] | None:
        """The number and hash of the log entry that the next one follows, None where there is none."""

    def ended(self, connection: Connection, number: int, seqs: Collection[int]) -> None:
        """Rows have just ended: who keeps up with the ledger is told."""

    def sweep_away(self, connection: Connection, number: int, ids: Sequence[bytes]) -> int:
        """Remove every version of these segments and all that hangs on them; how many versions that were."""

    def alone(self, connection: Connection, key: str) -> None:
        """Nobody else changes the store's value ``key`` until this transaction ends."""

    def wanted(
        self, connection: Connection, number: int, activations: Mapping[bytes, Activation]
    ) -> dict[bytes, Activation]:
        """Those of texts that are still there."""

    def drop_encodings(self) -> None:
        """Drop activations of encodings that are neither in use nor being made, where there are any since a switch."""

    def nobody_writes(self, connection: Connection) -> None:
        """Nobody else writes a row until this transaction ends."""

    def schema(self, connection: Connection) -> int:
        """The number of the last migration."""

    def erase_dead(self) -> None:
        """Leave nothing of token matrices that no segment refers to any more."""

    def index_words(self, connection: Connection, number: int, rows: Sequence[tuple[int, Draft]]) -> None:
        """Have the words of new rows found."""

    def having(self, connection: Connection, number: int, contents: Collection[bytes]) -> set[bytes]:
        """Those of ``contents`` whose activation is kept already."""

    def served(self, connection: Connection, number: int, contents: Collection[bytes]) -> int:
        """A row waits for its vector or has one, never both: those of ``contents`` have it now; how many waited."""

    def keep(
        self,
        connection: Connection,
        number: int,
        activations: Mapping[bytes, Activation],
        encoding: int | None = None,
    ) -> None:
        """Keep activations by content, under ``encoding`` or the one in use; those that are there already stay."""
