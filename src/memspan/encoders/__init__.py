"""The encoders, and ``make``: the one place that knows them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput

__all__ = ["FORMS", "make"]


def make(spec: str | Encoder | None) -> Encoder | None:
    """The encoder that ``spec`` names (see ``FORMS``). None or ``"none"`` gives None; an Encoder comes back as it is.

    Each shipped encoder has a ``spec`` that makes it again; no key or password is in it. Raises InvalidInput naming
    ``encoder`` for an unknown spec, and what the encoder's constructor raises.
    """
    if spec is None or spec == "none":
        return None
    if not isinstance(spec, str):
        if isinstance(spec, Encoder):
            return spec
        raise InvalidInput("encoder", f"{type(spec).__name__} is not an encoder", mend=_MEND)
    kind, colon, rest = spec.partition(":")
    if kind not in _KINDS or (colon and not rest):
        raise InvalidInput("encoder", f"{spec!r} is unknown", mend=_MEND)
    return _KINDS[kind](rest)


def _minilm(rest: str) -> Encoder:
    from memspan.encoders.minilm import BertEncoder

    return BertEncoder(rest or None)


def _minilm_fp32(rest: str) -> Encoder:
    from memspan.encoders.minilm import BertEncoder

    return BertEncoder(rest or None, precision="fp32")


def _hash(rest: str) -> Encoder:
    from memspan.encoders.hash import HashEncoder

    if rest and not (rest.isascii() and rest.isdecimal()):
        raise InvalidInput("encoder", f"{rest!r} is not a dimension", mend="write hash:256")
    return HashEncoder(int(rest)) if rest else HashEncoder()


def _http(rest: str) -> Encoder:
    from memspan.encoders.http import HttpEncoder

    model, at, url = rest.rpartition("@http")  # a model's name may hold an @ and a colon
    if not (model and at):
        raise InvalidInput("encoder", f"{'http:' + rest!r} lacks a model or an address", mend=f"write {FORMS['http']}")
    return HttpEncoder("http" + url, model)


def _sentence_transformers(rest: str) -> Encoder:
    from memspan.encoders.sentence_transformers import SentenceTransformersEncoder

    if not rest:
        raise InvalidInput("encoder", "no model is named", mend=f"write {FORMS['sentence-transformers']}")
    return SentenceTransformersEncoder(rest)


_KINDS: Final[Mapping[str, Callable[[str], Encoder]]] = {
    "minilm": _minilm,
    "minilm-fp32": _minilm_fp32,
    "hash": _hash,
    "http": _http,
    "sentence-transformers": _sentence_transformers,
}

FORMS: Final[Mapping[str, str]] = {
    "minilm": "minilm or minilm:DIRECTORY",
    "minilm-fp32": "minilm-fp32 or minilm-fp32:DIRECTORY",
    "hash": "hash or hash:DIM",
    "http": "http:MODEL@http://HOST:PORT/v1",
    "sentence-transformers": "sentence-transformers:NAME",
    "none": "none",
}
"""How each encoder is written."""

_MEND: Final = "give one of: " + "; ".join(FORMS.values()) + "; or an object with the methods of an Encoder"
