"""``MemspanMemory`` and ``MemspanBlock``: LlamaIndex's memory over a ``Memory``.

    from llama_index.core.agent.workflow import FunctionAgent
    from memspan import Memory
    from memspan.integrations.llamaindex import MemspanMemory

    memory = MemspanMemory.of(Memory("my-memory"), session="chat-7", user_id="ana")
    await FunctionAgent(llm=...).run("Where do I live?", memory=memory)

``MemspanMemory`` is a whole one: it keeps the chat, and puts what any session of the user has of the question before
it. ``MemspanBlock`` is a block for LlamaIndex's own ``Memory``, which keeps the chat itself and hands over what no
longer fits its window.
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

from memspan.errors import InvalidInput, MissingExtra
from memspan.integrations.conversation import Conversation, Turn
from memspan.memory import Memory

try:
    from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.memory import BaseMemory, BaseMemoryBlock
except ImportError as error:
    raise MissingExtra("MemspanMemory needs llama-index-core", mend='pip install "memspan[llamaindex]"') from error

ROLES = {"user": "user", "assistant": "assistant", "model": "assistant", "chatbot": "assistant", "tool": "tool"}


class MemspanMemory(BaseMemory):
    """The chat ``session`` of a user, agent and run, and before it what the memory recalls for the question asked.

    ``recall_tokens``: the budget of that, 0 for none. ``last``: how many of the last messages ``get`` gives at most,
    None for all. Made by ``of``.
    """

    recall_tokens: int = Field(default=800, ge=0)
    last: int | None = Field(default=None, ge=1)
    _conversation: Conversation = PrivateAttr()

    @classmethod
    def class_name(cls) -> str:
        return "MemspanMemory"

    @classmethod
    def of(
        cls,
        memory: Memory,
        *,
        session: str,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        recall_tokens: int = 800,
        last: int | None = None,
    ) -> Self:
        """One over an open memory."""
        made = cls(recall_tokens=recall_tokens, last=last)
        made._conversation = Conversation(
            memory, session, namespace=namespace, user_id=user_id, agent_id=agent_id, run_id=run_id
        )
        return made

    @classmethod
    def from_defaults(cls, **kwargs: Any) -> Self:
        """``of``, with the memory as ``memory=``."""
        if not isinstance(memory := kwargs.pop("memory", None), Memory):
            raise InvalidInput("memory", f"is a {type(memory).__name__}", mend="give an open memspan.Memory")
        return cls.of(memory, **kwargs)

    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        """The chat, after a system message with what is recalled for ``input``, or for what the user said last."""
        chat = self._chat(self.last)
        asked = input or next((said.content for said in reversed(chat) if said.role == MessageRole.USER), None)
        own = self.last is not None  # the chat is there as a whole otherwise
        found = self._conversation.recall(asked or "", self.recall_tokens, own=own) if self.recall_tokens else ""
        return [ChatMessage(role=MessageRole.SYSTEM, content=found), *chat] if found else chat

    def get_all(self) -> list[ChatMessage]:
        """Every message of the chat."""
        return self._chat(None)

    def put(self, message: ChatMessage) -> None:
        """Add a message at the end."""
        self.put_messages([message])

    def put_messages(self, messages: list[ChatMessage]) -> None:
        """Add messages at the end."""
        self._conversation.append([_turn(message) for message in messages])

    def set(self, messages: list[ChatMessage]) -> None:
        """Have the chat be these messages."""
        if messages != self.get_all():
            self._conversation.clear()
            self.put_messages(messages)

    def reset(self) -> None:
        """Take every message away; the history keeps them."""
        self._conversation.clear()

    def _chat(self, limit: int | None) -> list[ChatMessage]:
        return [ChatMessage.model_validate(item) for item in self._conversation.items(limit)]


class MemspanBlock(BaseMemoryBlock[str]):
    """A block that remembers the messages it is handed, as ``user_id`` said them, and recalls for the last question.

    ``budget``: tokens of what it gives. Made with an open ``memory``; the session is that of LlamaIndex's memory.
    """

    memory: Memory = Field(exclude=True)
    name: str = "memspan"
    user_id: str | None = None
    namespace: str | None = None
    budget: int = Field(default=800, ge=1)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        asked = next((said.content for said in reversed(messages or []) if said.role == MessageRole.USER), None)
        return await asyncio.to_thread(self._of("recall").recall, asked or "", self.budget)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        sessions: dict[str, list[Turn]] = {}
        for message in messages:
            about = dict(message.additional_kwargs)
            session = str(about.pop("session_id", "llamaindex"))
            turn = _turn(message.model_copy(update={"additional_kwargs": about}))
            sessions.setdefault(session, []).append(turn)
        for session, turns in sessions.items():
            await asyncio.to_thread(self._of(session).append, turns)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """Nothing of it: a part of a context would cite what is not there."""
        return None

    def _of(self, session: str) -> Conversation:
        return Conversation(self.memory, session, namespace=self.namespace, user_id=self.user_id)


def _turn(message: ChatMessage) -> Turn:
    texts = {at: block.text for at, block in enumerate(message.blocks) if isinstance(block, TextBlock)}
    return Turn(
        role=ROLES.get(message.role.value, "system"),
        text="\n".join(texts.values()),
        item=message.model_dump(mode="json"),
        place=("blocks", *texts, "text") if len(texts) == 1 else None,
    )
