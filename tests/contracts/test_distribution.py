"""A server may distribute everything by namespace: no statement of ours needs several machines, but those named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from distribution import OF_THE_WHOLE_STORE, offences

from memspan import Memory
from memspan.encoders.hash import HashEncoder
from memspan.ledger.schema import migrations

SOURCE = Path(__file__).parents[2] / "src" / "memspan"
SHARED = ("archiving", "changing", "feeding", "log", "recording", "removing", "rows", "values", "where")
COLUMNS = {
    table: re.findall(r"^ {4}([a-z_]+) ", body, re.M)
    for migration in migrations("postgres")
    for table, body in re.findall(r"^CREATE TABLE (\w+) \((.*?)^\);", migration.sql, re.M | re.S)
    if re.search(r"^ {4}namespace ", body, re.M)
}


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("SELECT 1 FROM segments WHERE namespace = %s AND id = ANY(%s)", []),
        ("SELECT 1 FROM segments", ["segments as segments"]),
        ("SELECT 1 FROM segments WHERE namespace = %s OR TRUE", ["segments as segments"]),
        ("SELECT 1 FROM segments WHERE namespace > %s", ["segments as segments"]),
        ("SELECT 1 FROM segments AS s JOIN log AS l ON l.namespace = s.namespace WHERE l.namespace = %s", []),
        ("SELECT 1 FROM segments AS s JOIN log AS l ON l.entry = s.seq WHERE s.namespace = %s", ["log as l"]),
        ("SELECT 1 FROM segments AS s LEFT JOIN usage AS u ON u.id = s.id WHERE s.namespace = %s", ["usage as u"]),
        ("SELECT 1 FROM log AS l WHERE namespace = %s AND EXISTS (SELECT 1 FROM segments WHERE id = l.operation)",
            ["segments as segments"]),
        ("SELECT 1 FROM log AS l WHERE namespace = %s AND EXISTS"
            " (SELECT 1 FROM segments AS s WHERE s.namespace = l.namespace)", []),
        ("WITH s AS (SELECT id FROM segments WHERE namespace = %s) SELECT 1 FROM s", []),
        ("WITH s AS (SELECT id FROM segments) SELECT 1 FROM s", ["segments as segments"]),
        ("UPDATE segments SET repeats = 0 WHERE seq = %s", ["segments as segments"]),
        ("DELETE FROM pending WHERE namespace = %s AND seq IN (SELECT seq FROM segments WHERE id = %s)",
            ["segments as segments"]),
        ("INSERT INTO pending (seq, namespace) VALUES (%s, %s) ON CONFLICT (seq) DO NOTHING",
            ["a conflict in pending is known by seq alone"]),
        ("INSERT INTO pending (seq, namespace) SELECT seq, 1 + namespace FROM segments WHERE namespace = %s",
            ["pending as pending"]),
        ("SELECT count(*) FROM segments AS s JOIN log AS l ON l.entry = s.seq", ["log as l"]),
        ("SELECT count(*) FROM segments AS s JOIN log AS l ON l.namespace = s.namespace", []),
    ],
)  # fmt: skip
def test_the_rule_tells_what_one_machine_can_answer(statement: str, broken: list[str]) -> None:
    assert offences(statement, COLUMNS) == broken


def literals() -> Iterator[tuple[str, str]]:
    """Where each text that names a table of a namespace stands, and the text, in what speaks to PostgreSQL; what is put
    into it later is "{}"."""
    files = [SOURCE / "ledger" / f"{name}.py" for name in SHARED]
    files += [*(SOURCE / "ledger" / "postgres").glob("*.py"), *(SOURCE / "views" / "postgres").glob("*.py")]
    named = re.compile(rf"\b(FROM|JOIN|INTO|UPDATE) ({'|'.join(COLUMNS)})\b")
    for file in files:
        inside = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                inside.update(map(id, node.values))
                parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
                text = "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            if named.search(text) and "\n    " not in text.strip("\n"):
                yield f"{file.name}:{node.lineno}", text


SAID_LATER = r"\bnamespace\b|\bUSING \(|(WHERE|FROM \w+|FROM \w+ AS \w+|\?) \{\}|INTO \w+ (VALUES \(|SELECT )\?"
"""The namespace, or a place where it is put in: there the rule is seen to when the statement is issued."""
ELSEWHERE = ("SELECT entry, hash FROM log ORDER BY entry DESC LIMIT 1",)  # asked of SQLite alone


def test_every_statement_that_is_written_down_names_the_namespace_or_why_not() -> None:
    found = list(literals())
    assert len(found) > 100
    bare = {
        place: text
        for place, text in found
        if not re.search(SAID_LATER, text)
        and text not in ELSEWHERE
        and not any(re.search(pattern, text.replace("?", "%s")) for pattern in OF_THE_WHOLE_STORE)
    }
    assert bare == {}


def test_no_table_of_a_namespace_has_a_key_without_it_a_trigger_or_a_tie_to_another() -> None:
    whole = "\n".join(migration.sql for migration in migrations("postgres"))
    tables = re.findall(r"^CREATE TABLE (\w+) \((.*?)^\);", whole, re.M | re.S)
    keys = {table: re.search(r"PRIMARY KEY \((\w+)|(\w+)[^,\n]* PRIMARY KEY", body) for table, body in tables}
    first = {table: found and (found[1] or found[2]) for table, found in keys.items() if table in COLUMNS}
    assert first == dict.fromkeys(COLUMNS, "namespace")
    for table, columns in re.findall(r"^CREATE UNIQUE INDEX \w+ ON (\w+) \(([^)]*)\)", whole, re.M):
        assert table not in COLUMNS or "namespace" in columns
    assert not re.search(r"\bREFERENCES\b|\bTRIGGER\b|\bSERIAL\b|\bnextval\b", whole)
    assert re.findall(r"^    (\w+) .*IDENTITY", whole, re.M) == ["number"]  # of the namespaces themselves


def test_what_applications_do_needs_one_machine_each(postgres: str) -> None:
    """Beside the contracts: each verb once. Only the worker and care ask all machines, and neither runs here."""
    from postgres import STATEMENTS

    with Memory(postgres, encoder=HashEncoder()) as memory:
        memory.add("This makes the store and its namespace.")
        STATEMENTS.listen()
        STATEMENTS.known.clear()
        STATEMENTS.new.clear()
        first, second = (memory.add(text, session="s").ids[0] for text in ("Ana moved to Lisbon.", "Ben rows there."))
        for recipe in ("default", "deep", "dsm", "flat", "keyword"):
            memory.search("who moved?", recipe=recipe, filters={"session": "s"})
        memory.context("who moved?", budget=200)
        memory.get(first)
        memory.link(first, second, "reply")
        memory.neighbors(first)
        memory.update(first, "Ana moved to Porto.")
        memory.history(first)
        memory.feedback("who moved?", first, useful=True)
        memory.delete(second)
        memory.get_all()
        memory.erase(first)
        said = set(STATEMENTS.new)
    whole = {statement for statement in said for pattern in OF_THE_WHOLE_STORE if re.search(pattern, statement)}
    assert len(said) > 50
    assert {statement for statement in whole if offences_alone(statement)} == set()


def offences_alone(statement: str) -> list[str]:
    """What is broken where nothing is excused."""
    from unittest.mock import patch

    with patch.dict("distribution.OF_THE_WHOLE_STORE", clear=True):
        return offences(statement, COLUMNS)
