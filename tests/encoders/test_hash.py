"""The encoder without a model."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from memspan.encoders.hash import HashEncoder
from memspan.errors import InvalidInput
from memspan.testing import EncoderContract


class TestHashEncoder(EncoderContract):
    tolerance = 0.0

    @pytest.fixture
    def encoder(self) -> HashEncoder:
        return HashEncoder()


class TestSmallHashEncoder(EncoderContract):
    tolerance = 0.0

    @pytest.fixture
    def encoder(self) -> HashEncoder:
        return HashEncoder(64)


def test_every_process_gets_the_same_vectors() -> None:
    code = (
        "from memspan.encoders.hash import HashEncoder\n"
        "print(HashEncoder(32).encode(['Ana moved to Lisbon', '東京']).pooled.round(5).tolist())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


def test_the_vectors_are_those_of_every_release() -> None:
    rows = HashEncoder(32).encode(["Ana moved to Lisbon", "東京", "x"]).pooled
    levels = np.rint(rows * 1000).astype("<i4")
    assert hashlib.sha256(levels.tobytes()).hexdigest()[:16] == "b530a327402a77cc"


def test_words_count_more_than_their_letters() -> None:
    a, same, like, unlike = HashEncoder().encode(["garden", "Garden!", "gardening", "mountain"]).pooled
    assert a @ same > 0.5 > a @ like > 0.1 > a @ unlike


@pytest.mark.parametrize("dim", [0, 7, -1, 65_537, 2.5, "64"])
def test_a_dimension_out_of_range_is_refused(dim: object) -> None:
    with pytest.raises(InvalidInput, match="dim"):
        HashEncoder(dim)  # type: ignore[arg-type]
