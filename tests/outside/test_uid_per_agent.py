"""The system layout with real uids: each agent its own, a shared group, and root's word on who owns which name."""

import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backchannel import LocalProtocolError
from backchannel.transport.policy import read_policy

from ..conftest import can_change_uid
from ..world import Daemon, Link, World, eventually, request, stays

GROUP = 4100
ANALYST, EXECUTOR, MALLORY, ADA, OUTSIDER = 4001, 4002, 4003, 4004, 4005
OWNERS = {"analyst": ANALYST, "executor": EXECUTOR, "mallory": MALLORY}
EXIT_PERMISSION = 77
EXIT_CONFIG = 78


class System:
    """A machine on which root gave each agent a uid. STATE is each uid's own, DIR is root's."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.policy = world.root / "policy.toml"
        self.dir = world.dir
        world.root.chmod(0o711)
        world.state.mkdir(mode=0o711)
        world.state.chmod(0o711)
        self.dir.mkdir(mode=0o755)
        self.dir.chmod(0o755)
        for name, uid in OWNERS.items():
            self.give(self.dir / name, uid, 0o2750)
            self.state(uid)
        self.write_policy()

    def write_policy(self, **agents: object) -> None:
        found: dict[str, object] = {**OWNERS, **agents}
        lines = [f'dir = "{self.dir}"', f"group = {GROUP}", f"users = [{ADA}]", "[agents]"]
        lines += [f"{name} = {value}" for name, value in found.items()]
        self.policy.write_text("\n".join(lines) + "\n")
        self.policy.chmod(0o644)

    def give(self, path: Path, uid: int, mode: int) -> None:
        path.mkdir()
        os.chown(path, uid, GROUP)
        path.chmod(mode)

    def state(self, uid: int) -> Path:
        path = self.world.state / str(uid)
        if not path.exists():
            self.give(path, uid, 0o700)
        return path

    def environment(self, uid: int) -> dict[str, str]:
        self.state(uid)
        return self.world.environment() | {
            "BACKCHANNEL_STATE": str(self.state(uid)),
            "BACKCHANNEL_DIR": str(self.dir),
            "BACKCHANNEL_POLICY": str(self.policy),
            "HOME": str(self.state(uid)),
        }

    def spawn(self, name: str, uid: int | None = None) -> Daemon:
        uid = OWNERS[name] if uid is None else uid
        options = ["--state", str(self.state(uid)), "--dir", str(self.dir)]  # the later ones count
        return self.world.spawn(name, wrap=as_user(uid), env=self.environment(uid), options=options)

    def start(self, *names: str) -> dict[str, Daemon]:
        daemons = {name: self.spawn(name) for name in names}
        for daemon in daemons.values():
            self.world.await_answer(daemon)
        return daemons

    def cli(self, uid: int, *words: str, ok: bool = True, groups: int = GROUP) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-c", "import sys; from backchannel.cli.main import main; sys.exit(main())"]
        ran = subprocess.run(
            [*as_user(uid, groups), *command, *words], env=self.environment(uid), capture_output=True, text=True,
            timeout=30, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not ok or ran.returncode == 0, ran.stderr
        return ran

    def json(self, uid: int, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cli(uid, *words, "--json").stdout.splitlines()]

    def commit(self, uid: int, name: str, to: str, text: str) -> None:
        """Leaves a message in NAME's own outbox."""
        program = [*as_user(uid), sys.executable, "-c", COMMIT, name, to, text]
        subprocess.run(program, env=self.environment(uid), check=True, cwd="/", timeout=30)

    def ask(self, uid: int, name: str, method: str, params: dict[str, Any], which: str = "inbox") -> dict[str, Any]:
        """What a process of this uid is answered on the raw wire."""
        ran = subprocess.run(
            [*as_user(uid), sys.executable, "-c", ASK, f"{self.dir}/{name}/{which}.sock"],
            input=request(method, params).decode(), capture_output=True, text=True, timeout=30, cwd="/",
        )  # fmt: skip
        if ran.returncode:
            return {"error": {"data": {"code": ran.stderr.strip().splitlines()[-1].split(":")[0]}}}
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(sys.stdin.read().encode())
    with sock.makefile() as answers:
        print(answers.readline(), end="")
"""


COMMIT = """
import sys
from backchannel import Agent
with Agent(sys.argv[1]) as me:
    me.commit(sends=[(sys.argv[2], sys.argv[3])])
"""


def as_user(uid: int, group: int = GROUP) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={group}", "--clear-groups"]


def code(answer: dict[str, Any]) -> str:
    found: str = answer["error"]["data"]["code"]
    return found


def mode(path: Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.fixture
def system(world: World) -> System:
    if not can_change_uid():
        pytest.skip("needs root, setpriv, and an interpreter that others may run")
    return System(world)


# --- it works ---------------------------------------------------------------------------------------------------------


def test_the_inbox_is_the_groups_and_the_control_socket_the_owners(system: System) -> None:
    system.start("analyst")
    assert mode(system.dir / "analyst" / "inbox.sock") == (ANALYST, GROUP, 0o660)
    assert mode(system.dir / "analyst" / "control.sock") == (ANALYST, GROUP, 0o600)
    for file in (system.state(ANALYST) / "analyst").iterdir():
        assert mode(file)[2] == 0o600, file


@pytest.mark.proof
def test_agents_of_different_uids_send_ask_reply_and_commit(system: System) -> None:
    system.start("analyst", "executor")
    (sent,) = system.json(ANALYST, "send", "executor", "use port 8080", "--as", "analyst")
    assert sent["stage"] == "stored"
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--keep")
    assert (got["from"], got["text"], got["uid"]) == ("analyst", "use port 8080", ANALYST)
    assert system.cli(EXECUTOR, "reply", got["id"], "it is in use", "--as", "executor").stdout
    (answer,) = system.json(ANALYST, "recv", "--as", "analyst", "--wait", "20")
    assert (answer["from"], answer["text"], answer["reply_to"], answer["uid"]) == (
        "executor", "it is in use", sent["id"], EXECUTOR,
    )  # fmt: skip
    (receipt,) = system.json(ANALYST, "status", sent["id"], "--as", "analyst")
    assert receipt["stage"] == "done"


@pytest.mark.proof
def test_what_ends_undone_bounces_to_the_other_uid(system: System) -> None:
    system.start("analyst", "executor")
    system.commit(ANALYST, "analyst", "executor", "do it")
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--keep", "--wait", "20")
    system.cli(EXECUTOR, "reject", got["id"], "--reason", "busy", "--as", "executor")
    (bounce,) = system.json(ANALYST, "recv", "--as", "analyst", "--kind", "bounce", "--wait", "20")
    assert (bounce["reply_to"], bounce["text"]) == (got["id"], "busy")


@pytest.mark.proof
def test_a_session_between_two_uids_from_offer_to_result(system: System) -> None:
    system.start("analyst", "executor")
    opening = subprocess.Popen(
        [*as_user(ANALYST), sys.executable, "-c", OPEN], env=system.environment(ANALYST), text=True, cwd="/",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    (offer,) = system.json(EXECUTOR, "recv", "--as", "executor", "--kind", "offer", "--wait", "20")
    assert (offer["from"], offer["text"]) == ("analyst", "review it")
    system.cli(EXECUTOR, "accept", offer["session"], "--as", "executor")
    (data,) = system.json(EXECUTOR, "recv", "--as", "executor", "--kind", "data", "--wait", "20")
    assert data["text"] == "and quickly"
    system.cli(EXECUTOR, "close", offer["session"], "--result", "looks good", "--as", "executor")
    system.json(EXECUTOR, "recv", "--as", "executor", "--kind", "finished", "--wait", "20")
    said, _ = opening.communicate(timeout=30)
    assert said == "looks good\n"


OPEN = """
from backchannel import Agent
with Agent("analyst") as me:
    with me.open("executor", task="review it", timeout=20) as session:
        session.send("and quickly")
    session.wait(20)
    print(session.result.text)
"""


@pytest.mark.proof
def test_a_person_named_by_the_policy_pushes_as_user_and_reads_the_answer(system: System) -> None:
    system.start("executor")
    (sent,) = system.json(ADA, "send", "executor", "hello")
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--keep")
    assert (got["from"], got["uid"]) == ("@user", ADA)
    system.cli(EXECUTOR, "reply", got["id"], "hello Ada", "--as", "executor")
    (receipt,) = system.json(ADA, "status", sent["id"])
    assert (receipt["stage"], receipt["reply_text"]) == ("done", "hello Ada")


@pytest.mark.proof
def test_everybody_sees_who_is_there_and_whose_it_is(system: System) -> None:
    system.start("analyst", "executor")
    found = {agent["name"]: agent["online"] for agent in system.json(ANALYST, "agents")}
    assert found == {"analyst": True, "executor": True, "mallory": False}
    for words in (("up", "executor"), ("down", "executor"), ("remove", "executor")):
        refused = system.cli(ANALYST, *words, ok=False)
        assert refused.returncode == 7, refused
        assert "executor" in refused.stderr
    assert not (system.state(ANALYST) / "executor").exists()
    assert system.cli(ANALYST, "send", "executor", "still there?", "--as", "analyst").returncode == 0
    absent = system.cli(ANALYST, "send", "mallory", "x", "--as", "analyst", ok=False)
    assert absent.returncode == 5
    assert "its owner can start" in absent.stderr
    assert "executor: is another user's, and answers" in system.cli(ANALYST, "doctor", ok=False).stdout


@pytest.mark.proof
def test_mail_for_an_agent_that_does_not_run_waits_in_the_outbox(system: System) -> None:
    daemons = system.start("analyst", "executor")
    assert daemons["executor"].stop() == 0
    system.commit(ANALYST, "analyst", "executor", "later")
    assert stays(lambda: daemons["analyst"].is_running, during=0.3)
    system.start("executor")
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--wait", "40")
    assert got["text"] == "later"


@pytest.mark.proof
def test_a_removed_inbox_is_bound_again_as_it_was(system: System) -> None:
    daemon = system.start("analyst")["analyst"]
    os.unlink(system.dir / "analyst" / "inbox.sock")
    system.world.await_answer(daemon)
    assert mode(system.dir / "analyst" / "inbox.sock") == (ANALYST, GROUP, 0o660)


# --- and guards -------------------------------------------------------------------------------------------------------


def test_a_name_is_believed_only_from_its_own_uid(system: System) -> None:
    system.start("analyst", "executor")
    key = (system.state(ANALYST) / "analyst" / "key").read_text().strip()
    push = {"to": "executor", "text": "I am the analyst", "from": "analyst"}
    assert code(system.ask(MALLORY, "executor", "push", push)) == "not_permitted"
    assert code(system.ask(MALLORY, "executor", "push", push | {"auth": key})) == "not_permitted", "nor a stolen key"
    assert code(system.ask(ADA, "executor", "push", push | {"auth": key})) == "not_permitted"
    assert code(system.ask(0, "executor", "push", push | {"auth": key})) == "not_permitted", "not even root, by mistake"
    assert system.ask(ANALYST, "executor", "push", push)["result"]["from"] == "analyst", "its owner needs no key"
    assert system.ask(MALLORY, "executor", "push", push | {"from": "mallory"})["result"]["from"] == "mallory"
    assert len(system.json(EXECUTOR, "recv", "--as", "executor", "--max", "10")) == 2


@pytest.mark.proof
def test_a_session_belongs_to_the_uid_that_opened_it(system: System) -> None:
    daemons = system.start("analyst", "executor", "mallory")
    opened = system.cli(ANALYST, "open", "executor", "review it", "--as", "analyst", "--wait", "0", ok=False)
    (offer,) = system.json(EXECUTOR, "recv", "--as", "executor", "--kind", "offer", "--wait", "20")
    session = offer["session"]
    assert opened.returncode in (0, 4)
    mailbox_id = system.ask(ANALYST, "analyst", "ping", {})["result"]["mailbox_id"]
    for sender in ("analyst", "mallory"):
        frame = {
            "to": "executor", "from": sender, "kind": "RST", "session": session, "number": 0, "reason": "mine now",
            "from_mailbox": mailbox_id, "from_epoch": 0,
        }  # fmt: skip
        answer = system.ask(MALLORY, "executor", "frame", frame)
        assert "error" in answer or answer["result"]["outcome"] == "BAD", answer
    (record,) = system.json(EXECUTOR, "sessions", session, "--as", "executor")
    assert record["state"] == "SYN-RECEIVED"
    assert all(daemon.is_running for daemon in daemons.values())


def test_another_uid_learns_nothing_of_mail_that_is_not_its_own(system: System) -> None:
    system.start("analyst", "executor")
    (sent,) = system.json(ANALYST, "send", "executor", "private", "--as", "analyst")
    for method, params in (
        ("receipt", {}),
        ("wait", {"stage": "done", "timeout": 0}),
        ("cancel", {}),
        ("receipt", {"from": "analyst"}),
    ):
        assert code(system.ask(MALLORY, "executor", method, {"id": sent["id"]} | params)) == "no_such_message"
    # The same id of one's own is not in the way of it.
    own = {"to": "executor", "text": "mine", "id": sent["id"]}
    assert system.ask(MALLORY, "executor", "push", own)["result"]["from"] == "@user"
    assert system.ask(MALLORY, "executor", "receipt", {"id": sent["id"]})["result"]["from"] == "@user"
    assert system.ask(MALLORY, "executor", "cancel", {"id": sent["id"]})["result"]["stage"] == "cancelled"
    (receipt,) = system.json(ANALYST, "status", sent["id"], "--to", "executor", "--from", "analyst")
    assert receipt["stage"] == "stored"
    for method in ("take", "stop", "peek", "status", "pause"):
        assert code(system.ask(MALLORY, "executor", method, {})) == "unknown_method"
        assert code(system.ask(MALLORY, "executor", method, {}, "control")) == "PermissionError"


@pytest.mark.proof
def test_who_is_not_in_the_group_gets_nowhere_and_who_is_in_no_policy_is_refused(system: System) -> None:
    system.start("executor")
    outside = system.cli(OUTSIDER, "send", "executor", "x", ok=False, groups=OUTSIDER)
    assert outside.returncode == 7, outside.stderr
    inside = system.cli(OUTSIDER, "send", "executor", "x", ok=False)
    assert inside.returncode == 7
    assert "users" in inside.stderr
    assert code(system.ask(OUTSIDER, "executor", "ping", {})) == "not_permitted"


@pytest.mark.proof
def test_a_fake_daemon_at_a_name_gets_no_text(system: System) -> None:
    """Mallory somehow has a socket where the executor's is looked for. Nothing is sent to it, by nobody."""
    daemons = system.start("analyst")
    heard = system.dir / "executor" / "inbox.sock"
    fake = subprocess.Popen(
        [sys.executable, "-c", FAKE, str(heard), str(MALLORY)], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert fake.stdout
    assert fake.stdout.readline() == "listens\n"
    refused = system.cli(ANALYST, "send", "executor", "secret", "--as", "analyst", ok=False)
    assert refused.returncode == 7
    assert f"uid {MALLORY}" in refused.stderr
    system.commit(ANALYST, "analyst", "executor", "secret")
    assert stays(lambda: daemons["analyst"].is_running, during=0.5)
    fake.terminate()
    said, _ = fake.communicate(timeout=10)
    assert said.replace("connected\n", "") == ""
    os.unlink(heard)
    system.start("executor")
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--wait", "40")
    assert got["text"] == "secret", "and the true one has it at last"


FAKE = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    os.fchmod(sock.fileno(), 0o666)
    os.umask(0)
    sock.bind(sys.argv[1])
    os.setresuid(*[int(sys.argv[2])] * 3)
    sock.listen()
    print("listens", flush=True)
    while True:
        connection, _ = sock.accept()
        connection.settimeout(5)
        print("connected", flush=True)
        if data := connection.recv(65536):
            print(data, flush=True)
"""


# --- the policy itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("uid", "permission"), [(ANALYST, 0o644), (0, 0o666), (0, 0o664)])
@pytest.mark.proof
def test_a_policy_that_others_could_have_written_is_none(system: System, uid: int, permission: int) -> None:
    os.chown(system.policy, uid, GROUP)
    system.policy.chmod(permission)
    daemon = system.spawn("analyst")
    assert daemon.ended() == EXIT_PERMISSION
    assert "could be written by others" in daemon.said()
    assert system.cli(ANALYST, "agents", ok=False).returncode == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agents = 5\n", "table `agents`"),
        ("colour = 'green'\n", "unknown key 'colour'"),
        ("[agents]\nanalyst = 'nobody-of-this-name'\n", "does not exist"),
        ("group = 'no-such-group'\n", "does not exist"),
        ("[agents]\n'../x' = 4001\n", "is not an agent name"),
        ("[agents]\nanalyst = { user = 4001, drive = 'x' }\n", "analyst = "),
        ("dir = 'relative'\n", "absolute"),
        ("dir = \n", "is not TOML"),
    ],
)
def test_a_mistake_in_the_policy_is_told_by_name(tmp_path: Path, text: str, says: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("a policy is root's")
    path = tmp_path / "policy.toml"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(LocalProtocolError) as failed:
        read_policy(str(path))
    assert failed.value.code == "bad_config"
    assert says in str(failed.value)
    assert str(path) in str(failed.value)


def test_the_policy_of_the_guide_says_what_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("a policy is root's")
    guide = (Path(__file__).parents[2] / "docs" / "a-uid-per-agent.md").read_text()
    path = tmp_path / "policy.toml"
    path.write_text(guide.partition("<<'END'\n")[2].partition("END\n")[0])
    path.chmod(0o644)
    uids = {"ada": ADA, "bc-analyst": ANALYST, "bc-executor": EXECUTOR}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, "x", uids[name], 0, "", "", "")))
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", GROUP, [])))
    policy = read_policy(str(path))
    assert policy is not None
    assert (policy.socket_dir, policy.gid, policy.users) == ("/run/backchannel", GROUP, frozenset({ADA}))
    assert policy.owners == {"analyst": ANALYST, "executor": EXECUTOR}
    assert policy.model_driven == {"executor"}


@pytest.mark.proof
def test_a_mistake_in_the_policy_keeps_a_daemon_from_starting(system: System) -> None:
    system.policy.write_text("colour = 'green'\n")
    daemon = system.spawn("analyst")
    assert daemon.ended() == EXIT_CONFIG
    assert "unknown key 'colour'" in daemon.said()
    assert "Traceback" not in daemon.said()


@pytest.mark.proof
@pytest.mark.parametrize(("name", "uid"), [("executor", MALLORY), ("unheard-of", MALLORY), ("executor", 0)])
@pytest.mark.proof
def test_nobody_serves_a_name_that_is_not_his(system: System, name: str, uid: int) -> None:
    daemon = system.spawn(name, uid)
    assert daemon.ended() == EXIT_PERMISSION
    assert name in daemon.said()
    assert not (system.state(uid) / name).exists()


@pytest.mark.parametrize(
    ("path", "owner", "permission"),
    [
        ("", MALLORY, 0o755),
        ("", 0, 0o777),
        ("analyst", MALLORY, 0o2750),
        ("analyst", ANALYST, 0o2755),
        ("analyst", ANALYST, 0o2770),
    ],
)
@pytest.mark.proof
def test_directories_that_others_could_change_are_not_served_in(
    system: System, path: str, owner: int, permission: int
) -> None:
    folder = system.dir / path
    os.chown(folder, owner, GROUP)
    folder.chmod(permission)
    daemon = system.spawn("analyst")
    assert daemon.ended() == EXIT_PERMISSION
    assert str(folder) in daemon.said()


@pytest.mark.proof
def test_a_name_without_its_directory_says_how_root_makes_it(system: System) -> None:
    (system.dir / "analyst").rmdir()
    daemon = system.spawn("analyst")
    assert daemon.ended() == EXIT_PERMISSION
    assert f"install -d -o {ANALYST}" in daemon.said()


@pytest.mark.proof
def test_a_change_of_the_policy_counts_at_once_and_a_broken_one_closes_the_door(system: System) -> None:
    system.start("executor")
    push = {"to": "executor", "text": "x", "from": "mallory"}
    assert "result" in system.ask(MALLORY, "executor", "push", push)
    system.write_policy(mallory=OUTSIDER)
    assert code(system.ask(MALLORY, "executor", "push", push)) == "not_permitted"
    assert "result" in system.ask(OUTSIDER, "executor", "push", push)
    system.policy.write_text("broken =")
    assert code(system.ask(OUTSIDER, "executor", "push", push)) == "busy"
    assert "result" in system.ask(EXECUTOR, "executor", "ping", {}), "its own uid goes on"


@pytest.mark.proof
def test_a_broken_policy_ends_no_daemon_and_loses_no_mail(system: System) -> None:
    daemons = system.start("analyst")
    system.commit(ANALYST, "analyst", "executor", "waits")
    assert stays(lambda: daemons["analyst"].is_running, during=0.5)
    kept = system.policy.read_text()
    system.policy.write_text("broken =")
    assert stays(lambda: daemons["analyst"].is_running, during=2.0), daemons["analyst"].said()
    system.policy.write_text(kept)
    system.start("executor")
    (got,) = system.json(EXECUTOR, "recv", "--as", "executor", "--wait", "60")
    assert got["text"] == "waits"


@pytest.mark.proof
def test_a_model_of_another_uid_sends_through_its_own_daemon(system: System) -> None:
    system.write_policy(analyst=f'{{ user = {ANALYST}, driven_by = "model" }}')
    system.start("analyst", "executor")
    push = {"to": "executor", "text": "x", "from": "analyst"}
    assert code(system.ask(ANALYST, "executor", "push", push)) == "via_outbox"
    assert system.json(ANALYST, "send", "executor", "in order", "--as", "analyst")[0]["stage"] == "stored"


def test_who_names_nobody_looks_at_his_own_agents_and_is_not_refused_for_the_others(system: System) -> None:
    system.start("analyst", "executor")
    assert [account["agent"] for account in system.json(ANALYST, "audit")] == ["analyst", "@all"]
    system.cli(ANALYST, "tap", "--for", "0")
    sent = system.json(ANALYST, "send", "executor", "hello", "--as", "analyst")[0]["id"]
    assert "stored" in system.cli(ANALYST, "trace", sent, "--as", "analyst").stdout
    for words in (["audit", "executor"], ["tap", "executor"], ["backup", "executor"], ["restore", "executor", "/x"]):
        refused = system.cli(ANALYST, *words, ok=False)
        assert refused.returncode == 7, refused.stderr
        assert "another user's" in refused.stderr


# --- inherited sockets ------------------------------------------------------------------------------------------------


@pytest.mark.proof
def test_sockets_that_root_opened_serve_as_well(system: System) -> None:
    """As systemd does it: the kernel names root as who listens until the daemon has taken over."""
    world = system.world
    fds: list[int] = []
    for which, permission in (("inbox", 0o660), ("control", 0o600)):
        path = system.dir / "executor" / f"{which}.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            os.fchmod(sock.fileno(), permission)
            sock.bind(str(path))
            os.chown(path, EXECUTOR, GROUP)
            path.chmod(permission)
            sock.listen()
            fds.append(os.dup2(sock.fileno(), 200 + len(fds)))
    early = Link(str(system.dir / "executor" / "inbox.sock"))
    early.ask("ping")
    activate = (
        "import os, sys\nfor number, fd in enumerate(map(int, sys.argv[1].split(',')), 3):\n    os.dup2(fd, number)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='inbox:control')\n"
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    wrap = [sys.executable, "-c", activate, ",".join(map(str, fds)), *as_user(EXECUTOR)]
    options = ["--state", str(system.state(EXECUTOR)), "--dir", str(system.dir)]
    daemon = world.spawn("executor", wrap=wrap, env=system.environment(EXECUTOR), options=options, pass_fds=fds)
    assert early.answer()["result"]["agent"] == "executor"
    early.close()
    system.start("analyst")
    assert system.json(ANALYST, "send", "executor", "hello", "--as", "analyst")[0]["stage"] == "stored"
    with Link(str(system.dir / "executor" / "inbox.sock")) as link:
        credentials = link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid = int.from_bytes(credentials[:4], "little"), int.from_bytes(credentials[4:8], "little")
    assert (pid, uid) == (daemon.pid, EXECUTOR), "who is to be killed, or believed, is the daemon"
    assert daemon.stop() == 0
    for fd in fds:
        os.close(fd)
    eventually(lambda: not daemon.is_running)
