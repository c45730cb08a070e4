"""`service install --system`: a uid for each agent, from the first file to a message between two of them.

In a mount namespace of its own, whose /etc, /run and /var/lib are thrown away. sysusers and tmpfiles are the real ones,
the manager is `systemctl.py`. Needs root, and an interpreter that every user may run.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..world import World

SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
for place in etc var/lib; do
    mkdir -p "$1/$place" "$1/work/$place"
    mount -t overlay -o "lowerdir=/$place,upperdir=$1/$place,workdir=$1/work/$place" overlay "/$place"
done
mount -t tmpfs -o mode=755 tmpfs /run
shift
exec "$@"
"""

STORY = """
import json, os, stat, subprocess, sys, time
PROGRAM = "from backchannel.cli.main import main; main()"
def cli(*words, agent=None):
    command, env = [sys.executable, "-P", "-c", PROGRAM, *words], dict(os.environ)
    if agent:
        command = ["setpriv", f"--reuid=bc-{agent}", "--regid=backchannel", "--clear-groups", *command]
        env |= {"BACKCHANNEL_DIR": "/run/backchannel", "BACKCHANNEL_STATE": f"/var/lib/backchannel/{agent}"}
        env |= {"BACKCHANNEL_AGENT": agent}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=120)
    return f"{done.returncode} {(done.stdout + done.stderr).strip()}"
said = {"install": cli("service", "install", "alice", "bob", "--system")}
if not said["install"].startswith("0 "):
    print(json.dumps(said))
    sys.exit()
modes = {}
for path in ("alice", "alice/inbox.sock", "alice/control.sock"):
    status = os.stat(f"/run/backchannel/{path}")
    modes[path] = f"{stat.S_IMODE(status.st_mode):04o}"
said["modes"] = modes
said["send"] = cli("send", "bob", "hello", "--json", agent="alice")
said["recv"] = cli("recv", "--json", "--wait", "10", agent="bob")
said["control"] = cli("status", "--json", "--as", "bob", agent="alice")
said["again"] = cli("service", "install", "alice", "bob", "--system")
said["status"] = cli("service", "status", "alice", "--system", "--json")
said["policy"] = open("/etc/backchannel/policy.toml").read()
said["uninstall"] = cli("service", "uninstall", "alice", "bob", "--system")
said["journal"] = open(os.environ["SYSTEMCTL_FOLDER"] + "/journal").read()
said["left"] = sorted(name for name in os.listdir("/etc/systemd/system") if name.startswith("backchannel"))
print(json.dumps(said))
"""


@pytest.mark.proof
@pytest.mark.timeout(180)  # a dozen commands, one after another
def test_two_agents_with_uids_of_their_own(world: World, other_uid: list[str]) -> None:
    for program in ("unshare", "systemd-sysusers", "systemd-tmpfiles"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    folder, programs = world.root / "manager", world.root / "bin"
    for path in (folder, programs, world.root / "layer"):
        path.mkdir()
    (programs / "systemctl").symlink_to(Path(__file__).with_name("systemctl.py"))
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "SYSTEMCTL_FOLDER": str(folder)}
    env["SYSTEMCTL_UNITS"] = "/etc/systemd/system"
    inside = ["unshare", "-m", "/bin/sh", "-c", SETUP, "sh", str(world.root / "layer")]
    if subprocess.run([*inside, "true"], env=env, capture_output=True, check=False).returncode:
        pytest.skip("no overlay may be mounted here")
    done = subprocess.run(
        [*inside, sys.executable, "-P", "-c", STORY], env=env, capture_output=True, text=True, check=False, timeout=160
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if "cannot be used by other users" in said["install"]:
        pytest.skip(said["install"])
    assert said["install"] == "0 alice  installed\nbob  installed", said
    assert said["modes"] == {"alice": "2750", "alice/inbox.sock": "0660", "alice/control.sock": "0600"}
    assert '"stage":"stored"' in said["send"], said
    assert '"from":"alice"' in said["recv"]
    assert '"text":"hello"' in said["recv"]
    assert said["control"].startswith("7 "), "bob's own socket is bob's"
    assert said["again"] == "0 alice  is a service already\nbob  is a service already"
    assert json.loads(said["status"].removeprefix("0 "))["service"] == "inactive", "nobody has connected to alice"
    assert 'alice = "bc-alice"' in said["policy"]
    assert said["uninstall"] == "0 alice  uninstalled\nbob  uninstalled"
    assert said["left"] == []
    assert "bob is served in /run/backchannel/bob" in said["journal"]
