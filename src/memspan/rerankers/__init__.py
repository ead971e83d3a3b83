"""The rerankers, and ``make``: the one place that knows them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from memspan.errors import InvalidInput
from memspan.rerankers.base import Reranker

__all__ = ["FORMS", "make"]


def make(spec: str | Reranker | None) -> Reranker | None:
    """The reranker that ``spec`` names (see ``FORMS``). None or ``"none"`` gives None; a Reranker comes back as it is.

    Each shipped reranker has a ``spec`` that makes it again; no key or password is in it. Raises InvalidInput naming
    ``reranker`` for an unknown spec, and what the reranker's constructor raises.
    """
    if spec is None or spec == "none":
        return None
    if not isinstance(spec, str):
        if isinstance(spec, Reranker):
            return spec
        raise InvalidInput("reranker", f"{type(spec).__name__} is not a reranker", mend=_MEND)
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS:
        raise InvalidInput("reranker", f"{spec!r} is unknown", mend=_MEND)
    if not rest:
        raise InvalidInput("reranker", f"{spec!r} names nothing", mend=f"write {FORMS[kind]}")
    return _KINDS[kind](rest)


def _onnx(rest: str) -> Reranker:
    from memspan.rerankers.onnx import OnnxReranker

    return OnnxReranker(rest)


def _cross_encoder(rest: str) -> Reranker:
    from memspan.rerankers.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(rest)


def _late(rest: str) -> Reranker:
    from memspan import encoders
    from memspan.rerankers.late import LateReranker

    encoder = encoders.make(rest)
    if encoder is None:
        raise InvalidInput("reranker", f"{'late:' + rest!r} names no encoder", mend=f"write {FORMS['late']}")
    return LateReranker(encoder)


def _http(rest: str, logits: bool = False) -> Reranker:
    from memspan.rerankers.http import HttpReranker

    model, at, url = rest.rpartition("@http")  # a model's name may hold an @ and a colon
    if not (model and at):
        form = FORMS["http-logits" if logits else "http"]
        raise InvalidInput("reranker", f"{rest!r} lacks a model or an address", mend=f"write {form}")
    return HttpReranker("http" + url, model, logits=logits)


def _tei(rest: str) -> Reranker:
    from memspan.rerankers.http import HttpReranker

    return HttpReranker(rest, None)


_KINDS: Final[Mapping[str, Callable[[str], Reranker]]] = {
    "onnx": _onnx,
    "cross-encoder": _cross_encoder,
    "late": _late,
    "http": _http,
    "http-logits": lambda rest: _http(rest, logits=True),
    "tei": _tei,
}

FORMS: Final[Mapping[str, str]] = {
    "onnx": "onnx:DIRECTORY",
    "cross-encoder": "cross-encoder:NAME",
    "late": "late:ENCODER",
    "http": "http:MODEL@http://HOST:PORT/v1",
    "http-logits": "http-logits:MODEL@http://HOST:PORT/v1",
    "tei": "tei:http://HOST:PORT",
    "none": "none",
}
"""How each reranker is written."""

_MEND: Final = "give one of: " + "; ".join(FORMS.values()) + "; or an object with the members of a Reranker"
