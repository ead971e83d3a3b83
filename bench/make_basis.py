"""Makes src/memspan/activations/minilm.safetensors: ``python bench/make_basis.py``, two minutes.

What it is fitted on can be had on any machine with memspan installed: Python's documentation and library, the texts of
installed packages, and chat made up from the phrases below. Each of the four weighs the same in the mean of the token
activations. That mean is all there is to it: every dimension is kept, as the encoder gives it
(docs/decisions/0010-activations.md says what else was tried).
"""

from __future__ import annotations

import itertools
import random
import re
from importlib import resources

import numpy as np

from memspan import demo
from memspan.activations.tokens import Basis, unit
from memspan.bench import needle, speed
from memspan.encoders.minilm import BertEncoder
from memspan.segmenting import cut

NAME = "minilm-1"
PHRASES = (
    "I just got back from {p}, it was {a}!", "How was your {t} last {d}?", "My {r} is coming over on {d}.",
    "Did you ever try {h}? I started it in {m} and I love it.", "That sounds {a}. I am so happy for you!",
    "I bought a new {o} yesterday, here is a picture of it.", "Thanks for asking, {n}! The {t} went well.",
    "What is your favourite {f}?", "We adopted a {x} called {n} three weeks ago.", "Remember {p} with {n}?",
    "I am thinking of changing jobs, my boss is not very supportive.", "Can you help me plan a trip to {p} in {m}?",
    "{n} said she will move to {p} in {m} with her {r}.", "I am allergic to {f}, so I had to skip dinner.",
    "My doctor told me to sleep more and drink less coffee.", "No way! When did that happen?",
    "I finished my first {h} class on {d} and it was {a}.", "Haha, same here. Let us catch up soon.",
)  # fmt: skip
WORDS = {
    "p": "Lisbon Kyoto Toronto Berlin Cairo Sydney Rome Oslo", "a": "amazing exhausting strange relaxing fun",
    "t": "interview wedding exam concert birthday trip meeting", "d": "Monday Tuesday Friday Saturday night",
    "r": "sister brother mother father husband wife friend", "f": "pasta sushi soup pizza curry pancakes",
    "h": "painting yoga climbing photography gardening chess", "m": "January March May June August October",
    "o": "car guitar bike camera laptop dress couch", "x": "dog cat puppy kitten parrot turtle",
    "n": "Anna Ben Carla David Emma Felix Grace Hugo Ines Jonas Kate Liam",
}  # fmt: skip


def texts(encoder: BertEncoder) -> dict[str, list[str]]:
    choose = random.Random(0)
    prose = [
        piece.text
        for _, text in demo.documents()
        for piece in cut(text[:30_000], tokenizer=encoder.tokenizer, window=250, media="text")
    ]
    sentences = list(speed.texts(6_000))
    packages = [text for _, text in itertools.islice(needle._packages(), 4_000) if len(text) > 40]
    for each in (prose, sentences, packages):
        choose.shuffle(each)
    said = (" ".join(choose.choices(PHRASES, k=choose.choice((1, 1, 2, 3)))) for _ in range(1_500))
    chat = [f"{choose.choice(WORDS['n'].split())}: {_filled(text, choose)}" for text in said]
    return {"prose": prose[:350], "sentences": sentences[:1_200], "packages": packages[:300], "chat": chat}


def _filled(text: str, choose: random.Random) -> str:
    return re.sub(r"\{(\w)\}", lambda slot: choose.choice(WORDS[slot[1]].split()), text)


def main() -> None:
    encoder = BertEncoder()
    parts = texts(encoder)
    means = [unit(np.concatenate(encoder.encode(each).tokens)).mean(axis=0) for each in parts.values()]
    counts = ", ".join(f"{len(each):,} of {name}" for name, each in parts.items())
    basis = Basis(
        NAME,
        np.mean(means, axis=0, dtype=np.float32),
        None,
        f"bench/make_basis.py, 2026-11-26, {encoder.id}: mean of token activations of {counts}, each part weighing the"
        " same (Python's documentation and library, texts of installed packages, made-up chat); every dimension kept",
    )
    file = resources.files("memspan.activations") / "minilm.safetensors"
    with resources.as_file(file) as path:
        path.write_bytes(basis.dumps())
        print(f"{path}: {basis.provenance}")


if __name__ == "__main__":
    main()
