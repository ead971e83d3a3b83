"""Selections on PostgreSQL: counted there and kept up with, and never read as a whole unless somebody asks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs, instant, now
from memspan.ledger.postgres.connections import SCHEMA, PostgresConnection
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.rows import namespace_number
from memspan.ledger.values import ENCODING
from memspan.ledger.where import CURRENT
from memspan.records import NOW, AsOf, Filter, Scope
from memspan.views.base import Lineage, Listed, Selection, Selections, changing

MOST = 4_096  # scopes whose counts are kept

_COMING = "(SELECT min({0}) FROM segments WHERE namespace = ?1 AND {0} IS NOT NULL AND {0} > ?2)"
_HEAD = (
    "SELECT seq, removal, least("
    + ", ".join(_COMING.format(column) for column in ("valid_from", "valid_to", "expires_at"))
    + f"), {ENCODING} FROM heads WHERE namespace = ?1"
)
_GRAPHS = (  # asked of the catalog in a statement of its own, which is not of any one node
    "SELECT CAST(substring(c.relname FROM '[0-9]+$') AS INTEGER) FROM pg_class AS c"
    " JOIN pg_index AS i ON i.indexrelid = c.oid"
    f" WHERE c.relnamespace = CAST('{SCHEMA}' AS regnamespace) AND c.relname >= ?1 AND c.relname < ?2 AND i.indisvalid"
)


class Head(NamedTuple):
    """What is known of a namespace in one moment: its ``number``, the last ``seq`` and the last entry of the removal
    log, ``until`` when no validity changes, the ``encoding`` in use, and whether its vectors are ``walkable``: they
    have an HNSW index."""

    number: int
    seq: int = 0
    removal: int = 0
    until: datetime | None = None
    encoding: int = 0
    walkable: bool = False


def graph_of(number: int, encoding: int | str = "") -> str:
    """The name of the HNSW index over a namespace's vectors in an encoding, or what the names of all begin with."""
    return f"vectors_{number}_{encoding}"


def head_of(connection: PostgresConnection, namespace: str) -> Head:
    """The head of a namespace as this transaction sees it, in one round trip."""
    number = namespace_number(connection, namespace)
    first = graph_of(number)
    with connection.raw.pipeline():
        heads = connection.execute(_HEAD, (number, now()))
        graphs = connection.execute(_GRAPHS, (first, first + ":"))  # the sign after 9
        row = heads.fetchone()
        if row is None:
            return Head(number)
        seq, removal, until, encoding = row
        walkable = (encoding,) in graphs.fetchall()
    return Head(number, seq, removal, None if until is None else instant(until), encoding, walkable)


@dataclass(frozen=True, eq=False, kw_only=True)
class PostgresSelection:
    """A ``Selection`` as a clause: ``source`` is the table of its rows in any query.

    ``clause`` and its ``values`` are in the ledger's SQL, with columns of ``segments`` by their bare names and without
    the namespace. ``scope``, ``filters`` and ``then`` are what was asked for, and ``head`` what it was asked of.
    ``given``: the rows themselves, where they are known.
    """

    scope: Scope
    filters: Filter | None
    then: AsOf | None
    head: Head
    clause: str
    values: tuple[Any, ...]
    rows: int
    total_terms: int
    ledger: PostgresLedger
    listing: Selections
    given: Listed | None = None

    @property
    def namespace(self) -> str:
        return self.scope.namespace

    @property
    def as_of(self) -> datetime | None:
        return None if self.then is None else self.then.known

    @property
    def number(self) -> int:
        return self.head.number

    @property
    def key(self) -> object:
        """What two selections of the same rows have in common."""
        return _key(self.scope, self.filters, self.then)

    def source(self, columns: str) -> tuple[str, list[Any]]:
        """A subselect of these columns of its rows, and the values bound in it."""
        return f"(SELECT {columns} FROM segments WHERE namespace = ? AND {self.clause})", [self.number, *self.values]

    @cached_property
    def listed(self) -> Listed:
        """All its rows, read when they are first asked for."""
        return self.given or self.listing.of(self.scope, self.filters, self.then)

    @property
    def seqs(self) -> Seqs:
        return self.listed.seqs

    @property
    def terms(self) -> NDArray[np.int32]:
        return self.listed.terms

    @property
    def lineage(self) -> Lineage:
        return self.listed.lineage

    def find(self, seqs: Seqs) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        return self.listed.find(seqs)

    def inside(self, seqs: Seqs) -> NDArray[np.bool_]:
        if self.given is not None:
            return self.given.inside(seqs)
        inner, values = self.source("seq")
        with self.ledger.reading() as connection:
            namespace_number(connection, self.namespace)
            rows = connection.execute(f"SELECT seq FROM {inner} AS s WHERE seq = ANY(?)", (*values, seqs.tolist()))
            found = {seq for (seq,) in rows}
        return np.array([seq in found for seq in seqs.tolist()], bool)

    def part(self, seqs: Seqs) -> PostgresSelection:
        some: tuple[Any, ...] = (seqs.tolist(),)
        chosen = replace(self, clause="seq = ANY(?)", values=some, rows=len(seqs))
        inner, values = chosen.source("seq, terms")
        with self.ledger.reading() as connection:
            namespace_number(connection, self.namespace)
            known = dict(connection.execute(f"SELECT seq, terms FROM {inner} AS s", values).fetchall())
        terms = np.array([known.get(seq, 0) for seq in seqs.tolist()], np.int32)
        given = Listed(self.namespace, seqs, terms, int(terms.sum()), Lineage(), self.as_of)
        return replace(chosen, total_terms=given.total_terms, given=given)


def on_server(selection: Selection) -> PostgresSelection:
    """The same, as the views in the database take it."""
    if not isinstance(selection, PostgresSelection):
        raise TypeError(f"a view in the database was asked about a {type(selection).__name__}")
    return selection


class _Counted(NamedTuple):
    """How many rows of how many terms a scope had, by which clause, at which head."""

    head: Head
    clause: str
    values: tuple[Any, ...]
    rows: int
    terms: int


class PostgresSelections:
    """As ``Selections``: each is counted on the server once, and then by what came and went."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger
        self._listing = Selections(ledger)
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, _Counted] = OrderedDict()

    def of(self, scope: Scope, filters: Filter | None = None, as_of: AsOf | None = NOW) -> PostgresSelection:
        """The rows in ``scope`` that pass ``filters``, as of then; None: all that are current, whatever became of
        them."""
        key = None if changing(filters) else _key(scope, filters, as_of)
        with self._lock:
            kept = self._kept.get(key)
        with self._ledger.reading() as connection:
            head = head_of(connection, scope.namespace)
            counted = self._counted(connection, head, scope, filters, as_of, kept)
        if key is not None:
            with self._lock:
                last = self._kept.get(key)
                if last is None or _before(last.head, counted.head):  # another thread may have read a later moment
                    self._kept[key] = counted
                    self._kept.move_to_end(key)
                while len(self._kept) > MOST:
                    self._kept.popitem(last=False)
        return PostgresSelection(
            scope=scope,
            filters=filters,
            then=as_of,
            head=head,
            clause=counted.clause,
            values=counted.values,
            rows=counted.rows,
            total_terms=counted.terms,
            ledger=self._ledger,
            listing=self._listing,
        )

    def _counted(
        self,
        connection: PostgresConnection,
        head: Head,
        scope: Scope,
        filters: Filter | None,
        as_of: AsOf | None,
        kept: _Counted | None,
    ) -> _Counted:
        holds = kept is not None and (as_of != NOW or kept.head.until is None or kept.head.until > datetime.now(UTC))
        if kept is not None and holds and kept.head[:3] == head[:3]:
            return kept
        clause, values = self._ledger.where(scope, filters, as_of)
        fresh = _Counted(head, clause, tuple(values), 0, 0)
        if kept is not None and holds and (as_of is None or as_of.known is None) and _before(kept.head, head):
            moved = _moved(connection, kept, fresh)
            if moved is not None:
                return moved
        sql = f"SELECT count(*), coalesce(sum(terms), 0) FROM segments WHERE namespace = ? AND {clause}"
        rows, terms = connection.execute(sql, (head.number, *values)).fetchone()
        return fresh._replace(rows=rows, terms=terms)


def _key(scope: Scope, filters: Filter | None, as_of: AsOf | None) -> object:
    return scope, repr(filters), as_of  # by repr: 1 and True are equal, and not the same in a filter


def _before(earlier: Head, later: Head) -> bool:
    return earlier.number == later.number and earlier.seq <= later.seq and earlier.removal <= later.removal


def _moved(connection: PostgresConnection, kept: _Counted, fresh: _Counted) -> _Counted | None:
    """The count at the later head: with the rows that came, without those that ended; None where a row is gone, of
    which nobody can tell any more whether it was counted."""
    number = fresh.head.number
    went = "SELECT seq FROM removals WHERE namespace = ? AND entry > ? AND seq <= ?"
    since = (number, kept.head.removal, kept.head.seq)
    ended = f"ended_at IS NOT NULL{kept.clause.removeprefix(CURRENT)}"  # a row never changes but by ending
    counts = "SELECT count(*), coalesce(sum(terms), 0) FROM segments"
    came, left, lost = connection.execute(
        f"{counts} WHERE namespace = ? AND seq > ? AND {fresh.clause}"
        f" UNION ALL {counts} WHERE namespace = ? AND seq IN ({went}) AND {ended}"
        f" UNION ALL SELECT count(*), 0 FROM ({went}) AS r"
        " WHERE NOT EXISTS (SELECT 1 FROM segments WHERE namespace = ? AND seq = r.seq)",
        (number, kept.head.seq, *fresh.values, number, *since, *kept.values, *since, number),
    ).fetchall()
    if lost[0]:
        return None
    return fresh._replace(rows=kept.rows + came[0] - left[0], terms=kept.terms + came[1] - left[1])
