"""The words after `backchanneld`: what is read by hand is read as the full parser would."""

import pytest

from backchannel.daemon import options
from backchannel.daemon.options import Options, parse


def whole(argv: list[str]) -> Options:
    return options._by_parser(argv)


@pytest.mark.parametrize(
    "line", ["bob", "bob eve", "bob --state /s --dir /d", "bob eve --dir /d", "bob --dir /d --dir /e"]
)
def test_what_starts_a_daemon_is_read_by_hand_and_as_the_parser_reads_it(line: str) -> None:
    argv = line.split()
    by_hand = options._by_hand(argv)
    assert by_hand is not None
    assert vars(by_hand) == vars(whole(argv)) == vars(parse(argv))


@pytest.mark.parametrize(
    "line",
    [
        "", "--dir /d bob", "bob --dir", "bob --dir --state /s", "bob --dir=/d", "bob --dir /d eve", "bob --help",
        "bob --check", "bob --log-format json", "-- bob",
    ],
)  # fmt: skip
def test_any_other_form_is_for_the_parser(line: str) -> None:
    assert options._by_hand(line.split()) is None


def test_a_mode_is_for_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["bob", "--remove", "--purge"]).purge
    assert parse(["bob", "--backup", ""]).backup == ""
    for words in (["--remove"], ["--check"], ["--backup", "/f"], ["--restore", "/f"], ["--audit"]):
        with pytest.raises(SystemExit) as ended:
            parse(["bob", "eve", *words])
        assert ended.value.code == 2
        assert f"{words[0]} takes one NAME" in capsys.readouterr().err
