"""Who calls: every conversation with a daemon once (`calls`), two drivers, and the two front ends over them.

Everything optional (plugins, servers, gateways) uses what stands here and nothing deeper. No msgspec: a client runs in
anybody's interpreter. The names are found when first used, as in `backchannel` itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .aio import AsyncAgent, AsyncDelivery, AsyncReceipt
    from .blocking import Agent, Delivery, Receipt
    from .records import AgentInfo

__all__ = ["Agent", "AgentInfo", "AsyncAgent", "AsyncDelivery", "AsyncReceipt", "Delivery", "Receipt"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = "aio" if name.startswith("Async") else "records" if name == "AgentInfo" else "blocking"
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
