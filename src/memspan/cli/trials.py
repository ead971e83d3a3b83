"""The commands that try and measure: demo, bench locomo, bench speed."""

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
from memspan.records import as_dict

bench = typer.Typer(
    help="Measure recall on a benchmark file, or speed on this machine.",
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
    answers = []
    with Memory(config.store, namespace=config.namespace, config=config) as memory:
        tell(f"Reading the documentation of this Python into {config.store} ...")
        started = time.perf_counter()
        try:
            files = trial.write_documents(config.store.with_name(f"{config.store.name}-documents"))
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
def locomo(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="locomo10.json.")],
    channels: Annotated[
        str | None,
        typer.Option("--channels", metavar="A,B", help="Only these channels.", show_default=False),
    ] = None,
    ranks: Annotated[
        Path | None,
        typer.Option("--ranks", metavar="FILE", help="Write each question's ranks there.", show_default=False),
    ] = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Evidence recall on LoCoMo, beside plain BM25 and plain dense search in the same run."""
    from memspan.bench import locomo as module

    with output.progress("LoCoMo", show=not json) as advance:
        report = module.run(
            data,
            channels=[name.strip() for name in channels.split(",")] if channels else None,
            ranks=ranks,
            encoder=encoder,
            progress=advance,
        )
    if json:
        output.emit(report)
        return
    print(module.table(report), end="\n\n")
    output.show_mapping({name: value for name, value in report.items() if name != "results"})


@bench.command()
def speed(
    segments: Annotated[int, typer.Option("--segments", help="How many to search among.")] = 100_000,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Writes, searches, start-up, memory and disk, on this machine."""
    from memspan.bench import speed as module

    with output.progress("Speed", show=not json) as advance:
        report = module.run(segments=segments, encoder=encoder, progress=advance)
    output.emit(report) if json else output.show_mapping(report)
