"""Vectors from any server with an OpenAI-compatible ``/v1/embeddings``: OpenAI, Ollama, vLLM, llama.cpp.

Source: https://platform.openai.com/docs/api-reference/embeddings; ``Retry-After`` after RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.base import Encoded
from memspan.errors import EncoderError, InvalidInput
from memspan.segmenting import Tokenizer, WordTokenizer

if TYPE_CHECKING:
    import httpx

_LONGEST_WAIT: Final = 30.0
_PASSING: Final = {408, 425, 429}
_MENDS: Final = {
    400: "see what the server says; a text may be too long for the model, then give a smaller window",
    401: "give the right api_key",
    403: "give an api_key that may use this model",
    404: "check the model's name and the address, which mostly ends in /v1",
    429: "wait, or give a smaller batch",
}


class HttpEncoder:
    """An embedding model behind HTTP. There are no token activations.

    ``base_url``: what ``/embeddings`` is appended to, such as ``http://localhost:11434/v1``. ``model``: as the server
    calls it. ``api_key``: sent as a bearer token; when None, the variables MEMSPAN_API_KEY and OPENAI_API_KEY are
    asked, but only for https://api.openai.com, so that opening a store never sends a key to a server named in it.
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
        import httpx

        try:
            url = httpx.URL(base_url.rstrip("/"))
        except (httpx.InvalidURL, AttributeError, TypeError) as error:
            raise InvalidInput("base_url", f"{base_url!r} is not an address", mend=_URL) from error
        if url.userinfo or url.query or url.fragment:
            raise InvalidInput("base_url", "it holds a password, a query or a fragment", mend="give api_key instead")
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidInput("base_url", f"{base_url!r} is not an address", mend=_URL)
        if not isinstance(model, str) or not model.strip():
            raise InvalidInput("model", f"{model!r} names no model", mend="give its name as the server knows it")
        for name, number, least in (
            ("dim", 1 if dim is None else dim, 1),
            ("batch", batch, 1),
            ("retries", retries, 0),
            ("delay", delay, 0),
            ("window", window, 1),
        ):
            if not number >= least:
                raise InvalidInput(name, f"{number!r} is too small", mend=f"give {least} or more")
        if not timeout > 0:
            raise InvalidInput("timeout", f"{timeout!r} is not above 0", mend="give seconds")
        self.model = model
        self.base_url = str(url)
        self.id = f"http-{model}"
        self.spec = f"http:{model}@{self.base_url}"
        self.window = window
        self.tokenizer: Tokenizer = tokenizer or WordTokenizer()
        self._url = f"{self.base_url}/embeddings"
        self._dim = dim
        self._batch = batch
        self._timeout = timeout
        self._retries = retries
        self._delay = delay
        if api_key is None and (url.scheme, url.host) == ("https", "api.openai.com"):
            api_key = os.environ.get("MEMSPAN_API_KEY") or os.environ.get("OPENAI_API_KEY")
        self._key = api_key
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

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
            vectors = self._request([texts[i].encode("utf-8", "replace").decode() for i in part])
            if vectors.shape[1] != pooled.shape[1]:
                raise self._error(
                    f"answered with {vectors.shape[1]} dimensions instead of {pooled.shape[1]}",
                    f"give dim={vectors.shape[1]}, or the model that was meant",
                )
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            pooled[part] = vectors / np.where(norms > 0, norms, 1)
        return Encoded(pooled)

    def close(self) -> None:
        """Close the connections; the next ``encode`` opens them again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _request(self, texts: list[str]) -> NDArray[np.float64]:
        """One request, repeated while its failure may pass → float64[n, dim] as the server gave them."""
        import httpx

        for attempt in range(self._retries + 1):
            cause: Exception | None = None
            asked = 0.0
            try:
                response = self._connected().post(self._url, json={"model": self.model, "input": texts})
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                cause = error
                late = isinstance(error, httpx.TimeoutException)
                failure = self._error(
                    f"did not answer within {self._timeout} s" if late else f"cannot be reached ({error})",
                    "give a longer timeout or a smaller batch" if late else "start the server, or correct the address",
                )
            except httpx.HTTPError as error:
                raise self._error(f"cannot be asked ({error})", "correct the address") from error
            else:
                status = response.status_code
                if status == 200:
                    return self._vectors(response, len(texts))
                failure = self._error(
                    f"answered {status}: {self._excerpt(response)}",
                    _MENDS.get(status, "see the server's log" if status >= 500 else "check the address and the model"),
                )
                if status < 500 and status not in _PASSING:
                    raise failure
                asked = _retry_after(response.headers.get("Retry-After", ""))
            if attempt == self._retries:
                raise failure from cause
            wait = self._delay * 2**attempt * random.uniform(0.5, 1.0)
            time.sleep(min(max(wait, asked), _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _vectors(self, response: httpx.Response, n: int) -> NDArray[np.float64]:
        try:
            items = response.json()["data"]
            order = [item.get("index", place) for place, item in enumerate(items)]
            vectors = np.array([item["embedding"] for item in items], np.float64)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._error(f"answered with no embeddings: {self._excerpt(response)}", _COMPATIBLE) from error
        if not all(isinstance(i, int) for i in order) or sorted(order) != list(range(n)):
            raise self._error(f"answered with the indices {order[:8]} for {n} texts", _COMPATIBLE)
        if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
            raise self._error("answered with numbers that are not finite or with no vector", _COMPATIBLE)
        sorted_vectors = np.empty_like(vectors)
        sorted_vectors[np.array(order, np.int64)] = vectors
        return sorted_vectors

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                self._client = httpx.Client(timeout=self._timeout, headers=headers)
                weakref.finalize(self, self._client.close)
            return self._client

    def _excerpt(self, response: httpx.Response) -> str:
        text = " ".join(response.text[:1000].split())
        return repr((text.replace(self._key, "***") if self._key else text)[:200])

    def _error(self, problem: str, mend: str) -> EncoderError:
        return EncoderError(f"{self._url} (model {self.model!r}) {problem}", mend=mend)


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait, a number or a date; 0 when there is none to be read."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        then: Any = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return float(max((then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0))


_URL: Final = "give one such as http://localhost:11434/v1"
_COMPATIBLE: Final = "the server must speak the OpenAI embeddings API; check the address, which mostly ends in /v1"
