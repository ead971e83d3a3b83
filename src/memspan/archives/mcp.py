"""The knowledge graph of the reference MCP memory server: memory.jsonl, or the graph as its tools give it.

    {"type": "entity", "name": "Ana", "entityType": "person", "observations": ["Lives in Lisbon"]}
    {"type": "relation", "from": "Ana", "to": "Acme", "relationType": "works_at"}
    {"entities": [{"name", "entityType", "observations"}], "relations": [{"from", "to", "relationType"}]}

An entity becomes an item that says its name and type; each of its observations one under the entity's name as heading;
a relation a sentence, and a link between the items of the two entities. The metadata says what each is, word for word,
so that the graph can be made from them again: ``entity`` and ``entity_type``; ``from``, ``relation`` and ``to``. There
are no times in such a file. Keys follow from names and texts: a file that has grown adds what is new, wherever it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from memspan.archives.base import Item, Record, Report, Tie, attempt, entries
from memspan.errors import InvalidInput
from memspan.segmenting import check_text, shown

_LISTS = {"entities": "entity", "relations": "relation"}
_LINE = re.compile(rb'\s*\[?\s*\{[^{}]{0,4096}?"type"\s*:\s*"(?:entity|relation)"')
_GRAPH = re.compile(rb'\s*\{\s*"(?:entities|relations)"\s*:\s*\[')
_PART = re.compile(rb'"(?:entityType|relationType)"\s*:')


def recognises(path: Path, head: bytes) -> bool:
    """Whether it begins with entities or relations."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    return (_LINE.match(head) or _GRAPH.match(head)) is not None and _PART.search(head) is not None


def read(path: Path, report: Report) -> Iterator[Record]:
    """Entities, observations and relations. Raises InvalidInput naming ``path`` where it holds no such JSON."""
    with path.open("rb") as file:
        for where, among, value in entries(file, path.name, report, _LISTS):
            with attempt(report, where):
                kind = _LISTS.get(among) or value["type"]
                if kind == "entity":
                    yield from _entity(value, where, report)
                elif kind == "relation":
                    yield from _relation(value)
                else:
                    raise InvalidInput("type", f"there is no {shown(kind)}")


def _entity(value: Mapping[str, Any], where: str, report: Report) -> Iterator[Item]:
    name, kind = _text(value, "name"), value.get("entityType")
    about = {"entity": name} | ({"entity_type": kind} if kind else {})
    yield Item(key=_key("entity", name), text=f"{name} ({kind})" if kind else name, metadata=about)
    observations = value.get("observations") or []
    if not isinstance(observations, list):
        raise InvalidInput("observations", f"is a {type(observations).__name__}")
    for number, observation in enumerate(observations):
        with attempt(report, f"{where} observations[{number}]"):
            digest = sha256(check_text(observation, "observation").encode()).hexdigest()
            yield Item(key=_key("observation", name, digest), text=observation, heading=(name,), metadata=about)


def _relation(value: Mapping[str, Any]) -> Iterator[Record]:
    source, target, kind = _text(value, "from"), _text(value, "to"), _text(value, "relationType")
    said = " ".join(kind.replace("_", " ").split())
    yield Item(
        key=_key("relation", source, kind, target),
        text=f"{source} {said} {target}",
        metadata={"from": source, "relation": kind, "to": target},
    )
    yield Tie(source=_key("entity", source), target=_key("entity", target), kind=kind)


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(name, f"{shown(text)} is no name")
    return text


def _key(*parts: str) -> str:
    return json.dumps(parts, ensure_ascii=False)
