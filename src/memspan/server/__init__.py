"""A memory over HTTP: REST, mem0's paths, MCP, an OpenAI-compatible proxy, and a page to look inside.

Each door parses, calls ``Memory`` in a worker thread, and formats. Needs ``memspan[server]``.
"""
