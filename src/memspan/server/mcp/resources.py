"""What a user can attach by hand: resources, which are read by their URI, and prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_types import (
    GetPromptResult,
    PromptArgument,
    PromptMessage,
    ResourceTemplate,
    TextContent,
)
from mcp_types import Prompt as ListedPrompt
from mcp_types import Resource as ListedResource

from memspan.errors import InvalidInput
from memspan.quotation import NOTHING_FOUND, PREAMBLE
from memspan.records import as_dict
from memspan.server.mcp import memories, reference
from memspan.server.mcp.tool import Tenant

JSON: Final = "application/json"
SEGMENT: Final = "memory://segment/"
MOST_CORE: Final = 200
RECALLED: Final = 2_000  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A text at a fixed ``uri``; ``read`` gives it as something to be told as JSON."""

    uri: str
    name: str
    title: str
    about: str
    read: Callable[[Tenant], Any]

    @property
    def listed(self) -> ListedResource:
        return ListedResource(uri=self.uri, name=self.name, title=self.title, description=self.about, mime_type=JSON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A message to begin with; ``argument`` is what it is made of, ``make`` makes it."""

    name: str
    title: str
    about: str
    argument: str
    needs: str
    make: Callable[[Tenant, str], str]

    @property
    def listed(self) -> ListedPrompt:
        wanted = PromptArgument(name=self.argument, description=self.needs, required=True)
        return ListedPrompt(name=self.name, title=self.title, description=self.about, arguments=[wanted])

    def got(self, tenant: Tenant, given: Mapping[str, str]) -> GetPromptResult:
        """The message. Raises InvalidInput."""
        value = given.get(self.argument, "")
        if not value.strip():
            raise InvalidInput(self.argument, "is missing", mend=self.needs)
        text = TextContent(type="text", text=self.make(tenant, value))
        return GetPromptResult(description=self.about, messages=[PromptMessage(role="user", content=text)])


def _core(tenant: Tenant) -> Any:
    found = tenant.memory.get_all(namespace=tenant.namespace, filters={"kind": "core"}, limit=MOST_CORE)
    return {"note": PREAMBLE, "memories": [{"id": each.id, "text": each.text} for each in found]}


def segment_at(tenant: Tenant, uri: str) -> Any:
    """The memory that a URI of SEGMENT names. Raises NotFound."""
    told = as_dict(tenant.memory.get(uri.removeprefix(SEGMENT), namespace=tenant.namespace))
    return {"note": PREAMBLE, "memory": {name: value for name, value in told.items() if name != "namespace"}}


def _recall(tenant: Tenant, topic: str) -> str:
    context = tenant.memory.context(topic, budget=RECALLED, namespace=tenant.namespace)
    return f"What memory holds on {topic!r}:\n\n{context.text or NOTHING_FOUND}\n\nTake it into account from here on."


def _remember(_: Tenant, topic: str) -> str:
    return (
        f"Look back over this conversation for what is worth remembering about {topic}: facts, preferences, decisions"
        " and why they were made. Search memory for each first. Store what is new with add_memory, one sentence each,"
        " understandable alone; where something has changed, use update_memory. Then tell me what you stored."
    )


RESOURCES: tuple[Resource, ...] = (
    Resource(
        uri="memory://status",
        name="status",
        title="State of the memory",
        about="How much is stored, and what it is searched with",
        read=memories.memory_status,
    ),
    Resource(
        uri="memory://core",
        name="core",
        title="Core memories",
        about="What belongs into every conversation",
        read=_core,
    ),
)
GRAPH: tuple[Resource, ...] = (
    Resource(
        uri=reference.URI,
        name="knowledge-graph",
        title="Knowledge Graph",
        about="Every entity with its observations, and every relation",
        read=reference.graph,
    ),
)
SEGMENTS: tuple[ResourceTemplate, ...] = (
    ResourceTemplate(
        uri_template=f"{SEGMENT}{{id}}",
        name="segment",
        title="A memory",
        description="One memory by its id, with everything that is known of it",
        mime_type=JSON,
    ),
)
PROMPTS: tuple[Prompt, ...] = (
    Prompt(
        name="recall",
        title="Recall",
        about="Begin with what memory holds on a topic",
        argument="topic",
        needs="what it is about",
        make=_recall,
    ),
    Prompt(
        name="remember",
        title="Remember this conversation",
        about="Have what matters of this conversation stored",
        argument="topic",
        needs="what to look for, such as 'my preferences'",
        make=_remember,
    ),
)


def text_of(value: Any) -> str:
    """What a resource says, to be read by people too."""
    return json.dumps(value, ensure_ascii=False, indent=2)
