"""docs/security.md names tests, and links: all of them exist."""

import re

from .documents import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py|tests/\w+)`", TEXT)
    assert len(named) > 30
    for path in named:
        places = [ROOT / path, ROOT / "tests" / "outside" / path, ROOT / "tests" / "surface" / path]
        assert any(place.exists() for place in places), path


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
