"""A model server for tests, on loopback: what a real provider's API looks like to Hermes, with minds that we write.

A mind is a function from what reached the model to what it says or calls. The server remembers every request: the
tests assert on those, not on what was sent.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """One request that reached the model of an agent."""

    agent: str
    messages: list[dict[str, Any]]
    tools: list[str]

    @property
    def last(self) -> str:
        """The text of the last message, whoever said it (a tool, mostly, or the user)."""
        return _text(self.messages[-1])

    @property
    def role(self) -> str:
        return str(self.messages[-1]["role"])

    @property
    def user(self) -> str:
        """The text that this turn began with."""
        return next(_text(m) for m in reversed(self.messages) if m["role"] == "user")

    @property
    def system(self) -> str:
        return _text(self.messages[0])


class Say(NamedTuple):
    text: str


class Call(NamedTuple):
    tool: str
    arguments: dict[str, Any]


class Fail(NamedTuple):
    status: int = 500


Mind = Callable[[Seen], Say | Call | Fail]


class Model:
    """The server. `minds` by agent; `seen` is what reached it, oldest first."""

    def __init__(self) -> None:
        self.minds: dict[str, Mind] = {}
        self.seen: list[Seen] = []
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.model = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="model").start()

    def url(self, agent: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{agent}/v1"

    def of(self, agent: str) -> list[Seen]:
        return [seen for seen in list(self.seen) if seen.agent == agent]

    def wait_for(self, is_it: Callable[[Seen], bool], timeout: float = 30.0) -> Seen:
        """The first request that is it; waits for it to come."""
        with self._news:
            found = self._news.wait_for(lambda: next((s for s in self.seen if is_it(s)), None), timeout)
        assert found is not None, "this never reached a model; what did:\n" + "\n".join(
            f"{s.agent}: {s.role}: {s.last[:300]!r}" for s in self.seen
        )
        return found

    def wait_quiet(self, quiet_s: float = 0.3, timeout: float = 20.0) -> None:
        """Until nothing has reached it for a while: what a test left behind is over."""
        deadline = time.monotonic() + timeout
        count = -1
        while count != len(self.seen) and time.monotonic() < deadline:
            count = len(self.seen)
            time.sleep(quiet_s)

    def count(self, part: str, agent: str | None = None) -> int:
        """How many turns with this text have come to a model."""
        return sum(part in s.user and s.role == "user" for s in self.seen if agent in (None, s.agent))

    def answer(self, seen: Seen) -> Say | Call | Fail:
        with self._news:
            self.seen.append(seen)
            self._news.notify_all()
        return self.minds[seen.agent](seen)

    def forget(self) -> None:
        self.seen.clear()
        self.minds.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._json(
                200, {"object": "list", "data": [{"id": "fake-model", "object": "model", "context_length": 200000}]}
            )
        else:
            self._json(404, {"error": "not here"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            self._json(404, {"error": "not here"})
        elif not body.get("stream"):  # Hermes makes a title for each new session
            self._json(
                200, {"id": "t", "object": "chat.completion", "choices": [_choice("message", "A title", "stop")]}
            )
        else:
            tools = [tool["function"]["name"] for tool in body.get("tools") or []]
            agent = self.path.split("/")[1]
            self._stream(self._model.answer(Seen(agent, body["messages"], tools)))

    @property
    def _model(self) -> Model:
        model: Model = self.server.model  # type: ignore[attr-defined]
        return model

    def _stream(self, said: Say | Call | Fail) -> None:
        if isinstance(said, Fail):
            self._json(said.status, {"error": {"message": "the provider is down", "type": "server_error"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        if isinstance(said, Say):
            chunks: list[dict[str, Any]] = [{"role": "assistant", "content": said.text}]
            reason = "stop"
        else:
            call_id = f"call_{len(self._model.seen)}"  # Hermes drops what has the id of another
            function = {"name": said.tool, "arguments": ""}
            chunks = [
                {
                    "role": "assistant",
                    "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}],
                },
                {"tool_calls": [{"index": 0, "function": {"arguments": json.dumps(said.arguments)}}]},
            ]
            reason = "tool_calls"
        for chunk in chunks:
            self._event({"choices": [{"index": 0, "delta": chunk, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: dict[str, Any]) -> None:
        event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake-model", **event}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the gateway was killed meanwhile; that is the test


def _choice(kind: str, text: str, reason: str) -> dict[str, Any]:
    return {"index": 0, kind: {"role": "assistant", "content": text}, "finish_reason": reason}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
