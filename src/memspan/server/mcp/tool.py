"""What a tool is: a function that sees one namespace of a memory, offered to a model with checked arguments, a JSON
schema of what comes back, hints, and an answer that cannot grow beyond what a model can read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter, signature
from typing import Any, Final, get_type_hints
from urllib.parse import quote

from mcp_types import CallToolResult, TextContent, ToolAnnotations
from mcp_types import Tool as Listed
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from memspan.access import Right
from memspan.errors import InvalidInput, MemspanError
from memspan.memory import Memory
from memspan.records import Segment
from memspan.segmenting import shown

LARGEST_ANSWER: Final = 16_000
"""Bytes of JSON: about 4,000 tokens of English, and below 8,000 of anything."""
ERROR: Final = "memspan/error"
"""The key in an answer's ``_meta`` under which a failed call says what went wrong, for programs."""
PAGE: Final = 500  # segments read at once
LENGTHS: Final = {"minLength", "maxLength", "maxProperties"}
USUAL: Final = (("default", None), ("additionalProperties", True), ("additionalProperties", False))
"""What need not be said: that there may be more, or that there is nothing else, as an error says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """All of a memory that a call may touch: one namespace. ``base``: the URL of the server, None where there is none.

    Every tool goes through it; no tool names a namespace itself.
    """

    memory: Memory
    namespace: str
    base: str | None = None

    def url(self, id: str) -> str:
        """Where segment ``id`` is to be read."""
        if self.base is None:
            return f"memory://segment/{id}"
        return f"{self.base.rstrip('/')}/v1/namespaces/{quote(self.namespace, safe='')}/segments/{id}"

    def every(self, filters: Mapping[str, Any]) -> Iterator[Segment]:
        """All current segments that a filter matches, in the order they were written."""
        after: str | None = None
        while page := self.memory.get_all(namespace=self.namespace, filters=filters, limit=PAGE, after=after):
            yield from page
            after = page[-1].id


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool gives: ``structured`` as its output schema says, and the ``texts`` that say the same to a model."""

    structured: Mapping[str, Any]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool: ``function(tenant, **arguments)`` gives a dict that ``output`` describes, or an Answer with such a dict.

    ``right`` is what a key needs for it. ``destructive``: it may take away or replace what is there. ``idempotent``:
    called again with the same arguments it does nothing more. ``foreign``: its schemas are somebody else's, who passes
    over an argument there is not, and promises that nothing else comes back.
    """

    function: Callable[..., Mapping[str, Any] | Answer]
    title: str
    right: Right
    destructive: bool
    idempotent: bool
    arguments: type[BaseModel]
    output: Mapping[str, Any]
    foreign: bool

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        title: str,
        right: Right = "read",
        destructive: bool = False,
        idempotent: bool | None = None,
        gives: Any,
        foreign: bool = False,
    ) -> Tool:
        """A tool of a function: its parameters after the first are the arguments, its docstring says what it does.

        ``gives``: the TypedDict of what comes back.
        """
        hints = get_type_hints(function, include_extras=True)
        taken = list(signature(function).parameters.values())[1:]
        fields: dict[str, Any] = {
            each.name: (hints[each.name], ... if each.default is Parameter.empty else each.default) for each in taken
        }
        strictness = ConfigDict(extra="ignore" if foreign else "forbid")
        return cls(
            function=function,
            title=title,
            right=right,
            destructive=destructive,
            idempotent=right == "read" if idempotent is None else idempotent,
            arguments=create_model(function.__name__, __config__=strictness, **fields),
            output=_compact(TypeAdapter(gives).json_schema(mode="serialization"), whole=foreign, closed=foreign),
            foreign=foreign,
        )

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def listed(self) -> Listed:
        """The tool as ``tools/list`` shows it."""
        return Listed(
            name=self.name,
            title=self.title,
            description=" ".join((self.function.__doc__ or "").split()),
            input_schema=_compact(self.arguments.model_json_schema(), whole=self.foreign),
            output_schema=dict(self.output),
            annotations=ToolAnnotations(
                read_only_hint=self.right == "read",
                destructive_hint=self.destructive,
                idempotent_hint=self.idempotent,
                open_world_hint=False,
            ),
        )

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function takes them. Raises InvalidInput naming the first that is wrong."""
        try:
            model = self.arguments.model_validate(given)
        except ValidationError as error:
            raise self._wrong(error) from None
        return {name: getattr(model, name) for name in type(model).model_fields}

    def call(self, tenant: Tenant, arguments: Mapping[str, Any]) -> CallToolResult:
        """Run it, and give its answer as the protocol has it. Raises MemspanError."""
        given = self.function(tenant, **arguments)
        answer = given if isinstance(given, Answer) else Answer(structured=given, texts=(compact(given),))
        return CallToolResult(
            content=[TextContent(type="text", text=text) for text in answer.texts],
            structured_content=dict(answer.structured),
        )

    def _wrong(self, error: ValidationError) -> InvalidInput:
        first = error.errors(include_url=False, include_context=False)[0]
        argument = ".".join(map(str, first["loc"])) or "arguments"
        match first["type"]:
            case "missing":
                return InvalidInput(argument, "is missing", mend=f"{self.name} needs it")
            case "extra_forbidden":
                known = ", ".join(self.arguments.model_fields) or "none"
                return InvalidInput(argument, f"is no argument of {self.name}", mend=f"its arguments are: {known}")
        said = first["msg"][:1].lower() + first["msg"][1:]
        problem = f"{shown(first['input'])} is not right: {said}"
        return InvalidInput(argument, problem, mend=f"call {self.name} again with that corrected")


def failed(error: MemspanError) -> CallToolResult:
    """A call that could not be done, told to the model in words, and to programs under ``_meta``."""
    about = {
        "type": type(error).__name__,
        "argument": getattr(error, "argument", None),
        "message": error.problem,
        "mend": error.mend,
    }
    return CallToolResult(
        content=[TextContent(type="text", text=str(error))],
        is_error=True,
        _meta={ERROR: {name: value for name, value in about.items() if value}},
    )


def compact(value: Any) -> str:
    """JSON as short as it gets."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def fitting(items: Sequence[Any], room: int = LARGEST_ANSWER, text: Callable[[Any], str] = compact) -> int:
    """How many of ``items``, from the first, have at most ``room`` bytes as JSON."""
    for count, item in enumerate(items):
        room -= len(text(item).encode(errors="replace")) + 1
        if room < 0:
            return count
    return len(items)


def beginning(text: str, room: int = LARGEST_ANSWER // 2) -> str:
    """As much of a text as has ``room`` bytes as JSON, and "…" where that is not all."""
    left = text
    while len(compact(left).encode(errors="replace")) > room:
        left = left[: len(left) * 3 // 4]
    return left if len(left) == len(text) else f"{left}…"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _compact(schema: Mapping[str, Any], *, whole: bool = False, closed: bool = False) -> dict[str, Any]:
    """A schema with nothing in it that a model has no use for: each tool list is read at the start of every chat.

    Titles and defaults of None go, "this or null" is this, definitions stand where they are referred to. Unless it
    shall be ``whole``, the lengths of texts go too: nobody counts them beforehand, and they are checked all the same.
    ``closed`` says of each object that it has no other properties.
    """
    definitions = schema.get("$defs", {})
    left_out = {"title", "$defs"} | (set() if whole else LENGTHS)

    def shortened(node: Any) -> Any:
        if isinstance(node, list):
            return [shortened(each) for each in node]
        if not isinstance(node, Mapping):
            return node
        if "$ref" in node:
            return shortened({**definitions[node["$ref"].rsplit("/", 1)[-1]], **_without(node, "$ref")})
        if {"type": "null"} in node.get("anyOf", ()):
            (only,) = (each for each in node["anyOf"] if each != {"type": "null"})
            return shortened({**only, **_without(node, "anyOf")})
        kept = {
            key: {name: shortened(each) for name, each in value.items()} if key == "properties" else shortened(value)
            for key, value in node.items()
            if key not in left_out and (key, value) not in USUAL
        }
        if closed and "properties" in kept:
            kept["additionalProperties"] = False
        return kept

    short: dict[str, Any] = shortened(schema)
    return short


def _without(node: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != name}
