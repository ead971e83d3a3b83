"""Encoders by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from memspan.encoders import FORMS, make
from memspan.encoders.base import Encoder
from memspan.encoders.hash import HashEncoder
from memspan.errors import InvalidInput, MissingExtra


@pytest.mark.parametrize("spec", [None, "none"])
def test_no_encoder_is_none(spec: str | None) -> None:
    assert make(spec) is None


@pytest.mark.parametrize(("spec", "dim"), [("hash", 256), ("hash:512", 512)])
def test_a_spec_makes_an_encoder_that_knows_its_spec(spec: str, dim: int) -> None:
    encoder = make(spec)
    assert isinstance(encoder, HashEncoder)
    assert (encoder.dim, encoder.spec) == (dim, spec)


def test_an_encoder_is_given_back_as_it_is() -> None:
    encoder = HashEncoder()
    assert isinstance(encoder, Encoder)
    assert make(encoder) is encoder


@pytest.mark.parametrize(
    "spec",
    ["", "minilm:", "bert", "hash:x", "hash:", "hash:4", "http:", "http:m", "http:@http://h/v1", "http:m@h/v1"],
)
def test_an_unknown_spec_is_refused_by_name(spec: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(spec)
    assert caught.value.argument in ("encoder", "dim")
    assert caught.value.mend


def test_the_refusal_lists_what_there_is() -> None:
    with pytest.raises(InvalidInput) as caught:
        make("bert")
    assert all(form in caught.value.mend for form in FORMS.values())


@pytest.mark.parametrize("thing", [7, object(), ["minilm"]])
def test_an_object_that_is_no_encoder_is_refused(thing: object) -> None:
    with pytest.raises(InvalidInput, match="encoder"):
        make(thing)  # type: ignore[arg-type]


def test_naming_encoders_imports_nothing_heavy() -> None:
    code = (
        "import sys, memspan.encoders\n"
        "heavy = {'onnxruntime', 'tokenizers', 'httpx', 'safetensors', 'huggingface_hub', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"pip install 'memspan\[sentence-transformers\]'"):
        make("sentence-transformers:all-MiniLM-L6-v2")
