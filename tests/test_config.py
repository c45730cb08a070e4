"""Settings: a table, two files, and no setting that is silently not in force."""

from pathlib import Path

import pytest

from backchannel.daemon.config import SETTINGS, Config, load
from backchannel.errors import LocalProtocolError


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refusal(path: str) -> LocalProtocolError:
    with pytest.raises(LocalProtocolError) as caught:
        load([path])
    assert caught.value.code == "bad_config"
    assert path in caught.value.message
    assert caught.value.hint
    return caught.value


def test_without_files_everything_is_as_the_table_says(tmp_path: Path) -> None:
    config = load([str(tmp_path / "nowhere.toml")])
    for key, setting in SETTINGS.items():
        assert getattr(config, key) == setting.default
        assert config.origin[key] == "default"


def test_the_defaults_are_those_of_the_contract() -> None:
    config = Config()
    assert (config.messages_max, config.bytes_max, config.line_bytes_max) == (1_000_000, 1 << 30, 1 << 20)
    assert (config.durability, config.deliveries_max, config.lease_s) == ("process", 5, 300)
    assert config.reserve_bytes == 16 << 20


def test_the_agents_own_file_wins_over_the_one_for_all(tmp_path: Path) -> None:
    for_all = write(tmp_path / "all.toml", "messages_max = 100\nlease_s = 60\n")
    own = write(tmp_path / "own.toml", 'messages_max = 7\ndurability = "power"\n')
    config = load([for_all, own])
    assert (config.messages_max, config.lease_s, config.durability) == (7, 60, "power")
    assert (config.origin["messages_max"], config.origin["lease_s"]) == (own, for_all)
    assert config.origin["bytes_max"] == "default"


def test_an_unknown_setting_names_those_that_are_known(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "config.toml", "mesages_max = 7\n"))
    assert "mesages_max" in error.message
    assert "messages_max" in error.hint


def test_a_table_is_no_setting(tmp_path: Path) -> None:
    refusal(write(tmp_path / "config.toml", "[mailbox]\nmessages_max = 7\n"))


@pytest.mark.parametrize(
    "line",
    [
        "messages_max = 0",
        "messages_max = -1",
        "messages_max = 100_000_001",
        "messages_max = true",
        'messages_max = "7"',
        "messages_max = [7]",
        "messages_max = 1.5",
        "bytes_max = 65535",
        "line_bytes_max = 16_777_217",
        "line_bytes_max = 4095",
        "deliveries_max = 0",
        "deliveries_max = 2.5",
        "lease_s = 0",
        "lease_s = nan",
        "lease_s = inf",
        "reserve_bytes = -1",
        'durability = "disk"',
        "durability = 1",
        'durability = ["power"]',
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(tmp_path: Path, line: str) -> None:
    error = refusal(write(tmp_path / "config.toml", line + "\n"))
    assert line.split(" ")[0] in error.message
    assert error.hint.startswith("use ")


def test_a_lease_may_last_a_fraction_of_a_second_more(tmp_path: Path) -> None:
    assert load([write(tmp_path / "config.toml", "lease_s = 1.5\n")]).lease_s == 1.5


@pytest.mark.parametrize("text", ["messages_max =", "= 7", "messages_max = 7\nmessages_max = 8"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    assert "is not TOML" in refusal(write(tmp_path / "config.toml", text)).message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"durability = '\xff'\n")
    assert "is not TOML" in refusal(str(path)).message


def test_every_setting_has_a_reason_and_a_default_within_its_bounds() -> None:
    for setting in SETTINGS.values():
        assert setting.reason
        if setting.words:
            assert setting.default in setting.words
        else:
            assert setting.unit
            assert setting.low <= setting.default <= setting.high
