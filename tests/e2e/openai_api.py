"""A model server on loopback with OpenAI's two APIs, as the frameworks speak them, and one mind.

The mind asks another agent what it was asked, by the tool it was given, and answers with what it heard. Every request
is kept, since what stands there is what a framework put before its model.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOL = "ask_agent"
ARGUMENTS = {"name": "critic", "question": "is it any good?"}


class Model:
    """The server. `seen` are the bodies of its requests, oldest first."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.model = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="model").start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.model.seen.append(body)  # type: ignore[attr-defined]
        answer = _response(body) if self.path.endswith("/responses") else _completion(body)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    heard = [m["content"] for m in body["messages"] if m["role"] == "tool"]
    message: dict[str, Any] = {"role": "assistant", "content": _word(heard)}
    if not heard and body.get("tools"):
        call = {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": call}]}
    finish = "tool_calls" if "tool_calls" in message else "stop"
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": finish, "message": message, "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip


def _response(body: dict[str, Any]) -> dict[str, Any]:
    items = body["input"] if isinstance(body["input"], list) else []
    heard = [item["output"] for item in items if item.get("type") == "function_call_output"]
    output: dict[str, Any] = {
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": _word(heard), "annotations": []}],
    }  # fmt: skip
    if not heard and body.get("tools"):
        output = {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TOOL, "status": "completed",
            "arguments": json.dumps(ARGUMENTS),
        }  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": body["model"],
        "output": [output], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip


def _word(heard: list[Any]) -> str:
    return f"the critic says: {heard[-1]}" if heard else "I have no tools"
