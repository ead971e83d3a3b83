"""What the requests and answers of OpenAI's two chat APIs say, and where memory goes into them.

Sources: https://platform.openai.com/docs/api-reference/chat and /responses; server-sent events after
https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

from memspan.quotation import stripped

TEXTS: Final = ("text", "input_text", "output_text")
SHORT: Final = 40  # characters: a message this short leans on the one before it ("and where does she live?")
LONGEST_QUERY: Final = 1_000  # characters: of a longer message its two ends, where people put what they want
ENDED: Final = ("stop", "length", "tool_calls", "function_call")
_LINE: Final = re.compile(rb"\r\n|\r|\n")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation. ``text``: its text parts, a line each; "" where it has none."""

    role: Literal["user", "assistant", "other"]
    text: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said. ``ended``: it came to its end, and was one answer, not several to choose from."""

    text: str
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One of the two APIs: its ``path``; the member of a request that holds the ``conversation``; how it calls a
    ``part`` of a message that is text; and how an answer is read, at once or from the events of a stream."""

    path: str
    conversation: str
    part: str
    at_once: Callable[[Json], Answer]
    streamed: Callable[[Iterable[Json]], Answer]

    def turns(self, body: Json) -> list[Turn]:
        """The messages of a request in order; nothing where they are laid out in no known way."""
        said = body.get(self.conversation)
        if isinstance(said, str):
            return [Turn(role="user", text=said)]
        return [_turn(item) for item in said] if isinstance(said, list) else []

    def with_block(self, body: Json, block: str) -> dict[str, Any]:
        """The request with ``block`` in front of the last message of the user's, in the shape that this has."""
        said = body[self.conversation]
        if isinstance(said, str):
            return {**body, self.conversation: f"{block}\n\n{said}"}
        at = max(index for index, item in enumerate(said) if _turn(item).role == "user")
        content = said[at].get("content")
        parts = [{"type": self.part, "text": block}, *content] if isinstance(content, list) else f"{block}\n\n{content}"
        return {**body, self.conversation: [*said[:at], {**said[at], "content": parts}, *said[at + 1 :]]}

    def answer(self, raw: bytes, *, events: bool) -> Answer:
        """What an answer says, ``events`` for a stream of them; nothing, not ended, where it cannot be read."""
        try:
            return self.streamed(_events(raw)) if events else self.at_once(json.loads(raw))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return Answer(text="", ended=False)  # of a server with ways of its own


def said_anew(turns: Sequence[Turn]) -> list[Turn]:
    """What the user says that no request held before: clients send the whole conversation each time, so it is what
    follows the last answer. An answer at the very end was only begun, for the model to go on with."""
    end = len(turns)
    while end and turns[end - 1].role == "assistant":
        end -= 1
    begin = end
    while begin and turns[begin - 1].role != "assistant":
        begin -= 1
    return [turn for turn in turns[begin:end] if turn.role == "user" and turn.text.strip()]


def query(turns: Sequence[Turn]) -> str:
    """What to search for: the user's last words, with those before where they are too few to be understood alone."""
    said = [left for turn in turns if turn.role == "user" and (left := stripped(turn.text).text.strip())]
    words = said[-1] if said else ""
    if len(words) < SHORT and len(said) > 1:
        words = f"{said[-2]}\n{words}"
    half = LONGEST_QUERY // 2
    return words if len(words) <= LONGEST_QUERY else f"{words[:half]} … {words[-half:]}"


def _turn(item: Any) -> Turn:
    if not isinstance(item, Mapping):
        return Turn(role="other", text="")
    role = item.get("role")
    if role is None and isinstance(kind := item.get("type"), str):  # what the model made, or what a tool returned
        role = "tool" if kind.endswith("_output") else "assistant"
    name = item.get("name")
    return Turn(
        role=role if role in ("user", "assistant") else "other",
        text=_text(item.get("content")),
        name=name if isinstance(name, str) and name.strip() else None,
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") in TEXTS]
    return "\n".join(text for text in texts if isinstance(text, str))


def _events(raw: bytes) -> Iterator[Json]:
    """The JSON objects of a stream of events; what was cut off in the middle of one is left out."""
    for said, lines in groupby(_LINE.split(raw), key=bool):
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:")) if said else b""
        if data.strip() not in (b"", b"[DONE]"):
            try:
                event = json.loads(data)
            except ValueError:
                continue
            if isinstance(event, Mapping):
                yield event


def _completion(body: Json) -> Answer:
    (choice,) = body["choices"]  # of several nobody knows which one the client goes on with
    return Answer(text=_text(choice["message"].get("content")), ended=choice.get("finish_reason") in ENDED)


def _completion_chunks(events: Iterable[Json]) -> Answer:
    text, ended = list[str](), False
    for event in events:
        for choice in event.get("choices") or ():
            if choice.get("index", 0) != 0:
                return Answer(text="", ended=False)
            text.append(_text((choice.get("delta") or {}).get("content")))
            ended = ended or choice.get("finish_reason") in ENDED
    return Answer(text="".join(text), ended=ended)


def _response(body: Json) -> Answer:
    items = [item for item in body.get("output") or () if item.get("type") == "message"]
    text = "\n".join(filter(None, (_text(item.get("content")) for item in items)))
    return Answer(text=text, ended=body.get("status", "completed") in ("completed", "incomplete"))


def _response_events(events: Iterable[Json]) -> Answer:
    text, last = list[str](), Answer(text="", ended=False)
    for event in events:
        if event.get("type") == "response.output_text.delta":
            text.append(event["delta"])
        elif event.get("type") in ("response.completed", "response.incomplete"):
            last = _response(event.get("response") or {})
    return Answer(text=last.text or "".join(text), ended=last.ended)


DIALECTS: Final = (
    Dialect(
        path="/chat/completions",
        conversation="messages",
        part="text",
        at_once=_completion,
        streamed=_completion_chunks,
    ),
    Dialect(
        path="/responses",
        conversation="input",
        part="input_text",
        at_once=_response,
        streamed=_response_events,
    ),
)
