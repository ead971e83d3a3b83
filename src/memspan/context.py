"""Pack hits into an exact token budget: what is counted is the string that is handed over, whole.

Stored text is data, never instruction: every line of it stands behind ``> ``, and nothing stored can begin a line, so
it cannot fake a citation, a heading or an end of the quotation. The frame around it is that of ``memspan.quotation``,
by which it is known again where it comes back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from memspan.errors import BudgetTooSmall
from memspan.kinds import KINDS
from memspan.quotation import END, NOTHING_FOUND, PREAMBLE, QUERY, SUMMARY
from memspan.records import Citation, Context, Hit
from memspan.segmenting import Tokenizer, summary

Order = Literal["time", "score"]

NAME_CHARACTERS = 80
PLACES = ("first", "found", "last")  # of kinds, in the order in which they stand
REFILLS = 8
_STEPS = re.compile(r"\S{1,16}")  # words, and parts of what is written without spaces


@dataclass(frozen=True, slots=True)
class _Passage:
    """Hits that stand next to each other in one document or session, in their order there."""

    hits: tuple[Hit, ...]

    @property
    def time(self) -> datetime:
        return self.hits[0].time

    @property
    def place(self) -> str:
        return KINDS[self.hits[0].kind].place

    @property
    def score(self) -> float:
        return max(hit.score for hit in self.hits)


def pack(
    hits: Sequence[Hit],
    *,
    query: str,
    budget: int,
    tokenizer: Tokenizer,
    titles: Mapping[str, str],
    order: Order = "time",
    complete: bool = False,
    always: Sequence[Hit] = (),
    without: Sequence[str] = (),
) -> Context | None:
    """The best of ``hits`` (sorted best first) that fit ``budget`` tokens of ``tokenizer``.

    ``complete``: all of them or None. ``always``, the most important first, are in it whatever was found, as far as
    the share of their kind goes (``memspan.kinds``). What one of the texts ``without`` says word for word is left out.
    ``titles`` names documents by id. Raises BudgetTooSmall when not even the beginning of the best hit fits.
    """
    packer = _Packer(query, budget, tokenizer, titles, order)
    read = {_words(text) for text in without}
    if complete:
        whole = packer.context([hit for hit in _together(always, hits) if not _said(hit, read)], complete=True)
        return whole if whole.tokens <= budget else None
    return packer.best(_distinct(_together(packer.held(always), hits), read))


def pack_active(
    hits: Sequence[Hit],
    *,
    query: str,
    budget: int,
    tokenizer: Tokenizer,
    describe: Callable[[Hit], str] | None = None,
) -> Context:
    """DSM's active context of ``hits`` (sorted best first): the query, a line for each segment, then each one whole.

    A segment that does not fit is passed over for the next. ``hits`` should be explained, for their scores to be told.
    ``describe`` gives the line that says what a segment is about; its beginning does without.
    Raises BudgetTooSmall when not even the beginning of the best hit fits.
    """
    layout = _Active(query, budget, tokenizer, describe or (lambda hit: summary(hit.text)))
    if not hits:
        empty = layout.context([])
        return empty if empty.tokens <= budget else _beginning(layout.context, hits, budget)
    frame, *costs = tokenizer.count([layout.frame([], ""), *(layout.render([hit]) for hit in hits)])
    packed = _greedy(layout.context, hits, [cost - frame for cost in costs], budget - frame, budget)
    return packed or _beginning(layout.context, hits, budget)


class _Active:
    """DSM's layout."""

    def __init__(self, query: str, budget: int, tokenizer: Tokenizer, describe: Callable[[Hit], str]) -> None:
        self._query = query
        self._budget = budget
        self._tokenizer = tokenizer
        self._describe = describe

    def context(self, hits: Sequence[Hit], *, truncated: bool = False) -> Context:
        text = self.render(hits)
        return Context(
            text=text,
            tokens=self._tokenizer.count([text])[0],
            budget=self._budget,
            tokenizer=self._tokenizer.name,
            citations=tuple(
                Citation(
                    number=number,
                    ids=(hit.id,),
                    score=hit.score,
                    time=hit.time,
                    speaker=hit.speaker,
                    document_id=hit.document_id,
                    truncated=truncated,
                )
                for number, hit in enumerate(hits, 1)
            ),
            complete=False,
            query=self._query,
        )

    def render(self, hits: Sequence[Hit]) -> str:
        lines = [f"- {_about(hit)}: {self._about(hit)} (score={hit.score:.3f})" for hit in hits]
        segments = (self._segment(number, hit) for number, hit in enumerate(hits, 1))
        return self.frame(segments, "\n".join(lines) or NOTHING_FOUND)

    def frame(self, segments: Iterable[str], about: str) -> str:
        """What stands around ``segments``, and ``about`` them in front."""
        asked = f"{QUERY}\n{_visible(' '.join(self._query.split()))}"
        told = f"{PREAMBLE}\n{SUMMARY}\n{about}"
        return "\n\n---\n\n".join([asked, told, *segments, END])

    def _segment(self, number: int, hit: Hit) -> str:
        scores = {**(hit.channels or {}), "total": hit.score}
        who = hit.speaker or hit.role
        lines = [
            f"[SEGMENT {number}] id={_name(hit.id)}",
            f"category={_about(hit)}",
            f"time={hit.time:%Y-%m-%d %H:%M} UTC",
            f"description={self._about(hit)}",
            "scores=" + " ".join(f"{name}:{value:.3f}" for name, value in scores.items()),
            "text:",
            *(f"> {line}".rstrip() for line in _lines(f"{_name(who)}: {hit.text}" if who else hit.text)),
        ]
        return "\n".join(lines)

    def _about(self, hit: Hit) -> str:
        return _visible(" ".join(self._describe(hit).split()))


def _about(hit: Hit) -> str:
    """Where a hit belongs: its category, else the headings it stands under, else its session."""
    path = hit.category or hit.heading or ((f"session {hit.session}",) if hit.session else ("uncategorised",))
    return " → ".join(_name(step) for step in path)


class _Packer:
    def __init__(self, query: str, budget: int, tokenizer: Tokenizer, titles: Mapping[str, str], order: Order) -> None:
        self._query = query
        self._budget = budget
        self._tokenizer = tokenizer
        self._titles = titles
        self._order = order

    def best(self, hits: Sequence[Hit]) -> Context:
        """The best of ``hits`` that fit."""
        if not hits:
            return self.context([])
        base, *costs = self._tokenizer.count(
            [f"{PREAMBLE}\n\n{END}", *(self._passage(1, _Passage((hit,))) for hit in hits)]
        )
        packed = _greedy(self.context, hits, costs, self._budget - base, self._budget)
        return packed or _beginning(self.context, hits, self._budget)

    def held(self, always: Sequence[Hit]) -> list[Hit]:
        """Those of ``always`` that the share of their kind holds, in their order."""
        held, left = list[Hit](), {kind.name: int(kind.share * self._budget) for kind in KINDS.values()}
        costs = self._tokenizer.count([self._passage(1, _Passage((hit,))) for hit in always]) if always else []
        for hit, cost in zip(always, costs, strict=True):
            if cost <= left[hit.kind]:
                left[hit.kind] -= cost
                held.append(hit)
        return held

    def context(self, hits: Sequence[Hit], *, complete: bool = False, truncated: bool = False) -> Context:
        """Render and count ``hits``."""
        passages = _passages(hits)
        if self._order == "score":
            passages.sort(key=lambda passage: -passage.score)
        passages.sort(key=lambda passage: PLACES.index(passage.place))
        parts = [self._passage(number, passage) for number, passage in enumerate(passages, 1)]
        text = "\n".join([f"{PREAMBLE}\n", *parts, END]) if parts else ""
        return Context(
            text=text,
            tokens=self._tokenizer.count([text])[0] if text else 0,
            budget=self._budget,
            tokenizer=self._tokenizer.name,
            citations=tuple(
                Citation(
                    number=number,
                    ids=tuple(hit.id for hit in passage.hits),
                    score=passage.score,
                    time=passage.time,
                    speaker=passage.hits[0].speaker,
                    document_id=passage.hits[0].document_id,
                    title=self._titles.get(passage.hits[0].document_id or ""),
                    truncated=truncated,
                )
                for number, passage in enumerate(passages, 1)
            ),
            complete=complete,
            query=self._query,
        )

    def _passage(self, number: int, passage: _Passage) -> str:
        first = passage.hits[0]
        title = self._titles.get(first.document_id or "")
        path = first.heading if not title or first.heading[:1] == (title,) else (title, *first.heading)
        about = [" > ".join(_name(step) for step in path)]
        if first.occurred_at is not None or not about[0]:
            about.append(f"{first.time:%Y-%m-%d %H:%M} UTC")
        if first.session:
            about.append(f"session {_name(first.session)}")
        lines = [f"[{number}] {', '.join(part for part in about if part)}"]
        texts: list[str] = []
        before: str | None = None
        for hit in passage.hits:
            who = hit.speaker or hit.role
            if before is not None and hit.document_id == before:  # parts of one text read on as they stood there
                texts[-1] += hit.gap + hit.text
            else:
                texts.append(f"{_name(who)}: {hit.text}" if who else hit.text)
            before = hit.document_id
        lines += [f"> {line}".rstrip() for text in texts for line in _lines(text)]
        return "\n".join(lines) + "\n"


def _together(first: Sequence[Hit], then: Sequence[Hit]) -> list[Hit]:
    """All of them, each once; with its score where it has one."""
    scored = {hit.seq: hit for hit in then}
    known = {hit.seq for hit in first}
    return [*(scored.get(hit.seq, hit) for hit in first), *(hit for hit in then if hit.seq not in known)]


def _greedy(
    render: Callable[[Sequence[Hit]], Context], hits: Sequence[Hit], costs: Sequence[int], room: int, budget: int
) -> Context | None:
    """The best of ``hits`` by each one's own cost, then counted whole; None where not one fits.

    Tokens across a border may not add up, and neighbours that are merged cost less: the worst ones go, and what is free
    is filled again.
    """
    chosen: list[int] = []
    left: list[int] = []
    for at, cost in enumerate(costs):
        if cost <= room:
            chosen.append(at)
            room -= cost
        else:
            left.append(at)
    context = render([hits[at] for at in chosen])
    while chosen and context.tokens > budget:
        chosen.pop()
        context = render([hits[at] for at in chosen])
    for at in left[:REFILLS] if chosen else ():
        if costs[at] <= (budget - context.tokens) * 2:
            fuller = render([hits[each] for each in sorted((*chosen, at))])
            if fuller.tokens <= budget:
                chosen.append(at)
                context = fuller
    return context if chosen else None


def _beginning(render: Callable[..., Context], hits: Sequence[Hit], budget: int) -> Context:
    """As much of the best hit as fits, marked as cut."""
    if not hits:
        least = render([]).tokens
        raise BudgetTooSmall("budget", f"{budget} tokens cannot hold the query", mend=f"give at least {least} tokens")
    hit = hits[0]
    ends = [match.end() for match in _STEPS.finditer(hit.text)]
    fits, over = 0, len(ends)
    best: Context | None = None
    while fits < over:
        middle = (fits + over + 1) // 2
        cut = render([replace(hit, text=f"{hit.text[: ends[middle - 1]]} …")], truncated=True)
        if cut.tokens <= budget:
            fits, best = middle, cut
        else:
            over = middle - 1
    if best is None:
        least = render([replace(hit, text=f"{hit.text[: ends[0]]} …")], truncated=True).tokens
        raise BudgetTooSmall(
            "budget", f"{budget} tokens cannot hold one citation", mend=f"give at least {least} tokens"
        )
    return best


def _passages(hits: Sequence[Hit]) -> list[_Passage]:
    """Neighbours joined, in order of time."""
    ordered = sorted(hits, key=lambda hit: (_place(hit), hit.position, hit.seq))
    groups: list[list[Hit]] = []
    for hit in ordered:
        last = groups[-1][-1] if groups else None
        alike = last is not None and KINDS[last.kind].place == KINDS[hit.kind].place
        if last is not None and alike and _place(last) == _place(hit) and hit.position == last.position + 1:
            groups[-1].append(hit)
        else:
            groups.append([hit])
    return sorted((_Passage(tuple(group)) for group in groups), key=lambda p: (p.time, p.hits[0].seq))


def _place(hit: Hit) -> tuple[str, ...]:
    """Where a position counts: its document, or its session in its scope. Without either a hit stands alone."""
    if hit.document_id is not None and hit.role is None:
        return ("document", hit.document_id)
    if hit.session is not None or hit.role is not None:
        return ("session", hit.user_id or "", hit.agent_id or "", hit.run_id or "", hit.session or "")
    return ("alone", hit.id)


def _distinct(hits: Sequence[Hit], read: Collection[str]) -> list[Hit]:
    """Without hits whose words were ``read`` or are already in a better one."""
    kept: list[Hit] = []
    seen = set(read)
    for hit in hits:
        if not _said(hit, seen):
            kept.append(hit)
            seen.add(_words(hit.text))
    return kept


def _said(hit: Hit, seen: Collection[str]) -> bool:
    """Whether one of the texts ``seen`` says what the hit does; few words may be part of anything."""
    words = _words(hit.text)
    return words in seen or (len(words) > 40 and any(words in longer for longer in seen))


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def _lines(text: str) -> list[str]:
    """Every line of ``text`` by any of Unicode's line ends, without control and direction-changing characters."""
    return [_visible(line) for line in text.splitlines()] or [""]


def _visible(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(c for c in line if c == "\t" or unicodedata.category(c) not in ("Cc", "Cf") or c in "\u200c\u200d")


def _name(name: str) -> str:
    """A name or title on one line, short enough not to eat the budget."""
    line = _visible(" ".join(name.split()))
    return line if len(line) <= NAME_CHARACTERS else line[: NAME_CHARACTERS - 1] + "…"
