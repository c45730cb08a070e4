"""The codecs and frames under noise that coverage leads: it finds branches that chance would not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.night
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel for this Python")
def test_noise_led_by_coverage_finds_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.guided", "-runs=2000000", "-max_total_time=1200", str(corpus)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    print("\n".join(done.stderr.splitlines()[-3:]))
    assert done.returncode == 0, done.stderr[-3000:]
