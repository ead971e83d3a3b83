"""Placeholder of the engine's author so that imports work: overwrite this file."""

from __future__ import annotations

from typing import Any

import numpy as np


class TreeView:
    name = "tree"
    failure: str | None = None

    def __init__(self, ledger: Any, directory: Any, dim: int) -> None:
        self.dim = dim

    def due(self, namespace: str) -> bool:
        return False

    def compact(self, namespace: str, *, force: bool = False, progress: Any = None) -> bool:
        return False

    def status(self, namespace: str) -> dict[str, Any]:
        return {"position": 0, "rows": 0, "tail": 0, "failure": None}

    def problems(self, namespace: str) -> list[str]:
        return []

    def size(self) -> int:
        return 0

    def prior(self, namespace: str, vector: Any, seqs: Any) -> Any:
        return np.full(len(seqs), np.nan, np.float32)

    def route(self, selection: Any, vector: Any, beam: int) -> Any:
        raise NotImplementedError
