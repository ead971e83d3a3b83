"""Row-level security: a role whose transactions see and change the rows of the namespace they are bound to, and no
others, whatever a statement says. It stands behind the namespace that every statement of ours names.

The owner of the tables is not subject to it. Policies read settings of the transaction, and no other table: a
distributed server allows no subquery in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from memspan.ledger.postgres.connections import NAME, SCHEMA, SETTING

TENANT = "memspan_tenant"
"""The role that login roles of applications are members of. It cannot log in itself."""

BOUND = f"nullif(current_setting('{SETTING}', true), '')::bigint"
NAMED = f"nullif(current_setting('{NAME}', true), '')"
_OWN = f"strpos(key, ':') > 0 AND substr(key, strpos(key, ':') + 1) = {NAMED}"  # as in "tuning:acme"
SHARED = (
    "store_id", "created_at", "analyser", "encoder", "basis", "encoding", "unlogged", "next", "dropping", "scrubbing",
)  # fmt: skip
"""What of the store itself everybody reads: it says nothing of any namespace."""
_SHARED = f"key = ANY (ARRAY[{', '.join(repr(key) for key in SHARED)}])"
# that something is left to do after an erasure, which anybody may say, and nothing else in its place
_DUE = """key = 'scrubbing' AND value ~ '^\\["[0-9a-f-]{0,36}", (true|false)\\]$'"""

POLICIES: dict[str, dict[str, str]] = {
    "namespaces": {"SELECT": f"USING (number = {BOUND})"},
    "store": {
        "SELECT": f"USING ({_SHARED} OR {_OWN})",
        "INSERT": f"WITH CHECK ({_DUE} OR {_OWN})",
        "UPDATE": f"USING (key = 'scrubbing' OR {_OWN}) WITH CHECK ({_DUE} OR {_OWN})",
        "DELETE": f"USING ({_OWN})",
    },
}
"""The policies of tables that all namespaces share, by table and command."""
_EVERY = {"ALL": f"USING (namespace = {BOUND}) WITH CHECK (namespace = {BOUND})"}

_TABLES = """
SELECT c.relname, c.relrowsecurity AND p.polrelid IS NOT NULL, n.attname IS NOT NULL
FROM pg_class AS c
LEFT JOIN pg_attribute AS n ON n.attrelid = c.oid AND n.attname = 'namespace' AND NOT n.attisdropped
LEFT JOIN (SELECT DISTINCT polrelid FROM pg_policy) AS p ON p.polrelid = c.oid
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') ORDER BY c.relname
"""


def tables(raw: psycopg.Connection[Any]) -> dict[str, bool]:
    """The tables whose rows are of a namespace, and whether a policy is in force on each."""
    rows = raw.execute(_TABLES, (SCHEMA,)).fetchall()
    return {table: guarded for table, guarded, has in rows if has}


def guard(raw: psycopg.Connection[Any]) -> None:
    """Give every table that has a namespace its policy, and those that all namespaces share theirs; what has one keeps
    it. So a new table is never without. The caller owns the tables."""
    known = {table: guarded for table, guarded, _ in raw.execute(_TABLES, (SCHEMA,)).fetchall()}
    for table, policies in (POLICIES | dict.fromkeys(tables(raw), _EVERY)).items():
        if known[table]:
            continue
        place = sql.Identifier(SCHEMA, table)
        raw.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(place))
        for command, rule in policies.items():
            name = sql.Identifier(f"tenant_{command.lower()}")
            made = sql.SQL("CREATE POLICY {} ON {} FOR {} ").format(name, place, sql.SQL(command))
            raw.execute(made + sql.SQL(rule))  # ours


def grants(raw: psycopg.Connection[Any]) -> Iterator[str]:
    """The statements that let ``TENANT`` do what applications do. It needs no other right, and no table of its own."""
    yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {TENANT}"
    for table in tables(raw):
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.{table} TO {TENANT}"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {SCHEMA}.store TO {TENANT}"
    yield f"GRANT SELECT ON {SCHEMA}.namespaces, {SCHEMA}.migrations TO {TENANT}"
    yield f"REVOKE ALL ON FUNCTION {SCHEMA}.namespace_number(text, boolean) FROM PUBLIC"
    yield f"GRANT EXECUTE ON FUNCTION {SCHEMA}.namespace_number(text, boolean) TO {TENANT}"


def there(raw: psycopg.Connection[Any]) -> bool:
    """Whether this server has the role."""
    return raw.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (TENANT,)).fetchone() is not None


def grant(raw: psycopg.Connection[Any]) -> None:
    """Let the role do what applications do. The caller owns the tables, and the role is there."""
    for statement in grants(raw):
        raw.execute(statement)  # ours


def bound(raw: psycopg.Connection[Any]) -> bool:
    """Whether this connection sees the namespace it is bound to only: its role is not the owner's."""
    there = "SELECT row_security_active(c) FROM to_regclass(%s) AS c WHERE c IS NOT NULL"
    row = raw.execute(there, (f"{SCHEMA}.segments",)).fetchone()
    return bool(row and row[0])


UNTRUSTED = ("arrayoverlap", "arraycontains")
"""What tells whether words are among those of a row. Unless the server trusts them not to tell of rows that a policy
hides, it asks them after the policy, of every row, and not of the index."""


def trusted(raw: psycopg.Connection[Any]) -> bool:
    """Whether a role that row-level security applies to searches for words by their index."""
    known = "SELECT bool_and(proleakproof) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
    row = raw.execute(f"{known} AND proname = ANY(%s)", (list(UNTRUSTED),)).fetchone()
    return bool(row and row[0])


def trust() -> list[str]:
    """The statements by which a superuser has the server trust them, in one database."""
    return [f"ALTER FUNCTION pg_catalog.{name}(anyarray, anyarray) LEAKPROOF" for name in UNTRUSTED]


def members(raw: psycopg.Connection[Any]) -> list[str]:
    """The roles that are members of ``TENANT``, in alphabetical order."""
    rows = raw.execute(
        "SELECT m.rolname FROM pg_auth_members AS a JOIN pg_roles AS r ON r.oid = a.roleid"
        " JOIN pg_roles AS m ON m.oid = a.member WHERE r.rolname = %s ORDER BY 1",
        (TENANT,),
    ).fetchall()
    return [name for (name,) in rows]
