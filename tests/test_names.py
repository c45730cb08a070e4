"""Names and ids: what may be one, and what is said when it may not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.errors import LocalProtocolError
from backchannel.protocol.names import AgentName, check_id, check_own_id, closest, is_name, make_id

GOOD = ("a", "7", "analyst", "web-crawler_2", "0-_", "a" * 63)
BAD = (
    "", "-a", "_a", "A", "Analyst", "an alyst", "a.b", "a/b", "..", ".", "a\n", "\na", "a\0", "é", "\u0430nalyst",
    "@user", "a" * 64, "²", "\uff11",
)  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_is_letters_digits_underscores_and_hyphens(name: str) -> None:
    assert is_name(name)
    assert AgentName(name) == name


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(LocalProtocolError) as caught:
        AgentName(name)
    assert caught.value.code == "bad_name"
    assert "a-z" in caught.value.hint


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=70))
def test_whatever_is_a_name_is_safe_as_a_directory_and_in_a_shell(text: str) -> None:
    if is_name(text):
        assert 0 < len(text) <= 63
        assert text.isascii()
        assert text[0].isalnum()
        assert not set(text) & set("/.\\\0\n $'\"*~@")


def test_what_is_not_even_text_is_no_name() -> None:
    for thing in (None, 7, b"analyst", ["analyst"]):
        with pytest.raises(LocalProtocolError):
            AgentName(thing)


def test_an_error_shows_a_name_in_ascii_and_not_endlessly() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        AgentName("\x1b[31m" + "é" * 5000)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(caught.value.message) < 700


def test_a_checked_name_is_not_checked_again() -> None:
    name = AgentName("analyst")
    assert AgentName(name) is name


@pytest.mark.parametrize("good", ["m", "order 17", "m-0192", "ü" * 128, "日本"])
def test_an_id_is_any_printable_text_of_128_characters(good: str) -> None:
    assert check_id(good) == good


@pytest.mark.parametrize("bad", ["", "a" * 129, "a\nb", "a\0", "\x1b[31m", "\ud800", "a\u2028b", "\u202etxt"])
def test_an_id_that_would_not_print_is_refused(bad: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_id(bad)
    assert caught.value.code == "bad_id"
    assert str(caught.value).isascii()


def test_a_made_id_is_128_bits_in_the_order_of_time() -> None:
    earlier = make_id("m", 1_700_000_000_000, b"\xff" * 10)
    later = make_id("m", 1_700_000_000_001, b"\0" * 10)
    assert earlier < later
    assert earlier == "m-018bcfe56800" + "ff" * 10
    assert len(earlier) == 2 + 32
    assert check_id(earlier)


def test_a_made_id_keeps_its_length_whatever_the_clock_says() -> None:
    for unix_ms in (0, 1, 2**48 - 1, 2**48, 2**60, -1):
        assert len(make_id("s", unix_ms, bytes(10))) == 34


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("analist", "analyst"),
        ("analyts", "analyst"),
        ("nalyst", "analyst"),
        ("analystt", "analyst"),
        ("anaylts", "analyst"),
        ("executer", "executor"),
        ("writer", ""),
        ("analyst", "analyst"),
    ],
)
def test_a_mistyped_name_finds_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert closest(typed, ["executor", "analyst", "qa"]) == meant


def test_a_short_name_is_not_suggested_for_everything() -> None:
    assert closest("x", ["qa", "b"]) == ""
    assert closest("anything", []) == ""


def test_ids_of_sessions_are_not_for_messages() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        check_own_id("s-" + "0" * 32 + "/1")
    assert caught.value.code == "bad_id"
    assert check_own_id("deploy-42") == "deploy-42"
