"""What `init mcp CLIENT` enters: the command, and where the mailboxes lie if that is not the usual place."""

import json
import tomllib
from pathlib import Path

import pytest

from backchannel.cli import mcpclients
from backchannel.transport.paths import Places

FILES = {"claude": ".mcp.json", "codex": ".codex/config.toml", "gemini": ".gemini/settings.json"}


@pytest.mark.parametrize("client", FILES)
def test_a_server_is_told_where_the_mailboxes_lie(client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKCHANNEL_STATE", "/srv/mail")
    monkeypatch.delenv("BACKCHANNEL_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    plan = mcpclients.plan_init(Places(f"{tmp_path}/run", f"{tmp_path}/state"), client, str(tmp_path), "shop")
    text = next(change.after for change in plan.changes if change.path == str(tmp_path / FILES[client]))  # type: ignore[union-attr]
    server = (
        tomllib.loads(str(text))["mcp_servers"]["backchannel"]
        if client == "codex"
        else json.loads(str(text))["mcpServers"]["backchannel"]
    )
    assert server["env"] == {"BACKCHANNEL_STATE": "/srv/mail"}
    assert server["args"] == ["mcp", "--as", "shop"]
    monkeypatch.delenv("BACKCHANNEL_STATE")
    assert "env" not in mcpclients.server(client, "shop")
