"""What a session is made of: what it shares with others, what an earlier process left of it, and its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from vivavoce.config import Settings
from vivavoce.events import Event, Final, Message, StoredMessage, key_of
from vivavoce.model import AudioFormat, Control, SessionOptions, Snapshot, Utterance
from vivavoce.plugins import AudioFiles, Store
from vivavoce.runtime.callbacks import Courier, Envelopes
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.listener import Models
from vivavoce.runtime.mailbox import Ending


class Wire(Envelopes, Protocol):
    """What a session needs of its client's protocol."""

    def render(self, session_id: str, event: Event, at: datetime) -> Message:
        """Write an event as a message."""

    def options_of(self, request: Mapping[str, Any]) -> SessionOptions:
        """Read a stored request."""

    def audio_start(self, head: bytes) -> int | None:
        """Give the length of a header before the audio, None while `head` is too short to tell."""

    def header_mismatch(self, head: bytes, audio: AudioFormat) -> str | None:
        """Say how a header contradicts the announced format, None where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all sessions of a process share; `models` are loaded while audio is already taken."""

    settings: Settings
    store: Store
    audio: AudioFiles
    journal: Journal
    courier: Courier
    models: asyncio.Task[Models]
    ears: Executor
    wire: Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What an earlier process left of a session."""

    messages: Sequence[StoredMessage] = ()
    finals: Sequence[Utterance] = ()
    controls: Sequence[Control] = ()
    snapshots: Sequence[Snapshot] = ()

    @property
    def said(self) -> frozenset[str]:
        """Names of what was reported."""
        finals = (key_of(Final(utterance=utterance)) for utterance in self.finals)
        return frozenset([*(message.key for message in self.messages), *finals])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Connection:
    """One socket of a session; `close` is called when it must go before the mailbox is empty."""

    close: Callable[[Ending], None]
