"""A language model that is asked to write: the port, and any server with an OpenAI-compatible ``/chat/completions``.

None is needed. Where one is given, it writes beside what was said and never in its place: see ``memspan.facts``.

Source: https://platform.openai.com/docs/api-reference/chat, as Ollama, vLLM, llama.cpp and others speak it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from memspan.endpoint import Endpoint
from memspan.errors import InvalidInput, LLMError

if TYPE_CHECKING:
    import httpx

FORM: Final = "http:MODEL@http://HOST:PORT/v1"
"""How a language model is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model answered. ``ended``: it had "finished", was "cut" off at the most tokens it may write, or "refused".

    ``tokens_in`` and ``tokens_out`` as the server counted them, None where it does not say.
    """

    text: str
    ended: Literal["finished", "cut", "refused"] = "finished"
    tokens_in: int | None = None
    tokens_out: int | None = None


@runtime_checkable
class LLM(Protocol):
    """A language model. ``id`` names it in what it wrote."""

    @property
    def id(self) -> str: ...

    def complete(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Completion:
        """The answer to ``messages`` ``{"role", "content"}``, of at most ``max_tokens``. Raises LLMError."""


class ChatEndpoint:
    """A chat model behind HTTP.

    ``base_url``: what ``/chat/completions`` is appended to, such as ``http://localhost:11434/v1``. ``model``: as the
    server calls it. ``api_key``: sent as a bearer token; when None, the variables of ``memspan.endpoint`` are asked, by
    https and for the server they belong to alone. ``temperature``: 0 for the likeliest answer, None for the server's
    own. ``extra``: more of the request's body, such as ``{"seed": 1}``. ``timeout``, ``retries`` and ``delay`` as in
    ``memspan.endpoint``.

    Nothing is sent before the first ``complete``. Safe to use from many threads.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        extra: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
        retries: int = 2,
        delay: float = 1.0,
    ) -> None:
        if not isinstance(model, str):
            raise InvalidInput("model", f"{model!r} names no model", mend="give its name as the server knows it")
        self._endpoint = Endpoint(
            base_url,
            "/chat/completions",
            model,
            error=LLMError,
            api_key=api_key,
            timeout=timeout,
            retries=retries,
            delay=delay,
        )
        self.model = model
        self.base_url = self._endpoint.base_url
        self.id = f"http-{model}"
        self.spec = f"http:{model}@{self.base_url}"
        told = {} if temperature is None else {"temperature": temperature}
        self._body = {"model": model, "stream": False, **told, **(extra or {})}
        # OpenAI's newer models take their limit under this name alone, most other servers know the older one alone
        self._limit = "max_completion_tokens" if self.base_url.startswith("https://api.openai.com") else "max_tokens"

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.base_url!r}, {self.model!r})"

    def complete(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Completion:
        """One request. Raises LLMError when the server cannot be reached, does not answer, fails, or answers with
        anything but a message."""
        body = {**self._body, self._limit: max_tokens, "messages": [dict(message) for message in messages]}
        response = self._endpoint.post(body)
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
            used = answer.get("usage") or {}
            tokens = [used.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._unread(response) from error
        if not isinstance(text, str | None) or (text is None and not refusal and reason != "content_filter"):
            raise self._unread(response)
        refused = bool(refusal) or reason == "content_filter"
        tokens_in, tokens_out = (n if isinstance(n, int) and n >= 0 else None for n in tokens)
        return Completion(
            text=text or "",
            ended="refused" if refused else "cut" if reason == "length" else "finished",
            tokens_in=tokens_in,
            tokens_out=tokens_out,
        )

    def close(self) -> None:
        """Close the connections; the next ``complete`` opens them again."""
        self._endpoint.close()

    def _unread(self, response: httpx.Response) -> Exception:
        problem = f"answered with no message: {self._endpoint.excerpt(response)}"
        mend = "the server must speak the OpenAI chat API; check the address, which mostly ends in /v1"
        return self._endpoint.error(problem, mend)


def make(spec: str | LLM | None) -> LLM | None:
    """The model that ``spec`` names (see ``FORM``). None or ``"none"`` gives None; an LLM comes back as it is.

    No key or password is in a spec. Raises InvalidInput naming ``llm``.
    """
    if spec is None or spec == "none":
        return None
    mend = f"write {FORM} or none, or give an object with the members of an LLM"
    if not isinstance(spec, str):
        if isinstance(spec, LLM):
            return spec
        raise InvalidInput("llm", f"{type(spec).__name__} is not a language model", mend=mend)
    kind, _, rest = spec.partition(":")
    model, at, url = rest.rpartition("@http")  # a model's name may hold an @ and a colon
    if kind != "http" or not (model and at):
        raise InvalidInput("llm", f"{spec!r} is unknown", mend=mend)
    return ChatEndpoint("http" + url, model)
