"""An OpenAI agent that recalls other chats: `pip install "memspan[openai-agents]"`; no key, no network."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from memspan import Memory
from memspan.integrations.openai_agents import MemspanSession


class Scripted(Model):
    """Tells what it was asked with; any model of the SDK does."""

    async def get_response(self, system_instructions: str | None, input: Any, *rest: Any, **more: Any) -> ModelResponse:
        said = f"I read {len(input)} items. {system_instructions}"
        text = ResponseOutputText(text=said, type="output_text", annotations=[])
        message = ResponseOutputMessage(id="1", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *rest: Any, **more: Any) -> AsyncIterator[Any]:
        raise RuntimeError("this model does not stream")


async def main() -> None:
    set_tracing_disabled(True)
    with Memory(":memory:") as memory:  # a directory keeps it
        for name, said in (("monday", "I live in Lisbon."), ("monday", "I am Ana."), ("tuesday", "Where do I live?")):
            session = MemspanSession(name, memory, user_id="ana")
            agent = Agent(name="assistant", instructions=session.instructions("You are helpful."), model=Scripted())
            answer = await Runner.run(agent, said, session=session)
            print(f"--- {name}: {said}\n{answer.final_output}")


asyncio.run(main())
