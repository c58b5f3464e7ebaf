"""Which plugin a name stands for, where several packages bring one."""

from __future__ import annotations

import sys

import pytest

from vivavoce.engines.silero import SileroVad
from vivavoce.errors import SetupError
from vivavoce.plugins import plugin, plugin_names


def install(directory, package, name):
    """Put a package's metadata, with one voice activity detector, where Python looks for such."""
    told = directory / f"{package.replace('-', '_')}-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n", encoding="utf-8")
    (told / "entry_points.txt").write_text(f"[vivavoce.vads]\n{name} = fractions:Fraction\n", encoding="utf-8")


@pytest.mark.parametrize("first", [True, False])
def test_another_package_takes_the_place_of_the_built_in_plugin(first, tmp_path, monkeypatch):
    """Wherever it lies on Python's path; other names stay what they were."""
    install(tmp_path, "our-vad", "silero")
    assert plugin("vads", "silero") is SileroVad
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path] if first else [*sys.path, str(tmp_path)])
    assert plugin("vads", "silero").__name__ == "Fraction"
    assert plugin_names("vads") == ["silero"]
    assert plugin("aligners", "pocketsphinx").__module__.startswith("vivavoce.")


def test_two_packages_with_one_name_are_a_mistake_that_names_both(tmp_path, monkeypatch):
    """Which of them would be found first is chance."""
    install(tmp_path, "our-vad", "silero")
    install(tmp_path, "their-vad", "silero")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(SetupError, match="vad 'silero' is in several packages: keep one of our-vad, their-vad"):
        plugin("vads", "silero")
    with pytest.raises(SetupError, match=r"no vad named 'bogus' is installed \(there are: silero\)"):
        plugin("vads", "bogus")
