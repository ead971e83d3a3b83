"""One text that the encoder refuses costs that text its vector, and nothing else anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from memspan import Memory
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder


class Picky(HashEncoder):
    """Refuses whatever holds its word."""

    word = "zyzzyva"

    def encode(self, texts: Sequence[str]) -> Encoded:
        if any(self.word in text for text in texts):
            raise RuntimeError("I do not read this")
        return super().encode(texts)


@pytest.mark.filterwarnings("ignore")
def test_a_refused_text_does_not_block_those_behind_it(store: Path | str) -> None:
    encoder = Picky()
    with Memory(store, encoder=encoder) as memory:
        memory.add("the zyzzyva is a weevil", wait=False)
        later = memory.add("the ferry leaves at noon", wait=False).ids[0]
        assert memory.search("when does the ferry leave", recipe="semantic")[0].id == later
        assert memory.stats()["pending"] == 1
        assert "I do not read this" in memory.stats()["encoder"]["failure"]
        assert memory.search("zyzzyva", recipe="keyword")[0].text == "the zyzzyva is a weevil"
        assert memory.verify()["ok"]
        encoder.word = "\N{WHITE SQUARE}"
        memory.compact()
        assert memory.stats()["pending"] == 0
        assert memory.search("a weevil", recipe="semantic")[0].text == "the zyzzyva is a weevil"


def test_a_query_the_encoder_refuses_is_answered_by_keywords(store: Path | str) -> None:
    with Memory(store, encoder=Picky()) as memory:
        memory.add("the ferry leaves at noon")
        assert memory.search("zyzzyva ferry")[0].text == "the ferry leaves at noon"
        assert "I do not read this" in memory.stats()["search_failure"]
        memory.search("ferry")
        assert memory.stats()["search_failure"] is None
