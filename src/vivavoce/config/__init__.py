"""Every setting of the server, from the command line, the environment and a TOML file.

The first of these that names a setting wins: the command line (`--data-dir`), the environment (`VIVAVOCE_DATA_DIR`),
the TOML file (`data_dir`), the default. The command line's options and help are built from the fields below.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from vivavoce.config.values import (
    MAX_PORT,
    AbsolutePath,
    Days,
    Endpoint,
    HostName,
    HostNames,
    HttpUrl,
    IpAddress,
    LlmModel,
    Networks,
    Parameters,
    PayloadTypes,
    Ports,
    PositiveSeconds,
    Seconds,
    Secret,
    Text,
    Users,
    WebOrigin,
)
from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from pydantic_settings import PydanticBaseSettingsSource

ENV_PREFIX = "VIVAVOCE_"
DEFAULT_FILE = Path("vivavoce.toml")
"""The TOML file that is read when none is named, where it exists."""

_DEMANDS = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a number",
    "bool_": "must be true or false",
    "path_": "must be a path",
    "string_too_short": "must not be empty",
    "string_": "must be a text",
    "tuple_": "must be a list",
}
"""What pydantic's kinds of error ask for, by the beginning of their names."""

_SECRETS = {
    "webhook_url",
    "llm_key",
    "engine_key",
    "sip_users",
    "twilio_auth_token",
    "plivo_auth_token",
    "vonage_signature_secret",
}


def _cores() -> int:
    return os.cpu_count() or 1


def store_in(directory: Path) -> str:
    """Give the URL of the database that a data directory holds by default."""
    return f"sqlite:///{(directory / 'vivavoce.sqlite3').as_posix()}"


class Settings(BaseSettings):
    """What the server is told at its start, checked and complete; durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    config: Path | None = Field(
        None, description="TOML file with settings; ./vivavoce.toml is read by default, where it exists."
    )
    host: HostName = Field("127.0.0.1", description="Address to listen on; anything but loopback needs an API key.")
    port: int = Field(8080, ge=0, le=MAX_PORT, description="TCP port to listen on; 0 takes a free one.")
    public_url: WebOrigin | None = Field(
        None,
        description="Scheme, host and port that clients reach this server by, such as https://speech.example.net;"
        " by default each request's own.",
    )
    trusted_proxies: Networks = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-Proto, -Host and -For are believed."
    )
    allowed_hosts: HostNames = Field(
        (), description="Host names besides loopback ones that requests may name while no API key exists."
    )
    data_dir: AbsolutePath = Field(
        default_factory=lambda: user_data_path("vivavoce", appauthor=False),
        description="Directory of the database and the audio; by default the user's own data directory.",
    )
    store_url: str = Field(
        default_factory=lambda fields: store_in(fields["data_dir"]),
        min_length=1,
        description="Database as an SQLAlchemy URL; by default vivavoce.sqlite3 in the data directory.",
    )
    retention_days: Days = Field(
        365, description="Days that finished sessions are kept; 0 keeps nothing, forever everything."
    )
    min_free_disk: int = Field(
        100, ge=0, le=1_000_000, description="Free space (MiB) below which the server says that it is not ready."
    )
    fsync: bool = Field(
        default=False, description="Force audio to the disk before it is acknowledged; survives a power cut, slower."
    )
    engine: str = Field("moonshine", min_length=1, description="Speech engine, by its plugin name.")
    model: Text | None = Field(
        None,
        description="The engine's model: a name that it knows, a directory, or the URL of a recogniser for remote;"
        " by default the engine's own choice.",
    )
    partial_engine: Text | None = Field(
        None, description="Another engine for partials; by default the same one, with --partial-model if given."
    )
    partial_model: Text | None = Field(
        None, description="Another, quicker model for partials; by default that of the finals."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="What the engine computes on; auto takes a GPU that it can use, else the CPU."
    )
    compute_type: str = Field(
        "auto", min_length=1, description="Numbers that the engine computes with, such as int8 or float16."
    )
    engine_threads: int = Field(1, ge=1, le=1024, description="CPU threads that one decoding computes on.")
    models_file: AbsolutePath | None = Field(
        None, description="TOML file of more models for sessions to name; by default models.toml in the data directory."
    )
    model_idle: PositiveSeconds | None = Field(
        None, description="Seconds without a session after which such a model is unloaded; by default never."
    )
    engine_key: Secret | None = Field(
        None, description="Key between a server and a recogniser elsewhere; better set in the environment."
    )
    vad: str = Field("silero", min_length=1, description="Voice activity detector, by its plugin name.")
    aligner: str = Field("pocketsphinx", min_length=1, description="Aligner for word times, by its plugin name.")
    diarizer: str = Field(
        "moonshine", min_length=1, description="Diarizer that tells speakers apart, by its plugin name."
    )
    diarizer_processes: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that tell speakers apart, once a session asks for it; each fills a core.",
    )
    decode_threads: int = Field(
        default_factory=_cores,
        ge=1,
        le=1024,
        description="Threads that decode finals, and as many more for partials; by default one per core.",
    )
    min_silence: float = Field(
        0.25,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="Shortest silence (seconds) that closes an utterance, however small a session's endpointing is.",
    )
    idle_cut: PositiveSeconds = Field(
        1.0,
        description="Seconds of wall clock without audio that close an utterance, where endpointing is shorter.",
    )
    partial_interval: PositiveSeconds = Field(
        0.15, description="Seconds of audio between two partial transcripts of an utterance on average, if load allows."
    )
    max_sessions: int = Field(256, ge=1, le=100_000, description="Sessions that may be live at once.")
    key_max_sessions: int = Field(
        100, ge=0, le=100_000, description="Sessions that one API key may have at once, unless made with another limit."
    )
    key_rate: float = Field(
        20,
        ge=0.01,
        le=100_000,
        allow_inf_nan=False,
        description="Requests a second that one API key may make, unless made with another limit.",
    )
    max_watchers: int = Field(32, ge=0, le=10_000, description="Watchers that one session may have at once.")
    max_connections: int = Field(4096, ge=1, le=1_000_000, description="Connections that may be open at once.")
    overload_delay: PositiveSeconds = Field(
        10, description="Seconds that work may wait before new sessions are refused."
    )
    overload_partial_delay: PositiveSeconds = Field(
        1, description="Seconds that an utterance may wait for its next partial before new sessions are refused."
    )
    ping_interval: PositiveSeconds = Field(
        20, description="Seconds between two pings of a socket, and that its client has to answer one."
    )
    max_session: PositiveSeconds = Field(10_800, description="Longest session, in seconds since it was created.")
    drain_timeout: Seconds = Field(
        10, description="Seconds that sessions may take to reach the end of an utterance when the server stops."
    )
    connect_timeout: PositiveSeconds = Field(
        600, description="Seconds that a new session waits for its first connection."
    )
    grace: Seconds = Field(60, description="Seconds that a session without a socket waits for its client.")
    idle_timeout: PositiveSeconds = Field(60, description="Seconds without any message after which a session is ended.")
    addon_deadline: PositiveSeconds = Field(
        10, description="Seconds that an add-on may take for one utterance before that is answered with an error."
    )
    closing_deadline: PositiveSeconds = Field(
        120, description="Seconds that add-ons may take at a session's end: what they still owe, and a summary."
    )
    llm_url: HttpUrl | None = Field(
        None, description="Base URL of an OpenAI-compatible endpoint for add-ons, such as http://127.0.0.1:11434/v1."
    )
    llm_model: LlmModel = Field(
        None, validate_default=True, description="Model that the endpoint is asked for; needed with --llm-url."
    )
    llm_key: Secret | None = Field(
        None, description="Key for the endpoint; better set in the environment, where other users cannot read it."
    )
    llm_timeout: PositiveSeconds = Field(
        30, description="Seconds that the endpoint has for one answer, retries included."
    )
    llm_concurrency: int = Field(8, ge=1, le=1024, description="Questions that may be out to the endpoint at once.")
    llm_retries: int = Field(
        2, ge=0, le=10, description="Times that a question is asked again after a passing failure."
    )
    translation_models: AbsolutePath | None = Field(
        None, description="Directory of CTranslate2 translation models, in subdirectories named like en-nl."
    )
    summarizer: Literal["extractive", "llm"] = Field(
        "extractive", description="What writes summaries: the most telling sentences, or the language model."
    )
    sentiment: Literal["lexicon", "llm"] = Field(
        "lexicon", description="What judges sentiment: a lexicon, or the language model."
    )
    names: Literal["none", "llm", "spacy"] = Field(
        "none", description="What finds names of people and places: nothing, the language model, or a spaCy pipeline."
    )
    names_pipeline: str | None = Field(
        None, description="Package or directory of the spaCy pipeline for --names spacy; needs vivavoce[names]."
    )
    webhook_url: HttpUrl | None = Field(
        None, description="Receives a POST when any session starts, records its first audio, stops recording and ends."
    )
    allow_private_callbacks: bool = Field(
        default=False, description="Let sessions name callback addresses of this machine and of private networks."
    )
    callback_timeout: PositiveSeconds = Field(
        10, description="Seconds that a callback's or webhook's receiver has to answer."
    )
    callback_deadline: Seconds = Field(
        21_600, description="Seconds after a message at which its callback or webhook is not tried any more."
    )
    callback_connections: int = Field(
        256, ge=1, le=10_000, description="Connections to receivers of callbacks at once, and as many of webhooks."
    )
    bridge_owner: str | None = Field(
        None, description="Id of the API key that calls belong to which come with a signature or from --bridge-allow."
    )
    bridge_allow: Networks = Field(
        (), description="Addresses or networks whose calls the bridges take without a key or a signature."
    )
    bridge_callbacks: bool = Field(
        default=False, description="Let the parameters of a call name the address of its callbacks."
    )
    bridge_parameters: Parameters = Field(
        "", description="Session options of calls that cannot bring their own, such as language=en&endpointing=0.3."
    )
    twilio_auth_token: Secret | None = Field(
        None,
        description="Token of the Twilio account; calls from Twilio must be signed with it. Set it by environment.",
    )
    plivo_auth_token: Secret | None = Field(
        None, description="Token of the Plivo account; calls from Plivo must be signed with it. Set it by environment."
    )
    vonage_signature_secret: Secret | None = Field(
        None, description="Signature secret of the Vonage account; calls from Vonage must carry a token signed with it."
    )
    audiosocket_listen: Endpoint | None = Field(
        None, description="Address and port, such as 127.0.0.1:9092, where Asterisk's AudioSocket calls are taken."
    )
    rtp_listen: Endpoint | None = Field(
        None, description="Address and UDP port that take plain RTP streams, such as 127.0.0.1:5004; off by default."
    )
    rtp_types: PayloadTypes = Field(
        ("101=telephone-event", "118=L16/16000"),
        description="What RTP payload types mean besides the static ones, such as 97=L16/16000.",
    )
    rtp_timeout: PositiveSeconds = Field(
        5, description="Seconds without a packet after which a plain RTP stream is over and its session stopped."
    )
    rtp_streams: int = Field(256, ge=1, le=100_000, description="Plain RTP streams that may be open at once.")
    sip_listen: Endpoint | None = Field(
        None,
        description="Address and UDP port on which SIP calls are answered, such as 127.0.0.1:5060; off by default.",
    )
    sip_users: Users | None = Field(
        None,
        description="Who may call by SIP with a password, as name:password,...; addresses in --bridge-allow need none.",
    )
    sip_media_ports: Ports | None = Field(
        None, description="UDP ports for the audio of SIP calls, such as 20000-20999; by default any free one."
    )
    sip_public_address: IpAddress | None = Field(
        None, description="IP address that SIP callers reach this machine by, where that is not its own."
    )
    sip_timeout: PositiveSeconds = Field(
        60, description="Seconds without audio after which a SIP call that is not on hold is hung up."
    )
    sip_calls: int = Field(256, ge=1, le=100_000, description="SIP calls that may be open at once.")
    jitter_delay: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = Field(
        0.1, description="Seconds that RTP audio waits for a packet that is missing before it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["console", "json"] = Field("console", description="Logs for people or for machines.")
    otel: bool = Field(default=False, description="Send OpenTelemetry spans of utterances; needs vivavoce[otel].")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources; the TOML file's name comes from the two above it."""
        del dotenv_settings, file_secret_settings
        named = init_settings().get("config") or env_settings().get("config")
        table = InitSettingsSource(settings_cls, init_kwargs=_read_file(Path(named) if named else None))
        return init_settings, env_settings, table


def load_settings(**overrides: Any) -> Settings:
    """Give the settings; `overrides` are the command line's, where None means not given.

    Raises `SetupError` with one line per mistake, each naming the setting as it is spelled on the command line and in
    the environment.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        lines = [line for detail in error.errors() if (line := _mistake(detail))]
        raise SetupError("\n".join(dict.fromkeys(lines))) from error


def option_names(field: str) -> str:
    """Give a setting's spellings as messages and help show them: `--data-dir (VIVAVOCE_DATA_DIR)`."""
    return f"--{field.replace('_', '-')} ({ENV_PREFIX}{field.upper()})"


def _read_file(named: Path | None) -> dict[str, Any]:
    """Read the TOML file, `named` or the default one; only the default one may be missing."""
    path = (named or DEFAULT_FILE).expanduser()
    if named is None and not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{option_names('config')}: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{option_names('config')}: {path} is not valid TOML: {error}") from error
    unknown = [_unknown_key(key, path) for key in table if key not in Settings.model_fields or key == "config"]
    if unknown:
        raise SetupError("\n".join(unknown))
    return table


def _unknown_key(key: str, path: Path) -> str:
    known = [name for name in Settings.model_fields if name != "config"]
    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"{key} in {path}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _mistake(detail: ErrorDetails) -> str | None:
    """Give one line for one mistake, or None for one that only follows from another."""
    if detail["type"] == "default_factory_not_called":
        return None
    field = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"--{field.replace('_', '-')}: there is no such setting"
    return f"{option_names(field)}: {_demand(detail, field)}, got {_shown(detail['input'], field)}"


def _demand(detail: ErrorDetails, field: str) -> str:
    """Say what a setting must be."""
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind in {"greater_than_equal", "less_than_equal"}:
        return "must be between {} and {}".format(*_range(field))
    if kind == "literal_error":
        return f"must be one of {context['expected']}"
    return next((demand for prefix, demand in _DEMANDS.items() if kind.startswith(prefix)), detail["msg"])


def _range(field: str) -> tuple[object, object]:
    """Give a numeric setting's smallest and largest value."""
    bounds = Settings.model_fields[field].metadata
    low = next(bound.ge for bound in bounds if getattr(bound, "ge", None) is not None)
    high = next(bound.le for bound in bounds if getattr(bound, "le", None) is not None)
    return low, high


def _shown(value: object, field: str) -> str:
    """Show a wrong value, unless it may hold a password."""
    if field in _SECRETS:
        return "another"  # addresses of webhooks hold secrets anywhere
    if field in {"store_url", "public_url", "llm_url"}:
        return re.sub(r"//[^/@]*@", "//***@", str(value))
    return repr(value) if isinstance(value, str) else str(value)
