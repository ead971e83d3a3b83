"""``MemspanSession``: a session of the OpenAI Agents SDK, kept in a ``Memory``, with recall from all other ones.

    from agents import Agent, Runner
    from memspan import Memory
    from memspan.integrations.openai_agents import MemspanSession

    session = MemspanSession("chat-7", Memory("my-memory"), user_id="ana")
    agent = Agent(name="assistant", instructions=session.instructions("You are helpful."))
    await Runner.run(agent, "Where do I live?", session=session)

The session gives every item back as it was, calls of tools and reasoning too, in order. ``instructions`` adds what the
memory has of the question: what the user said in other sessions, and whatever else is stored of them. It is quoted,
cited and within a budget of tokens, and not stored again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from memspan.errors import MissingExtra
from memspan.integrations.conversation import Conversation, Place, Turn
from memspan.memory import Memory

try:
    from agents import Agent, RunContextWrapper, SessionSettings
    from agents.memory.session import SessionABC
except ImportError as error:
    mend = 'pip install "memspan[openai-agents]"'
    raise MissingExtra("MemspanSession needs the OpenAI Agents SDK", mend=mend) from error

if TYPE_CHECKING:
    from agents import TResponseInputItem

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
BUDGET = 800

Instructions = Callable[[RunContextWrapper[Any], Agent[Any]], Awaitable[str]]


class MemspanSession(SessionABC):
    """The session ``session_id`` of a user, agent and run in one namespace of a memory.

    ``session_settings`` may limit how many items a run reads. Two sessions of one id and other users are two.
    """

    def __init__(
        self,
        session_id: str,
        memory: Memory,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session_settings: SessionSettings | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._conversation = Conversation(
            memory, session_id, namespace=namespace, user_id=user_id, agent_id=agent_id, run_id=run_id
        )

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order, or the last ``limit``; None: as many as the settings say."""
        most = self.session_settings.limit if limit is None and self.session_settings else limit
        found = await asyncio.to_thread(self._conversation.items, None if most is None else max(0, most))
        return cast("list[TResponseInputItem]", found)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items at the end. Raises InvalidInput for one that is no JSON object, or larger than a megabyte."""
        await asyncio.to_thread(self._conversation.append, [_turn(cast("Mapping[str, Any]", item)) for item in items])

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item away and return it; None where there is none."""
        return cast("TResponseInputItem | None", await asyncio.to_thread(self._conversation.pop))

    async def clear_session(self) -> None:
        """Take every item away; the history keeps them."""
        await asyncio.to_thread(self._conversation.clear)

    async def recall(self, query: str, budget: int = BUDGET, **options: Any) -> str:
        """What the memory has of ``query``, at most ``budget`` tokens, less this session where a run reads all of it.
        ``options``: those of ``Memory.context``."""
        limited = self.session_settings is not None and self.session_settings.limit is not None
        return await asyncio.to_thread(self._conversation.recall, query, budget, own=limited, **options)

    def instructions(self, text: str, *, budget: int = BUDGET, **options: Any) -> Instructions:
        """Instructions for an Agent: ``text``, and what the memory has of the last thing the user says."""

        async def made(context: RunContextWrapper[Any], agent: Agent[Any]) -> str:
            asked = next((turn for item in reversed(context.turn_input) if (turn := _turn(item)).role == "user"), None)
            found = "" if asked is None else await self.recall(asked.text, budget, **options)
            return f"{text}\n\n{found}" if found else text

        return made


def _turn(item: Any) -> Turn:
    kind, content = item.get("type", "message"), item.get("content")
    if kind == "message" and item.get("role") in ROLES:
        text, place = _said(content)
        return Turn(role=ROLES[item["role"]], text=text, item=item, place=place)
    if kind == "function_call":
        return Turn(role="tool", text=f"{item.get('name')}({item.get('arguments')})", item=item)
    if isinstance(item.get("output"), str):
        return Turn(role="tool", text=item["output"], item=item, place=("output",))
    return Turn(role="tool", text="", item=item)  # reasoning and the like say nothing to anybody


def _said(content: Any) -> tuple[str, Place | None]:
    """The text of a message, and where it is, if in one place."""
    if isinstance(content, str):
        return content, ("content",)
    parts = {at: part["text"] for at, part in enumerate(content or ()) if isinstance(part.get("text"), str)}
    place: Place | None = ("content", *parts, "text") if len(parts) == 1 else None
    return "\n".join(parts.values()), place
