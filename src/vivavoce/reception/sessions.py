"""From an init request to a session, the same at every front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from vivavoce.errors import INVALID, InvalidConfig, Unsupported
from vivavoce.runtime.outbound import Refusal, names_private_address, parse_url
from vivavoce.wire.fields import checked
from vivavoce.wire.schema import Capabilities, InitRequest, parse_request

if TYPE_CHECKING:
    from vivavoce.config import Settings
    from vivavoce.model import SessionOptions, SessionRecord
    from vivavoce.plugins import AudioFiles, EngineInfo, Store
    from vivavoce.reception.access import Caller
    from vivavoce.runtime.catalogue import Listed

FEATURES = frozenset({"callback", "diarization"})
"""What every installation has, whatever its engine and its add-ons."""


class Sessions(Protocol):
    """What the front doors need of the hub."""

    @property
    def store(self) -> Store:
        """Where sessions are kept."""

    @property
    def audio(self) -> AudioFiles:
        """Where their audio is kept."""

    async def engine_info(self, model: str) -> EngineInfo:
        """Say what the model of this name can do, or the default, once the hub is ready; loads it where need be.

        Raises `Unavailable` where it cannot be loaded, or takes long.
        """

    async def models(self, *, fetchable: bool = True) -> Sequence[Listed]:
        """Give the models that sessions may name, and those that are `fetchable`, once the hub is ready."""

    @property
    def features(self) -> frozenset[str]:
        """Names of what add-ons provide, once the hub is ready."""

    @property
    def remedies(self) -> Mapping[str, str]:
        """What would provide features that are missing, by their names."""

    async def ready(self) -> None:
        """Return when the models are loaded."""

    async def create(
        self,
        owner: str,
        request: Mapping[str, Any],
        custom_metadata: Mapping[str, Any] | None,
        options: SessionOptions,
        *,
        most: int | None,
        leg: str | None = None,
    ) -> tuple[SessionRecord, str]:
        """Make a session and give it with its socket token; raises `CapacityError`, also for one beyond `most`.

        Raises `RequestError` where an add-on cannot do what it is asked for.
        """

    def is_running(self, session_id: str) -> bool:
        """Tell whether this process works on the session."""


async def create(
    hub: Sessions, settings: Settings, caller: Caller, body: object, *, leg: str | None = None
) -> tuple[SessionRecord, str]:
    """Check the body of an init request, as its JSON parsed, and give a new session with its socket token.

    `leg` names the leg of a telephone call that the session is for. Raises `RequestError` and `CapacityError`.
    """
    asked = checked(InitRequest, body)
    await hub.ready()
    engine = await hub.engine_info(asked.model)
    capabilities = Capabilities(languages=engine.languages, features=FEATURES | hub.features, remedies=hub.remedies)
    if not engine.languages.issuperset(asked.language_config.languages):
        capabilities = _with_others(capabilities, asked.model, await hub.models(fetchable=False))
    parsed = parse_request(body, capabilities)
    if parsed.options.callback_url is not None and not settings.allow_private_callbacks:
        _require_public(parsed.options.callback_url)
    return await hub.create(
        caller.owner, parsed.request, parsed.custom_metadata, parsed.options, most=caller.max_sessions, leg=leg
    )


def _with_others(capabilities: Capabilities, asked: str, models: Sequence[Listed]) -> Capabilities:
    """Add which model the request stands for, and what others that are here know."""
    here = {each.name: each.languages or frozenset() for each in models if each.get is None}
    default = next((each.name for each in models if each.default), asked)
    chosen = asked if asked in here else default
    name = f"{chosen} (the default one)" if chosen == default else chosen
    return replace(capabilities, model=name, others={other: here[other] for other in here if other != chosen})


def _require_public(callback_url: str) -> None:
    """Refuse what can be told to be private at once; names are looked up when something is posted to them."""
    try:
        private = names_private_address(parse_url(callback_url))
    except Refusal:
        raise InvalidConfig(INVALID, ["callback_config.url must be an http or https URL"]) from None
    if private:
        raise Unsupported(
            "callback_config.url: this server posts to public addresses only; name one, or start vivavoce with "
            "--allow-private-callbacks"
        )
