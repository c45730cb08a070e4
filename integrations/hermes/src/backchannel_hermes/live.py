"""The connected adapters of this process, by profile: where the model's tools find the gateway they run in."""

from typing import Any

adapters: dict[str, Any] = {}


def adapter_for(profile: str) -> Any:
    """None outside a gateway."""
    return adapters.get(profile) or next(iter(adapters.values()), None)
