"""The documentation's programs run as printed, and its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recordings import pcm16, wheel_recording
from server import serving

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_example_prints_what_was_said(page, tmp_path):
    """A newcomer who copies the program and has a WAV file sees its words; only the address is changed here."""
    with wave.open(str(tmp_path / "talk.wav"), "wb") as talk:
        talk.setnchannels(1)
        talk.setsampwidth(2)
        talk.setframerate(16_000)
        talk.writeframes(pcm16(wheel_recording("beckett")))
    program = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)[0]
    with serving(tmp_path / "data") as server:
        (tmp_path / "example.py").write_text(program.replace("http://127.0.0.1:8080", server.url), encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert "try again" in ended.stdout.lower()


def test_the_printed_detector_keeps_its_promises():
    """Any split of the same frames gives the same, and its state survives being saved; its package names it."""
    page = (ROOT / "docs" / "how-to" / "write-plugins.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "write-plugins.md", "exec"), names)
    vad = names["Loud"]()
    speech = wheel_recording("two_cities")[: 64 * vad.frame].reshape(64, vad.frame)
    whole, _ = vad.probabilities(speech, vad.open())
    first, state = vad.probabilities(speech[:17], vad.open())
    rest, _ = vad.probabilities(speech[17:], vad.load(vad.save(state)))
    assert np.array_equal(whole, np.concatenate([first, rest]))
    assert whole.dtype == np.float32
    assert whole.min() < 0.5 < whole.max()
    (told,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert tomllib.loads(told)["project"]["entry-points"]["vivavoce.vads"] == {"loud": "our_vad:Loud"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    """Each relative link names a file that exists."""
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target_the_readme_names():
    """`make` without a target explains itself."""
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named
    assert all(f"make {target} " in shown for target in named)
