"""Self-hosted live speech-to-text that speaks the Gladia v2 live API."""

from importlib.metadata import version

__version__ = version("vivavoce")
