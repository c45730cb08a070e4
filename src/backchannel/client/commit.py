"""A commit as it goes over the wire, and its answer as receipts in the order of what was asked for.

A text for a session travels among the `says`, one for a name among the `sends`; an answer to a session's data is its
ack and a text in that session.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import LocalProtocolError
from .records import DeliveryRecord, traced, without_none
from .sessioncalls import as_receipt
from .sessionrecords import SessionBase, SessionRecord

Reply = tuple[DeliveryRecord, str]
Some = SessionBase | SessionRecord  # a session, held by this process or only looked at
Send = tuple[str | Some, str]
Close = Some | tuple[Some, str] | tuple[Some, str, str]


class Commit:
    """What is asked for: acks, replies, sends, closes. `lists` are the params of `commit`."""

    def __init__(
        self,
        me: str,
        acks: Iterable[DeliveryRecord] = (),
        replies: Iterable[Reply] = (),
        sends: Iterable[Send] = (),
        closes: Iterable[Close] = (),
        headers: Mapping[str, str] | None = None,
        evidence: str = "ack",
    ) -> None:
        self._acks = list(acks)
        self._replies = list(replies)
        self._sends = list(sends)
        self._closes = [close if isinstance(close, tuple) else (close,) for close in closes]
        answered = [d for d, _ in self._replies if d.kind == "data"]
        if answered and headers:
            raise LocalProtocolError("a text in a session has no headers", code="bad_params", hint="reply without them")
        lists: dict[str, list[dict[str, Any]]] = {
            "acks": [{"id": d.id, **d._token(), "evidence": evidence} for d in (*self._acks, *answered)],
            "replies": [
                without_none({"id": d.id, **d._token(), "text": text, "headers": headers})
                for d, text in self._replies
                if d.kind != "data"
            ],
            "sends": [{"to": to, "text": text, **traced(me)} for to, text in self._sends if isinstance(to, str)],
            "says": [
                *({"session": d.session, "text": text} for d, text in self._replies if d.kind == "data"),
                *({"session": to.id, "text": text} for to, text in self._sends if not isinstance(to, str)),
            ],
            "closes": [_closing(*close) for close in self._closes],
        }
        self.lists = {name: asked for name, asked in lists.items() if asked}

    def receipts(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each reply, then for each send, as they were asked for. Marks as settled what is."""
        sent, said = iter(answer["sends"]), iter(answer.get("says", ()))
        is_said = [d.kind == "data" for d, _ in self._replies] + [not isinstance(to, str) for to, _ in self._sends]
        for delivery in (*self._acks, *(d for d, _ in self._replies)):
            delivery.is_settled = True
        for close, record in zip(self._closes, answer.get("closes", ()), strict=False):
            if isinstance(close[0], SessionBase):
                close[0]._learn(record)
            else:
                close[0].raw = record
        return [as_receipt(next(said)) if is_text else next(sent) for is_text in is_said]


def _closing(session: Some, text: str = "", status: str = "ok") -> dict[str, Any]:
    return {"session": session.id, "text": text, "status": status}
