"""Scores from any server with a ``/rerank``: Jina, Cohere, vLLM, llama.cpp, and Text Embeddings Inference.

Sources: https://jina.ai/reranker (the form most others speak); the API of text-embeddings-inference for ``tei``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.running import sound
from memspan.endpoint import Endpoint
from memspan.errors import InvalidInput, RerankerError
from memspan.rerankers.base import probabilities

if TYPE_CHECKING:
    import httpx


class HttpReranker:
    """A reranking model behind HTTP.

    ``base_url``: what ``/rerank`` is appended to, such as ``http://localhost:8000/v1``. ``model``: as the server calls
    it; None for Text Embeddings Inference, which has one and another form of question. ``logits``: whether the server's
    numbers are logits, as llama.cpp's are; else they must be in [0, 1]. ``api_key``: sent as a bearer token; when None,
    JINA_API_KEY is asked for https://api.jina.ai and CO_API_KEY for https://api.cohere.com, and no other server is sent
    any. ``batch``: texts per request, 32 as TEI takes no more unless it is told to. ``timeout``, ``retries`` and
    ``delay`` as in ``memspan.endpoint``, less patient than an encoder's: somebody waits for the search, and it can do
    without.

    Nothing is sent before the first ``rerank``. Blank texts are never sent and score 0. Safe to use from many threads.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None,
        *,
        logits: bool = False,
        api_key: str | None = None,
        batch: int = 32,
        timeout: float = 10.0,
        retries: int = 1,
        delay: float = 0.25,
    ) -> None:
        self._endpoint = Endpoint(
            base_url,
            "/rerank",
            model,
            error=RerankerError,
            api_key=api_key,
            timeout=timeout,
            retries=retries,
            delay=delay,
        )
        if not batch >= 1:
            raise InvalidInput("batch", f"{batch!r} is too small", mend="give 1 or more")
        self.model = model
        self.base_url = self._endpoint.base_url
        self.logits = logits
        kind = "http-logits" if logits else "http"
        self.id = f"{kind}-{model}" if model is not None else f"tei-{self.base_url}"
        self.spec = f"{kind}:{model}@{self.base_url}" if model is not None else f"tei:{self.base_url}"
        self._batch = batch

    def __repr__(self) -> str:
        return f"HttpReranker({self.base_url!r}, {self.model!r})"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n] in [0, 1], in the order of ``texts``.

        Raises RerankerError when the server cannot be reached, refuses, or answers with anything but one number for
        each text, in [0, 1] unless they are logits.
        """
        scores = np.zeros(len(texts), np.float32)
        asked = [i for i, text in enumerate(texts) if text.strip()]
        for start in range(0, len(asked), self._batch):
            part = asked[start : start + self._batch]
            scores[part] = self._request(sound(query), [sound(texts[i]) for i in part])
        return scores

    def close(self) -> None:
        """Close the connections; the next ``rerank`` opens them again."""
        self._endpoint.close()

    def _request(self, query: str, texts: list[str]) -> NDArray[np.float32]:
        if self.model is None:
            body: dict[str, Any] = {"query": query, "texts": texts}
        else:
            body = {"model": self.model, "query": query, "documents": texts}
        response = self._endpoint.post(body)
        numbers = self._numbers(response, len(texts))
        if self.logits:
            return probabilities(numbers, self.id)
        if numbers.min() < 0 or numbers.max() > 1:
            form = "write http-logits: in place of http:, or give logits=True"
            problem = f"answered with scores from {numbers.min():.4g} to {numbers.max():.4g}, which are logits"
            raise self._endpoint.error(problem, form if self.model is not None else "start it without raw scores")
        return numbers.astype(np.float32)

    def _numbers(self, response: httpx.Response, n: int) -> NDArray[np.float64]:
        """float64[n] as the server gave them, in the order of the texts."""
        try:
            answer = response.json()
            items = answer["results"] if isinstance(answer, dict) else answer
            order = [item["index"] for item in items]
            numbers = np.array(
                [item["relevance_score"] if "relevance_score" in item else item["score"] for item in items], np.float64
            )
        except (ValueError, KeyError, TypeError) as error:
            problem = f"answered with no scores: {self._endpoint.excerpt(response)}"
            raise self._endpoint.error(problem, _COMPATIBLE) from error
        if not all(isinstance(i, int) for i in order) or sorted(order) != list(range(n)):
            raise self._endpoint.error(f"answered with the indices {order[:8]} for {n} texts", _COMPATIBLE)
        if numbers.shape != (n,) or not np.isfinite(numbers).all():
            raise self._endpoint.error("answered with scores that are not finite", _COMPATIBLE)
        scores = np.empty(n)
        scores[np.array(order, np.int64)] = numbers
        return scores


_COMPATIBLE: Final = (
    "the server must speak the rerank API of Jina and Cohere, or with tei: that of TEI; check the address"
)
