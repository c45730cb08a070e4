"""What `init hermes` changes: one profile of a Hermes installation becomes an agent.

The plugin is put into the profile's own `plugins/`, with a copy of the client: Hermes' environment gets nothing
installed, and survives its updates. The profile's config.yaml is changed by Hermes' own commands, on a copy of the
profile, so that what is shown is what Hermes itself would write.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from ..client import adapters
from ..client.adapters import Adapter
from ..errors import BackchannelError, LocalProtocolError, PeerAbsent
from ..protocol.codec import decode, encode
from ..protocol.names import AgentName
from ..transport.paths import Places
from .init import Change, Plan, TextChange, TreeChange, declaring, driven_by_model, read, read_tree

CLIENT_PARTS = ("__init__.py", "errors.py", "py.typed", "client", "protocol", "transport")
COMMAND_S = 60.0
DECLARED = Adapter("hermes", wakes=True, mid_turn=False, evidence="turn")  # as the plugin says it, connected
INSTALLED = "installed.json"  # in the plugin's directory: by which version, for which agent
KEEPING = "backchannel"  # directory of the profile, for what we keep beside the plugin

Files = dict[str, bytes]


class Profile(NamedTuple):
    """One home of Hermes. `name` is None for the default profile."""

    hermes: str
    name: str | None
    home: str

    @property
    def plugin(self) -> str:
        return os.path.join(self.home, "plugins", "backchannel")

    @property
    def config(self) -> str:
        return os.path.join(self.home, "config.yaml")

    @property
    def config_before(self) -> str:
        return os.path.join(self.home, KEEPING, "config.yaml.before")

    @property
    def command(self) -> str:
        return f"{self.hermes} -p {self.name}" if self.name else self.hermes

    @property
    def unit(self) -> str:
        """As Hermes calls its systemd unit for this profile."""
        return f"hermes-gateway-{self.name}.service" if self.name else "hermes-gateway.service"


def plan_init(places: Places, profile_name: str | None, agent: str | None, hermes: str | None) -> Plan:
    """Raises `PeerAbsent` if there is no Hermes or no such profile."""
    profile = find_profile(hermes, profile_name)
    name = AgentName(agent or _installed(profile).get("agent") or _agent_name(profile))
    plugin = _plugin_files(profile, name, places)
    before = read(profile.config)
    after = _edited(profile, before, plugin, _enabling(name))
    changes: list[Change] = [TreeChange(profile.plugin, plugin), TextChange(profile.config, before, after)]
    if before != after:
        changes.append(TextChange(profile.config_before, read(profile.config_before), before or "", "keep the old as"))
    changes += [driven_by_model(places, name), declaring(places, name, DECLARED)]
    drop_in, warnings = _unit_changes(profile, places)
    return Plan(name, [*changes, *drop_in], [f"{profile.command} gateway restart", "backchannel doctor"], warnings)


def plan_uninit(places: Places, profile_name: str | None, agent: str | None, hermes: str | None) -> Plan:
    """The way back. What the person changed meanwhile stays as it is."""
    profile = find_profile(hermes, profile_name)
    name = AgentName(agent or _installed(profile).get("agent") or _agent_name(profile))
    before, original = read(profile.config), read(profile.config_before)
    after = before
    if before is not None:
        plugin = _plugin_files(profile, name, places)
        is_as_we_left_it = original is not None and _edited(profile, original, plugin, _enabling(name)) == before
        after = original if is_as_we_left_it else _edited(profile, before, plugin, _DISABLING)
    drop_in = _drop_in_path(profile, _unit_directory(profile) or "/nowhere")
    declared = adapters.path_of(places, name, DECLARED.name)
    changes: list[Change] = [
        TextChange(profile.config, before, after or None if original == "" else after),
        TextChange(profile.config_before, original, None, "remove"),
        TreeChange(profile.plugin, {}),
        TextChange(declared, read(declared), None, "remove"),
        TextChange(drop_in, read(drop_in), None),
    ]
    steps = [f"{profile.command} gateway restart", f"backchannel remove {name}    (if the agent is to go as well)"]
    return Plan(name, changes, steps, [])


# --- looking at what is there -----------------------------------------------------------------------------------------


def examine_profiles(places: Places) -> Iterator[tuple[str, str, str, str]]:
    """For `doctor`: verdict, subject, what it says and the command that mends it, of each profile that was set up."""
    from .. import __version__

    root = os.environ.get("HERMES_HOME") or os.path.expanduser("~/.hermes")
    profiles = os.path.join(root, "profiles")
    names = sorted(os.listdir(profiles)) if os.path.isdir(profiles) else []
    for name, home in ((None, root), *((name, os.path.join(profiles, name)) for name in names)):
        about = _installed(Profile("", name, home))
        if not about:
            continue
        subject = f"hermes {name or 'default'}"
        again = "backchannel init hermes" + (f" --profile {name}" if name else "")
        wrong = _wrong_with(Profile(about["hermes"], name, home), about, places, __version__)
        if wrong:
            yield "fail", subject, wrong, again
        else:
            yield "ok", subject, f"is the agent {about['agent']}", ""


def _wrong_with(profile: Profile, about: dict[str, str], places: Places, version: str) -> str:
    if about["version"] != version:
        return f"has version {about['version']} of the plugin, this is {version}"
    if about["state"] != places.state_dir:
        return f"its agent lives in {about['state']}, not in {places.state_dir}"
    if not os.path.exists(places.state(about["agent"], "key")):
        return f"its agent {about['agent']} is not registered"
    if driven_by_model(places, about["agent"]).is_needed:
        return f"the daemon of {about['agent']} is not told that a model drives it"
    environment = dict(os.environ) | {"HERMES_HOME": profile.home}
    for key, wanted in (("platforms.backchannel.enabled", "true"), ("plugins.enabled", "backchannel")):
        try:
            done = _hermes(profile.hermes, ["config", "get", key], environment)
        except BackchannelError as error:
            return error.message
        if wanted not in done.stdout.lower().replace("-", " ").split():
            return f"its config.yaml does not enable the plugin ({key})"
    return ""


# --- finding ----------------------------------------------------------------------------------------------------------


def find_profile(hermes: str | None, name: str | None) -> Profile:
    command = hermes or shutil.which("hermes") or _usual_place()
    if command is None or not os.access(command, os.X_OK):
        raise PeerAbsent(
            f"there is no hermes command{f' at {hermes}' if hermes else ' on the PATH'}",
            hint="name it: backchannel init hermes --hermes /path/to/hermes",
        )
    command = os.path.abspath(command)
    profile = [] if name is None else ["-p", name]
    done = _hermes(command, [*profile, "config", "path"], dict(os.environ))
    home = os.path.dirname(done.stdout.strip())
    if done.returncode or not os.path.isdir(home):
        raise PeerAbsent(
            f"Hermes has no profile {name or 'yet'} ({(done.stderr or done.stdout).strip()[:200]})",
            hint=f"{command} profile create {name}" if name else f"{command} setup",
        )
    return Profile(command, name, os.path.abspath(home))


def _usual_place() -> str | None:
    """Where Hermes' own installer puts it; a service account's PATH often lacks it."""
    places = ("~/.local/bin/hermes", "~/.hermes/hermes-agent/venv/bin/hermes")
    return next((p for p in map(os.path.expanduser, places) if os.access(p, os.X_OK)), None)


def _agent_name(profile: Profile) -> str:
    return profile.name or "hermes"


def _installed(profile: Profile) -> dict[str, str]:
    raw = read(os.path.join(profile.plugin, INSTALLED))
    return {} if raw is None else dict(decode(raw))


# --- the plugin -------------------------------------------------------------------------------------------------------


def _plugin_files(profile: Profile, agent: str, places: Places) -> Files:
    """The plugin's directory: its modules, the client, and who put them there."""
    spec = find_spec("backchannel_hermes")
    if spec is None or not spec.submodule_search_locations:
        raise BackchannelError("the plugin for Hermes is not installed here", hint="pip install backchannel-hermes")
    from .. import __version__

    (root,) = list(spec.submodule_search_locations)
    files = {name: data for name, data in read_tree(root).items() if not name.startswith("client/")}
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name, data in read_tree(package).items():
        if name.split("/")[0] in CLIENT_PARTS:
            files[f"client/backchannel/{name}"] = data
    about = {"version": __version__, "agent": agent, "hermes": profile.hermes, "state": places.state_dir}
    files[INSTALLED] = encode(about).encode()
    return files


# --- the profile's config.yaml ----------------------------------------------------------------------------------------


def _enabling(agent: str) -> list[list[str]]:
    return [
        ["plugins", "enable", "backchannel", "--no-allow-tool-override"],
        ["config", "set", "platforms.backchannel.enabled", "true"],
        ["config", "set", "platforms.backchannel.extra.agent", agent],
    ]


_DISABLING = [
    ["plugins", "disable", "backchannel"],
    ["config", "unset", "platforms.backchannel"],
    ["config", "unset", "plugins.entries.backchannel"],
]


def _edited(profile: Profile, config: str | None, plugin: Files, commands: list[list[str]]) -> str:
    """config.yaml as Hermes itself changes it: in a home that has nothing but this file and the plugin."""
    with tempfile.TemporaryDirectory(prefix="bc-init-") as home:
        if config is not None:
            with open(os.path.join(home, "config.yaml"), "w") as file:
                file.write(config)
        TreeChange(os.path.join(home, "plugins", "backchannel"), plugin).apply()
        environment = dict(os.environ) | {"HERMES_HOME": home}
        for command in commands:
            done = _hermes(profile.hermes, command, environment)
            is_there = "unset" not in command and "disable" not in command  # what is not set needs no unsetting
            if done.returncode and is_there:
                raise LocalProtocolError(
                    f"hermes {' '.join(command)} failed: {(done.stderr or done.stdout).strip()[:300]}",
                    code="hermes", hint=f"{profile.hermes} --version (0.19.0 or newer is needed)",
                )  # fmt: skip
        return read(os.path.join(home, "config.yaml")) or ""


def _hermes(command: str, arguments: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [command, *arguments], env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackchannelError(f"{command} does not run: {error}", hint="try it: hermes --version") from None


# --- the systemd unit -------------------------------------------------------------------------------------------------


def _unit_changes(profile: Profile, places: Places) -> tuple[list[Change], list[str]]:
    """A unit does not have this shell's environment: where the places were chosen by it, the unit is told them."""
    directory = _unit_directory(profile)
    usual = os.path.expanduser("~/.local/state/backchannel")
    is_chosen = places.state_dir != usual or "BACKCHANNEL_DIR" in os.environ
    if directory is None or not is_chosen:
        return [], []
    path = _drop_in_path(profile, directory)
    text = (
        "# By `backchannel init hermes`.\n[Service]\n"
        f'Environment="BACKCHANNEL_STATE={places.state_dir}" "BACKCHANNEL_DIR={places.socket_dir}"\n'
    )
    if read(path) == text:
        return [], []
    if not os.access(directory, os.W_OK):
        return [], [f"{path} cannot be written by you; it should say:\n{text}"]
    return [TextChange(path, read(path), text)], ["run systemctl daemon-reload before the restart"]


def _unit_directory(profile: Profile) -> str | None:
    """Where the profile's unit is installed, if it is."""
    for directory in (os.path.expanduser("~/.config/systemd/user"), SYSTEM_UNITS):
        if os.path.exists(os.path.join(directory, profile.unit)):
            return directory
    return None


def _drop_in_path(profile: Profile, directory: str) -> str:
    return os.path.join(directory, f"{profile.unit}.d", "backchannel.conf")


SYSTEM_UNITS = "/etc/systemd/system"
