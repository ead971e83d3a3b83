"""``BulkMemory``: a ``Memory`` that a cluster feeds."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from memspan import arguments
from memspan.bulk.cluster import Encoders, Encoding, joined
from memspan.bulk.sources import Columns, Reader, plan
from memspan.bulk.writing import MOST_PROBLEMS, Writing
from memspan.drafting import Common
from memspan.errors import InvalidInput
from memspan.memory import Memory
from memspan.records import Kind
from memspan.reports import Ingested
from memspan.segmenting import parse_time

__all__ = ["BulkMemory", "Columns"]

BATCH = 256
MOST_BATCH = 65_536
MOST_ENCODERS = 100_000


class BulkMemory(Memory):
    """A ``Memory`` with ``ingest``. Needs ``memspan[ray]``."""

    def ingest(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        ray: str = "local",
        encoders: int | None = None,
        gpus: float = 0.0,
        batch: int = BATCH,
        columns: Columns | None = None,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        category: str | Sequence[str] | None = None,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        kind: Kind | None = None,
        valid_from: datetime | str | float | None = None,
        valid_to: datetime | str | float | None = None,
        expires_at: datetime | str | float | None = None,
    ) -> Generator[Ingested, None, None]:
        """Remember files, which every machine must see under these ``paths``; gives what is done so far after each
        write, which is durable then, and at last.

        A file is a document, as ``add_file`` takes it; of a table (.jsonl, .ndjson, .parquet) each row is a text, as
        ``add`` takes it, or by an id a document (see ``Columns``). What cannot be read is told and passed over. Run
        again after it was interrupted or the cluster was lost it goes on: nothing is stored twice, what was stored is
        not encoded again.

        ``ray``: "local" starts a cluster on this machine alone, "auto" takes the one it is part of, or "HOST:PORT".
        ``encoders``: how many texts are encoded at once, each on one CPU; None for all there are. ``gpus`` of each,
        which may be a part of one. ``batch``: texts of some 1,000 characters that an encoder gets at once; of longer
        ones it gets fewer. Raises InvalidInput, MissingExtra, ClusterError, EncoderError, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        given = {"valid_from": valid_from, "valid_to": valid_to, "expires_at": expires_at, "occurred_at": occurred_at}
        times = {name: parse_time(value, name) for name, value in given.items()}
        arguments.interval(times["valid_from"], times["valid_to"])
        common = Common(
            scope=scope,
            category=arguments.category(category),
            importance=arguments.importance(importance),
            metadata=dict(arguments.metadata(metadata)),
            kind=None if kind is None else arguments.kind(kind),
            occurred_at=times["occurred_at"],
            valid_from=times["valid_from"],
            valid_to=times["valid_to"],
            expires_at=times["expires_at"],
        )
        columns = columns or Columns()
        spec = getattr(self._encoder, "spec", None) or self._encoder
        reader = Reader(encoder=spec, common=common, columns=columns, redactor=self._redactor)
        size = arguments.count("batch", batch, most=MOST_BATCH)
        count = None if encoders is None else arguments.count("encoders", encoders, most=MOST_ENCODERS)
        share = arguments.number("gpus", gpus)
        if share < 0:
            raise InvalidInput("gpus", f"is {gpus}", mend="give 0, or how many of them each encoder needs")
        files = [arguments.path(path) for path in paths]
        return self._ingest(files, reader, ray, count, share, size)

    def _ingest(
        self, files: Sequence[Path], reader: Reader, address: str, count: int | None, gpus: float, size: int
    ) -> Generator[Ingested, None, None]:
        parts, problems = plan(files)
        told = Ingested(parts=len(parts), failed=len(problems), problems=tuple(problems[:MOST_PROBLEMS]))
        yield told
        if not parts:
            return
        projection = self._projection
        with ExitStack() as stack:
            cluster = stack.enter_context(joined(address))
            count = count or cluster.size(gpus)
            encoders = None
            if projection.encoder is not None:
                made_by = reader.encoder or projection.encoder
                encoding = Encoding(encoder=made_by, id=projection.encoder.id, codec=projection.codec)
                encoders = Encoders(cluster, encoding, count, gpus)
                stack.callback(encoders.close)
            writing = Writing(self._ledger, projection, reader.common.scope.namespace, encoders, size, told)
            stack.callback(writing.close)
            yield from writing.run(cluster.read(parts, reader, count))
