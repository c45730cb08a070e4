"""Fake model servers on loopback: the three vendors' APIs as their command lines speak them, with minds that we write.

A mind is a function from the request that reached the model to what the model says or calls. Every request is kept: the
tests assert on those, since what stands there is what the real program put before its model.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

ANSWER_S = 60.0


class Say(NamedTuple):
    text: str


class Run(NamedTuple):
    """A call of the program's own shell tool."""

    command: str


class Use(NamedTuple):
    """A call of a server's tool; each program puts names of its own before `tool`."""

    tool: str
    arguments: dict[str, Any]


class Seen:
    """One request. `new` is what came after the model's last word: tool results, prompts, and what hooks added."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.path = path
        self.body = body
        self.whole = json.dumps(body, ensure_ascii=False)
        self.tools = _tools(body)

    def has(self, tool: str) -> bool:
        """Whether a server's tool is there already: servers start beside the first turn."""
        return any(name.startswith("mcp_") and name.endswith(f"_{tool}") for name in self.tools)

    @property
    def is_turn(self) -> bool:
        """A turn of the agent, and not the program's own errand (a title, a summary)."""
        return bool(self.tools)

    @property
    def new(self) -> str:
        items = self.body.get("messages") or self.body.get("input") or self.body.get("contents") or []
        fresh: list[Any] = []
        for item in reversed(items):
            is_model = item.get("role") in ("assistant", "model") or item.get("type") in _OF_MODEL
            if is_model:
                break
            fresh.insert(0, item)
        return json.dumps(fresh, ensure_ascii=False)


_OF_MODEL = ("function_call", "reasoning", "local_shell_call", "custom_tool_call")
Said = Say | Run | Use
Mind = Callable[[Seen], Said]


class Model:
    """The server. `mind` may be changed at any time; a request waits while `held` is set."""

    def __init__(self) -> None:
        self.mind: Mind = lambda seen: Say("fine")
        self.seen: list[Seen] = []
        self.other: list[str] = []  # requests that are none to a model
        self._news = threading.Condition()
        self.gate = threading.Event()
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.model = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="model").start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, seen: Seen) -> Said:
        with self._news:
            self.seen.append(seen)
            self._news.notify_all()
        self.gate.wait(ANSWER_S)
        return self.mind(seen) if seen.is_turn else Say("a title")

    def wait_for(self, part: str, timeout: float = ANSWER_S, *, after: int = 0) -> Seen:
        """The first request in whose new part this stands."""

        def found() -> Seen | None:
            return next((s for s in self.seen[after:] if s.is_turn and part in s.new), None)

        with self._news:
            seen = self._news.wait_for(found, timeout)
        assert seen is not None, f"{part!r} never reached the model; what did:\n" + "\n".join(
            f"{s.path}: {s.new[:600]}" for s in self.seen
        )
        return seen

    @property
    def turns(self) -> list[Seen]:
        return [s for s in self.seen if s.is_turn]

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


def _tools(body: dict[str, Any]) -> list[str]:
    tools = [one for tool in body.get("tools") or [] for one in tool.get("functionDeclarations") or [tool]]
    names = []
    for tool in tools:
        inside = tool.get("tools") if tool.get("type") == "namespace" else None  # how Codex shows a server's tools
        names += [f"{tool['name']}__{one['name']}" for one in inside or ()]
        names += [] if inside else [str(tool.get("name") or tool.get("type"))]
    return names


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _model(self) -> Model:
        model: Model = self.server.model  # type: ignore[attr-defined]
        return model

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._plain(200, {})

    def do_GET(self) -> None:
        self._model.other.append(f"GET {self.path}")
        self._plain(200, {"data": [], "models": [], "object": "list"})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        path = self.path.partition("?")[0]
        if path.endswith("/messages"):
            self._stream(_anthropic(self._model.take(Seen(path, body)), body))
        elif path.endswith("/responses"):
            self._stream(_openai(self._model.take(Seen(path, body)), body))
        elif path.endswith(":streamGenerateContent"):
            self._stream(_google(self._model.take(Seen(path, body)), body))
        elif path.endswith(":generateContent"):
            (_, event), *_ = _google(self._model.take(Seen(path, body)), body)
            self._plain(200, event)
        else:
            self._model.other.append(f"POST {self.path}")
            self._plain(200, {"input_tokens": 10, "totalTokens": 10})

    def _plain(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for name, event in events:
                head = f"event: {name}\n" if name else ""
                self.wfile.write(f"{head}data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
        except OSError:
            pass  # the program was killed: that is the test
        self.close_connection = True


# --- the three ways to say it -----------------------------------------------------------------------------------------


def _anthropic(said: Said, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {
        "id": _new("msg"), "type": "message", "role": "assistant", "model": body.get("model", "fake"), "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if isinstance(said, Say):
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta: dict[str, Any] = {"type": "text_delta", "text": said.text}
    else:
        name, arguments = _call(said, _tools(body), _claude_shell)
        block = {"type": "tool_use", "id": _new("call"), "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    reason = "end_turn" if isinstance(said, Say) else "tool_use"
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return [(str(event["type"]), event) for event in events]


def _openai(said: Said, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(said, Say):
        item: dict[str, Any] = {
            "type": "message", "id": _new("msg"), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": said.text, "annotations": []}],
        }  # fmt: skip
    else:
        name, arguments = _call(said, _tools(body), _codex_shell)
        item = {
            "type": "function_call", "id": _new("fc"), "call_id": _new("call"), "name": name,
            "arguments": json.dumps(arguments), "status": "completed",
        }  # fmt: skip
        if isinstance(said, Use):
            item["namespace"], _, item["name"] = name.rpartition("__")
    response_id = _new("resp")
    response: dict[str, Any] = {"id": response_id, "object": "response", "status": "completed", "output": [item]}
    response["usage"] = {
        "input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": response_id, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return [(str(event["type"]), event) for event in events]


Arguments = dict[str, Any]


def _call(
    said: Run | Use, tools: list[str], shell: Callable[[list[str], str], tuple[str, Arguments]]
) -> tuple[str, Arguments]:
    """A tool's name as the program gave it, and its arguments."""
    if isinstance(said, Run):
        return shell(tools, said.command)
    found = [name for name in tools if name.startswith("mcp_") and name.endswith(f"_{said.tool}")]
    assert len(found) == 1, f"{said.tool} is not one of {tools}"
    return found[0], said.arguments


def _claude_shell(tools: list[str], command: str) -> tuple[str, Arguments]:
    return "Bash", {"command": command, "description": "Run it"}


def _gemini_shell(tools: list[str], command: str) -> tuple[str, Arguments]:
    return "run_shell_command", {"command": command}


def _codex_shell(tools: list[str], command: str) -> tuple[str, dict[str, Any]]:
    if "exec_command" in tools:
        return "exec_command", {"cmd": command, "yield_time_ms": 30_000}
    if "shell_command" in tools:
        return "shell_command", {"command": command, "timeout_ms": 30_000}
    return "shell", {"command": ["bash", "-c", command], "timeout_ms": 30_000}


def _google(said: Said, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(said, Say):
        part: dict[str, Any] = {"text": said.text}
    else:
        name, arguments = _call(said, _tools(body), _gemini_shell)
        part = {"functionCall": {"name": name, "args": arguments, "id": _new("call")}}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    return [("", {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "fake"})]


_numbers = iter(range(1, 1_000_000))


def _new(kind: str) -> str:
    """An id of its own: messages of one id are one to the programs."""
    return f"{kind}_{next(_numbers)}"
