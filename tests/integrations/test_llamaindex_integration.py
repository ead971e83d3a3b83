"""LlamaIndex's memory: a chat kept whole, recall before it, and a block for LlamaIndex's own memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core")

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import Memory as LlamaMemory
from sqlalchemy.ext.asyncio import create_async_engine

from memspan import InvalidInput, Memory
from memspan.integrations.llamaindex import MemspanBlock, MemspanMemory


def said(role: str, text: str, **more: Any) -> ChatMessage:
    return ChatMessage(role=role, content=text, additional_kwargs=more)


CHAT = [
    said("system", "Be brief."),
    said("user", " What is my cat called? \n"),
    said("assistant", "", tool_calls=[{"id": "1", "name": "look"}]),
    said("tool", "Tom", tool_call_id="1"),
    said("assistant", "Tom."),
    ChatMessage(
        role="user", blocks=[TextBlock(text="this?"), ImageBlock(url="http://host/a.png"), TextBlock(text="!")]
    ),
]


def test_every_message_comes_back_as_it_was(memory: Memory) -> None:
    chat = MemspanMemory.of(memory, session="s")
    chat.put_messages(CHAT)
    chat.put(CHAT[0])
    assert chat.get_all() == [*CHAT, CHAT[0]]
    assert MemspanMemory.from_defaults(memory=memory, session="s").get_all() == chat.get_all()
    assert MemspanMemory.of(memory, session="other").get_all() == []


def test_a_chat_is_set_and_reset(memory: Memory) -> None:
    chat = MemspanMemory.of(memory, session="s")
    chat.set(CHAT)
    chat.set(CHAT[:2])
    assert chat.get_all() == CHAT[:2]
    asyncio.run(chat.areset())
    assert chat.get_all() == []
    asyncio.run(chat.aset(CHAT))
    assert asyncio.run(chat.aget_all()) == CHAT


def test_what_was_said_in_another_chat_stands_before_this_one(memory: Memory) -> None:
    MemspanMemory.of(memory, session="monday", user_id="ana").put(said("user", "My cat is called Tom."))
    MemspanMemory.of(memory, session="monday", user_id="ben").put(said("user", "My cat is called Max."))
    chat = MemspanMemory.of(memory, session="tuesday", user_id="ana")
    chat.put(said("user", "What is my cat called?"))
    for found in (chat.get("What is my cat called?"), chat.get(), asyncio.run(chat.aget())):
        recalled, asked = found
        assert recalled.role == "system"
        assert "Tom" in str(recalled.content)
        assert "Max" not in str(recalled.content)
        assert asked.content == "What is my cat called?"
    assert chat.get_all() == [asked]
    quiet = MemspanMemory.of(memory, session="tuesday", user_id="ana", recall_tokens=0)
    assert quiet.get("cat") == [asked]


def test_a_chat_that_is_cut_short_recalls_its_own_beginning(memory: Memory) -> None:
    chat = MemspanMemory.of(memory, session="s", last=1)
    chat.put_messages([said("user", "My cat is called Tom."), said("user", "What is my cat called?")])
    recalled, asked = chat.get()
    assert "Tom" in str(recalled.content)
    assert asked.content == "What is my cat called?"


def test_a_chat_engine_remembers_across_its_chats(memory: Memory) -> None:
    for session, asked in (("monday", "My cat is called Tom."), ("tuesday", "What is my cat called?")):
        chat = MemspanMemory.of(memory, session=session, user_id="ana")
        answer = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=chat).chat(asked)
    assert "My cat is called Tom." in str(answer)  # the mock repeats what it is asked


def test_a_block_takes_what_leaves_the_window_and_gives_what_the_question_needs(memory: Memory) -> None:
    async def talk() -> list[ChatMessage]:
        engine = create_async_engine("sqlite+aiosqlite:///:memory:")  # ours, as LlamaIndex never closes its own
        monday, tuesday = (
            LlamaMemory.from_defaults(
                session_id=session,
                token_limit=60,
                token_flush_size=10,
                memory_blocks=[MemspanBlock(memory=memory, user_id="ana", budget=200)],
                async_engine=engine,
            )
            for session in ("monday", "tuesday")
        )
        for number in range(8):
            await monday.aput(said("user", f"My boat number {number} lies in the harbour of Porto."))
        found = await tuesday.aget("Where does my boat number 0 lie?")
        await engine.dispose()
        return found

    (given,) = asyncio.run(talk())
    assert "boat number 0" in str(given.content)
    stored = memory.get_all(user_id="ana")
    assert {segment.session for segment in stored} == {"monday"}
    assert 0 < len(stored) < 8


def test_a_block_has_nothing_to_say_where_nothing_is_asked_or_known(memory: Memory) -> None:
    block = MemspanBlock(memory=memory)
    assert asyncio.run(block.aget([])) == asyncio.run(block.aget([said("user", "anything?")])) == ""


def test_a_memory_must_be_given(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="memory"):
        MemspanMemory.from_defaults(session="s")
