"""Settings: where they come from, which source wins, and how mistakes are told."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from vivavoce.config import Settings, load_settings, option_names
from vivavoce.errors import SetupError


@pytest.fixture(autouse=True)
def clean_place(tmp_path, monkeypatch):
    """Start in an empty directory, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("VIVAVOCE_"):
            monkeypatch.delenv(name)


def mistakes(**overrides: object) -> list[str]:
    """Give the lines of the error that these overrides raise."""
    with pytest.raises(SetupError) as caught:
        load_settings(**overrides)
    return str(caught.value).splitlines()


def test_without_any_source_the_server_is_private_and_keeps_its_files_with_the_user():
    """Defaults: loopback, port 8080, a database beside the audio in one absolute directory."""
    settings = load_settings()
    assert (settings.host, settings.port, settings.public_url) == ("127.0.0.1", 8080, None)
    assert settings.data_dir.is_absolute()
    assert settings.data_dir.name == "vivavoce"
    assert settings.store_url == f"sqlite:///{settings.data_dir.as_posix()}/vivavoce.sqlite3"


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(tmp_path, monkeypatch):
    """Each source overrules the ones below it, setting by setting."""
    (tmp_path / "vivavoce.toml").write_text('port = 1\nmax_sessions = 2\ngrace = 3\nlog_level = "debug"\n')
    monkeypatch.setenv("VIVAVOCE_PORT", "11")
    monkeypatch.setenv("VIVAVOCE_MAX_SESSIONS", "12")
    settings = load_settings(port=21, grace=None)
    assert (settings.port, settings.max_sessions, settings.grace) == (21, 12, 3)
    assert settings.log_level == "debug"
    assert settings.min_silence == 0.25


@pytest.mark.parametrize("by", ["command line", "environment"])
def test_another_file_can_be_named(by, tmp_path, monkeypatch):
    """A named file is read instead of ./vivavoce.toml."""
    (tmp_path / "vivavoce.toml").write_text("port = 1\n")
    (tmp_path / "other.toml").write_text("port = 2\n")
    if by == "environment":
        monkeypatch.setenv("VIVAVOCE_CONFIG", "other.toml")
    settings = load_settings(config=Path("other.toml") if by == "command line" else None)
    assert settings.port == 2


def test_a_data_directory_moves_the_default_database_with_it(tmp_path, monkeypatch):
    """The database's default follows the data directory, which `~` and relative paths may name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(data_dir="~/speech").data_dir == tmp_path / "speech"
    assert load_settings(data_dir="here").store_url == f"sqlite:///{tmp_path.as_posix()}/here/vivavoce.sqlite3"
    assert load_settings(data_dir="here", store_url="postgresql://db/x").store_url == "postgresql://db/x"


def test_lists_are_written_with_commas_or_as_toml_lists(tmp_path, monkeypatch):
    """One spelling for options and variables, the natural one in TOML."""
    monkeypatch.setenv("VIVAVOCE_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    (tmp_path / "vivavoce.toml").write_text('allowed_hosts = ["Speech.lan", "[fd00::1]"]\n')
    settings = load_settings()
    assert settings.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert settings.allowed_hosts == ("speech.lan", "fd00::1")


@pytest.mark.parametrize(
    ("given", "kept"), [("forever", None), (" Forever ", None), ("0", 0.0), ("0.5", 0.5), (30, 30.0)]
)
def test_retention_is_a_number_of_days_or_forever(given, kept):
    """Half days are fine; without a word it is a year, as with the original service."""
    assert load_settings(retention_days=given).retention_days == kept
    assert load_settings().retention_days == 365


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    """Container files that pass variables on leave them empty."""
    monkeypatch.setenv("VIVAVOCE_PORT", "")
    assert load_settings().port == 8080


def test_each_mistake_is_one_line_that_names_the_setting_and_the_value():
    """All mistakes are told at once, in the spellings of the command line and the environment."""
    assert mistakes(port=99999, idle_cut="soon", log_level="loud", fsync="perhaps", engine="") == [
        "--port (VIVAVOCE_PORT): must be between 0 and 65535, got 99999",
        "--fsync (VIVAVOCE_FSYNC): must be true or false, got 'perhaps'",
        "--engine (VIVAVOCE_ENGINE): must not be empty, got ''",
        "--idle-cut (VIVAVOCE_IDLE_CUT): must be a number, got 'soon'",
        "--log-level (VIVAVOCE_LOG_LEVEL): must be one of 'debug', 'info', 'warning' or 'error', got 'loud'",
    ]


@pytest.mark.parametrize(
    ("name", "value", "demand"),
    [
        ("port", "8o80", "must be a whole number"),
        ("port", -1, "must be between 0 and 65535"),
        ("min_silence", 2.5, "must be between 0 and 2"),
        ("min_silence", "nan", "must be"),
        ("grace", "inf", "must be"),
        ("max_sessions", 0, "must be between 1 and 100000"),
        ("decode_threads", 1.5, "must be a whole number"),
        ("retention_days", "never", "must be a number of days between 0 and 36500, or forever"),
        ("retention_days", -1, "must be a number of days"),
        ("retention_days", "nan", "must be a number of days"),
        ("key_rate", 0, "must be between 0.01 and"),
        ("host", "http://127.0.0.1", "must be a host name or address"),
        ("trusted_proxies", "10.0.0.1/8", "must be an IP address or a network"),
        ("trusted_proxies", "proxy.lan", "must be an IP address or a network"),
        ("allowed_hosts", "speech.lan:8080/", "must be a host name or address"),
        ("public_url", "speech.example.net", "must be a URL"),
        ("public_url", "ws://speech.example.net", "must be a URL"),
        ("public_url", "https://speech.example.net/stt", "must be scheme, host and port only"),
        ("public_url", "https://speech.example.net?x=1", "must be scheme, host and port only"),
        ("public_url", "https://speech.example.net:99999", "must be a URL"),
        ("llm_concurrency", 0, "must be between 1 and 1024"),
        ("llm_key", "two words", "must be printable ASCII without blanks"),
        ("llm_key", "schlüssel", "must be printable ASCII without blanks"),
        ("summarizer", "me", "must be one of 'extractive' or 'llm'"),
    ],
)
def test_values_out_of_bounds_are_mistakes(name, value, demand):
    """Whatever would break later is refused at the start."""
    (line,) = mistakes(**{name: value})
    assert line.startswith(f"{option_names(name)}: {demand}")


def test_a_mistake_in_a_url_is_told_without_its_password():
    """Passwords do not reach the terminal or a log."""
    (line,) = mistakes(public_url="https://admin:hunter2@speech.example.net")
    assert "hunter2" not in line


def test_a_mistake_in_the_language_models_key_is_told_without_it(monkeypatch):
    """Neither a mistake nor the settings as a whole show it."""
    (line,) = mistakes(llm_key="sk very secret")
    assert "secret" not in line
    monkeypatch.setenv("VIVAVOCE_LLM_KEY", "sk-very-secret")
    settings = load_settings()
    assert "very-secret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.llm_key is not None
    assert settings.llm_key.get_secret_value() == "sk-very-secret"


def test_an_endpoint_needs_a_model(monkeypatch):
    """A server that would fail at the first question does not start."""
    (line,) = mistakes(llm_url="http://user:hunter2@127.0.0.1:11434/v1")
    assert line.startswith("--llm-model (VIVAVOCE_LLM_MODEL): must name the endpoint's model")
    (line,) = mistakes(llm_url="ftp://user:hunter2@127.0.0.1")
    assert line.startswith("--llm-url (VIVAVOCE_LLM_URL): must be a URL")
    assert "hunter2" not in line
    settings = load_settings(llm_url="http://127.0.0.1:11434/v1", llm_model="small")
    assert (settings.llm_url, settings.llm_model) == ("http://127.0.0.1:11434/v1", "small")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Speech.Example.net/", "https://speech.example.net"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://10.1.2.3:80", "http://10.1.2.3:80"),
    ],
)
def test_a_public_url_is_kept_as_a_bare_origin(given, kept):
    """Paths can be appended to it as they are."""
    assert load_settings(public_url=given).public_url == kept


def test_unknown_keys_in_the_file_are_mistakes_with_the_likely_name(tmp_path):
    """A misspelt key does not go unnoticed."""
    (tmp_path / "vivavoce.toml").write_text("prot = 1\ndata-dir = 'x'\nrhubarb = 2\n")
    assert mistakes() == [
        "prot in vivavoce.toml: there is no such setting; did you mean port?",
        "data-dir in vivavoce.toml: there is no such setting; did you mean data_dir?",
        "rhubarb in vivavoce.toml: there is no such setting",
    ]


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path):
    """A missing or broken file names itself and what is wrong with it."""
    assert mistakes(config="none.toml") == [
        "--config (VIVAVOCE_CONFIG): cannot read none.toml: No such file or directory"
    ]
    (tmp_path / "bad.toml").write_text("port 80")
    (line,) = mistakes(config="bad.toml")
    assert line.startswith("--config (VIVAVOCE_CONFIG): bad.toml is not valid TOML: ")
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    assert "latin.toml is not valid TOML" in mistakes(config="latin.toml")[0]


def test_every_setting_says_what_it_is_for():
    """The command line's help is made of these descriptions."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "value", "demand"),
    [
        ("rtp_listen", "5004", "an IP address and a port"),
        ("rtp_listen", "[::1]:70000", "an IP address and a port"),
        ("sip_listen", "localhost:5060", "an IP address and a port"),
        ("rtp_types", "128=L16/8000", "payload types such as"),
        ("rtp_types", "97=OPUS/48000", "payload types such as"),
        ("rtp_types", "97=L16/96000", "sample rates from 8000 to 48000"),
        ("bridge_parameters", "language", "parameters such as"),
        ("sip_media_ports", "2000-1000", "a range of ports"),
        ("sip_public_address", "example.net", "an IP address"),
        ("sip_users", "alice:hunter2,bob", "names and passwords"),
    ],
)
def test_what_calls_come_in_by_is_checked(name, value, demand):
    """A wrong address, table, range or list of users is told in one line that says what is wanted."""
    (line,) = mistakes(**{name: value})
    assert f"--{name.replace('_', '-')}" in line
    assert demand in line
    assert "hunter2" not in line


def test_addresses_to_listen_on_are_read_in_both_families():
    """An IPv6 address stands in brackets."""
    settings = load_settings(rtp_listen="127.0.0.1:5004", sip_listen="[::1]:5060", sip_media_ports="20000-20999")
    assert (settings.rtp_listen, settings.sip_listen) == (("127.0.0.1", 5004), ("::1", 5060))
    assert settings.sip_media_ports == (20000, 20999)
