"""``memspan pg`` and what ``doctor`` says of a store on a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from postgres import database, restricted
from test_cli import Run, home, memspan

__all__ = ["home", "memspan"]  # fixtures

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def bare(postgres_server: str) -> Iterator[str]:
    """The address of a database with nothing in it."""
    with database(postgres_server, "template0") as url:
        yield url


def checks(memspan: Run, *arguments: str) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in memspan(*arguments, "--json").document["checks"]}


def test_a_database_is_made_ready_once_and_again(memspan: Run, bare: str) -> None:
    first = memspan("pg", "init", bare, "--json").document
    assert first["migrations"][:1] == [1]
    again = memspan("pg", "init", bare)
    assert "migrations applied: none, it is up to date" in again.out
    assert memspan("pg", "migrate", bare, "--json").document == {"migrations": []}
    with psycopg.connect(bare) as raw:
        grants = raw.execute("SELECT has_table_privilege('memspan_tenant', 'memspan.segments', 'INSERT')").fetchone()
    assert grants == (True,)


def test_a_login_role_is_restricted_and_one_that_is_not_there_is_told_how_to_make(memspan: Run, bare: str) -> None:
    application = restricted(bare)
    assert "memspan_test_application" in memspan("pg", "init", bare, "--json").document["members"]
    said = checks(memspan, "pg", "doctor", application)
    assert "sees the namespaces that it names" in str(said["role"]["detail"])
    missing = memspan("pg", "init", bare, "--role", "nobody there")
    assert missing.code == 2
    assert 'CREATE ROLE "nobody there" LOGIN' in missing.err


def test_what_a_role_may_not_do_is_refused_or_printed_for_one_who_may(memspan: Run, bare: str) -> None:
    other = restricted(bare).replace("memspan_test_application", "memspan_test_other")
    with psycopg.connect(bare, autocommit=True) as raw:
        with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            raw.execute("CREATE ROLE memspan_test_other LOGIN PASSWORD 'memspan_test_other'")
        raw.execute("DROP SCHEMA memspan CASCADE")
    refused = memspan("pg", "init", other)
    assert (refused.code, "have its owner run memspan pg init" in refused.err) == (3, True)
    with psycopg.connect(bare, autocommit=True) as raw:  # it may make the tables, and give nobody a role
        raw.execute(f"GRANT CREATE ON DATABASE {raw.info.dbname} TO memspan_test_other")
    done = memspan("pg", "init", other, "--role", "memspan_test_other")
    assert done.code == 0, done.err
    assert 'GRANT memspan_tenant TO "memspan_test_other";' in done.out


def test_a_server_without_citus_says_what_to_do(memspan: Run, bare: str) -> None:
    if os.environ.get("MEMSPAN_TEST_CITUS_DSN"):
        pytest.skip("this one has it")
    refused = memspan("pg", "init", bare, "--distribute")
    assert refused.code == 4
    assert "it has no Citus" in refused.err
    assert "CREATE EXTENSION citus" in refused.err


def test_the_doctor_finds_that_nothing_is_there_then_that_all_is_well_and_leaves_nothing(
    memspan: Run, bare: str
) -> None:
    said = checks(memspan, "pg", "doctor", bare)
    assert (said["schema"]["ok"], said["schema"]["mend"]) == (False, "make one: memspan pg init")
    assert memspan("pg", "doctor", bare).code == 1
    assert memspan("add", "The train leaves at nine.", "--store", bare).code == 0
    said = checks(memspan, "pg", "doctor", bare)
    assert all(check["ok"] for name, check in said.items() if name != "durability"), said
    assert "added, found and erased" in str(said["memory there"]["detail"])
    whole = checks(memspan, "doctor", "--store", bare)
    assert said.keys() | {"store", "store log"} <= whole.keys()
    assert "1 segments" in str(whole["store"]["detail"])
    with psycopg.connect(bare) as raw:
        assert raw.execute("SELECT name FROM memspan.namespaces").fetchall() == [("default",)]
        assert raw.execute("SELECT count(*) FROM memspan.log").fetchone() == (1,)


def test_the_doctor_warns_of_a_server_that_may_lose_what_was_acknowledged(memspan: Run, bare: str) -> None:
    with psycopg.connect(bare, autocommit=True) as raw:
        raw.execute(f"ALTER DATABASE {raw.info.dbname} SET synchronous_commit = off")
    durability = checks(memspan, "pg", "doctor", bare)["durability"]
    assert (durability["ok"], "may lose what was acknowledged" in str(durability["detail"])) == (False, True)


def test_the_address_is_one_of_a_database(memspan: Run) -> None:
    refused = memspan("pg", "doctor", "some/directory", "--json")
    assert (refused.code, refused.error["argument"]) == (2, "DSN")
    gone = memspan("pg", "doctor", "postgresql://nobody@127.0.0.1:1/nothing", "--json")
    assert (gone.code, gone.error["type"]) == (3, "StoreBusy")
