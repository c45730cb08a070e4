"""A commit as it goes over the wire, and its answer as receipts in the order of what was asked for.

A text for a session travels among the `says`, one for a name among the `sends`; an answer to a session's data is its
ack and a text in that session.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import LocalProtocolError
from .records import DeliveryRecord, traced
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
        self._closes = [close if isinstance(close, tuple) else (close,) for close in closes]
        self._are_said: list[bool] = []  # in the order of the receipts: it is a text in a session
        lists: dict[str, list[dict[str, Any]]] = {
            "acks": [_ack(delivery, evidence) for delivery in self._acks],
            "replies": [],
            "sends": [],
            "says": [],
            "closes": [_closing(*close) for close in self._closes],
        }
        for delivery, text in self._replies:
            is_said = delivery.kind == "data"
            self._are_said.append(is_said)
            if not is_said:
                reply = {"id": delivery.id, **delivery._token(), "text": text}
                lists["replies"].append(reply if headers is None else {**reply, "headers": headers})
            elif not headers:
                lists["acks"].append(_ack(delivery, evidence))
                lists["says"].append({"session": delivery.session, "text": text})
            else:
                raise LocalProtocolError(
                    "a text in a session has no headers", code="bad_params", hint="reply without them"
                )
        for to, text in sends:
            self._are_said.append(not isinstance(to, str))
            if isinstance(to, str):
                lists["sends"].append({"to": to, "text": text, **traced(me)})
            else:
                lists["says"].append({"session": to.id, "text": text})
        self.lists = {name: asked for name, asked in lists.items() if asked}

    def receipts(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One for each reply, then for each send, as they were asked for. Marks as settled what is."""
        sent, said = iter(answer["sends"]), iter(answer.get("says", ()))
        for delivery in self._acks:
            delivery.is_settled = True
        for delivery, _ in self._replies:
            delivery.is_settled = True
        for close, record in zip(self._closes, answer.get("closes", ()), strict=False):
            if isinstance(close[0], SessionBase):
                close[0]._learn(record)
            else:
                close[0].raw = record
        return [as_receipt(next(said)) if is_text else next(sent) for is_text in self._are_said]


def _ack(delivery: DeliveryRecord, evidence: str) -> dict[str, Any]:
    return {"id": delivery.id, **delivery._token(), "evidence": evidence}


def _closing(session: Some, text: str = "", status: str = "ok") -> dict[str, Any]:
    return {"session": session.id, "text": text, "status": status}
