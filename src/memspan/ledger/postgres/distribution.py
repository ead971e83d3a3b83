"""Distribution by Citus: every table that has a namespace is cut up by it, all in one group, so that what is of a
namespace lies on one machine together; what all namespaces share is copied to each machine.

Source: Cubukcu et al., Citus: Distributed PostgreSQL for Data-Intensive Applications, SIGMOD 2021.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from memspan.errors import MissingExtra
from memspan.ledger.postgres import tenants
from memspan.ledger.postgres.connections import SCHEMA

SHARED = ("migrations", "store", "namespaces")
FIRST = "heads"  # whose group the others join
PROPAGATION = "citus.propagate_set_commands"  # 'local': what SET LOCAL says holds on the workers too


def distribute(raw: psycopg.Connection[Any], where: str) -> list[str]:
    """Distribute the tables that are not yet; their names. The caller owns the tables and the database.

    Connections that are made from then on bind their transactions on the workers too. Raises MissingExtra.
    """
    if raw.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'").fetchone() is None:
        mend = (
            "add citus to shared_preload_libraries, restart the server, then in this database: CREATE EXTENSION citus"
        )
        raise MissingExtra(f"{where} cannot be distributed: it has no Citus", mend=mend)
    left = sorted(tenants.tables(raw).keys() - set(spread(raw)), key=lambda table: (table != FIRST, table))
    shared = [table for table in SHARED if table not in spread(raw)]
    with raw.transaction():
        for table in shared:
            raw.execute("SELECT create_reference_table(%s)", (f"{SCHEMA}.{table}",))
        for table in left:
            beside = "default" if table == FIRST else f"{SCHEMA}.{FIRST}"
            raw.execute(
                "SELECT create_distributed_table(%s, 'namespace', colocate_with => %s)", (f"{SCHEMA}.{table}", beside)
            )
    setting = sql.SQL(f"ALTER DATABASE {{}} SET {PROPAGATION} = 'local'")
    raw.execute(setting.format(sql.Identifier(raw.info.dbname)))
    return [*shared, *left]


def spread(raw: psycopg.Connection[Any]) -> list[str]:
    """The tables that are distributed or copied to each machine."""
    if raw.execute("SELECT to_regclass('pg_catalog.pg_dist_partition')").fetchone() in (None, (None,)):
        return []
    rows = raw.execute(
        "SELECT c.relname FROM pg_dist_partition AS p JOIN pg_class AS c ON c.oid = p.logicalrelid"
        " WHERE c.relnamespace = to_regnamespace(%s) ORDER BY 1",
        (SCHEMA,),
    ).fetchall()
    return [table for (table,) in rows]
