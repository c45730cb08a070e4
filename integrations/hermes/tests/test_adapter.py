"""The adapter against Hermes' own base class, in Hermes' own interpreter: nothing of it is shadowed by accident."""

import os
import subprocess
from pathlib import Path

import backchannel_hermes

SCRIPT = """
import inspect, sys
sys.path[:0] = sys.argv[1:]
from gateway.platform_registry import PlatformEntry, platform_registry
from gateway.config import PlatformConfig
from gateway.platforms.base import BasePlatformAdapter
import backchannel_hermes
backchannel_hermes._find_client()
from backchannel_hermes.turns import TurnLog
platform_registry.register(PlatformEntry(
    name="backchannel", label="Backchannel", adapter_factory=None, check_fn=lambda: True))
from backchannel_hermes.adapter import BackchannelAdapter

class Bare(BasePlatformAdapter):
    connect = disconnect = send = get_chat_info = None

from gateway.config import Platform
bare = Bare(PlatformConfig(enabled=True), Platform("backchannel"))
ours = BackchannelAdapter(PlatformConfig(enabled=True), TurnLog())
shadowed = {n for n in vars(ours) if n in vars(bare) and type(vars(bare)[n]) is not type(vars(ours)[n])}
shadowed |= {n for n in vars(ours).keys() - vars(bare).keys() if hasattr(BasePlatformAdapter, n)}
assert not shadowed, shadowed
for name, method in vars(BackchannelAdapter).items():
    base = getattr(BasePlatformAdapter, name, None)
    if inspect.isfunction(method) and inspect.isfunction(base) and not name.startswith("__"):
        wanted = [p for p in inspect.signature(base).parameters.values() if p.kind is not p.VAR_KEYWORD]
        has = inspect.signature(method).parameters
        takes_all = any(q.kind is q.VAR_KEYWORD for q in has.values())
        missing = [p.name for p in wanted if p.name not in has and not takes_all]
        assert not missing, (name, missing)
print("fits")
"""


def test_the_adapter_fits_hermes_base_class(hermes: str, tmp_path: Path) -> None:
    import backchannel

    python = os.path.join(os.path.dirname(os.path.realpath(hermes)), "python")
    roots = [str(Path(module.__file__ or "").parents[1]) for module in (backchannel_hermes, backchannel)]
    done = subprocess.run(
        [python, "-c", SCRIPT, *roots], env={**os.environ, "HERMES_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("fits"), done.stderr[-2000:]
