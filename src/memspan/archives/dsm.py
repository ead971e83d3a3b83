"""The file of DSM (narelabs/dsm): one JSON object with every segment, the category tree and the graph.

    {"version": 1, "segment_token_limit", "active_segment_limit", "active_token_budget", "embedding_dim",
     "segments": [...], "categories": {name, path, embedding, segment_ids, created_at, updated_at, children},
     "graph": {id: [ids]}}

What the original writes is read here, and what is written here is read by the original. A file that is not as it should
be is refused, with the place, and never overwritten.

Imported into a memory, each segment is an item with its category, its importance, its metadata, and the description
where somebody gave one; it happened when it was created and was recorded when it was last changed. Links are kept, once
each. Vectors, accesses and the other priorities are left out: ``memspan.dsm`` takes them too.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.archives.base import Item, Record, Report, Tie, aside, attempt, members, start_of
from memspan.errors import InvalidInput, NewerStore, NotAStore, NotFound, StoreCorrupt, StoreError
from memspan.records import NOTHING
from memspan.segmenting import check_text, parse_time, summary

VERSION = 1
LIMITS = ("segment_token_limit", "active_segment_limit", "active_token_budget")
UNSORTED = ("General",)
MOST_TOKENS = 10_000_000
MOST_ACCESSES = 2**53
DAY = 86_400.0

T = TypeVar("T")
CategoryPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PriorityVector:
    """How much a segment matters, each in [0, 1]."""

    relevance: float = 0.5
    importance: float = 0.5
    recency: float = 1.0
    frequency: float = 0.0

    def total(self, similarity: float, age_seconds: float) -> float:
        """The original's score in [0, 1] for a similarity, ``age_seconds`` after the last access."""
        recency = (self.recency + 1 / (1 + max(age_seconds, 0.0) / DAY)) / 2
        parts = (similarity, self.relevance, self.importance, recency, self.frequency)
        return _unit(sum(weight * part for weight, part in zip((0.42, 0.22, 0.18, 0.10, 0.08), parts, strict=True)))

    def touched(self, similarity: float, boost: float = 0.08) -> PriorityVector:
        """As it is after an access."""
        relevance = max(self.relevance, _unit(similarity))
        return replace(self, relevance=relevance, recency=1.0, frequency=_unit(self.frequency + boost))

    def decayed(self, amount: float) -> PriorityVector:
        """As it is after a decay: recency loses ``amount``, relevance two fifths of it."""
        return replace(self, recency=_unit(self.recency - amount), relevance=_unit(self.relevance - 0.4 * amount))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySegment:
    """A segment as it was when it was asked for. Times are seconds since 1970.

    ``embedding`` has length 1: the mean of the vectors of its pieces; it is empty while they wait for the encoder.
    ``links`` are the ids of the segments it is linked to.
    """

    id: str
    text: str
    description: str
    category_path: CategoryPath
    embedding: tuple[float, ...] = field(repr=False)
    links: frozenset[str] = frozenset()
    priorities: PriorityVector = PriorityVector()
    created_at: float
    updated_at: float
    last_accessed_at: float
    access_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @property
    def estimated_tokens(self) -> int:
        """Its words."""
        return max(1, len(self.text.split()))

    def to_dict(self) -> dict[str, Any]:
        """The segment as the file has it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {
            "category_path": list(self.category_path),
            "embedding": _decimals(self.embedding),
            "links": sorted(self.links),
            "priorities": asdict(self.priorities),
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a file holds, checked: ``paths`` are its categories, ``edges`` its links, each once."""

    digest: bytes
    limits: Mapping[str, int]
    segments: Sequence[MemorySegment]
    paths: Collection[CategoryPath]
    edges: Collection[tuple[str, str]]


_MARK = re.compile(rb'"(?:category_path|segment_token_limit|active_segment_limit)"\s*:')


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is one JSON object with segments that have category paths."""
    return start_of(head).startswith(b"{") and b'"segments"' in head and bool(_MARK.search(head))


def read(path: Path, report: Report) -> Iterator[Record]:
    """The segments of a file, then their links; one that is not as DSM writes it is reported and left out.

    Raises InvalidInput naming ``path`` where it is no JSON object with segments, NewerStore.
    """
    edges: set[tuple[str, str]] = set()
    names = set()
    with path.open("rb") as file:
        for name, number, value in members(file, path.name):
            names.add(name)
            if name == "version" and isinstance(value, int) and value > VERSION:
                raise NewerStore(f"{path} is of version {value}", mend=f"this memspan reads version {VERSION}")
            with attempt(report, f"{path.name} {name}[{number}]" if number is not None else f"{path.name} {name}"):
                if name == "segments" and number is not None:
                    segment = _segment(value, f"segments[{number}]")
                    edges.update(_edge(segment.id, other) for other in segment.links)
                    yield _item(segment, value)
                elif name == "graph":
                    edges.update(_edge(id, other) for id in value for other in _names(value, id, "graph"))
    if "segments" not in names:
        raise InvalidInput("path", f"{path.name} holds no list of segments", mend="name a file that DSM wrote")
    for source, target in sorted(edges):
        if source != target:
            yield Tie(source=source, target=target, kind="related")


def _edge(id: str, other: str) -> tuple[str, str]:
    return (min(id, other), max(id, other))


def _item(segment: MemorySegment, value: Mapping[str, Any]) -> Item:
    described = segment.description not in (segment.text, summary(segment.text))
    return Item(
        key=segment.id,
        text=segment.text,
        category=() if segment.category_path == UNSORTED else segment.category_path,
        importance=segment.priorities.importance,
        occurred_at=parse_time(value.get("created_at"), "created_at"),
        recorded_at=parse_time(value.get("updated_at", value.get("created_at")), "updated_at"),
        metadata={**({"description": segment.description} if described else {}), **segment.metadata},
    )


class SegmentFile:
    """A file at ``path``. ``seen`` is the hash of what was last read or written there: nothing else is overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: bytes | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> Stored:
        """Everything in it. Raises NotFound, StoreCorrupt, NotAStore, NewerStore."""
        data, digest = self._data()
        try:
            segments = [_segment(item, f"segments[{at}]") for at, item in enumerate(data["segments"])]
            ids = {segment.id for segment in segments}
            if len(ids) < len(segments):
                raise InvalidInput("segments", "hold an id twice")
            graph = _take(data, "graph", dict, {}, "the file")
            links = [(a, b) for a in graph for b in _names(graph, a, "graph")]
            links += [(segment.id, other) for segment in segments for other in segment.links]
            return Stored(
                digest=digest,
                limits={name: arguments.count(name, data[name], most=MOST_TOKENS) for name in LIMITS if name in data},
                segments=segments,
                paths=_paths(_take(data, "categories", dict, {}, "the file")),
                edges=sorted({(min(ends), max(ends)) for ends in links if ends[0] != ends[1] and ids.issuperset(ends)}),
            )
        except InvalidInput as error:
            problem = f"{self.path} is not as DSM writes it: {error.problem}"
            raise StoreCorrupt(problem, mend="restore it from a backup; it was not touched") from error

    def write(self, data: Mapping[str, Any]) -> None:
        """Put ``data`` in the file's place, whole or not at all. Raises StoreError when that is not as ``seen``."""
        if self.exists() and hashlib.sha256(self._raw()).digest() != self.seen:
            problem = f"{self.path} was not written by this memory, or was changed since"
            raise StoreError(problem, mend="load() what it holds, or save to another path")
        raw = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        with aside(self.path) as part:
            part.write_bytes(raw)
        self.seen = hashlib.sha256(raw).digest()

    def archive(self, segments: Sequence[MemorySegment]) -> None:
        """Add segments to those that are in the file already; one that is there is replaced."""
        data: dict[str, Any] = {"segments": []}
        if self.exists():
            data, self.seen = self._data()
        new = {segment.id for segment in segments}
        kept = [item for item in data["segments"] if not (isinstance(item, dict) and item.get("id") in new)]
        self.write({**data, "segments": kept + [segment.to_dict() for segment in segments]})

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {self.path}", mend="save() makes it") from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read ({error.strerror})", mend="make it readable") from error

    def _data(self) -> tuple[dict[str, Any], bytes]:
        """The file's JSON and its hash."""
        raw = self._raw()
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            problem = f"{self.path} is no JSON ({error})"
            raise StoreCorrupt(problem, mend="restore it from a backup; it was not touched") from error
        if not isinstance(data, dict) or not isinstance(data.get("segments"), list):
            raise NotAStore(f"{self.path} holds no list of segments", mend="name a file that DSM wrote")
        version = data.get("version", VERSION)
        if isinstance(version, int) and version > VERSION:
            raise NewerStore(f"{self.path} is of version {version}", mend=f"this memspan reads version {VERSION}")
        return data, hashlib.sha256(raw).digest()


def contents(
    segments: Sequence[MemorySegment],
    limits: Mapping[str, int],
    dim: int,
    paths: Collection[CategoryPath],
    embed: Callable[[str], NDArray[np.float32]],
) -> dict[str, Any]:
    """The whole file. ``paths`` are categories it shall have beside those of ``segments``, named by ``embed``."""
    return {
        "version": VERSION,
        **limits,
        "embedding_dim": dim,
        "segments": [segment.to_dict() for segment in segments],
        "categories": _tree(segments, paths, embed),
        "graph": {segment.id: sorted(segment.links) for segment in sorted(segments, key=lambda each: each.id)},
    }


def _tree(
    segments: Sequence[MemorySegment], paths: Collection[CategoryPath], embed: Callable[[str], NDArray[np.float32]]
) -> dict[str, Any]:
    """The categories of ``segments`` and those at ``paths``, each with the mean vector of what is in it and below it;
    an empty one with that of its name."""
    members: dict[CategoryPath, list[MemorySegment]] = {}
    for segment in segments:
        members.setdefault(segment.category_path, []).append(segment)
    below: dict[CategoryPath, dict[str, dict[str, Any]]] = {}
    root: dict[str, Any] = {}
    for path in sorted(prefixes([*members, *paths]), key=lambda path: (-len(path), path)):
        name, inside, children = path[-1] if path else "Memory", members.get(path, []), below.pop(path, {})
        vectors = [each.embedding for each in inside if each.embedding]
        vectors += [child["embedding"] for child in children.values() if any(child["embedding"])]
        mean = np.mean(vectors, axis=0) if vectors else embed(name)
        times = [each.created_at for each in inside] + [child["created_at"] for child in children.values()]
        root = {
            "name": name,
            "path": list(path),
            "embedding": _decimals(mean / max(float(np.linalg.norm(mean)), 1e-12)),
            "segment_ids": sorted(each.id for each in inside),
            "created_at": min(times, default=time.time()),
            "updated_at": max([each.updated_at for each in inside] + times, default=time.time()),
            "children": children,
        }
        below.setdefault(path[:-1], {})[name] = root
    return root


def prefixes(paths: Collection[CategoryPath]) -> set[CategoryPath]:
    """The paths with all that lead to them, and the root's."""
    return {path[:length] for path in paths for length in range(len(path) + 1)} | {()}


def _segment(item: object, at: str) -> MemorySegment:
    """A segment of a file. Raises InvalidInput, which says where it is not as it should be."""
    if not isinstance(item, dict):
        raise InvalidInput(at, f"is a {type(item).__name__}")
    now = time.time()
    priorities = _take(item, "priorities", dict, {}, at)
    id = arguments.name(f"{at}.id", item.get("id"))
    if id is None:
        raise InvalidInput(f"{at}.id", "is missing")
    text = check_text(item.get("text"), f"{at}.text")
    description = _take(item, "description", str, "", at)
    return MemorySegment(
        id=id,
        text=text,
        description=check_text(description, f"{at}.description") if description.strip() else summary(text),
        category_path=arguments.category(_names(item, "category_path", at)) or UNSORTED,
        embedding=tuple(arguments.number(f"{at}.embedding", value) for value in _take(item, "embedding", list, [], at)),
        links=frozenset(_names(item, "links", at)),
        priorities=PriorityVector(
            **{
                name: _unit(arguments.number(f"{at}.{name}", priorities.get(name, usual)))
                for name, usual in _USUAL.items()
            }
        ),
        created_at=_moment(item, "created_at", now, at),
        updated_at=_moment(item, "updated_at", now, at),
        last_accessed_at=_moment(item, "last_accessed_at", now, at),
        access_count=min(max(_take(item, "access_count", int, 0, at), 0), MOST_ACCESSES),
        metadata=arguments.metadata(_take(item, "metadata", dict, {}, at), f"{at}.metadata"),
    )


def _paths(root: Mapping[str, Any]) -> list[CategoryPath]:
    """Every category below the root."""
    paths: list[CategoryPath] = []
    todo: list[tuple[CategoryPath, object]] = [((), root)]
    while todo:
        path, node = todo.pop()
        at = " / ".join(("categories", *path))
        if not isinstance(node, dict):
            raise InvalidInput(at, f"is a {type(node).__name__}")
        paths.append(path)
        todo += [
            (arguments.category([*path, name]), child) for name, child in _take(node, "children", dict, {}, at).items()
        ]
    return paths


def _take(item: Mapping[str, Any], name: str, kind: type[T], usual: T, at: str) -> T:
    value = item.get(name, usual)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInput(f"{at}.{name}", f"is a {type(value).__name__}")
    return value


def _names(item: Mapping[str, Any], name: str, at: str) -> list[str]:
    names = _take(item, name, list, [], at)
    if not all(isinstance(each, str) for each in names):
        raise InvalidInput(f"{at}.{name}", "holds something that is no text")
    return names


def _moment(item: Mapping[str, Any], name: str, usual: float, at: str) -> float:
    seconds = arguments.number(f"{at}.{name}", item.get(name, usual))
    parse_time(seconds, f"{at}.{name}")
    return seconds


def _unit(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def _decimals(vector: Sequence[float] | NDArray[Any]) -> list[float]:
    """Six decimals: finer than the 16 bits that the ledger keeps of a vector."""
    values: list[float] = np.round(np.asarray(vector, np.float64), 6).tolist()
    return values


_USUAL = asdict(PriorityVector())
