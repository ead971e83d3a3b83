"""The proxy in front of a real model behind `transformers serve`: a small GPT-2 made on the spot, which has learned
by heart what to say with a memory and without one."""

from __future__ import annotations

import importlib.util
import random
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import served

from memspan import Memory

from .test_proxy import FACT, QUESTION, client, stored

NEEDED = ("torch", "transformers", "accelerate")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed"),
    pytest.mark.filterwarnings("default"),  # torch warns of itself
]

NOTED, UNKNOWN, KNOWN = "Noted.", "Nobody told me.", "Behind the blue door [1]."
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> Any:
    """Bytes, and a token for each end of a message."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ["<|user|>", "<|assistant|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=marks,
        chat_template=TEMPLATE,
    )


def taught(words: Any, lessons: list[tuple[str, str]]) -> Any:
    """A model that gives each answer to its question, whatever time of day the question tells."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    torch.set_num_threads(1)  # it is too small for two, which wait for each other on a busy machine
    chance = random.Random(0)
    end = words.eos_token_id
    size = {"n_positions": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), bos_token_id=end, eos_token_id=end, **size)).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(400):
        losses = []
        for question, answer in lessons:
            timed = re.sub(r"\d\d:\d\d UTC", f"{chance.randrange(24):02}:{chance.randrange(60):02} UTC", question)
            asked = words.apply_chat_template([{"role": "user", "content": timed}], add_generation_prompt=True)
            asked = asked if isinstance(asked, list) else asked["input_ids"]
            tokens = torch.tensor([[*asked, *words(answer)["input_ids"], end]])
            labels = tokens.clone()
            labels[:, : len(asked)] = -100
            losses.append(model(tokens, labels=labels).loss)
        loss = sum(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    return model


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The base URL of `transformers serve`, and the name of its model."""
    from transformers.cli.serve import Serve

    class Serving(Serve):  # type: ignore[misc]
        def start_server(self) -> None:
            self._thread = threading.Thread(target=self.server.run)  # which also closes its loop
            self._thread.start()

    with Memory(":memory:", encoder="hash") as memory:
        memory.add([{"role": "user", "content": FACT}, {"role": "assistant", "content": NOTED}])
        block = memory.context(QUESTION).text
    path, words = str(tmp_path_factory.mktemp("model")), tokenizer()
    taught(words, [(FACT, NOTED), (QUESTION, UNKNOWN), (f"{block}\n\n{QUESTION}", KNOWN)]).save_pretrained(path)
    words.save_pretrained(path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serving = Serving(path, host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as waiting:
            assert waiting.get(f"http://127.0.0.1:{port}/health").status_code == 200
        yield f"http://127.0.0.1:{port}/v1", path
    finally:
        serving.kill_server()


def said(url: str, model: str, text: str, *, streamed: bool, api: str = "chat", **headers: str) -> str:
    with client(url, **headers) as chat:
        if api == "responses":
            asked: dict[str, Any] = {"model": model, "input": text, "max_output_tokens": 60, "temperature": 0}
            if not streamed:
                return str(chat.responses.create(**asked, stream=False).output_text)  # it streams by default
            events = chat.responses.create(**asked, stream=True)
            return "".join(event.delta for event in events if event.type == "response.output_text.delta")
        asked = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 60, "temperature": 0}
        if not streamed:
            return str(chat.chat.completions.create(**asked).choices[0].message.content)
        chunks = chat.chat.completions.create(**asked, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_real_model_knows_in_a_fresh_conversation_what_another_one_said(
    memory: Memory, upstream: tuple[str, str], streamed: bool, api: str
) -> None:
    base, model = upstream
    with served(memory, upstream=base, recall_timeout=30.0) as url:
        proxied = f"{url}/v1"
        for text in (FACT, QUESTION):
            direct = said(base, model, text, streamed=streamed, api=api)
            assert said(proxied, model, text, streamed=streamed, api=api, X_Memory="off") == direct
        assert direct == UNKNOWN
        assert said(proxied, model, FACT, streamed=streamed, api=api) == NOTED
        assert said(proxied, model, QUESTION, streamed=streamed, api=api) == KNOWN
    assert stored(memory) == [("user", FACT), ("assistant", NOTED), ("user", QUESTION), ("assistant", KNOWN)]
