"""The knowledge graph of the reference MCP memory server, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory

ANA = {"type": "entity", "name": "Ana", "entityType": "person", "observations": ["Lives in Lisbon", "Keeps bees"]}
BEN = {"type": "entity", "name": "Ben", "entityType": "person", "observations": []}
ACME = {"type": "entity", "name": "Acme", "entityType": "company", "observations": ["Keeps bees"]}
WORKS = {"type": "relation", "from": "Ana", "to": "Acme", "relationType": "works_at"}


def written(path: Path, *lines: Any) -> Path:
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line, separators=(",", ":")) for line in lines)
    )
    return path


def test_every_observation_is_found_under_its_entity_and_one_without_any_too(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "memory.jsonl", ANA, BEN, ACME, WORKS))
    assert (done.format, done.added, done.links, done.failed) == ("mcp", 7, 1, 0)
    kept = [(each.text, each.heading, dict(each.metadata)) for each in memory.get_all()]
    ana, acme = {"entity": "Ana", "entity_type": "person"}, {"entity": "Acme", "entity_type": "company"}
    assert ("Lives in Lisbon", ("Ana",), ana) in kept
    assert [each for each in kept if each[0] == "Keeps bees"] == [
        ("Keeps bees", ("Ana",), ana),
        ("Keeps bees", ("Acme",), acme),
    ]
    assert ("Ben (person)", (), {"entity": "Ben", "entity_type": "person"}) in kept
    assert memory.search("where does Ana live, in Lisbon?", k=1)[0].text == "Lives in Lisbon"


def test_a_relation_is_a_sentence_and_a_link_between_its_entities(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "memory.jsonl", WORKS, ANA, ACME))
    by_text = {each.text: each for each in memory.get_all()}
    assert dict(by_text["Ana works at Acme"].metadata) == {"from": "Ana", "relation": "works_at", "to": "Acme"}
    memory.import_from(tmp_path / "memory.jsonl")  # where the relation stood before them, the second time links them
    near = memory.neighbors(by_text["Ana (person)"].id, kinds="works_at")
    assert [each.text for each in near] == ["Acme (company)"]


def test_the_graph_can_be_made_again_from_what_was_imported(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "memory.jsonl", ANA, BEN, ACME, WORKS))
    entities: dict[str, dict[str, Any]] = {}
    relations = []
    for each in memory.get_all():
        about = each.metadata
        if "relation" in about:
            relations.append(
                {"type": "relation", "from": about["from"], "to": about["to"], "relationType": about["relation"]}
            )
            continue
        entity = {"type": "entity", "name": about["entity"], "entityType": about["entity_type"], "observations": []}
        entities.setdefault(about["entity"], entity)
        if each.heading:
            entities[about["entity"]]["observations"].append(each.text)
    assert [*entities.values(), *relations] == [ANA, BEN, ACME, WORKS]


@pytest.mark.parametrize("indent", [None, 2])
def test_the_graph_as_its_tools_give_it_is_the_same(memory: Memory, tmp_path: Path, indent: int | None) -> None:
    graph = {"entities": [ANA, BEN, ACME], "relations": [WORKS]}
    (tmp_path / "graph.json").write_text(json.dumps(graph, indent=indent))
    done = memory.import_from(tmp_path / "graph.json")
    assert (done.format, done.added, done.links) == ("mcp", 7, 1)
    (tmp_path / "list.json").write_text(json.dumps([ANA, BEN, ACME, WORKS], indent=indent))
    assert memory.import_from(tmp_path / "list.json").added == 0


def test_a_file_that_has_grown_adds_only_what_is_new(memory: Memory, tmp_path: Path) -> None:
    file = written(tmp_path / "memory.jsonl", ANA, ACME, WORKS)
    memory.import_from(file)
    assert memory.import_from(file).added == 0
    grown = {**ANA, "observations": ["Was born in Porto", *ANA["observations"]]}
    knows = {"type": "relation", "from": "Ben", "to": "Ana", "relationType": "knows"}
    done = memory.import_from(written(file, BEN, grown, ACME, WORKS, knows))
    assert (done.added, done.updated, done.links) == (3, 0, 1)


def test_a_broken_line_is_told_with_its_number_and_the_rest_is_imported(memory: Memory, tmp_path: Path) -> None:
    lines = (
        ANA,
        '{"type":"entity","name":',
        {"type": "entity", "name": ""},
        {"type": "dog", "name": "Rex"},
        "[" * 100_000,
    )
    odd = {"type": "entity", "name": "Cara", "entityType": "person", "observations": ["Sings", 7]}
    done = memory.import_from(written(tmp_path / "memory.jsonl", *lines, odd))
    assert [each.where for each in done.problems] == [
        *(f"memory.jsonl:{number}" for number in (2, 3, 4, 5)),
        "memory.jsonl:6 observations[1]",
    ]
    assert (done.added, done.failed) == (5, 5)
