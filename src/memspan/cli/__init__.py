"""The command line. Parses, calls ``Memory``, shows; one table of commands, one place where errors become exit codes.

Starting it imports typer and nothing heavier: a command opens the store, and with it the libraries, when it runs.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import typer

from memspan.cli import (
    backups,
    conflicts,
    cubes,
    encryption,
    erasure,
    mcp,
    memories,
    pg,
    pictures,
    portability,
    serving,
    structure,
    transfer,
    trials,
    trust,
    truth,
    upkeep,
)
from memspan.cli.doctor import doctor
from memspan.cli.options import color
from memspan.cli.output import clean
from memspan.errors import EncoderError, InvalidInput, MemspanError, MissingExtra, NotFound, RerankerError, StoreError

OK, NOT_FOUND, BAD_INPUT, STORE_PROBLEM, MODEL_PROBLEM, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

EPILOG = """
The store is --store, else MEMSPAN_STORE, else "default" in your data directory (memspan stats prints it).
Nothing leaves this machine, unless --encoder or --reranker names a server.

Exit codes: 0 done · 1 nothing found, or a check failed · 2 bad input · 3 the store cannot be used · 4 the model, the
encoder or an optional package is missing or failed · 70 a bug in memspan · 130 interrupted
"""

REMEMBER, RECALL, STRUCTURE = "Remember", "Recall", "See and arrange how memories hang together"
MOVE = "Out and in"
SERVE, CARE, TRY = "Serve to others", "Care for a store", "Try and measure"

COMMANDS: tuple[tuple[str, Callable[..., None], str, str | None], ...] = (
    ("add", memories.add, REMEMBER, "remember"),
    ("ingest", memories.ingest, REMEMBER, None),
    ("update", memories.update, REMEMBER, None),
    ("supersede", truth.supersede, REMEMBER, None),
    ("delete", memories.delete, REMEMBER, "forget"),
    ("accept", conflicts.accept, REMEMBER, None),
    ("reject", conflicts.reject, REMEMBER, None),
    ("resolve", conflicts.resolve, REMEMBER, None),
    ("quarantine", trust.quarantine, REMEMBER, None),
    ("release", trust.release, REMEMBER, None),
    ("erase", erasure.erase, REMEMBER, None),
    ("undo", truth.undo, REMEMBER, None),
    ("rewind", truth.rewind, REMEMBER, None),
    ("search", memories.search, RECALL, "recall"),
    ("context", memories.context, RECALL, None),
    ("list", memories.list_, RECALL, None),
    ("get", memories.get, RECALL, None),
    ("history", memories.history, RECALL, None),
    ("conflicts", conflicts.conflicts, RECALL, None),
    ("trust", trust.trust, RECALL, None),
    ("operations", truth.operations, RECALL, None),
    ("feedback", memories.feedback, RECALL, None),
    ("summary", structure.summary, STRUCTURE, None),
    ("active-context", structure.active_context, RECALL, None),
    ("tree", structure.tree, STRUCTURE, None),
    ("neighbors", structure.neighbors, STRUCTURE, None),
    ("themes", structure.themes, STRUCTURE, None),
    ("map", pictures.map_, STRUCTURE, None),
    ("plot", pictures.plot, STRUCTURE, None),
    ("timeline", pictures.timeline, STRUCTURE, None),
    ("move-category", structure.move_category, STRUCTURE, None),
    ("link", structure.link, STRUCTURE, None),
    ("unlink", structure.unlink, STRUCTURE, None),
    ("export", portability.export, MOVE, None),
    ("import", portability.import_, MOVE, None),
    ("copy", transfer.copy, MOVE, None),
    ("serve", serving.serve, SERVE, None),
    ("stats", upkeep.stats, CARE, None),
    ("compact", upkeep.compact, CARE, None),
    ("sleep", upkeep.sleep, CARE, None),
    ("verify", upkeep.verify, CARE, None),
    ("verify-erasure", erasure.verify_erasure, CARE, None),
    ("rebuild", upkeep.rebuild, CARE, None),
    ("reencode", upkeep.reencode, CARE, None),
    ("fit-tokens", upkeep.fit_tokens, CARE, None),
    ("tune", upkeep.tune, CARE, None),
    ("encrypt", encryption.encrypt, CARE, None),
    ("rekey", encryption.rekey, CARE, None),
    ("prune", upkeep.prune, CARE, None),
    ("backup", backups.backup, CARE, None),
    ("restore", backups.restore, CARE, None),
    ("doctor", doctor, CARE, None),
    ("demo", trials.demo, TRY, None),
)

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# The usage errors of the parser typer is built on, wherever this version of typer takes it from.
UsageProblem: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


@cache  # making it takes longer than most commands do, and a process may run several
def application() -> Callable[..., Any]:
    """The command tree: COMMANDS, their hidden aliases, ``cube``, ``keys``, ``mcp``, ``pg`` and ``bench``."""
    app = typer.Typer(
        name="memspan",
        help="Long-term memory for language models: embedded, offline, no key.",
        epilog=EPILOG,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings=HELP_OPTIONS,
    )
    for name, command, panel, alias in COMMANDS:
        app.command(name, rich_help_panel=panel)(command)
        if alias:
            app.command(alias, hidden=True)(command)
    app.add_typer(cubes.cube, name="cube", rich_help_panel=MOVE)
    app.add_typer(serving.keys, name="keys", rich_help_panel=SERVE)
    app.add_typer(mcp.mcp, name="mcp", rich_help_panel=SERVE)
    app.add_typer(pg.pg, name="pg", rich_help_panel=CARE)
    app.add_typer(trials.bench, name="bench", rich_help_panel=TRY)
    app.callback(invoke_without_command=True)(_version)
    return typer.main.get_command(app)


def _version(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version.", show_default=False),
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"memspan {installed('memspan')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on ``arguments`` (default: those of this process) and exit the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Stored text holds any character; a terminal or pipe that cannot show one gets a mark instead of a crash.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = application()(given, prog_name="memspan", standalone_mode=False) or OK
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # The reader (head, less) has seen enough; a closed pipe is all that typer itself ends a process for here. Leave
        # Python nothing to flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except MemspanError as error:
        code = _report(error, error.problem, error.mend, given)
    except UsageProblem as error:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "memspan"
        code = _report(error, error.format_message(), f"see {where} --help", given)
    except Exception as error:  # noqa: BLE001 - the last door: anything else is a bug, and is told as one
        mend = "set MEMSPAN_DEBUG=1 and run it again to see where, and please report that"
        code = _report(error, f"unexpected {type(error).__name__}: {error}", mend, given)
    sys.exit(code)


def _report(error: Exception, problem: str, mend: str, given: Sequence[str]) -> int:
    """Say on stderr what is wrong and how to mend it, and return the exit code."""
    code = next((code for kind, code in EXITS if isinstance(error, kind)), BUG)
    if not problem:  # a group of commands without a command: its help was shown instead
        return code
    if os.environ.get("MEMSPAN_DEBUG"):
        traceback.print_exception(error)
    if "--json" in given:
        names = getattr(getattr(error, "param", None), "opts", None) or [None]
        argument = getattr(error, "argument", names[0])
        told = {"type": type(error).__name__, "message": problem, "mend": mend, "argument": argument}
        print(json.dumps({"error": told}), file=sys.stderr)
    else:
        typer.secho(f"Error: {clean(problem)}", err=True, fg=color("red"), bold=True)
        if mend:
            typer.secho(f"Mend:  {clean(mend)}", err=True)
    return code


EXITS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, NOT_FOUND),
    (InvalidInput, BAD_INPUT),
    (UsageProblem, BAD_INPUT),
    (StoreError, STORE_PROBLEM),
    (EncoderError, MODEL_PROBLEM),
    (RerankerError, MODEL_PROBLEM),
    (MissingExtra, MODEL_PROBLEM),
)
