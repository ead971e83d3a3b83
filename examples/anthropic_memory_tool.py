"""Claude's memory tool over a memory: `pip install "memspan[anthropic]"`; no key, no network.

The model is a script on this machine that the real client talks to: with a key, leave `base_url=` out.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from anthropic import Anthropic

from memspan import Memory
from memspan.integrations.anthropic import MemspanMemoryTool

SCRIPT = iter(
    [
        {"command": "view", "path": "/memories"},
        {"command": "create", "path": "/memories/ana.md", "file_text": "# Ana\n\nDrinks green tea.\n"},
        {"command": "str_replace", "path": "/memories/ana.md", "old_str": "green", "new_str": "black"},
        {"command": "view", "path": "/memories/../etc/passwd"},
        None,
    ]
)


class Scripted(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        for result in asked if isinstance(asked, list) else []:
            print("error:" if result.get("is_error") else "result:", result["content"])
        command = next(SCRIPT)
        print("command:", command)
        use = {"type": "tool_use", "id": "toolu_1", "name": "memory", "input": command}
        content = [use] if command else [{"type": "text", "text": "I will remember that."}]
        stop = "tool_use" if command else "end_turn"
        about = {"id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "stop_reason": stop}
        body = json.dumps({**about, "content": content, "usage": {"input_tokens": 1, "output_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about: object) -> None:
        pass


with Memory(":memory:") as memory, HTTPServer(("127.0.0.1", 0), Scripted) as server:  # a directory keeps the memory
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Anthropic(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}") as client:
        runner = client.beta.messages.tool_runner(
            model="scripted",
            max_tokens=1_000,
            messages=[{"role": "user", "content": "I drink black tea."}],
            tools=[MemspanMemoryTool(memory)],
        )
        print("answer:", runner.until_done().content[0].text)
    server.shutdown()
    print("found:", memory.search("what does Ana drink?")[0].text)
