"""Who calls: every conversation with a daemon once (`calls`), two drivers, and the two front ends over them.

Everything optional (plugins, servers, gateways) uses what stands here and nothing deeper. No msgspec: a client runs in
anybody's interpreter. The names are found when first used, as in `backchannel` itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .adapters import Adapter
    from .aio import AsyncAgent, AsyncDelivery, AsyncReceipt
    from .aiosessions import AsyncRequest, AsyncSession
    from .blocking import Agent, Delivery, Receipt
    from .records import AgentInfo, acting_on
    from .render import UNTRUSTED, heading, quoted, rendered
    from .sessionrecords import Result, SessionRecord
    from .sessions import Request, Session

_HOMES = {
    "Adapter": "adapters",
    "Agent": "blocking",
    "AgentInfo": "records",
    "AsyncAgent": "aio",
    "AsyncDelivery": "aio",
    "AsyncReceipt": "aio",
    "AsyncRequest": "aiosessions",
    "AsyncSession": "aiosessions",
    "Delivery": "blocking",
    "Receipt": "blocking",
    "Request": "sessions",
    "Result": "sessionrecords",
    "Session": "sessions",
    "SessionRecord": "sessionrecords",
    "UNTRUSTED": "render",
    "acting_on": "records",
    "heading": "render",
    "quoted": "render",
    "rendered": "render",
}
__all__ = [
    "UNTRUSTED",
    "Adapter",
    "Agent",
    "AgentInfo",
    "AsyncAgent",
    "AsyncDelivery",
    "AsyncReceipt",
    "AsyncRequest",
    "AsyncSession",
    "Delivery",
    "Receipt",
    "Request",
    "Result",
    "Session",
    "SessionRecord",
    "acting_on",
    "heading",
    "quoted",
    "rendered",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
