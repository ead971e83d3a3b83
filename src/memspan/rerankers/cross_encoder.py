"""Any cross-encoder of sentence-transformers, by that library and torch: the extra ``sentence-transformers``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.running import sound
from memspan.errors import MissingExtra, RerankerError
from memspan.rerankers.base import probabilities


class CrossEncoderReranker:
    """``name``: a model on the Hugging Face hub, or a directory. ``device``: as torch calls it; None lets it choose.

    The model is loaded at once; its own activation is left out, as it is no sigmoid in some (ms-marco-MiniLM). Safe to
    use from many threads, which wait for one another. Raises MissingExtra when the library is not installed,
    RerankerError when the model cannot be loaded.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import CrossEncoder
            from torch.nn import Identity
        except ImportError as error:
            raise MissingExtra(
                "the reranker 'cross-encoder' needs the library sentence-transformers",
                mend="pip install 'memspan[sentence-transformers]'; 'onnx:DIRECTORY' needs none",
            ) from error
        self.name = name
        self.id = f"cross-encoder-{name}"
        self.spec = f"cross-encoder:{name}"
        try:
            self._model: Any = CrossEncoder(name, device=device)
        except Exception as error:  # the library's errors have no common root below Exception
            raise RerankerError(
                f"sentence-transformers cannot load the cross-encoder {name!r} ({error})",
                mend="give the name of a cross-encoder on huggingface.co, or a directory that holds one",
            ) from error
        known = inspect.signature(self._model.predict).parameters
        self._options = {"activation_fn" if "activation_fn" in known else "activation_fct": Identity()}  # till 3.x
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"CrossEncoderReranker({self.name!r})"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n] in [0, 1], in the order of ``texts``; each is cut to what the model reads.

        Raises RerankerError.
        """
        if not texts:
            return np.zeros(0, np.float32)
        pairs = [(sound(query), sound(text)) for text in texts]
        with self._lock:
            try:
                logits = self._model.predict(pairs, show_progress_bar=False, convert_to_numpy=True, **self._options)
            except Exception as error:  # torch and the model's own code raise what they like
                raise RerankerError(f"{self.name!r} cannot score {len(texts)} texts ({error})") from error
        return probabilities(logits, self.id)
