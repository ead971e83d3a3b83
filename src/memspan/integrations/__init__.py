"""memspan as the memory of other frameworks: one module each, which needs that framework.

    langgraph        MemspanStore: a BaseStore                          pip install "memspan[langgraph]"
    langchain        MemspanRetriever, MemspanVectorStore               pip install "memspan[langchain]"
    llamaindex       MemspanMemory, MemspanBlock                        pip install "memspan[llamaindex]"
    openai_agents    MemspanSession: a Session of the Agents SDK        pip install "memspan[openai-agents]"
    anthropic        MemspanMemoryTool: the backend of memory_20250818  pip install "memspan[anthropic]"

All take a ``Memory`` that is open, embedded or of a server, and leave closing it to their caller.
"""
