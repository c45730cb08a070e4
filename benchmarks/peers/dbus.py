"""D-Bus: a method call through a bus of our own, and its reply; through dbus-fast."""

import asyncio
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from ..bench import Bench, Samples, timed_await
from ..helper import ready
from ..sizes import TEXT

NAME, PATH, INTERFACE = "org.example.Echo", "/org/example/Echo", "org.example.Echo"

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"""


def calls(bench: Bench) -> Samples:
    """A call to another process, and its reply; nothing is stored."""

    async def main(address: str) -> Samples:
        bus = await _connected(address)
        call = Message(destination=NAME, path=PATH, interface=INTERFACE, member="Echo", signature="s", body=[TEXT])

        async def once() -> None:
            call.serial = bus.next_serial()
            reply = await bus.call(call)
            assert reply.body == [TEXT]

        found = await timed_await(once, bench.sizes.slow_messages)
        bus.disconnect()
        return found

    address = _bus(bench)
    bench.helper(f"{__name__}:echo", address)
    return asyncio.run(main(address))


def echo(address: str) -> None:
    """A role: answers every call with its argument."""

    async def main() -> None:
        bus = await _connected(address)

        def answer(message: Any) -> Any:
            if message.message_type is MessageType.METHOD_CALL and message.interface == INTERFACE:
                return Message.new_method_return(message, "s", message.body)
            return None

        bus.add_message_handler(answer)
        await bus.request_name(NAME)
        ready()
        await bus.wait_for_disconnect()

    asyncio.run(main())


def _bus(bench: Bench) -> str:
    path = bench.path("bus")
    config = bench.folder / "bus.conf"
    config.write_text(CONFIG.format(path=path))
    bench.server(bench.tool("dbus-daemon"), "--nofork", f"--config-file={config}", address=path)
    return f"unix:path={path}"


async def _connected(address: str) -> Any:
    return await MessageBus(bus_address=address, bus_type=BusType.SESSION).connect()
