"""Needles in a haystack: facts hidden at every depth of real text, each asked for in words it does not use.

Two sets lie in the same haystack and are reported side by side. The main one is the classic test after G. Kamradt's
"Needle In A Haystack" (2023): a question names the same person, place or thing as its needle and asks in other words.
The harder one shares not even a name, so that only the meaning leads to the needle, as in NoLiMa (Modarressi et al.,
arXiv:2502.05167). The needles ship with memspan, were written once and are never changed for being missed. The haystack
is text that is on every machine: a folder you name, Python's documentation and sources, then those of the installed
packages. No paragraph stands in it twice.

No language model reads anything here: a needle counts as found at the place its segment has among the hits.
"""

from __future__ import annotations

import hashlib
import json
import re
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import terms
from memspan.bench.embeddings import Cached
from memspan.bench.measures import encoder_of, machine, milliseconds, ranks_of
from memspan.channels import TreeChannel
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.ledger.sqlite import SqliteLedger
from memspan.memory import MOST_TOKENS, Memory
from memspan.reading import read_file
from memspan.recipes import recipe_named
from memspan.records import Scope
from memspan.segmenting import Tokenizer, WordTokenizer

Progress = Callable[[int, int, str], None]
Ranks = Sequence[int | None]

NAMED = "shared name"  # the main set of needles
UNNAMED = "no shared word"  # the harder one
PLAIN = "plain vectors"
NAMESPACE = "haystack"
HITS = 10
WARMING = 20  # searches before the clock runs, of words from the haystack
PASSAGE = 2_000  # characters of a passage, about 500 tokens; a page of a book
PAGE = 8_192  # vectors compared at once
LEAST = 1_000
LEAST_BUDGET = 100  # a citation with any of the needles
SUFFIXES = frozenset((".txt", ".md", ".rst", ".py", ".html"))  # of what is read in a folder
GOAL_MS = 10.0  # p50 of a whole search among up to GOAL_TOKENS
GOAL_TOKENS = 1_000_000

_CUT = re.compile(r"\S.{0,1999}(?=\n|\Z)|\S.{0,1999}(?!\S)|\S{2000}", re.DOTALL)  # at lines, at words, anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Needle:
    """A fact, a question only it answers, the words of it that answer, and the proper name both share, if any."""

    text: str
    question: str
    answer: str
    name: str | None

    @property
    def shared(self) -> float:
        """The share of the question's distinct content terms that occur in the needle, in [0, 1]."""
        asked = set(terms(self.question))
        return len(asked & set(terms(self.text))) / len(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of the haystack: where it is from, and its size by the encoder's tokenizer."""

    text: str
    source: str
    tokens: int


def run(
    *,
    tokens: int | Sequence[int] = 1_000_000,
    needles: int = 100,
    depths: int = 10,
    data: str | Path | None = None,
    recipes: Sequence[str] = ("default",),
    budget: int = 1_000,
    encoder: str | Encoder | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hide needles at ``depths`` depths and search for them; a report of values, ready for JSON.

    Hidden are the first ``needles`` of those that share a name with their question, and of those that share no telling
    word with it the first half as many. Every figure is of one of these two sets; the bars are for the named ones.
    ``tokens`` is the length of the haystack, or several: each gets a store of its own, a shorter haystack is the
    beginning of a longer one, and what two of them share is encoded once (kept in a temporary file of 800 bytes a
    token where there are several). ``depths`` are even, from 0 to 100 % of the
    tokens; each set is spread evenly over them. ``data`` is a folder read first. Every recipe is asked on the same
    stores. ``budget`` is that of a context. ``encoder`` is a spec, an Encoder, or None for the configured one.
    ``store`` is a folder in which the stores are kept, one for each length; None keeps none. Of a recipe that is
    routed by the tree it is told how many vectors that compares.

    Takes about as long as encoding the longest haystack. Raises InvalidInput naming the argument (``tokens`` also where
    there is less text than was asked for), EncoderError, StoreError.
    """
    measured_on = machine()
    lengths = sorted({tokens} if isinstance(tokens, int) else set(tokens))
    hidden = _chosen(lengths, needles, depths, recipes, budget)
    model = encoder_of(encoder)
    tell = progress or (lambda done, total, what: None)
    counter = WordTokenizer() if model is None else model.tokenizer
    folder = None if store is None else Path(store)
    for length in lengths:
        if folder is not None and (folder / str(length)).exists():
            raise InvalidInput("store", f"{folder / str(length)} is there already", mend="name a new folder")
    without = [needle.text for needle in chain(*hidden.values())]
    passages = haystack(lengths[-1], counter, data, without=without, progress=tell)
    ends = np.cumsum([passage.tokens for passage in passages])
    report: dict[str, Any] = {
        "benchmark": "needles in a haystack of real text",
        "needles": {
            kind: {
                "count": len(each),
                "terms_shared_with_the_question": round(float(np.mean([needle.shared for needle in each])), 4),
            }
            for kind, each in hidden.items()
        },
        "depths_percent": [round(100 * depth, 1) for depth in np.linspace(0, 1, depths).tolist()],
        "encoder": None if model is None else model.id,
        "budget": budget,
        "lengths": [],
    }
    with tempfile.TemporaryDirectory(prefix="memspan-needle-") as scratch:
        kept_by = Cached(model, Path(scratch, "embeddings")) if model is not None and len(lengths) > 1 else None
        filling = model if kept_by is None else kept_by
        for length in lengths:
            hay = passages[: int(np.searchsorted(ends, length)) + 1]
            with (
                tempfile.TemporaryDirectory(prefix="memspan-needle-") if folder is None else nullcontext(folder) as kept
            ):
                path = Path(kept, str(length))
                entry, ids = _filled(path, hay, hidden, depths, filling, tell)
                if kept_by is not None:
                    kept_by.forget()
                results: dict[str, Any] = {}
                with Memory(path, encoder=model, namespace=NAMESPACE) as memory:  # queries are encoded each time
                    for recipe in recipes:
                        for passage in hay[:: -(-len(hay) // WARMING)]:
                            memory.search(" ".join(passage.text.split()[:8]), recipe=recipe)
                        results[f"memspan {recipe}"] = {
                            kind: _asked(memory, recipe, each, ids, depths, budget, entry["tokens"], tell)
                            for kind, each in hidden.items()
                        }
                if model is not None:
                    tell(0, 1, "comparing with every vector")
                    compared = {"comparisons": {"mean": entry["vectors"], "most": entry["vectors"]}}
                    results[PLAIN] = {
                        kind: _found(_plain_ranks(path, model, each, ids), depths) | compared
                        for kind, each in hidden.items()
                    }
                report["lengths"].append({"asked_for": length} | entry | {"results": results})
    report["bars"] = _bars(report["lengths"])
    report["machine"] = measured_on
    tell(1, 1, "")
    return report


def attention(active: int, total: int) -> dict[str, float]:
    """Operations of attention over ``total`` tokens and over ``active`` of them, and how many times fewer those are.

    Self-attention compares every token with every token: n^2 for n tokens (Vaswani et al. 2017, table 1; a layer's
    width and the number of layers are the same on both sides). The formula is that of DSM's table, in which 65,536 is
    256^2 and the ratio of 401,075 makes "1M tokens" 162,126. ``active`` and ``total`` are at least 1.
    """
    return {
        "dense_attention_ops": total**2,
        "active_attention_ops": active**2,
        "reduction_ratio": round(total**2 / active**2, 1),
    }


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people: DSM's table, hit@5 by length and depth, and the numbers of missed needles.

    The two sets of needles have a line each; a needle's number is its place in its set, from 1.
    """
    heads = ("tokens", "segments", "", "needles", "hit@1", "hit@5", "hit@10", "p50 ms", "p99 ms", "compared", "context")
    costs = ("dense ops", "active ops", "ratio")
    rows: list[Sequence[str]] = [(*heads, *costs)]
    grid: list[Sequence[str]] = [("tokens", "hit@5 at", "", *(f"{depth:g}%" for depth in report["depths_percent"]))]
    missed = []
    for entry in report["lengths"]:
        size = f"{entry['tokens']:,}"
        for system, sets in entry["results"].items():
            for kind, found in sets.items():
                search, context, cost = (found.get(part, {}) for part in ("search", "context", "attention"))
                rows.append(
                    (
                        *(size, f"{entry['segments']:,}", system, kind),
                        *(f"{found[hit]:.2f}" for hit in ("hit@1", "hit@5", "hit@10")),
                        *(_number(search.get(part), ".2f") for part in ("p50_ms", "p99_ms")),
                        _number((found["comparisons"] or {}).get("mean"), ",.0f"),
                        _number(context.get("mean_tokens"), ",.0f"),
                        *(_number(cost.get(f"{part}_attention_ops"), ".3g") for part in ("dense", "active")),
                        _number(cost.get("reduction_ratio"), ",.0f"),
                    )
                )
                grid.append((size, system, kind, *(_number(value, ".2f") for value in found["hit@5_by_depth"])))
                if found["missed"]:
                    numbers = ", ".join(map(str, found["missed"]))
                    missed.append(f"{size} tokens, {system}, {kind}: not among the first 5: {numbers}")
    return "\n\n".join(part for part in (_aligned(rows), _aligned(grid), "\n".join(missed)) if part)


# The needles and the haystack


def shipped() -> dict[str, tuple[Needle, ...]]:
    """The needles that come with memspan, NAMED and UNNAMED, each set in its order: number 1 is the first."""
    raw = resources.files("memspan.bench").joinpath("needles.json").read_text(encoding="utf-8")
    return {kind: tuple(Needle(**entry) for entry in entries) for kind, entries in json.loads(raw).items()}


def haystack(
    tokens: int,
    tokenizer: Tokenizer,
    data: str | Path | None = None,
    *,
    without: Iterable[str] = (),
    progress: Progress | None = None,
) -> list[Passage]:
    """Passages of real text, as many as make ``tokens`` tokens together; always the same.

    First the texts in the folder ``data`` and below, in the order of their paths; then Python's documentation, its
    library's sources (its own tests last), and the sources of the installed packages. A passage is of one file and has
    up to 2,000 characters. A paragraph that was there before, is one of ``without``, or is hardly text (fewer than
    four words, or fewer letters than other signs: tables of numbers) is left out.

    Raises InvalidInput naming ``data``, and ``tokens`` where there is not so much text.
    """
    sources = chain(() if data is None else _folder(Path(data)), _documentation(), _library(), _packages())
    seen = {_key(text.split()) for text in without}
    texts = ((source, text) for source, document in sources for text in _passages(document, seen))
    found: list[Passage] = []
    total = 0
    while batch := list(islice(texts, 64)):
        if progress is not None:
            progress(total, tokens, "reading")
        for (source, text), count in zip(batch, tokenizer.count([text for _, text in batch]), strict=True):
            found.append(Passage(text=text, source=source, tokens=count))
            total += count
            if total >= tokens:
                return found
    raise InvalidInput(
        "tokens",
        f"there are only {total:,} tokens of text here, and {tokens:,} were asked for",
        mend="ask for fewer, or name a folder with more text as data",
    )


def places(sizes: Sequence[int], needles: int, depths: int) -> NDArray[np.intp]:
    """intp[needles], ascending: how many of the passages of ``sizes`` tokens stand before each needle.

    A needle stands at the border between two passages that is nearest to the share of all tokens that is its depth.
    """
    borders = np.concatenate([[0], np.cumsum(sizes)])
    wanted = levels(needles, depths) / (depths - 1) * borders[-1]
    after = np.searchsorted(borders, wanted)
    before = np.maximum(after - 1, 0)
    nearer: NDArray[np.intp] = np.where(wanted - borders[before] < borders[after] - wanted, before, after)
    return nearer


def levels(needles: int, depths: int) -> NDArray[np.int64]:
    """int64[needles], ascending: to which depth of 0 ... ``depths - 1`` each needle belongs, as evenly as it goes."""
    return np.arange(needles) * depths // needles


def _folder(folder: Path) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        raise InvalidInput(
            "data", f"there is no folder {str(folder)!r}", mend="name a folder of txt, md, rst, py or html"
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InvalidInput("data", f"{str(folder)!r} holds no text", mend="name a folder of txt, md, rst, py or html")
    yield from _read("given folder", files)


def _documentation() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield "Python's documentation", topics[name]


def _library() -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in library.rglob("*.py") if not {"site-packages", "dist-packages"} & set(file.parts)]
    files.sort(key=lambda file: ("test" in str(file.relative_to(library)), str(file)))
    yield from _read("Python's library", files)


def _packages() -> Iterator[tuple[str, str]]:
    folders = sorted({Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")})
    files = (file for folder in folders for file in sorted(folder.rglob("*.py")))
    yield from _read("installed packages", (file for file in files if "memspan" not in file.parts))


def _read(source: str, files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        try:
            yield source, read_file(file).text
        except InvalidInput:  # empty, or no text in spite of its name
            continue


def _passages(document: str, seen: set[bytes]) -> Iterator[str]:
    """Paragraphs of ``document`` that are text and not in ``seen``, joined to passages; ``seen`` learns them.

    A paragraph longer than a passage is cut first: long tables often differ in a few lines only.
    """
    passage = ""
    for paragraph in re.split(r"\n\s*\n", document):
        for part in [paragraph] if len(paragraph) <= PASSAGE else _CUT.findall(paragraph):
            words = part.split()
            signs = "".join(words)
            if len(words) < 4 or 2 * sum(map(str.isalpha, signs)) < len(signs) or (key := _key(words)) in seen:
                continue
            seen.add(key)
            if passage and len(passage) + 2 + len(part) > PASSAGE:
                yield passage
                passage = ""
            passage = f"{passage}\n\n{part}" if passage else part
    if passage:
        yield passage


def _key(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


# What is measured


def _filled(
    path: Path,
    hay: Sequence[Passage],
    hidden: Mapping[str, Sequence[Needle]],
    depths: int,
    encoder: Encoder | None,
    tell: Progress,
) -> tuple[dict[str, Any], dict[Needle, str]]:
    """A compacted store of the haystack with the needles of all sets: what it holds, and the needles' ids."""
    sizes = [passage.tokens for passage in hay]
    needles = list(chain(*hidden.values()))
    before = np.concatenate([places(sizes, len(each), depths) for each in hidden.values()])
    depth = np.concatenate([[0], np.cumsum(sizes)])[before] / sum(sizes)
    wanted = np.concatenate([levels(len(each), depths) for each in hidden.values()]) / (depths - 1)
    made_of: Counter[str] = Counter()
    for passage in hay:
        made_of[passage.source] += passage.tokens
    ids: dict[Needle, str] = {}
    started = time.perf_counter()
    with Memory(path, encoder=encoder, namespace=NAMESPACE) as memory:
        for at in range(len(hay) + 1):
            tell(at, len(hay), "adding")
            for number in np.flatnonzero(before == at):
                added = memory.add(needles[number].text, wait=False)
                if len(added.ids) != 1:
                    raise InvalidInput(
                        "encoder", "its window cuts a needle in two", mend="take one that reads 64 tokens"
                    )
                ids[needles[number]] = added.ids[0]
            if at < len(hay):
                memory.add(hay[at].text, source="document", wait=False)
        memory.compact(progress=tell)
        held = memory.stats()
    entry = {
        "tokens": held["tokens"],
        "segments": held["segments"],
        "vectors": 0 if encoder is None else held["segments"],
        "passages": len(hay),
        "haystack_tokens": dict(made_of),
        "farthest_from_its_depth_percent": round(100 * float(np.abs(depth - wanted).max()), 3),
        "filled_seconds": round(time.perf_counter() - started, 1),
    }
    return entry, ids


def _asked(
    memory: Memory,
    recipe: str,
    hidden: Sequence[Needle],
    ids: Mapping[Needle, str],
    depths: int,
    budget: int,
    total: int,
    tell: Progress,
) -> dict[str, Any]:
    """Every question of one set once by ``search`` on the clock, then once by ``context``."""
    ranks: list[int | None] = []
    seconds = []
    for needle in hidden:
        tell(len(ranks), len(hidden), f"searching, {recipe}")
        started = time.perf_counter()
        hits = memory.search(needle.question, k=HITS, recipe=recipe)
        seconds.append(time.perf_counter() - started)
        ranks += ranks_of([hit.id for hit in hits], [ids[needle]])
    tell(0, 1, f"making contexts, {recipe}")
    contexts = [memory.context(needle.question, budget=budget, recipe=recipe) for needle in hidden]
    counts = [context.tokens for context in contexts]
    by_tree = memory.stats()["encoder"] is not None and "tree" in recipe_named(recipe).channels
    compared = [routed(memory, needle.question) for needle in hidden] if by_tree else None
    mean = round(float(np.mean(counts)))
    return _found(ranks, depths) | {
        "search": milliseconds(seconds),
        "comparisons": None if compared is None else {"mean": float(np.mean(compared)), "most": max(compared)},
        "context": {
            "mean_tokens": mean,
            "most_tokens": max(counts),
            "with_the_needle": float(np.mean([n.text in c.text for n, c in zip(hidden, contexts, strict=True)])),
        },
        "attention": attention(mean, total),
    }


def routed(memory: Memory, question: str) -> int:
    """The vectors that beam search in the tree compares: centroids, and the rows of the leaves they lead to."""
    selection = memory._selections.of(Scope(namespace=memory.namespace))
    vector = memory._projection.encode([question]).pooled[0]
    return memory._tree.route(selection, vector, TreeChannel.BEAM).comparisons


def _plain_ranks(path: Path, model: Encoder, hidden: Sequence[Needle], ids: Mapping[Needle, str]) -> list[int]:
    """The place of each needle of a set when every vector in the store is compared with its question: exact cosine."""
    asked = np.concatenate([model.encode([needle.question]).pooled for needle in hidden])
    with closing(SqliteLedger(path / "ledger.db")) as ledger:
        own = np.array([ledger.get(NAMESPACE, ids[needle]).seq for needle in hidden])
        _, vectors = ledger.vectors_of(NAMESPACE, own.tolist())  # ascending, as the needles were added
        least = np.einsum("ij,ij->i", asked, vectors)[:, None]
        better = np.zeros(len(hidden), np.int64)
        after = -1
        while len((page := ledger.vectors(NAMESPACE, after, PAGE))[0]):
            seqs, vectors = page
            better += np.count_nonzero((asked @ vectors.T > least) & (seqs != own[:, None]), axis=1)
            after = int(seqs[-1])
    ranks: list[int] = (better + 1).tolist()
    return ranks


def _found(ranks: Ranks, depths: int) -> dict[str, Any]:
    """hit@1, @5 and @10 of a set's 1-based ranks, hit@5 by depth, and the numbers of the needles not in the first five.

    At a depth without a needle, where a set is smaller than the depths are many, hit@5 is None.
    """

    def within(k: int) -> list[bool]:
        return [rank is not None and rank <= k for rank in ranks]

    five = np.array(within(5))
    level = levels(len(ranks), depths)
    return {
        **{f"hit@{k}": round(float(np.mean(within(k))), 4) for k in (1, 5, 10)},
        "hit@5_by_depth": [
            round(float(five[level == depth].mean()), 4) if depth in level else None for depth in range(depths)
        ],
        "missed": (np.flatnonzero(~five) + 1).tolist(),
        "ranks": list(ranks),
    }


def _bars(lengths: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What was aimed at and whether it holds: every named needle among the first five, and a search within 10 ms."""
    told = {}
    for entry in lengths:
        for system, sets in entry["results"].items():
            if system == PLAIN:
                continue
            found = sets[NAMED]
            name = f"{entry['asked_for']:,} tokens, {system}"
            hit, p50 = found["hit@5"], found["search"]["p50_ms"]
            told[f"{name}, hit@5"] = f"{hit:g}, at least 1: {'holds' if hit >= 1 else 'MISSED'}"
            if entry["asked_for"] <= GOAL_TOKENS:
                holds = "holds" if p50 < GOAL_MS else "MISSED"
                told[f"{name}, search p50 ms"] = f"{p50:g}, below {GOAL_MS:g}: {holds}"
    return told


def _chosen(
    lengths: Sequence[int], needles: int, depths: int, recipes: Sequence[str], budget: int
) -> dict[str, tuple[Needle, ...]]:
    """The needles to hide, by set. Raises InvalidInput naming what of the arguments cannot be measured."""
    known = shipped()
    most = len(known[NAMED])
    if not lengths or lengths[0] < LEAST:
        raise InvalidInput(
            "tokens", f"{lengths[0] if lengths else 'none'} hide nothing", mend=f"give at least {LEAST:,}"
        )
    if not 2 <= needles <= most:
        raise InvalidInput("needles", f"{needles} cannot be hidden", mend=f"give 2 to {most}")
    if not 2 <= depths <= needles:
        raise InvalidInput("depths", f"{depths} cannot hold {needles} needles", mend=f"give 2 to {needles}")
    if not LEAST_BUDGET <= budget <= MOST_TOKENS:
        raise InvalidInput("budget", f"{budget} tokens", mend=f"give {LEAST_BUDGET} to {MOST_TOKENS:,}")
    if not recipes:
        raise InvalidInput("recipes", "none is named", mend="name at least 'default'")
    for recipe in recipes:
        recipe_named(recipe)
    return {NAMED: known[NAMED][:needles], UNNAMED: known[UNNAMED][: needles // 2]}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, names to the left and numbers to the right, under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if cell[:1].isalpha() else ">" for cell in rows[1]]
    lines = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)
