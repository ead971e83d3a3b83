"""Running ONNX graphs: the session of a process, exact bytes, and texts in batches of like length."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from memspan.encoders.graph import Graph

CHARACTERS: Final = 128
"""Characters read per token of a window; no text but one of endless words has so many."""

_BATCH_TOKENS: Final = 512
"""Tokens computed at once: as fast for each token as any more, and the arrays in between stay small."""

_orphans: list[Any] = []
_share: int | None = None


class Session:
    """An onnxruntime session, made when it is first asked for. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None
        self._process = 0

    def made(self, load: Callable[[], Any]) -> Any:
        """The session that ``load`` makes; a forked child makes its own, for threads do not survive a fork."""
        with self._lock:
            if self._made is None or self._process != os.getpid():
                if self._made is not None:
                    _orphans.append(self._made)  # freeing it in the child would wait for threads that are gone
                self._made, self._process = load(), os.getpid()
            return self._made


def options(threads: int | None) -> Any:
    """Options of a session for one process among others; None takes the cores this process may use."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads or cores()
    chosen.inter_op_num_threads = 1
    chosen.enable_mem_pattern = False  # it would keep a plan for each shape a batch ever had
    chosen.log_severity_level = 3
    # threads that spin while they wait take the cores from everybody else in the process and beside it
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return chosen


@cache
def saturates() -> bool:
    """Whether onnxruntime's u8 x s8 product is wrong on this machine, as it is on x86 without VNNI: 16-bit sums."""
    import onnxruntime

    graph = Graph()
    left = graph.input("x", "uint8", [8, 64])
    right = graph.constant("w", np.full((64, 64), 127, np.int8))
    graph.output(graph.node("MatMulInteger", [left, right], "y"), "int32", [8, 64])
    session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"x": np.full((8, 64), 255, np.uint8)})
    return bool((product != 255 * 127 * 64).any())


def exact_bytes(options: Any) -> Any:
    """``options`` of an onnxruntime session in which int8 products are exact on this machine too."""
    if saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")  # u8 x u8: half as fast
    return options


def sound(text: str) -> str:
    """``text`` with ? for each lone surrogate, which tokenizers refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of like lengths, so that little is padded, of at most ``_BATCH_TOKENS`` tokens each."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def cores() -> int:
    """How many cores this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, _share or there)


def share(cores: int) -> None:
    """Have the models that this process loads from now on use at most so many cores, as others run beside it."""
    global _share
    _share = cores
