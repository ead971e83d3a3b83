"""An OpenAI-compatible proxy: any client gets memory by changing its base URL.

A request goes to the upstream as it came, but for one block of quoted memory in front of the user's last message; the
answer comes back byte for byte; what was said is remembered after it. Where memory fails the chat goes on without it.
See docs/proxy.md.
"""

from memspan.server.proxy.routes import router

__all__ = ["router"]
