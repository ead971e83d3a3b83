"""What each verb takes and gives over HTTP, as pydantic models: made from the signatures of ``Memory``, so that they
cannot say anything else."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, TypeAdapter, create_model

from memspan import arguments
from memspan.archives import FORMATS
from memspan.memory import Memory
from memspan.routes import SWEEPING, Route

HERE: Final = frozenset({"namespace", "progress", "tokenizer", "encoder", "llm", "archive"})
"""Arguments that stay where the store is: they name files, servers or functions of it, or the URL says them."""
NAME: Final = r"^[^\x00]*[^\x00\s][^\x00]*$"

Filters = dict[str, Any]
_SHOWN: Final[Mapping[str, Mapping[str, Any]]] = {
    "content": {"description": "A text, or messages {role, content, name, time} in order.", "examples": ["Ana moved."]},
    "text": {"description": "What it says.", "examples": ["Ana lives in Porto."]},
    "query": {"description": "What is asked.", "examples": ["Where does Ana live?"]},
    "user_id": {"description": "Whose memory.", "examples": ["ana"]},
    "agent_id": {"description": "Which agent's."},
    "run_id": {"description": "Which run's."},
    "session": {"description": "Which conversation."},
    "category": {"description": 'Where it belongs: "work / travel", or a list.', "examples": ["people / ana"]},
    "importance": {"description": "How much it matters.", "ge": 0, "le": 1},
    "metadata": {"description": "Free JSON.", "examples": [{"source": "chat"}]},
    "occurred_at": {"description": "When it happened: ISO 8601 (without a zone UTC) or Unix seconds."},
    "kind": {"description": "What it is; core is in every context, working ends after a day."},
    "valid_from": {"description": "It holds since then."},
    "valid_to": {"description": "It holds until then."},
    "expires_at": {"description": "Not found after that."},
    "idempotency_key": {"description": "Makes a retry safe; the header Idempotency-Key says the same."},
    "wait": {"description": "Whether meaning finds it before this answers; keywords do in any case."},
    "uri": {"description": "Where it comes from; what came from there before is replaced."},
    "media": {"description": "text, markdown, html or code."},
    "filters": {"description": "Which: {field: value}, operators, AND, OR, NOT.", "examples": [{"user_id": "ana"}]},
    "as_of": {"description": "What was known then."},
    "valid_at": {"description": "What was true then."},
    "include_superseded": {"description": "Also what is not true any more, has expired or was merged."},
    "k": {"description": "How many at most.", "ge": 1},
    "limit": {"description": "How many at most.", "ge": 1},
    "after": {"description": "The last id of the page before."},
    "before": {"description": "The last id of the page before."},
    "budget": {"description": "Tokens at most.", "ge": 1},
    "without": {"description": "Texts that the model reads anyway; what they say word for word is left out."},
    "threshold": {"description": "Weaker ones are left out.", "ge": 0, "le": 1},
    "explain": {"description": "Whether each hit says which channel found it, and by which path."},
    "recipe": {"description": "default, fast, deep, dsm, flat, semantic or keyword."},
    "redact": {"description": 'What of the answer gets placeholders: "secrets", "personal" or "all".'},
    "recent": {"description": "Only what the last so many replaced: quick in a large memory.", "ge": 1},
    "start": {"description": "What happened since then."},
    "end": {"description": "What happened before then."},
    "bins": {"description": "Into how many equal parts the time is cut.", "ge": 0, "le": arguments.MOST_HITS},
    "skip": {"description": "How many come before the page.", "ge": 0},
    "hops": {"description": "How far the graph is followed.", "ge": 1, "le": 4},
    "depth": {"description": "How many levels.", "ge": 1, "le": arguments.DEEPEST_CATEGORY},
    "examples": {"description": "How many texts of each node.", "ge": 0, "le": 100},
    "weight": {"description": "How strong the link is.", "gt": 0, "le": 1},
    "if_version": {"description": "Only where that is its version; the header If-Match says the same.", "ge": 1},
    "dry_run": {"description": "Whether it only tells what it would do."},
    "format": {"description": "The kind of archive; None finds out by looking, or writes JSON lines."},
    "erased": {"description": "The texts that must be nowhere any more."},
    "namespaces": {"description": 'For which; "*" is all.', "examples": [["default"]]},
    "rights": {"description": "Some of read, write, admin."},
}  # fmt: skip
_TYPES: Final[Mapping[str, Any]] = {
    "content": str | list[dict[str, Any]],
    "metadata": Filters | None,
    "filters": Filters | None,
    "judgements": list[dict[str, Any]] | None,
    "erased": str | list[str],
    "redact": Literal["secrets", "personal", "all"] | None,
}


@cache
def taken(verb: str, left: tuple[str, ...], body: bool) -> type[BaseModel]:
    """The model of the arguments of a verb, without those that are ``left`` out, in a JSON ``body`` or in a query."""
    function = getattr(Memory, verb)
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self" or name in HERE or name in left:
            continue
        kind = _TYPES.get(name) or _sent(hints[name])
        if kind is None:
            continue
        required = parameter.default is inspect.Parameter.empty
        told = Field(default=... if required else _default(parameter.default), **_SHOWN.get(name, {}))
        fields[name] = (kind if body else _asked(kind), told)
    if verb in SWEEPING:
        told = Field(default=False, description="Whether all of the namespace is meant, where nothing else says what.")
        fields["all"] = (bool, told)
    config = ConfigDict(extra="forbid", strict=body)
    return create_model(f"{_name(verb)}Arguments", __config__=config, **fields)


@cache
def given(route: Route) -> Any:
    """The type of what a route answers."""
    kind = get_type_hints(getattr(Memory, route.verb))["return"]
    kind = dict[str, bool] if kind is NoneType else kind
    if route.answer is None:
        return kind
    fields: dict[str, Any] = {route.answer: (bool if kind == dict[str, bool] else kind, ...)}
    if route.verb in PAGED:
        fields["next"] = (str | None, Field(default=None, description=f"What {PAGED[route.verb]} takes for more."))
    return create_model(f"{_name(route.verb)}Answer", **fields)


def described(kinds: Mapping[Any, Any]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """The JSON schemas of answers, under the keys of their types, and the definitions that these refer to."""
    inputs: list[Any] = [(key, "serialization", TypeAdapter(kind)) for key, kind in kinds.items()]
    made, definitions = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return {key: told for (key, _), told in made.items()}, definitions.get("$defs", {})


PAGED: Final[Mapping[str, str]] = {"get_all": "after", "operations": "before"}
"""Verbs whose answer is a page, with the argument that gives the next one."""


def sent(asked: BaseModel) -> dict[str, Any]:
    """The arguments that a request named, for the verb. In a query one value is that, or a list as JSON."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    if not asked.model_config.get("strict"):
        for name, value in given.items():
            if isinstance(value, list) and len(value) == 1:
                given[name] = _one(value[0])
    return given


def _one(value: str) -> Any:
    if value.startswith("["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _sent(hint: Any) -> Any:
    """What of a type JSON can say; None where nothing is."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kept = [said for part in parts if (said := _part(part)) is not None]
    return Union[tuple(kept)] if any(part is not NoneType for part in kept) else None  # noqa: UP007 - made of parts


def _part(part: Any) -> Any:
    if part in (str, int, float, bool, NoneType) or get_origin(part) is Literal:
        return part
    if part is datetime:
        return str
    if get_origin(part) is not None and issubclass(get_origin(part), Sequence) and get_args(part) == (str,):
        return list[str]
    return None


def _asked(kind: Any) -> Any:
    """The type in a query: an object is JSON there, a list may be one value."""
    if kind == Filters | None:
        return Annotated[Json[Filters] | None, Field(json_schema_extra={"contentMediaType": "application/json"})]
    if any(get_origin(part) is list for part in get_args(kind)):
        several = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
        return several | None
    return kind


def _default(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else None if value.__class__ is object else value


def _name(verb: str) -> str:
    return "".join(part.capitalize() for part in verb.split("_"))


WRITABLE: Final = tuple(each.name for each in FORMATS if each.writes and each.suffixes)
"""The formats that are one file, and so can be sent."""
