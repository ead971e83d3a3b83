"""The nine tools of the reference MCP memory server over our segments and links, so that prompts made for it go on to
work: names, schemas and answers are as there (github.com/modelcontextprotocol/servers, src/memory).

What is written says the same as what the import of its file does (``memspan.archives.mcp``), and both are read: an
entity is a segment "name (type)", each of its observations one under, or by, its name, a relation a sentence and a link
between the segments of the two entities; the metadata says word for word what each is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from memspan import arguments
from memspan.errors import NotFound
from memspan.records import Segment
from memspan.server.mcp.tool import LARGEST_ANSWER, Answer, Tenant, Tool, fitting

URI: Final = "memory://knowledge-graph"


class Entity(TypedDict):
    name: Annotated[str, Field(description="The name of the entity")]
    entityType: Annotated[str, Field(description="The type of the entity")]
    observations: Annotated[list[str], Field(description="An array of observation contents associated with the entity")]


Relation = TypedDict(
    "Relation",
    {
        "from": Annotated[str, Field(description="The name of the entity where the relation starts")],
        "to": Annotated[str, Field(description="The name of the entity where the relation ends")],
        "relationType": Annotated[str, Field(description="The type of the relation")],
    },
)


class Observations(TypedDict):
    entityName: Annotated[str, Field(description="The name of the entity to add the observations to")]
    contents: Annotated[list[str], Field(description="An array of observation contents to add")]


class Deletion(TypedDict):
    entityName: Annotated[str, Field(description="The name of the entity containing the observations")]
    observations: Annotated[list[str], Field(description="An array of observations to delete")]


class Created(TypedDict):
    entities: list[Entity]
    skipped: NotRequired[list[str]]


class Related(TypedDict):
    relations: list[Relation]


class Noted(TypedDict):
    entityName: str
    addedObservations: list[str]


class Observed(TypedDict):
    results: list[Noted]


class Done(TypedDict):
    success: bool
    message: str


class Graph(TypedDict):
    entities: list[Entity]
    relations: list[Relation]


@dataclass(slots=True)
class _Known:
    """An entity as it is stored: the segments that name it, and those of each observation."""

    kind: str = ""
    ids: list[str] = field(default_factory=list)
    observations: dict[str, list[str]] = field(default_factory=dict)

    def told(self, name: str) -> dict[str, Any]:
        return {"name": name, "entityType": self.kind, "observations": list(self.observations)}

    @property
    def every(self) -> list[str]:
        return [*self.ids, *(id for ids in self.observations.values() for id in ids)]


_Triple = tuple[str, str, str]


def create_entities(tenant: Tenant, entities: list[Entity]) -> Answer:
    """Create multiple new entities in the knowledge graph. An entity whose name already exists, or repeats an earlier
    entity in the same call, is skipped and its observations are not added; the result lists the skipped names in
    `skipped`. Use add_observations to add observations to an existing entity."""
    taken = set(_entities(tenant, [each["name"] for each in entities]))
    created, skipped = list[Entity](), list[str]()
    for each in entities:
        if each["name"] in taken:
            skipped.append(each["name"])
        else:
            taken.add(each["name"])
            created.append(each)
    said = [_entity(each["name"], each["entityType"]) for each in created]
    said += [
        _observation(each["name"], each["entityType"], text)
        for each in created
        for text in dict.fromkeys(each["observations"])
    ]
    _store(tenant, said)
    texts = [_json(created)]
    if skipped:
        many = len(skipped) > 1
        texts.append(
            f"Skipped {len(skipped)} {'entities that already exist' if many else 'entity that already exists'}:"
            f" {', '.join(skipped)}. {'Their' if many else 'Its'} observations were not added;"
            " use add_observations for existing entities."
        )
    told = {"entities": created} | ({"skipped": skipped} if skipped else {})
    return Answer(structured=told, texts=tuple(texts))


def create_relations(tenant: Tenant, relations: list[Relation]) -> Answer:
    """Create multiple new relations between entities in the knowledge graph. Relations should be in active voice"""
    ends = [each[end] for each in relations for end in ("from", "to")]
    known = _entities(tenant, ends)
    for name in ends:
        _required(known, name)
    there = _relations(tenant, {"from": {"in": ends}})
    created = {_triple(each): each for each in relations if _triple(each) not in there}
    for source, kind, target in created:  # linked first: what is interrupted here is done again by the same call
        if _can_link(source, kind, target):
            tenant.memory.link(known[source].ids[0], known[target].ids[0], kind, namespace=tenant.namespace)
    _store(tenant, [_relation(*triple) for triple in created])
    new = list(created.values())
    return Answer(structured={"relations": new}, texts=(_json(new),))


def add_observations(tenant: Tenant, observations: list[Observations]) -> Answer:
    """Add new observations to existing entities in the knowledge graph"""
    known = _entities(tenant, [each["entityName"] for each in observations])
    results, said = list[Noted](), list[dict[str, Any]]()
    for each in observations:
        name, entity = each["entityName"], _required(known, each["entityName"])
        new = [text for text in dict.fromkeys(each["contents"]) if text not in entity.observations]
        entity.observations |= {text: [] for text in new}
        said += [_observation(name, entity.kind, text) for text in new]
        results.append({"entityName": name, "addedObservations": new})
    _store(tenant, said)
    return Answer(structured={"results": results}, texts=(_json(results),))


def delete_entities(
    tenant: Tenant, entityNames: Annotated[list[str], Field(description="An array of entity names to delete")]
) -> Answer:
    """Delete multiple entities and their associated relations from the knowledge graph"""
    known = _entities(tenant, entityNames)
    touching = _relations(tenant, {"OR": [{"from": {"in": entityNames}}, {"to": {"in": entityNames}}]})
    ids = [id for entity in known.values() for id in entity.every]
    tenant.memory.delete([*ids, *(id for ids in touching.values() for id in ids)], namespace=tenant.namespace)
    if missing := [name for name in entityNames if name not in known]:
        found = len(entityNames) - len(missing)
        return _done(f"Deleted {found} of {len(entityNames)} entities. Not found: {', '.join(missing)}")
    return _done("Entities deleted successfully")


def delete_observations(tenant: Tenant, deletions: list[Deletion]) -> Answer:
    """Delete specific observations from entities in the knowledge graph"""
    known = _entities(tenant, [each["entityName"] for each in deletions])
    ids, asked, found, missing = list[str](), 0, 0, list[str]()
    for each in deletions:
        asked += len(each["observations"])
        entity = known.get(each["entityName"])
        if entity is None:
            missing.append(each["entityName"])
            continue
        for text in each["observations"]:
            gone = entity.observations.pop(text, [])
            found += bool(gone)
            ids += gone
    tenant.memory.delete(ids, namespace=tenant.namespace)
    if found == asked and not missing:
        return _done("Observations deleted successfully")
    absent = f" Entities not found: {', '.join(missing)}" if missing else ""
    return _done(f"Deleted {found} of {asked} observations.{absent}")


def delete_relations(
    tenant: Tenant, relations: Annotated[list[Relation], Field(description="An array of relations to delete")]
) -> Answer:
    """Delete multiple relations from the knowledge graph"""
    there = _relations(tenant, {"from": {"in": [each["from"] for each in relations]}})
    found = [triple for triple in map(_triple, relations) if triple in there]
    known = _entities(tenant, [end for source, _, target in found for end in (source, target)])
    for source, kind, target in found:
        if source in known and target in known and _can_link(source, kind, target):
            tenant.memory.unlink(known[source].ids[0], known[target].ids[0], kind, namespace=tenant.namespace)
    tenant.memory.delete([id for triple in found for id in there[triple]], namespace=tenant.namespace)
    if len(found) == len(relations):
        return _done("Relations deleted successfully")
    return _done(f"Deleted {len(found)} of {len(relations)} relations. The rest matched nothing.")


def read_graph(tenant: Tenant) -> Answer:
    """Read the entire knowledge graph"""
    return _shown(graph(tenant))


def search_nodes(
    tenant: Tenant,
    query: Annotated[
        str,
        Field(
            max_length=2_048,
            description="The search query to match against entity names, types, and observation content",
        ),
    ],
) -> Answer:
    """Search for nodes in the knowledge graph based on a query"""
    asked, whole = query.casefold(), graph(tenant)
    names = {
        each["name"]
        for each in whole["entities"]
        if any(asked in said.casefold() for said in (each["name"], each["entityType"], *each["observations"]))
    }
    return _shown(_about(whole, names))


def open_nodes(
    tenant: Tenant, names: Annotated[list[str], Field(description="An array of entity names to retrieve")]
) -> Answer:
    """Open specific nodes in the knowledge graph by their names"""
    known = _entities(tenant, names)
    touching = _relations(tenant, {"OR": [{"from": {"in": names}}, {"to": {"in": names}}]})
    return _shown(_graph(known, touching))


def graph(tenant: Tenant) -> Graph:
    """All of it."""
    return _graph(_entities(tenant), _relations(tenant, {"relation": {"ne": None}}))


REFERENCE: tuple[Tool, ...] = tuple(
    Tool.of(
        function,
        title=function.__name__.replace("_", " ").title(),
        right="read" if given is Graph else "write",
        destructive=given is Done,
        idempotent=given in (Graph, Done),
        gives=given,
        foreign=True,
    )
    for function, given in (
        (create_entities, Created),
        (create_relations, Related),
        (add_observations, Observed),
        (delete_entities, Done),
        (delete_observations, Done),
        (delete_relations, Done),
        (read_graph, Graph),
        (search_nodes, Graph),
        (open_nodes, Graph),
    )
)


# What is stored


def _store(tenant: Tenant, said: Sequence[Mapping[str, Any]]) -> None:
    if said:
        tenant.memory.add(said, namespace=tenant.namespace)


def _entity(name: str, kind: str) -> dict[str, Any]:
    arguments.name("name", name)
    return {"role": "user", "content": f"{name} ({kind})" if kind else name, "metadata": _naming(name, kind)}


def _observation(name: str, kind: str, text: str) -> dict[str, Any]:
    return {"role": "user", "name": name, "content": text, "metadata": _naming(name, kind)}


def _relation(source: str, kind: str, target: str) -> dict[str, Any]:
    said = " ".join(kind.replace("_", " ").split())
    about = {"from": source, "relation": kind, "to": target}
    return {"role": "user", "content": f"{source} {said} {target}", "metadata": about}


def _naming(name: str, kind: str) -> dict[str, str]:
    return {"entity": name} | ({"entity_type": kind} if kind else {})


def _can_link(source: str, kind: str, target: str) -> bool:
    """Whether the graph has room for it: no edge to itself, and none of those it finds by itself."""
    return source != target and kind not in arguments.DERIVED


# What is read


def _entities(tenant: Tenant, names: Collection[str] | None = None) -> dict[str, _Known]:
    """The entities of these names, or all, in the order in which they were stored."""
    if names is not None and not names:
        return {}
    wanted = {"entity": {"ne": None} if names is None else {"in": list(names)}}
    known: dict[str, _Known] = {}
    texts: dict[tuple[str, str], list[Segment]] = {}
    for row in tenant.every(wanted):
        name = row.metadata["entity"]
        if not isinstance(name, str):
            continue
        entity = known.setdefault(name, _Known())
        entity.kind = entity.kind or str(row.metadata.get("entity_type", ""))
        if row.heading or row.speaker:
            texts.setdefault((name, row.document_id or row.id), []).append(row)
        else:
            entity.ids.append(row.id)
    for (name, _), rows in texts.items():
        known[name].observations.setdefault(_whole(rows), []).extend(row.id for row in rows)
    return {name: entity for name, entity in known.items() if entity.ids}


def _whole(rows: Iterable[Segment]) -> str:
    """A text as it was given, also where it was cut as it was too long."""
    return "".join(f"{row.gap}{row.text}{row.tail}" for row in sorted(rows, key=lambda row: row.position))


def _relations(tenant: Tenant, filters: Mapping[str, Any]) -> dict[_Triple, list[str]]:
    """The relations that a filter matches, each with the segments that state it."""
    found: dict[_Triple, list[str]] = {}
    for row in tenant.every({"AND": [{"relation": {"ne": None}}, filters]}):
        source, kind, target = (row.metadata.get(name) for name in ("from", "relation", "to"))
        if isinstance(source, str) and isinstance(kind, str) and isinstance(target, str):
            found.setdefault((source, kind, target), []).append(row.id)
    return found


def _required(known: Mapping[str, _Known], name: str) -> _Known:
    if name not in known:
        raise NotFound(f"Entity with name {name} not found")
    return known[name]


def _triple(relation: Relation) -> _Triple:
    return relation["from"], relation["relationType"], relation["to"]


def _graph(known: Mapping[str, _Known], relations: Iterable[_Triple]) -> Graph:
    entities: Any = [entity.told(name) for name, entity in known.items()]
    return {
        "entities": entities,
        "relations": [{"from": source, "to": target, "relationType": kind} for source, kind, target in relations],
    }


def _about(whole: Graph, names: Collection[str]) -> Graph:
    """The entities of these names, and every relation that touches one."""
    return {
        "entities": [each for each in whole["entities"] if each["name"] in names],
        "relations": [each for each in whole["relations"] if each["from"] in names or each["to"] in names],
    }


def _shown(found: Graph) -> Answer:
    """A graph as far as an answer holds it, and in words what it does not."""
    entities = found["entities"][: fitting(found["entities"], LARGEST_ANSWER * 3 // 4, _json)]
    relations = found["relations"][: fitting(found["relations"], LARGEST_ANSWER // 4, _json)]
    told = {"entities": entities, "relations": relations}
    left = len(found["entities"]) - len(entities), len(found["relations"]) - len(relations)
    if not any(left):
        return Answer(structured=told, texts=(_json(told),))
    more = f"{left[0]} more entities and {left[1]} more relations are not shown; use search_nodes or open_nodes."
    return Answer(structured=told, texts=(_json(told), more))


def _done(message: str) -> Answer:
    return Answer(structured={"success": True, "message": message}, texts=(message,))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
