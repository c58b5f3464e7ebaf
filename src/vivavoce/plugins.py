"""The kinds of plugin, as Protocols, and how they are found by name.

Built-ins and third parties use the same door: an entry point in one of the `vivavoce.*` groups. What another package
brings takes the place of the built-in one of that name, wherever it is installed. An entry point gives a callable
without required arguments; those in `vivavoce.engines` take `EngineSettings`, those in `vivavoce.addons` the server's
`AddonSettings`. All but bridges are plain blocking code; `runtime` decides on which thread or process they run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from vivavoce.errors import SetupError
from vivavoce.events import StoredMessage
from vivavoce.model import (
    ApiKey,
    Clip,
    Control,
    Delivery,
    DeliveryReport,
    Finding,
    Findings,
    Hypothesis,
    Lane,
    Mend,
    Outcome,
    Samples,
    SessionRecord,
    Snapshot,
    Status,
    Transcript,
    Utterance,
    Voice,
)

_NO_KEY = SecretStr("")
_OWN_PACKAGE = "vivavoce"

WARM_UP = "warm-up"
"""Key of the first clip of every engine: a second of silence, decoded before any session is heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine can do.

    Of several `languages` it detects which one is spoken, unless `detects` is false: then it takes the first expected
    one for it. `exact_batches` is true when a clip's answer never depends on
    the clips beside it; finals are decoded alone otherwise. `word_times` is true when the engine's own word times are
    measured rather than spread.
    """

    name: str
    languages: frozenset[str]
    word_times: bool
    exact_batches: bool
    batch_size: int
    detects: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is made from, by the names of the server's settings; a factory takes one of these.

    `model` is a name or a directory, None for the engine's own choice; `device` and `compute_type` say on what it
    computes and with which numbers. One call of `transcribe` computes on `engine_threads`, and up to twice
    `decode_threads` calls are out at once. A factory raises `SetupError` for what it cannot be made from.
    """

    model: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "auto"
    engine_threads: int = 1
    decode_threads: int = 1
    engine_key: SecretStr | None = None

    @classmethod
    def of(cls, settings: object) -> EngineSettings:
        """Take over what `settings` (such as `config.Settings`) have under the same names."""
        return cls(**{each.name: getattr(settings, each.name) for each in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model that an engine can be made from once somebody has fetched it.

    `name` is what a catalogue calls it; `files` (patterns) are fetched from `repository` of the Hugging Face hub, all
    where there are none, or else the archive or file behind `url`, whose checksum is `sha256`. It is then the engine's
    `model`. `size` is in bytes, and `languages` are None where nobody knows them.
    """

    name: str
    model: str
    languages: frozenset[str] | None = None
    repository: str | None = None
    files: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    size: int | None = None


class Engine(Protocol):
    """Speech to text; called from several threads at once.

    A factory may have two class methods: `known() -> Sequence[KnownModel]` names the models that it can be made from,
    and `describe(settings) -> EngineInfo` says what an engine would be that is not made yet, without loading it; it
    raises `SetupError` where that cannot be made here.
    """

    info: EngineInfo

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. At most `info.batch_size` clips."""

    def release(self, key: str) -> None:
        """Forget what was kept under a clip's key; unknown keys are fine."""

    def close(self) -> None:
        """Free the model."""


class Vad(Protocol):
    """Voice activity; one object serves every channel, the state is the channel's own."""

    frame: int
    """Samples of one frame."""

    def open(self) -> Any:
        """Give the state of a channel before its first frame; it is picklable and never changed in place."""

    def probabilities(self, frames: NDArray[np.float32], state: Any) -> tuple[NDArray[np.float32], Any]:
        """Give the probability of speech in each of `frames` `[n, frame]`, in order, and the state after them.

        Any split of the same frames into calls gives the same probabilities, bit for bit.
        """

    def save(self, state: Any) -> str:
        """Write a state as text."""

    def load(self, saved: str) -> Any:
        """Give back the state that `save` wrote."""


class Aligner(Protocol):
    """Word times for a known text; may hold the GIL, so it runs in a process of its own."""

    languages: frozenset[str]

    def align(self, samples: Samples, words: Sequence[str]) -> list[tuple[float, float]] | None:
        """Give each word's start and end in seconds from the clip's start, in order, or None where it fails."""


class TextRule(Protocol):
    """Rewrites what was heard before anybody sees or stores it; one object serves one session."""

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
        """Give the utterance as it should read, the same for the same one; takes about a millisecond.

        Id, channel and speaker stay. A partial without words left is not shown.
        """


class UtteranceAddon(Protocol):
    """Looks at one utterance at a time; called from several threads at once."""

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> Findings:
        """Give what it finds; blocks. `before` are the finals said before this one, a few of them, newest last.

        Raises `AddonError`, with words fit for clients. Looking again after a crash may find something else.
        """


class TranscriptAddon(Protocol):
    """Looks at a whole transcript, when the last final is out."""

    def look(self, transcript: Transcript) -> Findings:
        """Give what it finds; blocks. Raises `AddonError`, with words fit for clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonParts:
    """What an add-on does for one session: any of these.

    `by_target` holds what looks at utterances, by the language that it translates to or "" for anything else. `hides`
    gives the parts (seconds) of a final's audio that are to be silenced in what is stored; it is asked about the final
    as `rule` finds it. `hints` are words and phrases for engines that can be told what to expect. `mend` writes the
    words of finals better where an engine can tell how likely a text is (see `Clip`), before `rule` has them; it is
    called on the threads that decode, several at once, and where it fails the words stay.
    """

    rule: TextRule | None = None
    hints: tuple[str, ...] = ()
    mend: Mend | None = None
    hides: Callable[[Utterance], Sequence[tuple[float, float]]] | None = None
    by_target: Mapping[str, UtteranceAddon] = field(default_factory=dict)
    transcript: TranscriptAddon | None = None


class Addon(Protocol):
    """One feature; made once for all sessions by the factory of its name in `vivavoce.addons`."""

    threads: int
    """How many calls of `look` may run at once."""

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        """Give what works for one session: `options` are the feature's own, named as in the contract.

        `languages` are those that the session expects, none where they are to be detected. Blocks.
        """

    def close(self) -> None:
        """Free what all sessions shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmEndpoint:
    """A language model behind an OpenAI-compatible endpoint, and how hard it may be asked.

    `timeout_s` is for one answer with all its tries, `retries` of them after the first; `concurrency` is how many
    questions are out at once. `key` is empty where the endpoint wants none.
    """

    url: str
    model: str
    key: SecretStr = _NO_KEY
    timeout_s: float
    concurrency: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonSettings:
    """What the server's settings tell add-ons, by the settings' own names; a factory takes one of these.

    A factory raises `AddonMissing` where the settings leave it without what it needs, which only takes the feature
    away, and `SetupError` where they are wrong.
    """

    addon_deadline: float = 10.0
    closing_deadline: float = 120.0
    llm_url: str | None = None
    llm_model: str | None = None
    llm_key: SecretStr | None = None
    llm_timeout: float = 30.0
    llm_concurrency: int = 8
    llm_retries: int = 2
    translation_models: Path | None = None
    summarizer: Literal["extractive", "llm"] = "extractive"
    sentiment: Literal["lexicon", "llm"] = "lexicon"
    names: Literal["none", "llm", "spacy"] = "none"
    names_pipeline: str | None = None

    @property
    def llm(self) -> LlmEndpoint | None:
        """The language model, where the settings name one."""
        if self.llm_url is None or self.llm_model is None:
            return None
        return LlmEndpoint(
            url=self.llm_url,
            model=self.llm_model,
            key=self.llm_key or _NO_KEY,
            timeout_s=self.llm_timeout,
            concurrency=self.llm_concurrency,
            retries=self.llm_retries,
        )


class Diarizer(Protocol):
    """Tells the people in a clip apart; keeps a core busy while it works, so it runs in a process of its own."""

    def voices(self, samples: Samples) -> tuple[Voice, ...]:
        """Give everybody who is heard long enough to be known again; depends on nothing but `samples`."""


class Bridge(Protocol):
    """A front door for telephone calls and other streams; its factory takes the server's `Calls` and `Settings`."""

    sockets: Mapping[str, Callable[[Any], Awaitable[None]]]
    """What serves a Starlette `WebSocket`, by its path; empty for a bridge with listeners of its own only."""

    async def open(self) -> None:
        """Listen where the settings say so, on nothing by default; raises `SetupError` where that cannot be."""

    async def close(self) -> None:
        """Stop listening and drop what is connected; the sessions are for the next process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Changes to one session; a store commits a list of these, of many sessions, in one transaction.

    Fields left at their defaults change nothing. A snapshot takes the place of the channel's last one. With an `epoch`,
    the write is refused unless it is the session's: a process that lost a session cannot write to it.
    """

    session_id: str
    audio_bytes: int | None = None
    audio_start: int | None = None
    controls: tuple[Control, ...] = ()
    messages: tuple[StoredMessage, ...] = ()
    finals: tuple[Utterance, ...] = ()
    findings: tuple[Finding, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    status: Status | None = None
    completed_at: datetime | None = None
    error_code: int | None = None
    transcription_s: float | None = None
    ack_ends: tuple[int, ...] | None = None
    delivered_to: int | None = None
    snapshot: Snapshot | None = None
    epoch: int | None = None


class Store(Protocol):
    """Sessions, their journals and the keys; every method raises `StoreError` when the database fails."""

    async def add_session(self, record: SessionRecord, deliveries: Sequence[Delivery] = ()) -> None:
        """Keep a new session, with what it owes from the start."""

    async def session(self, session_id: str) -> SessionRecord | None:
        """Give one session."""

    async def session_by_token(self, token_hash: str) -> SessionRecord | None:
        """Give the session that a socket token opens."""

    async def unfinished_sessions(self) -> list[SessionRecord]:
        """Give the sessions that are neither done nor in error, the oldest first."""

    async def list_sessions(
        self,
        *,
        owner: str | None,
        offset: int,
        limit: int,
        statuses: Sequence[Status] = (),
        since: datetime | None = None,
        before: datetime | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> list[SessionRecord]:
        """Give sessions newest first; `since` is inclusive, `before` exclusive; metadata matches by equal values
        of the given keys, nested objects by containment. `owner` None means everybody's.
        """

    async def set_post_session_metadata(self, session_id: str, metadata: Mapping[str, Any]) -> None:
        """Replace the client's debug data."""

    async def delete_session(self, session_id: str) -> None:
        """Remove a session with its messages, finals, findings, controls and deliveries."""

    async def delete_sessions(self, session_ids: Sequence[str]) -> None:
        """Remove several sessions at once, as `delete_session` does."""

    async def expired_sessions(self, before: datetime, *, offset: int, limit: int) -> list[str]:
        """Give the ids of sessions that ended before a moment, those created first first."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply all writes in one transaction, in order, or none of them."""

    async def take_over(self, session_id: str) -> int:
        """Make this process the session's only writer and give the session's new epoch."""

    async def snapshots(self, session_id: str) -> list[Snapshot]:
        """Give the last snapshot of each channel, by channel."""

    async def controls(self, session_id: str) -> list[Control]:
        """Give the journal's control entries in the order they were written."""

    async def messages(self, session_id: str, *, start: int = 0, limit: int | None = None) -> list[StoredMessage]:
        """Give the durable messages by `seq`: those from `start` on, the first `limit` of them."""

    async def finals(self, session_id: str) -> list[Utterance]:
        """Give the finals by start, then channel."""

    async def findings(self, session_id: str) -> list[Finding]:
        """Give what add-ons said, by feature, utterance and target."""

    async def waiting_lanes(self) -> list[tuple[str, Lane]]:
        """Give the sessions and lanes that owe deliveries, those that have owed for longest first."""

    async def waiting_deliveries(self, session_id: str, lane: Lane, limit: int) -> list[Delivery]:
        """Give the first `limit` deliveries of a lane that wait, in the order they were committed."""

    async def record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Note how deliveries went, in one transaction; those that do not wait (any more) are passed over.

        What was delivered loses its body; what is dead keeps it.
        """

    async def delivery_report(self, session_id: str, limit: int) -> DeliveryReport:
        """Count a session's deliveries and give the first `limit` dead ones."""

    async def signing_secrets(self, owner: str, at: datetime) -> list[str]:
        """Give the secrets that sign an owner's deliveries at this moment, the newest first."""

    async def rotate_secret(self, owner: str, secret: str, at: datetime, old_until: datetime) -> None:
        """Add a secret that is valid from `at`; those before it are valid until `old_until` at most."""

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key."""

    async def keys(self) -> list[ApiKey]:
        """Give all keys, revoked ones included, the oldest first."""

    async def key_by_hash(self, key_hash: str) -> ApiKey | None:
        """Give the key with this hash, unless it is revoked."""

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        """Revoke a key by id; False where there is none or it was revoked before."""

    async def close(self) -> None:
        """Close the database."""


class AudioFiles(Protocol):
    """The raw bytes of each session, appended while it lives; blocking, called from threads."""

    def append(self, session_id: str, data: bytes) -> None:
        """Write at the end of the session's file; the bytes survive the death of the process on return."""

    def read(self, session_id: str, offset: int, size: int) -> bytes:
        """Give up to `size` bytes from `offset`; fewer at the end, none where there is no file."""

    def overwrite(self, session_id: str, offset: int, data: bytes) -> None:
        """Write over bytes that the file has; what would reach beyond its end is left out."""

    def truncate(self, session_id: str, size: int) -> None:
        """Cut the file back to `size` bytes, where a crash left more than was committed."""

    def size(self, session_id: str) -> int:
        """Give the file's length in bytes, 0 where there is none."""

    def release(self, session_id: str) -> None:
        """Close what is held open for a session."""

    def delete(self, session_id: str) -> None:
        """Remove the file; none is fine."""


def plugin_names(kind: str) -> list[str]:
    """Give the names of the installed plugins of one kind, such as `engines` or `bridges`."""
    return sorted({point.name for point in entry_points(group=f"vivavoce.{kind}")})


def plugin(kind: str, name: str) -> Callable[..., Any]:
    """Give the factory of an installed plugin: that of another package before the built-in one of the same name.

    Raises `SetupError` where there is none, with the names there are, and where several packages bring one.
    """
    found = entry_points(group=f"vivavoce.{kind}", name=name)
    by_package = {point.dist.name if point.dist is not None else point.value: point for point in found}
    packages = sorted(by_package.keys() - {_OWN_PACKAGE}) or sorted(by_package)
    one = kind.removesuffix("s")
    if not packages:
        known = ", ".join(plugin_names(kind)) or "none"
        raise SetupError(f"no {one} named {name!r} is installed (there are: {known})")
    if len(packages) > 1:
        raise SetupError(
            f"the {one} {name!r} is in several packages: keep one of {', '.join(packages)}, uninstall the others"
        )
    factory: Callable[..., Any] = by_package[packages[0]].load()
    return factory
