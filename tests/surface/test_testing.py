"""The private world that we give to users' own tests."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backchannel import Agent, PeerAbsent
from backchannel.testing import World, _is_alive

from .helpers import until

DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_ten_lines_of_the_document_run(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    (tmp_path / "test_mine.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_world_is_private_and_short(world: World) -> None:
    status = os.stat(world.directory)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.geteuid()
    assert len(f"{world.paths.sockets('x' * 40)}/control.sock") < 108


def test_code_that_knows_nothing_of_the_world_finds_it(world: World) -> None:
    with Agent("analyst") as me:
        me.send("analyst", "to myself")
    assert world.paths.registered() == ["analyst"]
    assert "1 waiting" in world.cli("agents").stdout


def test_a_process_lives_in_the_world_by_its_environment(world: World) -> None:
    world.up("analyst")
    code = "from backchannel import Agent; Agent('executor').send('analyst', 'hello')"
    subprocess.run([sys.executable, "-c", code], env=world.env, check=True, timeout=30)
    assert world.cli("recv", agent="analyst").stdout.endswith("hello\n")


def test_a_killed_daemon_is_gone_and_the_next_call_starts_another(world: World) -> None:
    world.up("analyst")
    assert world.kill("analyst") not in living(world)
    with pytest.raises(PeerAbsent):
        world.pid("analyst")
    world.agent("executor").send("analyst", "are you there?")
    assert world.pid("analyst") in living(world)


def test_a_process_whose_first_thread_is_dead_is_not_gone() -> None:
    code = (
        "import ctypes, sys, threading;"
        "threading.Thread(target=sys.stdin.read).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    stat_file = Path(f"/proc/{process.pid}/stat")
    until(lambda: stat_file.read_text().rpartition(")")[2].split()[0] == "Z", "the first thread dead")
    assert _is_alive(process.pid)
    process.kill()
    until(lambda: not _is_alive(process.pid), "all threads dead")
    process.communicate()


def test_a_stopped_daemon_is_gone_and_mail_starts_another(world: World) -> None:
    world.up("analyst")
    assert world.stop("analyst")
    assert not world.stop("analyst")
    assert world.agent("executor").send("analyst", "wake up").stage == "stored"


def test_nothing_is_left_behind() -> None:
    with World() as world:
        world.up("analyst", "executor")
        world.stop("executor")
        world.agent("analyst").send("executor", "starts its daemon on demand")
        assert {world.pid("analyst"), world.pid("executor")} <= set(living(world))
    assert living(world) == []
    assert not os.path.exists(world.directory)


def test_a_daemon_that_was_killed_while_it_started_is_started_again(world: World) -> None:
    world.up("analyst", "executor")
    world.stop("analyst")
    path = Path(world.paths.state("analyst", "run"))
    first = f"{world.directory}/first"
    dies_first = f'mkdir {first} 2>/dev/null && exit 1; exec "$@"'
    path.write_text(json.dumps(["/bin/sh", "-c", dies_first, "sh", *json.loads(path.read_text())]))
    assert world.agent("executor").send("analyst", "wake up").stage == "stored"
    assert os.path.isdir(first)


def test_a_daemon_is_one_process_and_no_shell_waits_for_it(world: World) -> None:
    world.up("analyst")
    until(lambda: living(world) == [world.pid("analyst")], "the daemon alone")


def test_the_world_works_where_pytest_is_not_installed() -> None:
    code = "import sys; sys.modules['pytest'] = None; from backchannel import testing; testing.World().close()"
    code += "; assert not hasattr(testing, 'backchannel_world')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def living(world: World) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if world.paths.state_dir in Path(f"/proc/{entry}/cmdline").read_text():
                found.append(int(entry))
        except OSError:
            pass
    return found
