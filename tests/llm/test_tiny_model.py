"""A real language model behind a real server: a small GPT-2 made on the spot, untaught, and taught one answer."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import pytest

from memspan import Memory
from memspan.facts import question
from memspan.llm import ChatEndpoint

from .chat import Messages, serving

HERE = importlib.util.find_spec("transformers") is not None and importlib.util.find_spec("torch") is not None

pytestmark = [
    pytest.mark.skipif(not HERE, reason="transformers and torch are not installed"),
    pytest.mark.filterwarnings("default"),  # torch warns of itself
]

READ, END = 96, 256  # the last bytes of a question that it reads; the token that ends an answer
SAID = "I moved to Lisbon in March 2022. My dog Rex came along."
ANSWER = "\n".join(
    map(
        json.dumps,
        (
            {"fact": "Ana moved to Lisbon in March 2022.", "sources": [1], "quote": "I moved to Lisbon in March 2022"},
            {"fact": "Ana moved to Madrid.", "sources": [1], "quote": "I moved to Lisbon"},
            {"summary": "Ana moved to Lisbon with her dog Rex.", "sources": [1]},
        ),
    )
)


def seen(messages: Messages) -> list[int]:
    return list(messages[-1]["content"].encode()[-READ:])


def untaught() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_positions=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=END, eos_token_id=END
    )
    return GPT2LMHeadModel(config).eval()


def taught(messages: Messages, answer: str) -> Any:
    """One that gives this answer to this question, learned by heart."""
    import torch

    model = untaught()
    asked = seen(messages)
    tokens = torch.tensor([[*asked, *answer.encode(), END]])
    labels = tokens.clone()
    labels[:, : len(asked)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(tokens, labels=labels).loss
        if loss.item() < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def speaking(model: Any) -> Callable[[Messages, int], dict[str, Any]]:
    import torch

    def answer(messages: Messages, most: int) -> dict[str, Any]:
        tokens = torch.tensor([seen(messages)])
        room = 512 - tokens.shape[1]
        with torch.no_grad():
            whole = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=min(most, room),
                do_sample=False,
                pad_token_id=END,
            )[0, tokens.shape[1] :].tolist()
        ended = END in whole
        text = bytes(token for token in whole if token != END).decode(errors="replace")
        return {"message": {"content": text}, "finish_reason": "stop" if ended else "length"}

    return answer


def extracted(memory: Memory, model: Any) -> Any:
    with serving(speaking(model)) as server:
        llm = ChatEndpoint(server.url, "tiny", retries=0, timeout=60)
        try:
            return memory.extract(llm)
        finally:
            llm.close()


@pytest.fixture
def memory() -> Any:
    with Memory(":memory:", encoder="hash") as opened:
        opened.add([{"role": "user", "name": "Ana", "content": SAID, "time": "2023-05-08T10:00:00Z"}])
        yield opened


def test_what_a_real_model_says_is_kept_where_it_holds(memory: Memory) -> None:
    model = taught(question(memory.get_all()), ANSWER)
    done = extracted(memory, model)
    assert ([job.state for job in done.jobs], done.dropped) == (["done"], {"name": 1})
    derived = {row.metadata["what"]: row.text for row in memory.get_all(filters={"source": "derived"})}
    assert derived == {
        "fact": "Ana moved to Lisbon in March 2022.",
        "summary": "Ana moved to Lisbon with her dog Rex.",
    }


def test_the_babble_of_a_model_that_knows_nothing_is_kept_nowhere(memory: Memory) -> None:
    before = memory.get_all()
    done = extracted(memory, untaught())
    assert [job.state for job in done.jobs] == ["failed"]
    assert memory.get_all() == before
