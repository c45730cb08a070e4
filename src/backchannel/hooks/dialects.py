"""What each program calls its moments, what it reads as an answer, and what an agent in it can and cannot do.

One engine serves all three, because they ask at the same five moments. On the fast path: no imports.
"""

# The moments, as they stand in `backchannel hook DIALECT EVENT`.
SESSION_START = "session-start"  # a window opens, resumes, or begins anew
PROMPT = "prompt"  # a turn begins
TOOL = "tool"  # between a tool and the next request to the model
STOP = "stop"  # the turn is about to end
SESSION_END = "session-end"
WAIT = "wait"  # no moment: the process that waits for mail while the program is idle
EVENTS = (SESSION_START, PROMPT, TOOL, STOP, SESSION_END, WAIT)


class Dialect:
    """One program's words.

    `names` maps our moments to its events. `proofs` are the moments which show that the model was asked with all that
    earlier hooks had put before it: only they are evidence. `refusal` is its word for "the turn does not end yet".
    `chars_max` bounds the text of one answer, since a longer one is put into a file, of which the model sees the top.
    `waking` is how an idle window gets a turn: `rewake` (the program runs our waiter and heeds its end), `queue` (the
    waiter runs the program's own command for that), or "" (not at all).
    """

    __slots__ = ("chars_max", "name", "names", "proofs", "refusal", "title", "waking")

    def __init__(
        self,
        name: str,
        title: str,
        names: dict[str, str],
        proofs: tuple[str, ...],
        refusal: str,
        chars_max: int,
        waking: str,
    ) -> None:
        self.name = name
        self.title = title
        self.names = names
        self.proofs = proofs
        self.refusal = refusal
        self.chars_max = chars_max
        self.waking = waking

    def context(self, event: str, text: str) -> "dict[str, object]":
        """The answer that puts `text` before the model."""
        return {"hookSpecificOutput": {"hookEventName": self.names[event], "additionalContext": text}}

    def go_on(self, text: str) -> "dict[str, object]":
        """The answer that lets the turn go on with `text`."""
        return {"decision": self.refusal, "reason": text}


DIALECTS = {
    "claude": Dialect(
        "claude",
        "Claude Code",
        {
            SESSION_START: "SessionStart",
            PROMPT: "UserPromptSubmit",
            TOOL: "PostToolBatch",  # once for all calls of one answer of the model; PostToolUse comes for each
            STOP: "Stop",
            SESSION_END: "SessionEnd",
        },
        (TOOL, STOP),
        "block",
        9_000,  # of 10,000
        "rewake",
    ),
    "codex": Dialect(
        "codex",
        "Codex",
        {
            SESSION_START: "SessionStart",
            PROMPT: "UserPromptSubmit",
            TOOL: "PostToolUse",
            STOP: "Stop",
            SESSION_END: "SessionEnd",
        },
        (STOP,),  # two tools may be two calls of one answer: the second shows nothing
        "block",
        6_000,  # of 2,500 tokens
        "queue",
    ),
    "gemini": Dialect(
        "gemini",
        "Gemini CLI",
        {
            SESSION_START: "SessionStart",
            PROMPT: "BeforeAgent",
            TOOL: "AfterTool",
            STOP: "AfterAgent",
            SESSION_END: "SessionEnd",
        },
        (STOP,),
        "deny",
        9_000,
        "",
    ),
}
