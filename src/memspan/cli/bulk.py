"""What ``memspan ingest --ray`` adds to ``ingest``: its options, and the way from them to a cluster and back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.reports import Ingested

if TYPE_CHECKING:
    from memspan.memory import Memory

ON_RAY = "On a Ray cluster"
SHOWN = 20  # problems told one by one

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Read and encode on a Ray cluster: auto, HOST:PORT, or local (one of this machine).",
        rich_help_panel=ON_RAY,
        show_default=False,
    ),
]
Encoders = Annotated[
    int | None,
    typer.Option(
        "--encoders",
        metavar="N",
        help="How many encode at once, each on one CPU; all there are if left out.",
        rich_help_panel=ON_RAY,
        show_default=False,
    ),
]
Gpus = Annotated[
    float,
    typer.Option("--gpus", metavar="N", help="GPUs of each encoder; 0.5 shares one.", rich_help_panel=ON_RAY),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        metavar="N",
        help="Texts an encoder gets at once; fewer where they are long.",
        rich_help_panel=ON_RAY,
    ),
]
TextColumn = Annotated[
    str,
    typer.Option("--text-column", metavar="NAME", help="The text of a table's rows.", rich_help_panel=ON_RAY),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        metavar="NAME",
        help="Makes each row a document; one of the same id replaces it.",
        rich_help_panel=ON_RAY,
        show_default=False,
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option("--time-column", metavar="NAME", help="When it happened.", rich_help_panel=ON_RAY, show_default=False),
]
MetaColumns = Annotated[
    str | None,
    typer.Option("--meta-columns", metavar="A,B", help="Kept as metadata.", rich_help_panel=ON_RAY, show_default=False),
]


def is_table(file: Path) -> bool:
    """Whether the rows of a file are taken, and not the file."""
    from memspan.bulk.sources import TABLES

    return file.suffix.lower() in TABLES


def work(
    ray: str,
    encoders: int | None,
    gpus: float,
    batch: int,
    text: str,
    id: str | None,
    time: str | None,
    metadata: str | None,
) -> dict[str, Any]:
    """What these options say, as arguments of ``BulkMemory.ingest``."""
    from memspan.bulk import Columns

    names = tuple(name.strip() for name in (metadata or "").split(",") if name.strip())
    columns = Columns(text=text, id=id, time=time, metadata=names)
    return {"ray": ray, "encoders": encoders, "gpus": gpus, "batch": batch, "columns": columns}


def ingest(
    memory: Memory,
    paths: list[Path],
    files: list[Path],
    skipped: dict[str, str],
    given: Mapping[str, Any],
    *,
    json: bool,
) -> None:
    """Have a cluster take in ``files``, which stand at or below ``paths``, and tell what became of them; ``skipped``
    are those left out before. Exits with 1 where a path that was named cannot be read, with 130 interrupted."""
    from memspan.bulk import BulkMemory

    told, interrupted = Ingested(), False
    try:
        with (
            output.progress("Storing", show=not json) as advance,
            closing(cast(BulkMemory, memory).ingest(files, **given)) as steps,
        ):
            for told in steps:
                advance(told.done, told.parts, f"{told.segments:,} segments")
        if told.segments:
            with output.progress("Indexing", show=not json) as advance:
                memory.compact(progress=advance)
    except KeyboardInterrupt:
        interrupted = True
    pending = memory.stats()["pending"]
    problems = {problem.where: problem.problem for problem in told.problems}
    skipped |= problems
    left = told.parts - told.done
    if json:
        counts = {field.name: getattr(told, field.name) for field in fields(told) if field.name != "problems"}
        output.emit(counts | {"skipped": skipped, "left": left, "pending": pending, "interrupted": interrupted})
    else:
        for name, reason in list(skipped.items())[:SHOWN]:
            typer.secho(f"skipped {output.line(name)}: {output.line(reason)}", err=True, fg=o.color("yellow"))
        if (more := len(skipped) - SHOWN + told.failed - len(problems)) > 0:
            typer.secho(f"... and {more:,} more; --json lists the first thousand", err=True, fg=o.color("yellow"))
        print(
            f"{output.plural(told.read, 'text')} read ({output.plural(told.segments, 'new segment')}, "
            f"{told.repeated:,} said before, {output.plural(told.encoded, 'text')} encoded), "
            f"{told.unchanged:,} unchanged, {len(skipped) + told.failed - len(problems):,} skipped"
        )
    if interrupted:
        typer.secho(
            f"Interrupted. What is counted is stored; {left:,} of {output.plural(told.parts, 'part')} left to read. "
            "Run the same command again to go on.",
            err=True,
            fg=o.color("yellow"),
        )
        raise typer.Exit(130)
    if not files or any(str(path.expanduser().absolute()) in skipped or str(path) in skipped for path in paths):
        raise typer.Exit(1)
