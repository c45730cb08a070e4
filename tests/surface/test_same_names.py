"""The blocking and the asyncio front end are one interface: the same names, the same arguments."""

import inspect
from types import FunctionType
from typing import Any

import pytest

from backchannel import (
    Agent,
    AsyncAgent,
    AsyncDelivery,
    AsyncReceipt,
    AsyncRequest,
    AsyncSession,
    Delivery,
    Receipt,
    Request,
    Session,
)

PAIRS = [
    (Agent, AsyncAgent),
    (Receipt, AsyncReceipt),
    (Delivery, AsyncDelivery),
    (Request, AsyncRequest),
    (Session, AsyncSession),
]
SAYS_MORE = {
    "send", "ask", "receive", "commit", "wait", "reply", "open", "requests", "session", "sessions", "accept", "reject",
    "close", "abort", "progress",
}  # fmt: skip


def public(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


def in_words(function: Any) -> str:
    """A signature, with the words that tell the two front ends apart taken out."""
    shown = str(inspect.signature(function))
    return shown.replace("Async", "").replace("client.aiosessions", "client.sessions").replace(".aio.", ".blocking.")


@pytest.mark.parametrize(("blocking", "asyncio"), PAIRS)
def test_the_names_are_the_same(blocking: type, asyncio: type) -> None:
    assert list(public(blocking)) == list(public(asyncio))


@pytest.mark.parametrize(("blocking", "asyncio"), PAIRS)
def test_the_signatures_are_the_same(blocking: type, asyncio: type) -> None:
    others = public(asyncio)
    for name, method in {"__init__": blocking.__init__, **public(blocking)}.items():  # type: ignore[misc]
        if isinstance(method, FunctionType):
            other = others.get(name, getattr(asyncio, name))
            assert in_words(method) == in_words(other), name


@pytest.mark.parametrize(("blocking", "asyncio"), PAIRS)
def test_what_waits_is_awaited(blocking: type, asyncio: type) -> None:
    del blocking
    for name, method in vars(asyncio).items():
        if isinstance(method, FunctionType) and not name.startswith("_"):
            assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


@pytest.mark.parametrize(("blocking", "asyncio"), PAIRS)
def test_everything_says_what_it_is_for(blocking: type, asyncio: type) -> None:
    for kind in (blocking, asyncio):
        assert kind.__doc__
        for name, method in vars(kind).items():
            if isinstance(method, FunctionType) and name in SAYS_MORE:
                assert method.__doc__, (kind, name)
