"""Two archives side by side: how they differ, and both in one. What reads and writes one is in ``memspan.archives``.

Any two of memspan's own formats can be compared or merged: cubes, JSON lines, Parquet files.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

from memspan import archives, arguments
from memspan.activations.tokens import shipped
from memspan.archives import jsonl
from memspan.archives.base import Header, Vectors
from memspan.encoders.base import Encoded
from memspan.errors import EncoderError, InvalidInput
from memspan.memory import Memory
from memspan.records import Archived, Tombstone, Version
from memspan.reports import Exported, Imported, Problem
from memspan.segmenting import Tokenizer, WordTokenizer, summary
from memspan.views.base import Progress

How = Literal["only a", "only b", "on in a", "on in b", "apart"]

WINDOW = 256  # tokens; nothing is cut here

COUNTED = ("type", "version", "repeats", "ended_at", "heard_at", "tokens", "position", "identity")
"""Fields of a version that do not make it another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A segment that is not the same in two archives: ``how`` "only a" or "only b" has it; it went "on in a" or "on in
    b" from what the other one has; or it went "apart", on in both. ``versions`` are counted in a and in b; ``text`` is
    the beginning of what it says last, in a where a has it; ``deleted``: the other one says that it was deleted
    there."""

    id: str
    how: How
    versions: tuple[int, int]
    text: str
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """How the archives ``a`` and ``b`` differ: ``segments`` by id, how many are the ``same`` in both, and of each other
    kind of record how many only a and only b has (``others``)."""

    a: str
    b: str
    same: int
    segments: tuple[Difference, ...]
    others: Mapping[str, tuple[int, int]]

    @property
    def differ(self) -> bool:
        return bool(self.segments or any(map(sum, self.others.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What ``merged`` did: both imports, and what was written."""

    imported: tuple[Imported, Imported]
    exported: Exported


@dataclass(slots=True)
class _Known:
    """What an archive holds, as digests: 8 bytes a version, one after the other, by segment; all other records."""

    versions: dict[str, bytes] = field(default_factory=dict)
    others: dict[str, set[bytes]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    ends: dict[str, bytes] = field(default_factory=dict)


def differences(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Differences:
    """How two archives differ, whatever they are called, ordered by id. A version is the same where it says the same
    and was recorded at the same time. Of texts only the beginnings are in memory, and only of what differs.

    Raises NotFound, InvalidInput, NewerStore, MissingExtra.
    """
    paths = arguments.path(a), arguments.path(b)
    known = _known(paths[0]), _known(paths[1])
    found: dict[str, tuple[How, tuple[int, int]]] = {}
    for id in sorted(known[0].versions.keys() | known[1].versions.keys()):
        one, other = _parts(known[0], id), _parts(known[1], id)
        if (how := _how(one, other)) is not None:
            found[id] = how, (_count(known[0], id), _count(known[1], id))
    texts = _texts(paths[1], found) | _texts(paths[0], found)
    kinds = sorted(known[0].others.keys() | known[1].others.keys())
    return Differences(
        a=str(paths[0]),
        b=str(paths[1]),
        same=len(known[0].versions.keys() | known[1].versions.keys()) - len(found),
        segments=tuple(
            Difference(
                id=id,
                how=how,
                versions=versions,
                text=texts.get(id, ""),
                deleted=id in known[how == "only a"].deleted if how.startswith("only") else False,
            )
            for id, (how, versions) in found.items()
        ),
        others={kind: _only(*(each.others.get(kind, set()) for each in known)) for kind in kinds},
    )


def merged(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    namespace: str | None = None,
    key: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Write to ``out`` what both archives hold, each thing once: as importing a and then b into an empty store, and
    exporting that. Segments that went on differently keep both histories, and the later version is current.

    Its format goes by the suffix; its namespace is that of a, or ``namespace``. No model is needed: vectors are kept
    where both have those of one encoder, else made again when it is imported. ``key`` signs a cube. Raises NotFound,
    InvalidInput where anything in them cannot be read, NewerStore, MissingExtra, StoreError; then nothing was written.
    """
    paths, target = (arguments.path(a), arguments.path(b)), arguments.path(out)
    archives.for_writing(target, None)
    headers = [_header(path) for path in paths]
    kept = _vectors([header.vectors for header in headers])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merging-") as directory:
        store = Path(directory) / "store"
        if kept is not None:  # made by it, and then opened without it: it is never asked for anything
            Memory(store, encoder=_Elsewhere(kept), tokens=kept.tokens, reranker=None).close()
        with Memory(store, encoder="none", namespace=namespace or headers[0].namespace, reranker=None) as memory:
            first, second = (memory.import_from(path, strict=True, progress=progress) for path in paths)
            origins = [_origin(path, header) for path, header in zip(paths, headers, strict=True)]
            exported = memory.export_to(target, key=key, about={"store_id": None, "merged": origins}, progress=progress)
    return Merged(imported=(first, second), exported=exported)


class _Elsewhere:
    """The encoder that vectors came from, where there is none: it says what it is, and makes nothing."""

    def __init__(self, vectors: Vectors) -> None:
        self.id, self.dim, self.window = vectors.encoder, vectors.dim, WINDOW
        self.tokenizer: Tokenizer = WordTokenizer()

    def encode(self, texts: Sequence[str]) -> Encoded:
        raise EncoderError(f"{self.id} is not asked while archives are merged", mend="import the merged archive")


def _vectors(several: Sequence[Vectors | None]) -> Vectors | None:
    """What can be kept of the vectors of archives: those of one encoder, token matrices on a basis that is known."""
    kinds = {each for each in several if each is not None}
    if len({(each.encoder, each.dim) for each in kinds}) != 1:
        return None
    one = kinds.pop()
    basis = shipped(one.encoder)
    if kinds or basis is None or basis.id != one.basis or len(basis.mean) != one.dim:
        return replace(one, tokens="none", basis=None)
    return one


def _header(path: Path) -> Header:
    return next(record for record in _records(path) if isinstance(record, Header))


def _origin(path: Path, header: Header) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "sha256": digest, "namespace": header.namespace, "signed_by": header.signed_by}


def _records(path: Path) -> Iterator[Header | Archived]:
    """Raises InvalidInput where it is another system's, or a record cannot be read."""

    def refuse(problem: Problem) -> None:
        raise InvalidInput("path", f"{problem.where}: {problem.problem}", mend="it was altered, or made by another")

    for record in archives.reading(archives.of(path, None), path, refuse):
        if not isinstance(record, Header | Archived):
            raise InvalidInput("path", f"{path} is no archive of memspan's own", mend="import it into a store first")
        yield record


def _known(path: Path) -> _Known:
    known = _Known()
    for record in _records(path):
        if isinstance(record, Header):
            continue
        plain = jsonl.plain(record)
        if not isinstance(record, Version):
            known.others.setdefault(plain["type"], set()).add(_digest(plain))
            if isinstance(record, Tombstone):
                known.deleted.add(record.id)
            continue
        id = record.segment.id
        said = {name: value for name, value in plain.items() if name not in COUNTED}
        known.versions[id] = known.versions.get(id, b"") + _digest(said)
        known.ends.pop(id, None)
        if record.segment.ended_at is not None:
            known.ends[id] = _digest(plain["ended_at"])
    return known


def _digest(value: Any) -> bytes:
    return sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8]


def _parts(known: _Known, id: str) -> set[bytes]:
    """The versions of a segment, and that it ended after the last."""
    versions = known.versions.get(id, b"") + known.ends.get(id, b"")
    return {versions[at : at + 8] for at in range(0, len(versions), 8)}


def _count(known: _Known, id: str) -> int:
    return len(known.versions.get(id, b"")) // 8


def _how(one: set[bytes], other: set[bytes]) -> How | None:
    if one == other:
        return None
    if not other:
        return "only a"
    if not one:
        return "only b"
    if one > other:
        return "on in a"
    return "on in b" if one < other else "apart"


def _only(one: set[bytes], other: set[bytes]) -> tuple[int, int]:
    return len(one - other), len(other - one)


def _texts(path: Path, ids: Mapping[str, object]) -> dict[str, str]:
    return {
        record.segment.id: summary(record.segment.text)
        for record in _records(path)
        if isinstance(record, Version) and record.segment.id in ids
    }
