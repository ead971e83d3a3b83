"""The Responses API through the proxy, with OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from served import served

from memspan import Memory
from memspan.quotation import END, PREAMBLE

from .test_proxy import FACT, QUESTION, client, posted, stored
from .upstream import Upstream, of_json, response, response_stream, upstream


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as state:
        state.model = lambda received: of_json(response("All right."))
        yield state


def test_what_one_conversation_said_is_known_in_a_fresh_one(memory: Memory, up: Upstream) -> None:
    with served(memory, upstream=up.url) as url, client(f"{url}/v1") as chat:
        assert chat.responses.create(model="m", input=FACT).output_text == "All right."
        assert up.last.json == {"model": "m", "input": FACT}
        up.script = [response_stream("Behind the ", "blue door.")]
        events = list(chat.responses.create(model="m", input=QUESTION, stream=True, instructions="Be brief."))
        sent = up.last.json
    assert [event.type for event in events] == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed",
    ]
    assert (sent["instructions"], sent["stream"]) == ("Be brief.", True)
    block, _, question = sent["input"].rpartition("\n\n")
    assert (block.startswith(PREAMBLE), block.endswith(END), question) == (True, True, QUESTION)
    assert f"> user: {FACT}\n> assistant: All right." in block
    assert stored(memory) == [
        ("user", FACT),
        ("assistant", "All right."),
        ("user", QUESTION),
        ("assistant", "Behind the blue door."),
    ]


def test_a_list_of_items_gets_the_block_in_the_last_message_of_the_user(memory: Memory, up: Upstream) -> None:
    memory.add(FACT)
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    items: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello there, assistant of mine."},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}, picture]},
        {"type": "function_call", "call_id": "t1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t1", "output": "a door"},
    ]
    with served(memory, upstream=up.url) as url:
        up.script = [of_json({**response("Call."), "output": [items[4]]}), of_json(response("There."))]
        posted(f"{url}/v1", {"model": "m", "input": items[:4]}, "/responses")
        first = up.last.json["input"]
        posted(f"{url}/v1", {"model": "m", "input": items}, "/responses")
        second = up.last.json["input"]
    added = first[3]["content"].pop(0)
    assert (added["type"], FACT in added["text"]) == ("input_text", True)
    assert first == items[:4]
    assert second[3]["content"].pop(0) == added  # so that what the upstream has worked out of it is of use again
    assert second == items
    assert stored(memory) == [(None, FACT), ("user", QUESTION), ("assistant", "There.")]


def test_a_response_goes_on_from_one_that_the_upstream_keeps(memory: Memory, up: Upstream) -> None:
    with served(memory, upstream=up.url) as url, client(f"{url}/v1") as chat:
        first = chat.responses.create(model="m", input=FACT)
        up.script = [of_json(response("It is a cat.", "incomplete"))]
        chat.responses.create(model="m", input="And my cat is called Ada.", previous_response_id=first.id)
        assert up.last.json["previous_response_id"] == first.id
        up.script = [of_json({**response("", "queued"), "output": []}), of_json(response("It fell.", "failed"))]
        chat.responses.create(model="m", input="A long task.", background=True, extra_body={"conversation": "conv_1"})
        chat.responses.create(model="m", input="Another task.")
    said = {segment.text: segment.session for segment in memory.get_all()}
    assert said == {
        FACT: None,
        "All right.": None,
        "And my cat is called Ada.": None,
        "It is a cat.": None,
        "A long task.": "conv_1",
        "Another task.": None,
    }
