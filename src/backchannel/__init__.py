"""Backchannel: durable local messages between the agents on one machine, with receipts that tell the truth.

The public names, and nothing else. They are found when first used: the command line imports this package too, and
must not pay for what it does not need.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client.aio import AsyncAgent, AsyncDelivery, AsyncReceipt
    from .client.aiosessions import AsyncRequest, AsyncSession
    from .client.blocking import Agent, Delivery, Receipt
    from .client.sessions import Request, Session
    from .errors import (
        BackchannelError,
        LocalProtocolError,
        NotPermitted,
        OverLimit,
        PeerAbsent,
        Refused,
        RemoteProtocolError,
        TimedOut,
    )
    from .protocol.receipt import Stage

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AsyncAgent",
    "AsyncDelivery",
    "AsyncReceipt",
    "AsyncRequest",
    "AsyncSession",
    "BackchannelError",
    "Delivery",
    "LocalProtocolError",
    "NotPermitted",
    "OverLimit",
    "PeerAbsent",
    "Receipt",
    "Refused",
    "RemoteProtocolError",
    "Request",
    "Session",
    "Stage",
    "TimedOut",
    "__version__",
]

_HOMES = {
    "Agent": "client.blocking",
    "AsyncAgent": "client.aio",
    "AsyncDelivery": "client.aio",
    "AsyncReceipt": "client.aio",
    "AsyncRequest": "client.aiosessions",
    "AsyncSession": "client.aiosessions",
    "Delivery": "client.blocking",
    "Receipt": "client.blocking",
    "Request": "client.sessions",
    "Session": "client.sessions",
    "Stage": "protocol.receipt",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
