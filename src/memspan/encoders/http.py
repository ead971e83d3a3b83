"""Vectors from any server with an OpenAI-compatible ``/v1/embeddings``: OpenAI, Ollama, vLLM, llama.cpp.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.base import Encoded
from memspan.encoders.running import sound
from memspan.endpoint import Endpoint
from memspan.errors import EncoderError, InvalidInput
from memspan.segmenting import Tokenizer, WordTokenizer

if TYPE_CHECKING:
    import httpx


class HttpEncoder:
    """An embedding model behind HTTP. There are no token activations.

    ``base_url``: what ``/embeddings`` is appended to, such as ``http://localhost:11434/v1``. ``model``: as the server
    calls it. ``api_key``: sent as a bearer token; when None, the variables MEMSPAN_API_KEY and OPENAI_API_KEY are
    asked, but only for https://api.openai.com, so that opening a store never sends a key to a server named in it (see
    ``memspan.endpoint`` for this and other servers).
    ``dim``: what the vectors must have; None asks the server once. ``batch``: texts per request. ``timeout``: seconds
    for each step of a request. ``retries``: how often a request is repeated after 408, 425, 429, 5xx, a timeout or a
    lost connection; ``delay``: seconds before the first repetition, doubled each time up to 30, with jitter, and never
    less than Retry-After asks for within those 30. ``window``: tokens the model reads, counted by ``tokenizer`` (None
    counts words).

    Nothing is sent before the first use of ``dim`` or ``encode``. Safe to use from many threads.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        dim: int | None = None,
        batch: int = 64,
        timeout: float = 30.0,
        retries: int = 3,
        delay: float = 0.5,
        window: int = 512,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if not isinstance(model, str):
            raise InvalidInput("model", f"{model!r} names no model", mend="give its name as the server knows it")
        self._endpoint = Endpoint(
            base_url,
            "/embeddings",
            model,
            error=EncoderError,
            api_key=api_key,
            timeout=timeout,
            retries=retries,
            delay=delay,
        )
        for name, number in (("dim", 1 if dim is None else dim), ("batch", batch), ("window", window)):
            if not number >= 1:
                raise InvalidInput(name, f"{number!r} is too small", mend="give 1 or more")
        self.model = model
        self.base_url = self._endpoint.base_url
        self.id = f"http-{model}"
        self.spec = f"http:{model}@{self.base_url}"
        self.window = window
        self.tokenizer: Tokenizer = tokenizer or WordTokenizer()
        self._dim = dim
        self._batch = batch

    def __repr__(self) -> str:
        return f"HttpEncoder({self.base_url!r}, {self.model!r})"

    @property
    def dim(self) -> int:
        """Asked of the server once, by encoding one word. Raises EncoderError."""
        if self._dim is None:
            self._dim = len(self._request(["dimension"])[0])
        return self._dim

    def encode(self, texts: Sequence[str]) -> Encoded:
        """``texts`` in order → Encoded. Blank texts are not sent and give rows of zeros.

        Raises EncoderError when the server cannot be reached, refuses, or answers with anything but one finite vector
        of ``dim`` numbers for each text.
        """
        asked = [i for i, text in enumerate(texts) if text.strip()]
        pooled = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(asked), self._batch):
            part = asked[start : start + self._batch]
            vectors = self._request([sound(texts[i]) for i in part])
            if vectors.shape[1] != pooled.shape[1]:
                raise self._endpoint.error(
                    f"answered with {vectors.shape[1]} dimensions instead of {pooled.shape[1]}",
                    f"give dim={vectors.shape[1]}, or the model that was meant",
                )
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            pooled[part] = vectors / np.where(norms > 0, norms, 1)
        return Encoded(pooled)

    def close(self) -> None:
        """Close the connections; the next ``encode`` opens them again."""
        self._endpoint.close()

    def _request(self, texts: list[str]) -> NDArray[np.float64]:
        """One request → float64[n, dim] as the server gave them."""
        return self._vectors(self._endpoint.post({"model": self.model, "input": texts}), len(texts))

    def _vectors(self, response: httpx.Response, n: int) -> NDArray[np.float64]:
        try:
            items = response.json()["data"]
            order = [item.get("index", place) for place, item in enumerate(items)]
            vectors = np.array([item["embedding"] for item in items], np.float64)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._endpoint.error(
                f"answered with no embeddings: {self._endpoint.excerpt(response)}", _COMPATIBLE
            ) from error
        if not all(isinstance(i, int) for i in order) or sorted(order) != list(range(n)):
            raise self._endpoint.error(f"answered with the indices {order[:8]} for {n} texts", _COMPATIBLE)
        if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
            raise self._endpoint.error("answered with numbers that are not finite or with no vector", _COMPATIBLE)
        sorted_vectors = np.empty_like(vectors)
        sorted_vectors[np.array(order, np.int64)] = vectors
        return sorted_vectors


_COMPATIBLE: Final = "the server must speak the OpenAI embeddings API; check the address, which mostly ends in /v1"
