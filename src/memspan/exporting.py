"""A namespace, or a part of it, out to an archive: everything of one moment, as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memspan import archives
from memspan.archives.base import Contents, Header, Vectors, weighed
from memspan.drafting import identity_of
from memspan.errors import InvalidInput
from memspan.ledger.base import Ledger, Reference, Seqs
from memspan.records import Archived, Edge, Exported, Filter, Scope, Verdict, Version
from memspan.views.base import Progress

PAGE = 512


def export(
    ledger: Ledger,
    scope: Scope,
    filters: Filter | None,
    path: Path,
    format: archives.Format,
    *,
    history: bool,
    compat: bool,
    key: bytes | None,
    recorded: str,
    about: Mapping[str, Any],
    progress: Progress | None,
    ids: Sequence[str] | None = None,
) -> Exported:
    """Write what ``scope`` holds and passes ``filters`` to ``path``, replacing the archive there; or only the segments
    ``ids``, with all that refers to them and links from and to what stays.

    ``recorded`` is what the store records of its encoder. Raises InvalidInput, MissingExtra, StoreError; then nothing
    was written.
    """
    encoder = json.loads(recorded)
    vectors = None
    if format.vectors and encoder is not None:
        level, basis = encoder.get("tokens", "none"), encoder.get("basis")
        kept = (level, basis) if format.tokens else ("none", None)
        vectors = Vectors(encoder=encoder["id"], dim=encoder["dim"], tokens=kept[0], basis=kept[1])
    if vectors is None and format.matrix:
        problem = f"{format.name} is a matrix of vectors, and this store has none"
        raise InvalidInput("format", problem, mend="use jsonl, or give the store an encoder: memspan rebuild --encoder")
    with ledger.reading():  # all passes of a format see this one moment
        if ids is None:
            seqs = ledger.archive(scope, filters, history=history)
            segments = len(ledger.archive(scope, filters, history=False)) if history else len(seqs)
        else:
            seqs, segments = ledger.rows_of(scope.namespace, ids), len(ids)
        part = ids is not None or filters is not None or not history or scope != Scope(namespace=scope.namespace)
        named = ledger.named(scope.namespace, seqs.tolist()) if part else None
        passes = 0

        def records() -> Iterator[Archived]:
            nonlocal passes
            passes += 1
            told = progress if passes == 1 else None
            return _records(ledger, scope.namespace, seqs, named, vectors, told, all if ids is None else any)

        written = format.module.write(
            path,
            Contents(
                header=Header(namespace=scope.namespace, vectors=vectors),
                records=records,
                compat=compat,
                key=key,
                about=about,
            ),
        )
    return Exported(
        path=str(path),
        format=format.name,
        segments=segments,
        versions=len(seqs),
        bytes=weighed(written),
        encoder=None if vectors is None else vectors.encoder,
    )


def _records(
    ledger: Ledger,
    namespace: str,
    seqs: Seqs,
    named: tuple[Collection[str], Collection[str]] | None,
    vectors: Vectors | None,
    progress: Progress | None,
    within: Callable[[Iterable[bool]], bool],
) -> Iterator[Archived]:
    """All records in their order; of a part, only documents and references of what is in it (``named``), and links of
    which ``within`` of both ends (all or any) are."""
    for filing in ledger.filings(namespace):
        if named is None or filing.id in named[1]:
            yield filing
    for start in range(0, len(seqs), PAGE):
        page = seqs[start : start + PAGE].tolist()
        yield from _versions(ledger, namespace, page, vectors)
        if progress is not None:
            progress(start + len(page), len(seqs), "exporting")
    for reference in ledger.references(namespace):
        if named is None or within(id in named[0] for id in _of(reference)):
            yield reference


def _versions(ledger: Ledger, namespace: str, page: list[int], vectors: Vectors | None) -> Iterator[Version]:
    identities = ledger.identities(namespace, page)
    pooled: dict[int, Any] = {}
    tokens: dict[int, bytes] = {}
    if vectors is not None:
        found, rows = ledger.vectors_of(namespace, page)
        pooled = dict(zip(found.tolist(), rows.astype(np.float16), strict=True))
    if vectors is not None and vectors.tokens != "none":
        matrices = ledger.tokens_of(namespace, page)
        ends = np.cumsum(matrices.sizes).tolist()
        sizes = matrices.sizes.tolist()
        for seq, end, size in zip(matrices.seqs.tolist(), ends, sizes, strict=True):
            tokens[seq] = matrices.codes[end - size : end].tobytes()
    for segment in ledger.fetch(namespace, page):
        identity = identities[segment.seq]
        yield Version(
            segment=segment,
            identity=b"" if identity == identity_of(segment) else identity,
            pooled=pooled.get(segment.seq),
            tokens=tokens.get(segment.seq),
        )


def _of(reference: Reference) -> tuple[str, ...]:
    """The segments that it refers to."""
    if isinstance(reference, Verdict):
        return reference.older, reference.newer
    return (reference.source, reference.target) if isinstance(reference, Edge) else (reference.id,)
