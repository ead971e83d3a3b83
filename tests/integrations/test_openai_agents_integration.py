"""The session of the Agents SDK: every item comes back as it was, and what was said elsewhere is recalled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents", reason="needs the OpenAI Agents SDK")

from agents import Session, SessionSettings

from memspan import InvalidInput, Memory
from memspan.integrations.openai_agents import MemspanSession

ITEMS: list[Any] = [
    {"role": "user", "content": "What is the weather in Lisbon?"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 3_000},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Lisbon"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "Sunny, 24 degrees.\n"},
    {
        "type": "message",
        "id": "m1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}],
    },
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And here?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
            {"type": "input_text", "text": "In the picture."},
        ],
    },
    {"role": "developer", "content": "Be brief."},
]


def add(session: MemspanSession, *items: Any) -> None:
    asyncio.run(session.add_items(list(items)))


def items_of(session: MemspanSession, limit: int | None = None) -> list[Any]:
    return asyncio.run(session.get_items(limit))


def test_it_is_a_session_of_the_sdk(memory: Memory) -> None:
    assert isinstance(MemspanSession("s", memory), Session)


def test_every_item_comes_back_as_it_was_in_order_also_from_another_process(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        session = MemspanSession("s", memory)
        add(session, *ITEMS[:3])
        add(session, *ITEMS[3:])
        assert items_of(session) == ITEMS
    with Memory(tmp_path / "store", encoder="hash") as memory:
        again = MemspanSession("s", memory)
        add(again, ITEMS[0])
        assert items_of(again) == [*ITEMS, ITEMS[0]]
        assert items_of(again, 2) == [ITEMS[-1], ITEMS[0]]
        assert items_of(again, 0) == []


@pytest.mark.parametrize("text", ["ok", "", "  \n", " spaces around \n", "word " * 5_000])
def test_what_is_said_twice_is_there_twice_whoever_said_it(memory: Memory, text: str) -> None:
    session = MemspanSession("s", memory)
    said = [{"role": role, "content": text} for role in ("user", "user", "assistant", "assistant", "user")]
    add(session, *said)
    assert items_of(session) == said


def test_the_last_item_is_popped_and_all_are_cleared_and_the_history_keeps_them(memory: Memory) -> None:
    session = MemspanSession("s", memory)
    assert asyncio.run(session.pop_item()) is None
    add(session, *ITEMS)
    assert asyncio.run(session.pop_item()) == ITEMS[-1]
    assert items_of(session) == ITEMS[:-1]
    asyncio.run(session.clear_session())
    assert items_of(session) == []
    add(session, ITEMS[0])
    assert items_of(session) == ITEMS[:1]
    undone = [done for done in memory.operations() if done.verb == "delete"]
    assert [done.segments for done in undone] == [len(ITEMS) - 1, 1]


def test_the_settings_limit_what_a_run_reads(memory: Memory) -> None:
    session = MemspanSession("s", memory, session_settings=SessionSettings(limit=2))
    add(session, *ITEMS)
    assert items_of(session) == ITEMS[-2:]
    assert items_of(session, 3) == ITEMS[-3:]


def test_sessions_of_other_ids_users_and_namespaces_are_other_sessions(memory: Memory) -> None:
    whose = [("s", {}), ("t", {}), ("s", {"user_id": "ana"}), ("s", {"namespace": "acme"}), ("s", {"agent_id": "a"})]
    sessions = [MemspanSession(name, memory, **options) for name, options in whose]
    for number, session in enumerate(sessions):
        add(session, {"role": "user", "content": "hello", "n": number})
    assert [[item["n"] for item in items_of(session)] for session in sessions] == [[0], [1], [2], [3], [4]]
    asyncio.run(sessions[0].clear_session())
    assert [len(items_of(session)) for session in sessions] == [0, 1, 1, 1, 1]


def test_what_the_user_said_in_another_session_is_recalled_and_nothing_of_another_user(memory: Memory) -> None:
    add(MemspanSession("monday", memory, user_id="ana"), {"role": "user", "content": "My cat is called Tom."}, ITEMS[1])
    add(MemspanSession("monday", memory, user_id="ben"), {"role": "user", "content": "My cat is called Max."})
    session = MemspanSession("tuesday", memory, user_id="ana")
    add(session, {"role": "user", "content": "What is my cat called?"})
    recalled = asyncio.run(session.recall("What is my cat called?"))
    assert "Tom" in recalled
    assert "Max" not in recalled
    assert "What is my cat called?" not in recalled
    assert "[tool]" not in recalled
    assert asyncio.run(session.recall("cat", budget=1)) == asyncio.run(session.recall(" ")) == ""
    assert asyncio.run(session.recall("cat", filters={"session": "tuesday"})) == ""


def test_what_was_recalled_is_not_stored_again(memory: Memory) -> None:
    add(MemspanSession("monday", memory, user_id="ana"), {"role": "user", "content": "My cat is called Tom."})
    session = MemspanSession("tuesday", memory, user_id="ana")
    recalled = asyncio.run(session.recall("cat"))
    add(session, {"role": "user", "content": f"{recalled}\n\nAnd my dog?"}, {"role": "system", "content": recalled})
    asked, nothing = items_of(session)
    assert asked["role"] == "user"
    assert asked["content"].strip() == "And my dog?"
    assert nothing == {"role": "system", "content": ""}
    assert len([hit for hit in memory.search("Tom", user_id="ana") if "Tom" in hit.text]) == 1


def test_many_sessions_at_once_keep_their_order(memory: Memory) -> None:
    sessions = [MemspanSession(f"s{n}", memory) for n in range(4)]

    async def talk() -> None:
        for turn in range(5):
            await asyncio.gather(*(each.add_items([{"role": "user", "content": f"turn {turn}"}]) for each in sessions))

    asyncio.run(talk())
    for session in sessions:
        assert [item["content"] for item in items_of(session)] == [f"turn {turn}" for turn in range(5)]


def test_an_item_that_is_no_json_is_refused(memory: Memory) -> None:
    session = MemspanSession("s", memory)
    with pytest.raises(InvalidInput):
        add(session, {"role": "user", "content": "fine", "when": {1}})
    assert items_of(session) == []
