"""On PostgreSQL a restricted role reaches the namespace its transaction is bound to, and no other, whatever it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.encoders.hash import HashEncoder
from memspan.errors import NotWritable

psycopg = pytest.importorskip("psycopg")
OWN, OTHERS = "acme", ("umbrella", "initech")


class Shared(NamedTuple):
    """A store of three tenants: as its owner reaches it, as the restricted role does; the tables that have a namespace;
    the number of each tenant."""

    owner: str
    role: str
    tables: tuple[str, ...]
    numbers: dict[str, int]


def told(memory: Memory, namespace: str) -> None:
    """Leave something in as many tables as there are ways to."""
    said = [{"role": "user", "name": "Ana", "content": f"{text} in {namespace}."} for text in TEXTS]
    first, second, third, fourth = memory.add(said, namespace=namespace, session="s", idempotency_key="k").ids
    memory.add_document(f"# On {namespace}\n\nLisbon is a city.\n\nPorto is one too.", namespace=namespace, uri="a.md")
    memory.link(first, second, "reply", namespace=namespace)
    memory.feedback("who moved?", first, useful=True, namespace=namespace)
    memory.supersede(first, third, namespace=namespace)
    memory.reject(second, third, namespace=namespace)
    memory.update(second, f"Ana moved to Rome in {namespace}.", namespace=namespace)
    memory.search("where is Lisbon?", namespace=namespace)
    memory.erase(fourth, namespace=namespace)
    memory.sleep(namespace=namespace)
    memory.add("This waits.", namespace=namespace, wait=False)


TEXTS = ("Ana moved to Lisbon", "Ana moved to Porto", "Ana moved to Faro", "Ana was never here")


@pytest.fixture(scope="module")
def shared(postgres_server: str) -> Iterator[Shared]:
    from postgres import database, restricted

    from memspan.ledger.postgres import tenants

    with database(postgres_server) as owner:
        with Memory(owner, encoder=HashEncoder()) as memory:
            for namespace in (OWN, *OTHERS):
                told(memory, namespace)
        with psycopg.connect(owner, autocommit=True) as raw:
            numbers = dict(raw.execute("SELECT name, number FROM memspan.namespaces").fetchall())
            tables = tuple(tenants.tables(raw))
            for number in numbers.values():  # what only an encoder with token activations leaves, a queue, a snapshot
                raw.execute(
                    "INSERT INTO memspan.matrices VALUES (%s, 'c', 1, 'm', 1) ON CONFLICT DO NOTHING", (number,)
                )
                raw.execute("INSERT INTO memspan.pending VALUES (1, %s) ON CONFLICT DO NOTHING", (number,))
                raw.execute("INSERT INTO memspan.snapshots VALUES (%s, 'v', 1, 1, 'f', 'c', 1)", (number,))
                raw.execute("INSERT INTO memspan.snapshot_parts VALUES (%s, 'f', 1, 'b')", (number,))
        yield Shared(owner, restricted(owner), tables, numbers)


def digests(shared: Shared) -> dict[tuple[str, int], str]:
    """What each table holds of each namespace, and of what all share."""
    whole = "md5(string_agg(t::text, '|' ORDER BY t::text)) FROM memspan"
    parts = [f"SELECT '{table}', namespace, {whole}.{table} AS t GROUP BY 2" for table in shared.tables]
    parts += [f"SELECT '{table}', 0, {whole}.{table} AS t" for table in ("namespaces", "store", "migrations")]
    with psycopg.connect(shared.owner) as raw:
        rows = raw.execute(" UNION ALL ".join(parts)).fetchall()
    return {(table, number): digest for table, number, digest in rows}


def test_every_table_with_a_namespace_has_the_policy(shared: Shared) -> None:
    policy = "(namespace = (NULLIF(current_setting('memspan.namespace'::text, true), ''::text))::bigint)"
    with psycopg.connect(shared.owner) as raw:
        found = raw.execute(
            "SELECT c.relname, c.relrowsecurity, array_agg((p.permissive, p.cmd, p.qual, p.with_check)::text)"
            " FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
            " LEFT JOIN pg_policies AS p ON p.schemaname = 'memspan' AND p.tablename = c.relname"
            " WHERE c.relnamespace = 'memspan'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'namespace'"
            " GROUP BY 1, 2"
        ).fetchall()
        (whole,) = raw.execute("SELECT row('PERMISSIVE', 'ALL', %s::text, %s::text)::text", (policy, policy)).fetchone()
    assert {table: (active, rules) for table, active, rules in found} == dict.fromkeys(shared.tables, (True, [whole]))
    assert len(found) >= 18


def test_every_table_holds_something_of_every_tenant(shared: Shared) -> None:
    """Else what follows would show nothing."""
    held = digests(shared)
    assert {(table, number) for table in shared.tables for number in shared.numbers.values()} <= held.keys()


SETTINGS = ("own", "other", "none", "", "garbage", "0", "-1", "1e3", "9" * 30)
CONDITIONS = (
    "TRUE", "namespace = {other}", "namespace <> {own}", "namespace IN (SELECT number FROM memspan.namespaces)",
    "namespace = {own} OR TRUE", "EXISTS (SELECT 1 FROM memspan.segments AS s WHERE s.namespace = t.namespace)",
    "namespace::text LIKE '%' AND (SELECT count(*) FROM memspan.{table}) >= 0", "t.ctid IS NOT NULL",
    "namespace >= ALL (SELECT namespace FROM memspan.{table})",
)  # fmt: skip
STATEMENTS = (
    "SELECT namespace FROM memspan.{table} AS t WHERE {condition}",
    "SELECT t.namespace FROM memspan.{table} AS t CROSS JOIN memspan.segments AS s WHERE s.namespace <> {own}",
    "SELECT namespace FROM memspan.segments UNION ALL SELECT namespace FROM memspan.{table}",
    "WITH t AS MATERIALIZED (SELECT * FROM memspan.{table}) SELECT namespace FROM t",
    "SELECT namespace FROM memspan.{table} AS t WHERE {condition} FOR UPDATE",
    "TABLE memspan.{table}",
    "DELETE FROM memspan.{table} AS t WHERE {condition} RETURNING namespace",
    "UPDATE memspan.{table} AS t SET namespace = {other} WHERE {condition} RETURNING namespace",
    "UPDATE memspan.{table} AS t SET namespace = namespace WHERE {condition} RETURNING namespace",
    "INSERT INTO memspan.{table} SELECT (jsonb_populate_record(NULL::memspan.{table},"
    " to_jsonb(t) || jsonb_build_object('namespace', {other}::bigint))).* FROM memspan.{table} AS t",
    "INSERT INTO memspan.{table} AS t SELECT * FROM memspan.{table} ON CONFLICT DO NOTHING RETURNING namespace",
    "INSERT INTO memspan.{table} (namespace) VALUES ({other})",
    "MERGE INTO memspan.{table} AS t USING (SELECT {other}::bigint AS n) AS o ON t.namespace = o.n"
    " WHEN MATCHED THEN DELETE",
    "TRUNCATE memspan.{table}",
    "ALTER TABLE memspan.{table} DISABLE ROW LEVEL SECURITY",
    "DROP POLICY tenant_all ON memspan.{table}",
    "COPY memspan.{table} TO STDOUT",
    "ANALYZE memspan.{table}",
    "SELECT number FROM memspan.namespaces",
    "DELETE FROM memspan.namespaces",
    "UPDATE memspan.namespaces SET name = name || '!'",
    "INSERT INTO memspan.namespaces (name) VALUES ('mine')",
    "DELETE FROM memspan.store",
    "UPDATE memspan.store SET value = 'x'",
    "INSERT INTO memspan.store VALUES ('encoder', 'x') ON CONFLICT (key) DO UPDATE SET value = 'x'",
    "UPDATE memspan.store SET key = 'api_keys'",
    "DELETE FROM memspan.migrations",
)  # fmt: skip
BEFORE = (
    "",
    "SET LOCAL row_security = off",
    "SET LOCAL search_path = pg_temp, memspan",
    "RESET ROLE",
    "SET ROLE postgres",
)


class Attempt(NamedTuple):
    """A statement of somebody who wants more than is his: after what, on which table, where."""

    first: str
    statement: str
    table: int
    condition: str

    def told(self, shared: Shared) -> tuple[str, str]:
        """The table, and the statement about it."""
        table = shared.tables[self.table % len(shared.tables)]
        names = {"table": table, "own": shared.numbers[OWN], "other": shared.numbers[OTHERS[0]]}
        return table, self.statement.format(**names, condition=self.condition.format(**names))


attempts = st.builds(
    Attempt,
    first=st.sampled_from(BEFORE),
    statement=st.sampled_from(STATEMENTS),
    table=st.integers(0, 40),
    condition=st.sampled_from(CONDITIONS),
)


@given(setting=st.sampled_from(SETTINGS), several=st.lists(attempts, min_size=10, max_size=20))
def test_a_raw_connection_never_sees_or_changes_what_is_another_tenants(
    shared: Shared, setting: str, several: list[Attempt]
) -> None:
    bound = {"own": shared.numbers[OWN], "other": shared.numbers[OTHERS[0]]}.get(setting)
    before = digests(shared)
    with psycopg.connect(shared.role, autocommit=True) as raw:
        for attempt in several:
            table, statement = attempt.told(shared)
            try:
                with raw.transaction():
                    raw.execute(f"SET LOCAL memspan.namespace = '{setting if bound is None else bound}'")
                    if setting == "none":
                        raw.execute("RESET memspan.namespace")
                    raw.execute(attempt.first)
                    assert seen(raw, statement, table) <= ({str(bound)} if bound else set()), statement
            except psycopg.Error:
                pass  # refused, and nothing done
    left = {key: digest for key, digest in digests(shared).items() if key[1] != bound}
    assert left == {key: digest for key, digest in before.items() if key[1] != bound}


def seen(raw: Any, statement: str, table: str) -> set[str]:
    """The namespaces of the rows that a statement gives."""
    with raw.cursor() as cursor:
        if not statement.startswith("COPY"):
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            columns = [column.name for column in cursor.description or ()]
        else:
            with cursor.copy(statement) as copied:
                rows = [line.split("\t") for block in copied for line in bytes(block).decode().splitlines()]
            columns = [name for (name,) in raw.execute(COLUMNS, (table,)).fetchall()]
    at = next((at for at, name in enumerate(columns) if name in ("namespace", "number")), None)
    return {"?" if at is None else str(row[at]) for row in rows}


COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'memspan' AND table_name = %s"


def test_without_a_setting_nothing_is_there(shared: Shared) -> None:
    with psycopg.connect(shared.role, autocommit=True) as raw:
        for table in (*shared.tables, "namespaces"):
            assert raw.execute(f"SELECT count(*) FROM memspan.{table}").fetchone() == (0,), table


def test_what_is_kept_of_one_tenant_in_the_store_is_not_told_to_another(shared: Shared) -> None:
    asked = "SELECT key FROM memspan.store WHERE strpos(key, ':') > 0 OR key = 'api_keys'"
    with Memory(shared.owner) as memory:
        memory.create_api_key("laptop", namespaces=OTHERS[0])
    with psycopg.connect(shared.role) as raw:
        raw.execute(f"SET LOCAL memspan.namespace = '{shared.numbers[OWN]}'; SET LOCAL memspan.name = '{OWN}'")
        assert raw.execute(asked).fetchall() == [(f"summaries:{OWN}",)]


def test_a_memory_of_the_restricted_role_does_what_applications_do(postgres: str, tenant: str) -> None:
    with Memory(postgres, encoder=HashEncoder()) as owner:
        owner.add("The owner knows of Rome.", namespace="umbrella")
    with Memory(tenant, namespace="acme", encoder=HashEncoder()) as memory:
        (id,) = memory.add("Ana lives in Lisbon.").ids
        assert [hit.text for hit in memory.search("who lives in Rome or Lisbon?")] == ["Ana lives in Lisbon."]
        memory.update(id, "Ana lives in Porto.")
        assert memory.get(id).text == "Ana lives in Porto."
        assert "Porto" in memory.context("where does Ana live?").text
        assert memory.delete(id) == 1
        (gone,) = memory.add("A secret.").ids
        erased = memory.erase(gone)
        assert (erased.segments, memory.search("secret")) == (1, [])
        assert "only their owner" in erased.due[0]
        memory.add("Said elsewhere.", namespace="initech")
        assert (
            memory.stats()["covers"] == memory.verify()["covers"] == memory.compact()["covers"] == ["acme", "initech"]
        )
        assert memory.verify()["ok"]
        assert set(memory.stats()["namespaces"]) == {"acme", "initech"}
    with Memory(postgres, encoder=HashEncoder()) as owner:
        assert set(owner.stats()["namespaces"]) == {"umbrella", "acme", "initech"}
        assert "covers" not in owner.stats()
        assert owner.verify()["ok"]


def test_what_waits_for_its_vector_is_encoded_by_the_restricted_role(postgres: str, tenant: str) -> None:
    Memory(postgres, encoder=HashEncoder()).close()
    with Memory(tenant, namespace="acme", encoder=None) as memory:
        memory.add("Ana lives in Lisbon.")
        assert memory.stats()["pending"] == 1
    with Memory(tenant, namespace="acme", encoder=HashEncoder()) as memory:
        memory.compact()
        assert memory.stats()["pending"] == 0


def test_the_restricted_role_searches_the_graph_its_owner_made_and_folds_into_it(
    postgres: str, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("GRAPH_ROWS", 100), ("WALK", 10), ("STEP", 1)):
        monkeypatch.setattr(f"memspan.views.postgres.vectors.{name}", value)
    texts = [{"role": "user", "content": f"Parcel {number} goes to town {number % 7}."} for number in range(150)]
    with Memory(postgres, encoder=HashEncoder(), namespace="acme") as owner:
        owner.add(texts)
        owner.compact()
        expected = [hit.text for hit in owner.search("parcel 77 goes to a town", k=20, recipe="semantic")]
    with Memory(tenant, namespace="acme", encoder=HashEncoder()) as memory:
        assert [hit.text for hit in memory.search("parcel 77 goes to a town", k=20, recipe="semantic")] == expected
        memory.add([{"role": "user", "content": f"A late parcel, {number}."} for number in range(150)])
        assert memory.compact()["rewritten"]
        assert memory.stats()["views"]["vectors"]["failure"] is None
        memory.add(texts, namespace="initech")
        memory.compact()
        assert memory.stats()["views"]["vectors"]["failure"] is None


@pytest.mark.parametrize("trusting", [False, True])
def test_the_index_of_words_serves_the_restricted_role_where_the_server_trusts_it(
    postgres: str, tenant: str, trusting: bool
) -> None:
    from memspan.ledger.postgres import tenants

    with psycopg.connect(postgres, autocommit=True) as raw:
        for statement in tenants.trust() if trusting else ():
            raw.execute(statement)
        raw.execute("INSERT INTO memspan.namespaces VALUES (7, 'acme')")
        raw.execute(
            "INSERT INTO memspan.lexical (seq, namespace, words, occurrences)"
            " SELECT n, 7, ARRAY[n % 997, n], '' FROM generate_series(1, 20000) AS n"
        )
        raw.execute("ANALYZE memspan.lexical")
        assert tenants.trusted(raw) is trusting
    with psycopg.connect(tenant) as raw:
        raw.execute("SET LOCAL memspan.namespace = '7'")
        sql = "EXPLAIN SELECT seq FROM memspan.lexical WHERE namespace = 7 AND words && ARRAY[7::bigint]"
        plan = "\n".join(line for (line,) in raw.execute(sql).fetchall())
    assert ("Bitmap Index Scan on lexical_words" in plan) is trusting


@pytest.mark.parametrize(
    "call",
    [
        lambda memory: memory.rebuild(encoder=None),
        lambda memory: memory.create_api_key("x", namespaces="acme"),
    ],
)
def test_what_is_of_the_whole_store_is_refused_to_the_restricted_role(postgres: str, tenant: str, call: Any) -> None:
    with Memory(postgres, encoder=HashEncoder()) as owner:
        owner.add("The owner knows of Rome.", namespace="umbrella")
    with Memory(tenant, namespace="acme", encoder=HashEncoder()) as memory, pytest.raises(NotWritable, match="owner"):
        call(memory)
    with Memory(postgres, encoder=HashEncoder()) as owner:
        assert owner.search("Rome", namespace="umbrella")


def test_the_restricted_role_cannot_make_or_change_the_schema(postgres: str, tenant: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as raw:
        raw.execute("DELETE FROM memspan.migrations")
    with pytest.raises(NotWritable, match="have its owner run"):
        Memory(tenant)
    with psycopg.connect(postgres, autocommit=True) as raw:
        raw.execute("DROP SCHEMA memspan CASCADE")
    with pytest.raises(NotWritable, match="have its owner run memspan pg init"):
        Memory(tenant)
