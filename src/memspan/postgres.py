"""A database as a store: made ready, brought up to date, examined. What ``memspan pg`` does.

The address is that of a role that owns the store, ``postgresql://owner@host:5432/database``, or for ``examine`` that of
any role that is to use it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from memspan.errors import InvalidInput, MemspanError
from memspan.ledger.postgres import distribution, schema, tenants
from memspan.ledger.postgres.connections import POOL, SCHEMA, SETTING, mapped, place
from memspan.ledger.schema import migrations
from memspan.reports import Check

LEAST = {
    "shared_buffers": 128 << 20,  # bytes
    "maintenance_work_mem": 256 << 20,  # an index of 100,000 vectors is made in it
}
TRIPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What ``init`` did: the ``migrations`` applied, the tables ``distributed``, who the ``members`` of the restricted
    role are; and the statements ``to_run`` by somebody who may, because this role may not."""

    migrations: tuple[int, ...] = ()
    distributed: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    to_run: tuple[str, ...] = ()


def init(url: str, *, distribute: bool = False, role: str | None = None) -> Prepared:
    """Make a database ready: the newest schema, the restricted role ``memspan_tenant``, its policies and rights. What
    is there already stays; so it can be repeated.

    ``distribute``: have Citus distribute all tables by namespace. ``role``: a role that logs in, which shall see the
    namespaces that it names and nothing else: it becomes a member of ``memspan_tenant``. Raises StoreError,
    MissingExtra where the server lacks an extension, InvalidInput.
    """
    with _connected(url) as raw:
        applied = schema.migrate(raw, place(url))
        to_run = []
        if not tenants.there(raw):
            to_run += _tried(raw, f"CREATE ROLE {tenants.TENANT} NOLOGIN")
        if tenants.there(raw):
            tenants.grant(raw)
        else:
            to_run += tenants.grants(raw)
        if role is not None and role not in tenants.members(raw):
            member = sql.SQL(f"GRANT {tenants.TENANT} TO {{}}").format(sql.Identifier(role)).as_string(raw)
            if raw.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                made = sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)).as_string(raw)
                raise InvalidInput("role", f"the server has no role {role!r}", mend=f"make it: {made} PASSWORD '...'")
            to_run += [member] if to_run else _tried(raw, member)
        distributed = distribution.distribute(raw, place(url)) if distribute else ()
        return Prepared(
            migrations=tuple(applied),
            distributed=tuple(distributed),
            members=tuple(tenants.members(raw)),
            to_run=tuple(to_run),
        )


def migrate(url: str) -> tuple[int, ...]:
    """Bring the schema up to date; the numbers of what was applied. Raises StoreError, MissingExtra."""
    with _connected(url) as raw:
        return tuple(schema.migrate(raw, place(url)))


def examine(url: str) -> Iterator[Check]:
    """What the server is, what it can do, how it is set, and whether the store in it is in order. Changes nothing.

    Raises StoreError where it cannot be reached.
    """
    with _connected(url) as raw:
        yield _server(raw)
        yield from _extensions(raw)
        store = _store(raw, place(url))
        yield store
        yield from _settings(raw)
        yield _trips(raw)
        if not store.ok:
            return
        yield from _roles(raw)
        yield from _distribution(raw)


def forget(url: str, namespace: str) -> None:
    """Remove a namespace with all that is in it, the log too, as if it had never been: for one made to try something.

    Its name stays where this role may not take it away. Raises StoreError.
    """
    with _connected(url) as raw, raw.transaction():
        row = raw.execute(f"SELECT {SCHEMA}.namespace_number(%s, FALSE)", (namespace,)).fetchone()
        if row is None or row[0] is None:
            return
        raw.execute(f"SET LOCAL {SETTING} = '{int(row[0])}'")
        for table in tenants.tables(raw):
            place_of = sql.Identifier(SCHEMA, table)
            raw.execute(sql.SQL("DELETE FROM {} WHERE namespace = %s").format(place_of), row)
        if not tenants.bound(raw):
            raw.execute(f"DELETE FROM {SCHEMA}.namespaces WHERE number = %s", row)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with mapped(url), psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="memspan pg") as raw:
        yield raw


def _tried(raw: psycopg.Connection[Any], statement: str) -> list[str]:
    """Run a statement; where this role may not, it is left for somebody who may."""
    try:
        raw.execute(statement)  # ours
    except psycopg.errors.InsufficientPrivilege:
        return [statement]
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):  # somebody has just made it
        pass
    return []


def _server(raw: psycopg.Connection[Any]) -> Check:
    version = raw.info.server_version
    detail = f"PostgreSQL {version // 10_000}.{version % 10_000}, database {raw.info.dbname}, as {raw.info.user}"
    return Check(name="server", ok=version >= schema.OLDEST, detail=detail, mend="use PostgreSQL 15 or newer")


def _extensions(raw: psycopg.Connection[Any]) -> Iterator[Check]:
    offered = raw.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone() is not None
    installed = raw.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is not None
    can = schema.capabilities(raw)
    if installed:
        told = [
            f"{'halfvec, 2' if can.half else 'vector, 4'} bytes a dimension",
            "iterative scans" if can.iterative else "no iterative scans: what is filtered is searched again, exactly",
        ]
        yield Check(name="pgvector", ok=True, detail=f"{'.'.join(map(str, can.vector))}: {'; '.join(told)}")
    else:
        detail = "not in this database yet; memspan pg init creates it" if offered else "not on this server"
        mend = "install pgvector on the server, then as its superuser: CREATE EXTENSION vector"
        yield Check(name="pgvector", ok=offered, detail=detail, mend=mend)
    yield Check(name="folding", ok=True, detail=f"texts are compared without regard to case by {can.fold.format('x')}")


def _store(raw: psycopg.Connection[Any], where: str) -> Check:
    known = migrations("postgres")
    try:
        applied = schema.applied(raw)
        schema.prove(applied, known[: len(applied)], where)
    except MemspanError as error:
        return Check(name="schema", ok=False, detail=error.problem, mend=error.mend)
    except psycopg.errors.InsufficientPrivilege as error:
        mend = f"GRANT {tenants.TENANT} TO this role, or run memspan pg init --role as the owner"
        return Check(name="schema", ok=False, detail=str(error).splitlines()[0], mend=mend)
    if not applied:
        return Check(name="schema", ok=False, detail="this database holds no store", mend="make one: memspan pg init")
    detail = f"{applied[-1][0]} of {known[-1].number}, each as this memspan has it"
    return Check(name="schema", ok=len(applied) == len(known), detail=detail, mend="run memspan pg migrate")


def _roles(raw: psycopg.Connection[Any]) -> Iterator[Check]:
    bare = [table for table, guarded in tenants.tables(raw).items() if not guarded]
    detail = f"in force on {len(tenants.tables(raw)) - len(bare)} tables" + (
        f", not on {', '.join(bare)}" if bare else ""
    )
    yield Check(name="row security", ok=not bare, detail=detail, mend="run memspan pg init as the owner")
    if tenants.bound(raw) or tenants.members(raw):
        slow = (
            f"not by restricted roles, which read all of a namespace; a superuser may say: {'; '.join(tenants.trust())}"
        )
        yield Check(name="word index", ok=True, detail="used by every role" if tenants.trusted(raw) else slow)
    if tenants.bound(raw):
        yield Check(name="role", ok=True, detail=f"{raw.info.user} sees the namespaces that it names, one at a time")
        return
    members = ", ".join(tenants.members(raw)) or "none: memspan pg init --role NAME makes one"
    there = tenants.there(raw)
    told = f"{raw.info.user} is not subject to row security; members of {tenants.TENANT}: {members}"
    detail = told if there else f"there is no role {tenants.TENANT}: every role that may read may read all namespaces"
    yield Check(name="role", ok=True, detail=detail)


def _settings(raw: psycopg.Connection[Any]) -> Iterator[Check]:
    names = "'fsync', 'full_page_writes', 'synchronous_commit', 'max_connections', 'superuser_reserved_connections'"
    now: dict[str, str] = dict(raw.execute(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})").fetchall())
    loose = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if now[name] == "off"]
    detail = f"{', '.join(loose)} off: a crash of the server may lose what was acknowledged" if loose else "all on"
    yield Check(name="durability", ok=not loose, detail=detail, mend="switch it on in postgresql.conf")
    most = int(now["max_connections"]) - int(now["superuser_reserved_connections"])
    clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    used = _number(raw, clients)
    detail = f"{used} of {most} in use; each process that opens a memory takes up to {POOL}"
    mend = "raise max_connections, or use a pooler"
    yield Check(name="connections", ok=most - used >= POOL, detail=detail, mend=mend)
    sizes = {name: _number(raw, "SELECT pg_size_bytes(current_setting(%s))", name) for name in LEAST}
    told = ", ".join(f"{name} {size >> 20} MiB" for name, size in sizes.items())
    small = [f"{name} to {LEAST[name] >> 20} MiB" for name, size in sizes.items() if size < LEAST[name]]
    advice = f"; for many segments raise {', '.join(small)}" if small else ""
    yield Check(name="memory", ok=True, detail=told + advice)


def _number(raw: psycopg.Connection[Any], query: str, *values: Any) -> int:
    row = raw.execute(query, values).fetchone()
    return int(row[0]) if row else 0


def _trips(raw: psycopg.Connection[Any]) -> Check:
    times = []
    for _ in range(TRIPS):
        started = time.perf_counter()
        raw.execute("SELECT 1").fetchone()
        times.append(time.perf_counter() - started)
    return Check(
        name="round trip", ok=True, detail=f"{sorted(times)[TRIPS // 2] * 1000:.2f} ms; a search takes several"
    )


def _distribution(raw: psycopg.Connection[Any]) -> Iterator[Check]:
    if not (spread := distribution.spread(raw)):
        return
    missing = sorted({*distribution.SHARED, *tenants.tables(raw)} - set(spread))
    nodes = _number(raw, "SELECT count(*) FROM pg_dist_node WHERE shouldhaveshards")
    detail = f"{len(spread)} tables on {nodes} nodes" + (f", but not {', '.join(missing)}" if missing else "")
    yield Check(name="distribution", ok=not missing, detail=detail, mend="run memspan pg init --distribute")
    said = raw.execute("SELECT current_setting(%s, true)", (distribution.PROPAGATION,)).fetchone()
    detail = f"{distribution.PROPAGATION} = {said[0] if said else None}"
    mend = f"run memspan pg init --distribute: without it, roles bound by {SETTING} see nothing on the workers"
    yield Check(name="propagation", ok=said == ("local",), detail=detail, mend=mend)
