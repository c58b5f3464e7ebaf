"""When a session has waited too long, by the wall clock; pure, moments come in by argument.

A session that nobody has connected to, one that its client left, one whose client says nothing and one that is too old
each have a time of their own, all settings. A client that is connected but delivers no audio while an utterance is open
has stalled: the utterance is closed for it, since its silence will never be heard.
"""

from __future__ import annotations

from vivavoce.config import Settings


class SessionClock:
    """The moments of one session that its deadlines count from, in seconds of a clock that never goes back."""

    def __init__(self, settings: Settings, *, stall_s: float, at: float, ever_connected: bool) -> None:
        self._settings, self._stall_s = settings, stall_s
        self.ever_connected = ever_connected
        self._connected = False
        self._born_at = self._left_at = self._input_at = self._audio_at = at

    def on_connect(self, at: float) -> None:
        """A socket came."""
        self._connected = self.ever_connected = True
        self._input_at = self._audio_at = at

    def on_disconnect(self, at: float) -> None:
        """The last socket went."""
        self._connected = False
        self._left_at = at

    def on_input(self, at: float) -> None:
        """The client sent anything, be it nothing but a sign of life."""
        self._input_at = at

    def on_audio(self, at: float) -> None:
        """The client sent audio that is new."""
        self._audio_at = at

    def next(self, *, utterance_open: bool) -> float:
        """Give the moment to look again, if nothing happens until then."""
        stall = [self._audio_at + self._stall_s] if self._connected and utterance_open else []
        return min([moment for moment, _ in self._ends()] + stall)

    def stalled(self, at: float) -> bool:
        """Tell whether an open utterance should be closed because its client delivers nothing."""
        return self._connected and at >= self._audio_at + self._stall_s

    def overdue(self, at: float) -> str | None:
        """Say why the session should end, None while it need not."""
        return next((reason for moment, reason in self._ends() if at >= moment), None)

    def _ends(self) -> list[tuple[float, str]]:
        settings = self._settings
        ends = [
            (self._born_at + settings.max_session, f"the session reached its maximum of {settings.max_session:g} s")
        ]
        if self._connected:
            idle_s = settings.idle_timeout
            ends.append((self._input_at + idle_s, f"nothing was received for {idle_s:g} s"))
        else:
            grace_s = settings.grace if self.ever_connected else settings.connect_timeout
            ends.append((self._left_at + grace_s, f"nobody was connected for {grace_s:g} s"))
        return ends
