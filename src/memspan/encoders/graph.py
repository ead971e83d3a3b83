"""ONNX graphs written byte by byte: neither torch nor the ``onnx`` package is needed to build one.

An ONNX file is one protobuf message, and protobuf's wire format is small: a field is a varint ``number << 3 | kind``
followed by a varint (kind 0), four bytes (kind 5) or a length and that many bytes (kind 2).

Sources: the protobuf encoding (https://protobuf.dev/programming-guides/encoding) and ``onnx/onnx.proto`` for the
numbers of the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MICROSOFT = "com.microsoft"
_ELEMENT = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """One field of a message; a str or bytes (a nested message is its bytes) gets its length in front."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _message(*parts: tuple[int, Any]) -> bytes:
    """Fields in order; a list or tuple repeats its field."""
    out: list[bytes] = []
    for number, value in parts:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            out.append(_field(number, item))
    return b"".join(out)


def _attribute(name: str, value: int | float | str | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, 2))
    if isinstance(value, float):
        return _message((1, name), (2, value), (20, 1))
    if isinstance(value, str):
        return _message((1, name), (4, value), (20, 3))
    return _message((1, name), (8, list(value)), (20, 7))


def _value(name: str, dtype: str, shape: Sequence[str | int]) -> bytes:
    dims = [_message((2, d) if isinstance(d, str) else (1, d)) for d in shape]
    tensor = _message((1, _ELEMENT[dtype]), (2, _message((1, dims))))
    return _message((1, name), (2, _message((1, tensor))))


class Graph:
    """An ONNX graph in the making: ``constant`` and ``node`` return the names that later nodes take as inputs."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[str | int]) -> None:
        self._outputs.append(_value(name, dtype, shape))

    def constant(self, name: str, value: Array | np.generic) -> str:
        """Store ``value``, an array or one number, under ``name`` (little-endian, C order)."""
        array = np.asarray(value)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        element = _ELEMENT[array.dtype.name]
        self._constants[name] = _message((1, list(array.shape)), (2, element), (8, name), (9, array.tobytes()))
        return name

    def node(self, op: str, inputs: Iterable[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add operator ``op``; an empty name among ``inputs`` leaves an optional input out."""
        return self.nodes(op, inputs, [output], domain=domain, **attributes)[0]

    def nodes(
        self, op: str, inputs: Iterable[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """As ``node``, for an operator with several outputs."""
        attrs = [_attribute(k, v) for k, v in attributes.items()]
        self._nodes.append(_message((1, list(inputs)), (2, outputs), (3, outputs[0]), (4, op), (5, attrs), (7, domain)))
        return outputs

    def to_bytes(self, metadata: Mapping[str, str] | None = None) -> bytes:
        """The ONNX model: IR version 8, opset 17, ``com.microsoft`` version 1."""
        graph = _message(
            (1, self._nodes), (2, "bert"), (5, list(self._constants.values())), (11, self._inputs), (12, self._outputs)
        )
        opsets = [_message((1, ""), (2, 17)), _message((1, MICROSOFT), (2, 1))]
        pairs = [_message((1, k), (2, v)) for k, v in (metadata or {}).items()]
        return _message((1, 8), (2, "memspan"), (7, graph), (8, opsets), (14, pairs))
