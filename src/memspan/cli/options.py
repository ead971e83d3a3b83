"""The options that commands share, and the way from them to an open memory and its arguments."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from memspan import records
from memspan.config import Config, Database
from memspan.errors import InvalidFilter, InvalidInput, NotAStore

if TYPE_CHECKING:
    from memspan.memory import Memory
    from memspan.records import Judgement

WHERE, WHOSE = "Which store", "Whose memory"

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The memory's directory, or postgresql://...",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="auto, minilm, hash, none (keywords only) or http:MODEL@http://HOST:PORT/v1.",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Reranker = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        metavar="NAME",
        help="none, onnx:DIRECTORY, cross-encoder:NAME or http:MODEL@http://HOST:PORT/v1.",
        rich_help_panel=WHERE,
        show_default=False,
    ),
]
Redact = Annotated[
    str | None,
    typer.Option(
        "--redact",
        metavar="WHAT",
        help="Put placeholders for secrets, personal data or all of it.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="The tenant.", rich_help_panel=WHOSE, show_default=False),
]
User = Annotated[
    str | None, typer.Option("--user", metavar="ID", help="The user.", rich_help_panel=WHOSE, show_default=False)
]
Agent = Annotated[
    str | None, typer.Option("--agent", metavar="ID", help="The agent.", rich_help_panel=WHOSE, show_default=False)
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="ID", help="The run.", rich_help_panel=WHOSE, show_default=False)
]
Session = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="The conversation.", rich_help_panel=WHOSE, show_default=False),
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        metavar="FILTER",
        help="key=value (also != >= <= > < and ~ for contains) or a JSON filter; all given ones must hold.",
        show_default=False,
    ),
]
Category = Annotated[
    str | None, typer.Option("--category", metavar="A / B", help="Where it belongs.", show_default=False)
]
Importance = Annotated[float, typer.Option("--importance", metavar="0..1", help="How much it matters.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--meta", "-m", metavar="KEY=VALUE", help="Free metadata, or a JSON object.", show_default=False),
]
When = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="When it happened, ISO 8601; without a zone, UTC.", show_default=False),
]
Threshold = Annotated[float, typer.Option("--threshold", metavar="0..1", help="Leave out weaker hits.")]
AsOf = Annotated[str | None, typer.Option("--as-of", metavar="TIME", help="What was known then.", show_default=False)]
ValidAt = Annotated[
    str | None, typer.Option("--valid-at", metavar="TIME", help="What was true then.", show_default=False)
]
Superseded = Annotated[
    bool,
    typer.Option("--superseded", help="Also what is not true any more, expired or merged.", show_default=False),
]
Kind = Annotated[
    records.Kind | None,
    typer.Option("--kind", help="What it is; core is always in the context, working fades.", show_default=False),
]
ValidFrom = Annotated[
    str | None, typer.Option("--valid-from", metavar="TIME", help="It holds since then.", show_default=False)
]
ValidTo = Annotated[
    str | None, typer.Option("--valid-to", metavar="TIME", help="It holds until then.", show_default=False)
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="Not found after that.", show_default=False)
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        help='default, fast, deep, dsm, flat, semantic or keyword; "default-next" leaves a part out.',
    ),
]
Now = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Make it searchable before returning, or only store it."),
]

_CONDITION = re.compile(r"\s*([\w.\-]+)\s*(!=|>=|<=|=|>|<|~)(.*)", re.DOTALL)
_OPERATORS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "~": "contains"}


def open_memory(
    store: str | None,
    encoder: str | None,
    namespace: str | None,
    *,
    reranker: str | None = "none",
    redact: str | None = None,
    create: bool | Literal["nothing"] = False,
    bulk: bool = False,
) -> Memory:
    """The memory these options name. Raises NotAStore when there is none and ``create`` is False.

    ``reranker`` None is the configured one: only a command that searches needs to load it. ``redact``: what is replaced
    before it is stored, None as configured. ``bulk``: one that a cluster feeds.

    A command that only reads never creates a directory, so that a mistyped path is not answered by an empty store; one
    that only tells what it would write has an empty one in memory where there is none (``create`` "nothing").
    """
    config = Config.load(store=store, encoder=encoder, reranker=reranker, redact=redact, namespace=namespace)
    if not create and nothing_at(config.store):
        raise NotAStore(
            f"there is no memory at {config.store}",
            mend='store something first (memspan add "...") or name another directory with --store',
        )
    path = ":memory:" if create == "nothing" and nothing_at(config.store) else None
    given: dict[str, Any] = {"encoder": encoder or "auto", "namespace": config.namespace, "config": config}
    if bulk:
        from memspan.bulk import BulkMemory

        return BulkMemory(path, **given)
    from memspan.memory import Memory

    return Memory(path, **given)


def directory(store: Path | Database) -> Path:
    """The directory of a store that is one. Raises InvalidInput for one in a database."""
    if isinstance(store, Database):
        raise InvalidInput("--store", f"{store} is no directory", mend="use what the database server has for this")
    return store


def nothing_at(store: Path | Database) -> bool:
    """Whether there is no store to open here: the path does not exist, or is an empty directory. Of a database opening
    it tells."""
    if isinstance(store, Database):
        return False
    return not store.exists() or (store.is_dir() and next(store.iterdir(), None) is None)


def scope(user: str | None, agent: str | None, run: str | None, session: str | None) -> dict[str, Any]:
    """The scope arguments of Memory's calls; the namespace is the memory's own."""
    return {"user_id": user, "agent_id": agent, "run_id": run, "session": session}


def text_from(words: list[str] | None, argument: str) -> str:
    """The words joined, or standard input where they are ``-`` or missing and something is piped in."""
    if words and words != ["-"]:
        return " ".join(words)
    if not words and sys.stdin.isatty():
        raise InvalidInput(
            argument, "is missing", mend=f"give it as an argument, or pipe it in ({argument} from stdin)"
        )
    return _decoded(sys.stdin.buffer.read(), "standard input")


def text_of(file: Path, argument: str) -> str:
    """What a text file holds. Raises InvalidInput."""
    try:
        return _decoded(file.expanduser().read_bytes(), str(file))
    except OSError as error:
        problem = f"{file} cannot be read ({error.strerror})"
        raise InvalidInput(argument, problem, mend="name a text file") from error


def json_from(source: str, argument: str) -> Any:
    """The JSON document in the file ``source``, or in standard input where that is ``-``."""
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(argument, f"{source} cannot be read ({error.strerror})", mend="name a JSON file") from error
    try:
        return json.loads(_decoded(raw, source))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(argument, f"{source} is not JSON ({error})", mend="correct it there") from error


def judgements_from(file: Path) -> list[Judgement]:
    """The judgements in a file of JSON lines; empty lines are passed over. Raises InvalidInput naming file and line."""
    from memspan import arguments

    try:
        lines = _decoded(file.expanduser().read_bytes(), str(file)).split("\n")
    except OSError as error:
        mend = "name a file of JSON lines"
        raise InvalidInput("--judgements", f"{file} cannot be read ({error.strerror})", mend=mend) from error
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{file}:{number}"
        if line.strip():
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InvalidInput(
                    where, f"is not JSON ({error})", mend="correct that line; nothing was kept"
                ) from error
            found.append(arguments.judgement(where, value))
    return found


def filters_from(given: list[str] | None) -> dict[str, Any] | None:
    """``key=value`` conditions and JSON filters, all of which must hold; None where none is given.

    A value that reads as JSON (a number, true, null, a list, a quoted text) is that, anything else is text as it
    stands; the value of a field that only holds text is always text.
    """
    parts = [_filter(text) for text in given or ()]
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"AND": parts}


def metadata_from(given: list[str] | None) -> dict[str, Any] | None:
    """``key=value`` pairs and JSON objects, merged in order; None where none is given."""
    merged: dict[str, Any] = {}
    for text in given or ():
        if text.lstrip().startswith("{"):
            merged |= _object(text, "--meta")
            continue
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidInput("--meta", f"{text!r} is not key=value", mend="write --meta color=red or a JSON object")
        merged[key.strip()] = _value(value)
    return merged or None


def _filter(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return _object(text, "--filter")
    match = _CONDITION.fullmatch(text)
    if not match:
        raise InvalidFilter("--filter", f"{text!r} is not a filter", mend="write key=value or a JSON filter")
    from memspan.filtering import STRINGS

    key, operator, value = match.groups()
    return {key: {_OPERATORS[operator]: value.strip() if key in STRINGS else _value(value)}}


def _object(text: str, argument: str) -> dict[str, Any]:
    kind = InvalidFilter if argument == "--filter" else InvalidInput
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise kind(argument, f"{text[:80]!r} is not JSON ({error})", mend="quote it as one argument") from None
    if not isinstance(value, dict):
        raise kind(argument, "is not a JSON object", mend='write it like {"color": "red"}')
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text.strip()


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(where, f"is not UTF-8 (byte {error.start})", mend="convert it to UTF-8 first") from error


def color(name: str) -> str | None:
    """The colour, or None where NO_COLOR asks for none."""
    return None if os.environ.get("NO_COLOR") else name
