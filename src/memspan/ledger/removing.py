"""How segments leave a ledger for good: every version and all that hangs on it, in one transaction.

What a transaction cannot reach (the write-ahead log, index files, free pages) is scrubbed after it. That this is due
is written in the same transaction, so that a crash between the two is made good at the next open.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set

from memspan.ledger.archiving import Archiving, stamps_of
from memspan.ledger.base import DUPLICATE, ERASE, Due, Removal, Stamp, Why, cites
from memspan.ledger.log import Change
from memspan.ledger.rows import chunks, id_bytes, id_text, marks, namespace_number
from memspan.ledger.transactions import Connection
from memspan.ledger.values import put_value
from memspan.records import Filter, Scope

DUE = "scrubbing"  # of the store: what the last erasures have left to do
DERIVED_FROM = "derived_from"
DERIVED = (DERIVED_FROM, "summarises")
"""Links from what was made of a segment to that segment: it quotes it, and goes with it."""

SAID = {
    "segments": "text, gap, tail, speaker, heading, category, metadata, user_id, agent_id, run_id, session, role,"
    " source, kind, state",
    "documents": "uri, title, media",
    "edges": "kind",
    "operations": "key",
    "judgements": "query",
    "namespaces": "name",
    "store": "key, value",
    "log": "verb, actor, detail",
    "changes": "link",
    "migrations": "name, sha256",
}
"""Where something is said for itself, and not derived from what is said elsewhere: table and columns."""


class Removing(Archiving):
    """The part of a ledger that removes segments."""

    def erase(
        self,
        namespace: str,
        ids: Sequence[str],
        why: Why = ERASE,
        *,
        archived: Sequence[str] = (),
        vacuum: bool = False,
    ) -> Removal:
        """Remove segments with every version, vector and index entry, and what was derived from them.

        ``archived`` are some that lie in archives beside the store only: the log says of them too that they were
        erased. ``vacuum``: the scrubbing that is due then shall free the space.
        """
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            going = {key for id in ids if (key := id_bytes(id))}
            done = self._erased(connection, number, going, why, archived, vacuum)
        self.erase_dead()
        return done

    def erase_scope(
        self, scope: Scope, filters: Filter | None, *, archived: Sequence[str] = (), vacuum: bool = False
    ) -> Removal:
        """Remove everything in ``scope`` (that passes ``filters`` in its last version) in one transaction; otherwise as
        ``erase``."""
        with self.writing() as connection:
            number = namespace_number(connection, scope.namespace)
            clause, values = self.where(scope, filters, None)
            clause = clause.replace("ended_at IS NULL", "TRUE", 1)
            if filters is not None:
                clause += (
                    " AND version ="
                    " (SELECT max(version) FROM segments AS v WHERE v.namespace = s.namespace AND v.id = s.id)"
                )
            rows = connection.execute(
                f"SELECT DISTINCT id FROM segments AS s WHERE namespace = ? AND {clause}", (number, *values)
            )
            going = {id for (id,) in rows.fetchall()}
            done = self._erased(connection, number, going, ERASE, archived, vacuum)
        self.erase_dead()
        return done

    def prune(self, namespace: str, stamps: Mapping[str, Stamp], why: Why) -> bool:
        """Remove segments, all or nothing; False, and nothing removed, when anything was written of one of them since
        it had its stamp. What was derived from them stays: it is not gone, but put away."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            if stamps_of(connection, number, list(stamps)) != stamps:
                return False
            self._removed(connection, number, {id_bytes(id): False for id in stamps}, why, ())
        self.erase_dead()
        return True

    def _erased(
        self,
        connection: Connection,
        number: int,
        going: set[bytes],
        why: Why,
        archived: Sequence[str],
        vacuum: bool,
    ) -> Removal:
        """Remove what is ``going`` and what was derived from it; that its traces are to be scrubbed is due."""
        named = going | {id_bytes(id) for id in archived}
        derived = _derived(connection, number, list(named)) - named
        gone = dict.fromkeys(named, False) | dict.fromkeys(derived, True)
        done = self._removed(connection, number, gone, why, archived)
        if done.operation is not None or vacuum:
            due = _due(connection) or Due(operation="", vacuum=False)
            told = json.dumps([done.operation or due.operation, vacuum or due.vacuum])
            put_value(connection, DUE, told)
        return done

    def _removed(
        self, connection: Connection, number: int, going: Mapping[bytes, bool], why: Why, archived: Sequence[str]
    ) -> Removal:
        """Remove every version of what is ``going``, whether because another one does, and write down that it was."""
        last = [
            row
            for chunk in chunks(list(going))
            for row in connection.execute(
                f"SELECT id, max(version), min(seq) FROM segments WHERE namespace = ? AND id IN ({marks(chunk)})"
                " GROUP BY id",
                (number, *chunk),
            ).fetchall()
        ]
        last.sort(key=lambda row: row[2])
        changes = [Change(id, version) for id, version, _ in last]
        changes += [Change(id_bytes(id)) for id in archived]
        if not changes:
            return Removal(segments=0, versions=0)
        versions = self.sweep_away(connection, number, [id for id, _, _ in last])
        _forget_keys(connection, number, going.keys())
        return Removal(
            segments=len(last),
            versions=versions,
            derived=sum(going[id] for id, _, _ in last),
            operation=self.logged(connection, number, why, changes),
            first=last[0][2] if last else None,
        )

    def derived(self, namespace: str, ids: Collection[str]) -> set[str]:
        """What goes with these segments when they are erased, because it was derived from them."""
        with self.reading() as connection:
            found = _derived(connection, namespace_number(connection, namespace), [id_bytes(id) for id in ids])
        return {id_text(id) for id in found}

    def erased(self, namespace: str, ids: Collection[str]) -> set[str]:
        """Those of ``ids`` that were erased, and not stored again since."""
        found: set[str] = set()
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(list(ids)):
                rows = connection.execute(
                    "SELECT c.id, l.verb FROM changes AS c JOIN log AS l"
                    " ON l.namespace = c.namespace AND l.entry = c.entry"
                    f" WHERE c.namespace = ? AND c.id IN ({marks(chunk)}) AND c.other IS NULL ORDER BY c.entry",
                    (number, *map(id_bytes, chunk)),
                )
                found.update(id_text(id) for id, verb in dict(rows.fetchall()).items() if verb == ERASE.verb)
        return found

    # Scrubbing: what is done after the transaction

    def due(self) -> Due | None:
        """The scrubbing that is left to do after the last erasures."""
        with self.reading() as connection:
            return _due(connection)

    def done(self, due: Due) -> None:
        """Write down that nothing is left to do, unless something was erased meanwhile."""
        with self.writing() as connection:
            if _due(connection) == due:
                connection.execute("DELETE FROM store WHERE key = ?", (DUE,))

    def said(self) -> Iterator[str]:
        """All that the store says now, row by row, but what is derived from it."""
        with self.reading() as connection:
            for table, columns in SAID.items():
                for row in connection.execute(f"SELECT {columns} FROM {table}"):
                    yield "\n".join(str(value) for value in row if value is not None)


def _derived(connection: Connection, number: int, ids: Sequence[bytes]) -> set[bytes]:
    """What was derived from these, and from that in turn: by the passages it cites in any version, or by what it is
    linked to."""
    made: dict[bytes, set[bytes]] = {}
    for id, raw in connection.execute(
        "SELECT id, metadata FROM segments WHERE namespace = ? AND source = 'derived' AND metadata IS NOT NULL",
        (number,),
    ):
        for source in cites(json.loads(raw)):
            made.setdefault(id_bytes(source), set()).add(id)
    for id, source in connection.execute(
        "SELECT e.source, e.target FROM segments AS d JOIN edges AS e ON e.namespace = d.namespace AND e.source = d.id"
        f" AND e.kind IN ({marks(DERIVED)}) WHERE d.namespace = ? AND d.source = 'derived'",
        (*DERIVED, number),
    ):
        made.setdefault(source, set()).add(id)
    for id, kept in connection.execute(  # said once more in what took its place
        "SELECT e.source, e.target FROM segments AS d JOIN edges AS e ON e.namespace = d.namespace AND e.source = d.id"
        " AND e.kind = ? WHERE d.namespace = ? AND d.state = 'merged'",
        (DUPLICATE, number),
    ):
        made.setdefault(kept, set()).add(id)
    found: set[bytes] = set()
    left = list(ids) if made else []
    while left:
        new = made.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def _due(connection: Connection) -> Due | None:
    row = connection.execute("SELECT value FROM store WHERE key = ?", (DUE,)).fetchone()
    return None if row is None else Due(*json.loads(row[0]))


def _forget_keys(connection: Connection, number: int, going: Set[bytes]) -> None:
    """What was kept of calls with an idempotency key that wrote what is gone: its payload is a hash of what was said.

    Where nothing is left of what a call wrote, it goes whole; else the key goes on answering, without the hash.
    """
    if connection.execute("SELECT 1 FROM operations WHERE namespace = ? LIMIT 1", (number,)).fetchone() is None:
        return
    made = {
        operation
        for chunk in chunks(list(going))
        for (operation,) in connection.execute(
            "SELECT DISTINCT l.operation FROM changes AS c JOIN log AS l"
            " ON l.namespace = c.namespace AND l.entry = c.entry"
            f" WHERE c.namespace = ? AND c.id IN ({marks(chunk)}) AND l.verb = 'add'",
            (number, *chunk),
        )
    }
    by = "SELECT key, result FROM operations WHERE namespace = ? AND json_extract(result, '$[2]')"
    kept = connection.execute(f"{by} IS NULL", (number,)).fetchall()  # from before there was a log
    for chunk in chunks([id_text(operation) for operation in made]):
        kept += connection.execute(f"{by} IN ({marks(chunk)})", (number, *chunk)).fetchall()
    there = "SELECT 1 FROM segments WHERE namespace = ? AND id = ?"
    for key, result in kept:
        ids = [id_bytes(id) for id in json.loads(result)[0]]
        if going.isdisjoint(ids):
            continue
        if any(connection.execute(there, (number, id)).fetchone() for id in ids):
            connection.execute("UPDATE operations SET payload = x'' WHERE namespace = ? AND key = ?", (number, key))
        else:
            connection.execute("DELETE FROM operations WHERE namespace = ? AND key = ?", (number, key))
