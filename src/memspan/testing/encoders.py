"""What an encoder promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from memspan.encoders.base import Encoded, Encoder
from memspan.segmenting import Tokenizer
from memspan.testing.parts import check

_TEXTS = (
    "Ana moved to Lisbon in May.",
    "Where does Ana live?",
    "The stock market fell for the third day in a row, and nobody could say why it had.",
    "昨日、友達と新しいレストランに行きました。",
    "ok",
    "def f(x): return x + 1  # 🎉",
)


class EncoderContract:
    """What every encoder promises. ``tolerance``: the largest difference a neighbour in the batch may make."""

    tolerance = 1e-3

    @pytest.fixture
    def encoder(self) -> Encoder:
        raise pytest.UsageError("override the fixture `encoder`")

    def check(self, encoder: Encoder, encoded: Encoded, n: int) -> None:
        """Shapes, types, lengths of ``encoded`` for n texts with something in them."""
        pooled = encoded.pooled
        check(pooled.shape == (n, encoder.dim) and pooled.dtype == np.float32, f"{pooled.shape} {pooled.dtype}")
        check(np.isfinite(pooled).all(), "values that are not finite")
        norms = np.linalg.norm(pooled, axis=1)
        check(np.allclose(norms, 1, atol=1e-4), f"rows are not of length 1: {norms}")
        check(len(encoded.tokens) in (0, n), f"{len(encoded.tokens)} token arrays for {n} texts")
        for states in encoded.tokens:
            check(
                states.dtype == np.float32 and np.isfinite(states).all(), "token states of another type, or not finite"
            )
            check(states.shape[1:] == (encoder.dim,), f"token states are {states.shape}")
            check(1 <= len(states) <= encoder.window, f"{len(states)} token states in a window of {encoder.window}")

    def test_it_is_an_encoder_with_a_name_a_size_and_a_window_that_stay(self, encoder: Encoder) -> None:
        check(isinstance(encoder, Encoder), "it lacks something of memspan.encoders.base.Encoder")
        before = encoder.id, encoder.dim, encoder.window
        encoder.encode(_TEXTS)
        check(before == (encoder.id, encoder.dim, encoder.window), "id, dim or window changed")
        check(encoder.id and encoder.dim > 0 and encoder.window > 0, f"{before}")

    def test_it_gives_one_unit_row_for_each_text(self, encoder: Encoder) -> None:
        self.check(encoder, encoder.encode(_TEXTS), len(_TEXTS))

    def test_no_texts_give_no_rows(self, encoder: Encoder) -> None:
        empty = encoder.encode([])
        check(empty.pooled.shape == (0, encoder.dim) and empty.pooled.dtype == np.float32, f"{empty.pooled.shape}")
        check(len(empty.tokens) == 0, "tokens of no text")

    def test_the_same_text_gives_the_same_row_each_time(self, encoder: Encoder) -> None:
        first, again = encoder.encode(_TEXTS).pooled, encoder.encode(_TEXTS).pooled
        check(np.array_equal(first, again), f"they differ by {np.abs(first - again).max()}")
        twins = encoder.encode([_TEXTS[0], _TEXTS[2], _TEXTS[0]]).pooled
        check(np.array_equal(twins[0], twins[2]), "duplicates differ within a batch")

    def test_a_row_depends_on_its_text_and_not_on_its_neighbours(self, encoder: Encoder) -> None:
        together = encoder.encode(_TEXTS).pooled
        backwards = encoder.encode(_TEXTS[::-1]).pooled[::-1]
        alone = np.concatenate([encoder.encode([text]).pooled for text in _TEXTS])
        for other in (backwards, alone):
            difference = np.abs(together - other).max()
            check(difference <= self.tolerance, f"they differ by {difference}")

    def test_texts_that_share_their_words_are_closer(self, encoder: Encoder) -> None:
        one, like, unlike = encoder.encode(["my dog likes the park", "my dog likes the beach", "tax law reform"]).pooled
        check(one @ like > one @ unlike, f"{one @ like} is not above {one @ unlike}")

    def test_a_very_long_text_is_cut_to_the_window(self, encoder: Encoder) -> None:
        self.check(encoder, encoder.encode(["many words in a row " * 20_000, "x" * 100_000]), 2)

    @pytest.mark.parametrize(
        "text", ["\ud800 alone", "a\x00b", "\u202e\ufeff\u200bq", "e" + "\u0301" * 500, "🎉" * 300]
    )
    def test_strange_characters_are_encoded_and_counted(self, encoder: Encoder, text: str) -> None:
        self.check(encoder, encoder.encode([text]), 1)
        check(encoder.tokenizer.count([text])[0] >= 0, "a negative count")

    @pytest.mark.parametrize("text", ["", " ", "\n\t"])
    def test_a_blank_text_gives_a_row_of_zeros_or_of_length_one(self, encoder: Encoder, text: str) -> None:
        blank, word = np.linalg.norm(encoder.encode([text, "word"]).pooled, axis=1)
        check(min(blank, abs(blank - 1)) < 1e-4, f"its length is {blank}")
        check(abs(word - 1) < 1e-4, f"its neighbour's length is {word}")

    def test_its_tokenizer_counts_every_text_whole(self, encoder: Encoder) -> None:
        tokenizer = encoder.tokenizer
        check(isinstance(tokenizer, Tokenizer) and tokenizer.name, "it is no Tokenizer with a name")
        short, long, nothing = tokenizer.count(["word", "word " * 10_000, ""])
        check(nothing == 0 and short >= 1 and long >= 10_000, f"{short}, {long}, {nothing}")
        check(tokenizer.count([]) == [], "counts of no text")

    def test_threads_may_share_it(self, encoder: Encoder) -> None:
        alone = encoder.encode(_TEXTS).pooled
        with ThreadPoolExecutor(4) as pool:
            rows = list(pool.map(lambda _: encoder.encode(_TEXTS).pooled, range(8)))
        check(all(np.abs(row - alone).max() <= self.tolerance for row in rows), "they got different rows")
