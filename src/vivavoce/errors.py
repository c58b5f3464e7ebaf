"""Every error vivavoce raises on purpose, split first by whose fault it is.

Anything that is not a `VivavoceError` is a bug: it is logged with its traceback and shown to clients as a bare
internal error. No message here ever carries a transcript, audio, a key or a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import ClassVar


class VivavoceError(Exception):
    """An expected failure; `code` is stable, `retryable` says whether the same call may succeed later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class RequestError(VivavoceError):
    """The caller's fault."""

    code = "bad_request"


INVALID = "Some parameters are not valid, look at validation_errors"


class InvalidConfig(RequestError):
    """A session request with fields that break the contract; `problems` has one string per field."""

    code = "invalid_config"

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class Unsupported(RequestError):
    """A well-formed request for something this installation cannot do; says what is missing and how to get it."""

    code = "unsupported"


class UnsupportedAudio(RequestError):
    """Audio that is not what the session announced."""

    code = "invalid_audio_format"


class MalformedMessage(RequestError):
    """A client message that cannot be read."""

    code = "malformed_message"


class UnknownSession(RequestError):
    """No session with that id or token, or it belongs to somebody else."""

    code = "unknown_session"


class NotAllowed(RequestError):
    """The caller has no valid key, or the session's state forbids the call."""

    code = "not_allowed"


class Unauthorized(NotAllowed):
    """The caller has no key, or one that does not exist."""

    code = "unauthorized"


class CapacityError(VivavoceError):
    """No room for another session now; worth another try after `retry_after_s`."""

    code = "capacity"
    retryable = True
    retry_after_s: ClassVar[int] = 5


class RateExceeded(CapacityError):
    """More requests than the caller's key allows."""

    code = "rate"
    retry_after_s = 1


class Unavailable(CapacityError):
    """The server takes no sessions now, whoever asks: it is overloaded, or it stops."""

    code = "unavailable"
    retry_after_s = 10


class PluginError(VivavoceError):
    """A plugin failed; `__cause__` keeps its own error."""

    code = "plugin_error"
    retryable = True


class EngineError(PluginError):
    """The speech engine failed on a clip."""

    code = "engine_error"


class AddonError(PluginError):
    """An add-on failed on an utterance or a transcript; the text is shown to clients, so it never quotes either."""

    code = "addon_error"


class AddonMissing(PluginError):
    """An add-on lacks what it works with, such as a backend; says which setting would provide it."""

    code = "addon_missing"
    retryable = False


class StoreError(PluginError):
    """The store cannot be read or written."""

    code = "store_error"


class DeliveryError(PluginError):
    """A message could not be posted to its receiver; says why, without the receiver's URL."""

    code = "delivery_error"


class SetupError(VivavoceError):
    """The machine or its settings are not fit to start: one line that says how to mend it."""

    code = "setup"


def reason_of(error: VivavoceError, names: Mapping[str, str] | None = None) -> str:
    """Say in one line what is wrong: the problems with a request, where it has some; `names` are as for `renamed`."""
    return renamed("; ".join(getattr(error, "problems", ())) or str(error), names or {})


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Call fields of v2 as a door does that has other `names` for them, and one text for what is a list there."""
    for theirs, ours in names.items():
        text = re.sub(rf"{re.escape(theirs)}(\.\d+)?", ours, text)
    return text
