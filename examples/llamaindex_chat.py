"""A LlamaIndex chat that recalls other chats of its user: `pip install "memspan[llamaindex]"`; no key, no network."""

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import MockLLM

from memspan import Memory
from memspan.integrations.llamaindex import MemspanMemory

with Memory(":memory:") as memory:  # a directory keeps it
    for session, said in (("monday", "My cat is called Tom."), ("tuesday", "What is my cat called?")):
        chat = MemspanMemory.of(memory, session=session, user_id="ana")
        engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=chat)  # repeats all that it is asked
        print(f"--- {session}\n{engine.chat(said)}")
