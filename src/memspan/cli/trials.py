"""The commands that try and measure: demo, and bench with what it measures."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.config import Config
from memspan.errors import InvalidInput
from memspan.records import as_dict

Recipes = Annotated[
    str | None,
    typer.Option("--recipe", metavar="A,B", help="Named ways of searching.", show_default=False),
]

Server = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DSN",
        help="Measure on this server, postgresql://..., in databases that are dropped again.",
        show_default=False,
    ),
]

bench = typer.Typer(
    help="Measure recall on a benchmark's files, or what this machine makes of memspan.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def demo(
    store: o.Store = None,
    encoder: o.Encoder = None,
    budget: Annotated[int, typer.Option("--budget", metavar="TOKENS", help="Of each answer's context.")] = 600,
    json: o.Json = False,
) -> None:
    """Read the documentation that ships inside Python, then answer five questions from it with cited contexts.

    Without --store the demo has a store of its own, "demo" in your data directory. Running it again is quick.
    """
    from memspan import demo as trial
    from memspan.memory import Memory

    config = Config.load(store=store or Config.data_directory() / "demo", encoder=encoder)
    tell = (lambda text: None) if json else print
    place = config.store if isinstance(config.store, Path) else Config.data_directory() / "demo"
    documents = place.with_name(f"{place.name}-documents")
    answers = []
    with Memory(namespace=config.namespace, config=config) as memory:
        tell(f"Reading the documentation of this Python into {config.store} ...")
        started = time.perf_counter()
        try:
            files = trial.write_documents(documents)
            with output.progress("Remembering", show=not json) as advance:
                report = trial.remember(memory, files, advance)
        except KeyboardInterrupt:
            typer.secho("Interrupted. What was remembered is safe; run it again to go on.", err=True)
            raise typer.Exit(130) from None
        report["seconds"] = round(time.perf_counter() - started, 3)
        tell(
            f"{report['tokens']:,} tokens in {report['segments']:,} segments of {report['documents']:,} documents "
            f"({report['new']:,} new, {report['unchanged']:,} unchanged) in {report['seconds']:.1f} s.\n"
        )
        for question in trial.QUESTIONS:
            asked = time.perf_counter()
            context = memory.context(question, budget=budget)
            milliseconds = (time.perf_counter() - asked) * 1000
            answers.append(as_dict(context) | {"milliseconds": round(milliseconds, 3)})
            if not json:
                output.show_answer(context, milliseconds)
    if json:
        output.emit({"store": str(config.store)} | report | {"answers": answers})
        return
    where = f"--store {shlex.quote(str(config.store))}"
    print("Now try it yourself on the same memory:\n")
    print(f'  {_program()} search "how do I make a temporary directory?" {where}')
    print(f'  {_program()} context "what does the with statement do?" --budget 500 {where}')
    print(f"  {_program()} stats {where}")
    print(f'\nThen start your own: {_program()} add "Ana moved to Lisbon in May.", or {_program()} ingest ~/notes')


def _program() -> str:
    """What to type to run memspan: its name, or, where that is not on the path, what this process was started by."""
    started = Path(sys.argv[0])
    return "memspan" if shutil.which("memspan") or started.stem != "memspan" else shlex.quote(str(started))


@bench.command()
def recall(
    names: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A set, several with commas between, or all: locomo, realtalk, beam, musique, hotpotqa, 2wiki, "
            "cranfield, qmsum, longmemeval, or a folder in BEIR's layout. SET-pooled is one with all its conversations "
            "in one store.",
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder that holds the sets' folders.")],
    recipes: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="A,B",
            help="Named ways of searching; the first is the one others are compared with. Otherwise default and those "
            "that are quicker or slower.",
            show_default=False,
        ),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate/--no-ablate", help="Also ask the first recipe without each of its parts.")
    ] = True,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", help="Processes; all cores if left out.", show_default=False),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FILE",
            help="Keeps embeddings by content, so that a text is encoded once: 1.6 GB for all sets (2 million "
            "tokens of 768 bytes). Otherwise embeddings.sqlite in the cache directory.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write the tables there.", show_default=False),
    ] = None,
    ranks: Annotated[
        Path | None,
        typer.Option("--ranks", metavar="FILE", help="Write each question's ranks there.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", help="Draw recall against latency there.", show_default=False),
    ] = None,
    store: Server = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Recall of evidence on the data sets: recipes, each part left out in turn, and plain dense search, BM25, their
    fusion and MaxSim, all over the same segments.

    A set that is not there is skipped by name, and the report says where to get it.
    """
    from memspan.bench import recall as module
    from memspan.bench import tables
    from memspan.bench.embeddings import default_file
    from memspan.bench.measures import usable_cores

    with output.progress("Recall", show=not json) as advance:
        report = module.run(
            data,
            _names(names),
            recipes=_names(recipes or "") or None,
            ablate=ablate,
            encoder=encoder,
            cache=cache or default_file(),
            jobs=usable_cores() if jobs is None else jobs,
            ranks=ranks,
            store=store,
            progress=advance,
        )
    for file, option, draw in ((markdown, "--markdown", tables.markdown), (plot, "--plot", tables.plot)):
        if file is not None:
            _put(file, option, draw(report))
    if json:
        output.emit(report)
        return
    print(tables.table(report), end="\n\n")
    output.show_mapping({name: report[name] for name in ("encoder", "jobs", "encoded", "seconds", "machine")})


def _put(file: Path, option: str, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"{file} cannot be written ({error.strerror})"
        raise InvalidInput(option, problem, mend="name a file you can write") from error


@bench.command()
def membank(
    sizes: Annotated[str, typer.Option("--sizes", metavar="N,N", help="Chunks in the bank, ascending.")] = "500,100000",
    queries: Annotated[int, typer.Option("--queries", help="How many are asked, none of them stored.")] = 300,
    encoder: Annotated[str, typer.Option("--encoder", metavar="NAME", help="mock or minilm.")] = "mock",
    json: o.Json = False,
) -> None:
    """MemBank's own benchmark: writes, recalls, bytes per level, and what each level finds of an exact search."""
    from memspan.bench import membank as module

    with output.progress("MemBank", show=not json) as advance:
        report = module.run(_sizes(sizes, "--sizes"), queries=queries, encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def tokens(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder that holds the sets' folders.")],
    sets: Annotated[str | None, typer.Option("--sets", metavar="A,B", help="Only these.", show_default=False)] = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Bytes a token against recall: what token activations are worth at each level, on every set that is there."""
    from memspan.bench import tokens as module
    from memspan.bench.sets import NAMES

    with output.progress("Tokens", show=not json) as advance:
        report = module.run(data, names=_names(sets) if sets else NAMES, encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def needle(
    tokens: Annotated[str, typer.Option("--tokens", metavar="N,N", help="Lengths of the haystack.")] = "1000000",
    needles: Annotated[int, typer.Option("--needles", help="How many to hide.")] = 100,
    depths: Annotated[int, typer.Option("--depths", help="At how many depths, from 0 to 100 %.")] = 10,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="A folder of text to read first.", show_default=False),
    ] = None,
    recipes: Recipes = None,
    budget: Annotated[int, typer.Option("--budget", metavar="TOKENS", help="Of each context.")] = 1000,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Keep the stores in this folder.", show_default=False),
    ] = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Needles in a haystack of real text: found or not by length and depth, beside plain vector search."""
    from memspan.bench import needle as module

    with output.progress("Needles", show=not json) as advance:
        report = module.run(
            tokens=_sizes(tokens, "--tokens"),
            needles=needles,
            depths=depths,
            data=data,
            recipes=_names(recipes or "default,dsm"),
            budget=budget,
            encoder=encoder,
            store=store,
            progress=advance,
        )
    if json:
        output.emit(report)
        return
    print(module.table(report), end="\n\n")
    output.show_mapping({name: value for name, value in report.items() if name not in ("lengths", "depths_percent")})


@bench.command()
def routing(
    segments: Annotated[int, typer.Option("--segments", help="How many the tree holds.")] = 1_000_000,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="FILE", help="Their vectors, a .npy file.", show_default=False),
    ] = None,
    queries: Annotated[int, typer.Option("--queries", help="How many are routed.")] = 500,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Beam search in the tree: recall and comparisons for each width of the beam."""
    from memspan.bench import routing as module

    with output.progress("Routing", show=not json) as advance:
        report = module.run(segments=segments, vectors=vectors, queries=queries, encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def writes(
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="N,N", help="Segments in the store, ascending.")
    ] = "1000,10000,100000",
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Time per write in small stores and large ones, with what the tree and the graph make of it."""
    from memspan.bench import writes as module

    with output.progress("Writes", show=not json) as advance:
        report = module.run(_sizes(sizes, "--sizes"), encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def archives(
    segments: Annotated[int, typer.Option("--segments", help="How many to export and import.")] = 100_000,
    formats: Annotated[
        str | None, typer.Option("--formats", metavar="A,B", help="Only these.", show_default=False)
    ] = None,
    json: o.Json = False,
) -> None:
    """Size, time and peak memory of every archive format, out and in, and whether all comes back."""
    from memspan.bench import archives as module

    with output.progress("Archives", show=not json) as advance:
        report = module.run(segments, formats=None if formats is None else _names(formats), progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def conflicts(
    names: Annotated[str, typer.Argument(metavar="SET", help="beam, locomo, realtalk, or several with commas.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder that holds the sets' folders.")],
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FILE", help="Keeps embeddings by content.", show_default=False),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", metavar="FILE", help="Write each proposal there.", show_default=False)
    ] = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Conflicts proposed in chats: how many, for which reasons, and which of BEAM's updates are among them."""
    from memspan.bench import conflicts as module
    from memspan.bench.embeddings import default_file

    with output.progress("Conflicts", show=not json) as advance:
        report = module.run(
            data, _names(names), encoder=encoder, cache=cache or default_file(), pairs=pairs, progress=advance
        )
    output.emit(report) if json else print(module.table(report))


@bench.command()
def consolidation(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder that holds the sets' folders.")],
    sizes: Annotated[
        str, typer.Option("--sizes", metavar="N,N", help="Segments, for the throughput.")
    ] = "10000,100000",
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """What counts as said twice, what summaries hold of what was said, and how fast both are told."""
    from memspan.bench import consolidation as module

    with output.progress("Consolidation", show=not json) as advance:
        report = module.run(data, sizes=_sizes(sizes, "--sizes"), encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def lifecycle(
    segments: Annotated[int, typer.Option("--segments", help="Of the user who goes.")] = 100_000,
    encoder: Annotated[str, typer.Option("--encoder", metavar="NAME", help="For what the log costs.")] = "minilm",
    json: o.Json = False,
) -> None:
    """What care costs: the log, deleting and erasing a user, undo, backups, sleep."""
    from memspan.bench import lifecycle as module

    with output.progress("Lifecycle", show=not json) as advance:
        report = module.run(segments, encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def forgetting(
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", help="Draw the curves there.", show_default=False),
    ] = None,
    json: o.Json = False,
) -> None:
    """What is left of a memory over 90 days by how it is used: a simulation, by both curves of forgetting.

    Needs the extra "fsrs".
    """
    from memspan.bench import forgetting as module

    report = module.run()
    if plot is not None:
        _put(plot, "--plot", module.plot(report))
    output.emit(report) if json else print(module.table(report))


@bench.command("serve")
def serve_(
    segments: Annotated[int, typer.Option("--segments", help="How many are in the store.")] = 100_000,
    requests: Annotated[
        int, typer.Option("--requests", help="How many are answered while resident memory is watched.")
    ] = 100_000,
    sample: Annotated[
        int, typer.Option("--sample", help="Requests of each kind, for each number of connections.")
    ] = 2_000,
    workers: Annotated[int, typer.Option("--workers", help="Processes of the server.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="At most 5,000 segments, 2,000 requests, samples of 200; no model.")
    ] = False,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """What a server makes of a memory: requests a second, the proxy's share of a chat, resident memory.

    Needs the extra "server".
    """
    from memspan.bench import serve as module

    if quick:
        segments, requests, sample = min(segments, 5_000), min(requests, 2_000), min(sample, 200)
        encoder = encoder or "hash"
    with output.progress("Serving", show=not json) as advance:
        report = module.run(
            segments, encoder=encoder, requests=requests, sample=sample, workers=workers, progress=advance
        )
    output.emit(report) if json else print(module.table(report))


@bench.command()
def bulk(
    segments: Annotated[int, typer.Option("--segments", help="How many are taken in, each time.")] = 20_000,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Bulk ingest by a cluster of one machine and of two, each with one core of this one.

    Needs the extra "ray", and two cores.
    """
    from memspan.bench import bulk as module

    with output.progress("Bulk ingest", show=not json) as advance:
        report = module.run(segments, encoder=encoder, progress=advance)
    output.emit(report) if json else print(module.table(report))


@bench.command()
def speed(
    segments: Annotated[int, typer.Option("--segments", help="How many to search among.")] = 100_000,
    namespaces: Annotated[
        int, typer.Option("--namespaces", help="Also search among so many, of 1,000 segments each.")
    ] = 0,
    store: Server = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Writes, searches, start-up, memory and disk, on this machine."""
    from memspan.bench import speed as module

    with output.progress("Speed", show=not json) as advance:
        report = module.run(segments=segments, encoder=encoder, store=store, namespaces=namespaces, progress=advance)
    output.emit(report) if json else output.show_mapping(report)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _sizes(text: str, option: str) -> list[int]:
    """Whole numbers above 0 between commas; digits may be grouped by underscores."""
    try:
        sizes = [int(name) for name in _names(text)]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InvalidInput(option, f"{text!r} is no list of numbers", mend=f"write {option} 100000,1000000")
    return sizes
