"""``Browsing``: the part of ``Memory`` that shows how memories hang together: graph, tree, themes and timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from memspan import arguments
from memspan.errors import InvalidInput
from memspan.filtering import parse_filter
from memspan.ledger.base import instant, microseconds
from memspan.records import NOW, AsOf, Neighbor, Node, Scope, Segment, Theme, Timeline
from memspan.revising import nothing_in
from memspan.segmenting import parse_time
from memspan.store import MOST_ROWS, Store
from memspan.views.base import Scored
from memspan.views.graph import communities
from memspan.views.labels import Words, label

MOST_HOPS = 4
SMALLEST_THEME = 3  # segments; fewer are no theme
THEME_SAMPLE = 64  # central segments whose words name a theme
THEME_IDS = 10


class Browsing(Store):
    """An open store that can be looked around in."""

    def neighbors(
        self,
        id: str,
        kinds: str | Sequence[str] | None = None,
        hops: int = 1,
        *,
        limit: int = 20,
        namespace: str | None = None,
    ) -> list[Neighbor]:
        """What the graph leads to from segment ``id``, strongest first, each with the path there.

        ``kinds``: "next" in its session or document, "mentions" of the same names, "similar" in meaning, and the
        relations stated by ``link``; None is all. A second hop counts half. What was superseded or merged is found too,
        what has expired or is quarantined not. Raises NotFound, InvalidInput.
        """
        scope = self._scope(namespace, None, None, None, None)
        most = arguments.count("limit", limit)
        seed = self._ledger.get(scope.namespace, id)
        start = Scored(np.array([seed.seq], np.int64), np.ones(1, np.float32))
        reached = self._graph.expand(
            self._selections.of(scope, None, AsOf(superseded=True)),
            start,
            kinds=arguments.kinds(kinds),
            hops=arguments.count("hops", hops, most=MOST_HOPS),
            decay=0.5,
            most=most,
        )
        now, found = datetime.now(UTC), self._ledger.fetch(scope.namespace, reached.seqs[:most].tolist())
        rows = {row.seq: row for row in found if row.expires_at is None or row.expires_at > now}
        return [
            Neighbor(
                **{field.name: getattr(rows[seq], field.name) for field in fields(Segment)},
                strength=min(1.0, 2.0 * strength),
                path=self._retrieval.steps(scope.namespace, reached.path(seq)),
            )
            for seq, strength in zip(reached.seqs[:most].tolist(), reached.activation.tolist(), strict=False)
            if seq in rows
        ]

    def tree(
        self,
        path: str | Sequence[str] | None = None,
        *,
        depth: int = 2,
        examples: int = 1,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Node:
        """The category tree below ``path``, or all of it: what somebody named, and clusters that grew by themselves.

        ``depth`` levels of it, each node with its count, its label and up to ``examples`` texts; only what is in scope.
        Raises NotFound where nothing is in that category, InvalidInput.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        where = arguments.category(path, "path")
        selection = self._selections.of(scope, parse_filter(filters))
        levels = arguments.count("depth", depth, most=arguments.DEEPEST_CATEGORY)
        texts = arguments.count("examples", examples, least=0, most=100)
        found = self._tree.outline(selection, where, levels, texts)
        if where and not found.segments:
            raise nothing_in(where)
        return found

    def themes(
        self,
        *,
        limit: int = 20,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> list[Theme]:
        """What is talked about over and over: the communities of the graph, largest first, each with its most telling
        words and its most central segments. Raises MissingExtra without ``memspan[themes]``.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        most, parsed = arguments.count("limit", limit), parse_filter(filters)
        whole = parsed is None and scope == Scope(namespace=scope.namespace)
        seqs, a, b, weight = self._graph.neighbourhood(self._selections.of(scope, parsed), whole=whole)
        degree = np.bincount(a, weight, len(seqs)) + np.bincount(b, weight, len(seqs))
        groups = [
            group[np.argsort(-degree[group], kind="stable")]
            for group in communities(len(seqs), a, b, weight)[:most]
            if len(group) >= SMALLEST_THEME
        ]
        central = [self._ledger.fetch(scope.namespace, seqs[group[:THEME_SAMPLE]].tolist()) for group in groups]
        words = [Words.of([row.text for row in rows]) for rows in central]
        every = Words.of([row.text for rows in central for row in rows])
        return [
            Theme(label=label(said, every), segments=len(group), ids=tuple(row.id for row in rows[:THEME_IDS]))
            for group, rows, said in zip(groups, central, words, strict=True)
        ]

    def timeline(
        self,
        *,
        start: datetime | str | float | None = None,
        end: datetime | str | float | None = None,
        bins: int = 100,
        limit: int = 100,
        skip: int = 0,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Timeline:
        """How much happened when, in ``bins`` equal parts of the time from ``start`` (None: the first) up to, not
        including, ``end`` (None: after the last); and in the order of time ``limit`` segments of that after the first
        ``skip``. What nobody dated counts when it was heard. At most 10,000 parts. Raises InvalidInput."""
        scope, parsed = self._scope(namespace, user_id, agent_id, run_id, session), parse_filter(filters)
        parts, most = arguments.count("bins", bins, least=0), arguments.count("limit", limit)
        skipped = arguments.count("skip", skip, least=0, most=MOST_ROWS)
        since, until = parse_time(start, "start"), parse_time(end, "end")
        if since is not None and until is not None and until <= since:
            raise InvalidInput("end", f"{until} is not after start, {since}", mend="leave one of them out")
        with self._ledger.reading():
            seqs, times = self._ledger.times(scope, parsed, NOW, since, until)
            page = tuple(self._ledger.fetch(scope.namespace, seqs[skipped : skipped + most].tolist()))
        if not len(times):
            return Timeline(start=since, end=until, segments=0, counts=(0,) * parts, page=())
        since = since or instant(int(times[0]))
        until = until or instant(min(int(times[-1]) + 1, microseconds(datetime.max.replace(tzinfo=UTC))))
        low, high = microseconds(since), microseconds(until)
        borders = [low + (high - low) * part // parts for part in range(parts)]
        counts = np.diff(np.append(np.searchsorted(times, borders), len(times)))
        return Timeline(start=since, end=until, segments=len(times), counts=tuple(counts.tolist()), page=page)
