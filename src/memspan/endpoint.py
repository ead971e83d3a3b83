"""One address of a server, to which JSON is posted: keys, retries, timeouts, and errors that say what to do.

Source: ``Retry-After`` after RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from memspan.errors import InvalidInput, MemspanError

if TYPE_CHECKING:
    import httpx

_LONGEST_WAIT: Final = 30.0
_PASSING: Final = {408, 425, 429}
_KEYS: Final = {
    "api.openai.com": ("MEMSPAN_API_KEY", "OPENAI_API_KEY"),
    "api.jina.ai": ("JINA_API_KEY",),
    "api.cohere.com": ("CO_API_KEY",),
}
"""The variables that hold the key of a server; it is sent to that server by https, and nowhere else."""
_URL: Final = "give one such as http://localhost:11434/v1"
_MENDS: Final = {
    400: "see what the server says; a text may be too long for the model, then give a smaller window",
    401: "give the right api_key",
    403: "give an api_key that may use this model",
    404: "check the model's name and the address, which mostly ends in /v1",
    429: "wait, or give a smaller batch",
}


class Endpoint:
    """``base_url`` with ``path`` appended to it, asked about ``model`` (None: the server has one only).

    ``error``: the class of the errors that ``post`` and ``error`` make. ``api_key``: sent as a bearer token; when None,
    the variables of ``_KEYS`` are asked, so that a server named by a store or a setting gets no other server's key.
    ``timeout``: seconds for each step of a request. ``retries``: how often a request is repeated after 408, 425, 429,
    5xx, a timeout or a lost connection; ``delay``: seconds before the first repetition, doubled each time up to 30,
    with jitter, and never less than Retry-After asks for within those 30.

    Safe to use from many threads. Raises InvalidInput.
    """

    def __init__(
        self,
        base_url: str,
        path: str,
        model: str | None,
        *,
        error: type[MemspanError],
        api_key: str | None,
        timeout: float,
        retries: int,
        delay: float,
    ) -> None:
        import httpx

        try:
            url = httpx.URL(base_url.rstrip("/"))
        except (httpx.InvalidURL, AttributeError, TypeError) as problem:
            raise InvalidInput("base_url", f"{base_url!r} is not an address", mend=_URL) from problem
        if url.userinfo or url.query or url.fragment:
            raise InvalidInput("base_url", "it holds a password, a query or a fragment", mend="give api_key instead")
        if url.scheme not in ("http", "https") or not url.host:
            raise InvalidInput("base_url", f"{base_url!r} is not an address", mend=_URL)
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise InvalidInput("model", f"{model!r} names no model", mend="give its name as the server knows it")
        for name, number in (("retries", retries), ("delay", delay)):
            if not number >= 0:
                raise InvalidInput(name, f"{number!r} is too small", mend="give 0 or more")
        if not timeout > 0:
            raise InvalidInput("timeout", f"{timeout!r} is not above 0", mend="give seconds")
        self.base_url = str(url)
        self.url = self.base_url + path
        self._model = model
        self._error = error
        self._timeout = timeout
        self._retries = retries
        self._delay = delay
        if api_key is None and url.scheme == "https":
            api_key = next(filter(None, map(os.environ.get, _KEYS.get(url.host, ()))), None)
        self._key = api_key
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def post(self, body: Mapping[str, Any]) -> httpx.Response:
        """The answer, of status 200, to ``body``; asked again while a failure may pass. Raises ``error``."""
        import httpx

        for attempt in range(self._retries + 1):
            cause: Exception | None = None
            asked = 0.0
            try:
                response = self._connected().post(self.url, json=body)
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
                cause = error
                late = isinstance(error, httpx.TimeoutException)
                failure = self.error(
                    f"did not answer within {self._timeout} s" if late else f"cannot be reached ({error})",
                    "give a longer timeout or a smaller batch" if late else "start the server, or correct the address",
                )
            except httpx.HTTPError as error:
                raise self.error(f"cannot be asked ({error})", "correct the address") from error
            else:
                status = response.status_code
                if status == 200:
                    return response
                failure = self.error(
                    f"answered {status}: {self.excerpt(response)}",
                    _MENDS.get(status, "see the server's log" if status >= 500 else "check the address and the model"),
                )
                if status < 500 and status not in _PASSING:
                    raise failure
                asked = retry_after(response.headers.get("Retry-After", ""))
            if attempt == self._retries:
                raise failure from cause
            wait = self._delay * 2**attempt * random.uniform(0.5, 1.0)
            time.sleep(min(max(wait, asked), _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections; the next ``post`` opens them again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def excerpt(self, response: httpx.Response) -> str:
        """The beginning of an answer as an error may show it: without the key."""
        text = " ".join(response.text[:1000].split())
        return repr((text.replace(self._key, "***") if self._key else text)[:200])

    def error(self, problem: str, mend: str) -> MemspanError:
        """The error that says so of this address."""
        about = "" if self._model is None else f" (model {self._model!r})"
        return self._error(f"{self.url}{about} {problem}", mend=mend)

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                self._client = httpx.Client(timeout=self._timeout, headers=headers)
                weakref.finalize(self, self._client.close)
            return self._client


def retry_after(value: str) -> float:
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
