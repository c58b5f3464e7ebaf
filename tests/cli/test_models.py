"""`vivavoce models`: the file that it writes, and downloads from loopback, whole, cut off, wrong and refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

from server import environment, program
from sherpa_model import streaming
from vivavoce.cli import run
from vivavoce.cli.fetching import TRIES, Interrupted, fetch_from_hub, fetch_from_url, part_of, wrong_files
from vivavoce.cli.model_tables import write_table
from vivavoce.config import load_settings
from vivavoce.errors import SetupError
from vivavoce.runtime.entries import read_entries
from vivavoce.testing.engines import ScriptedEngine
from whisper_model import make_model

SUM = ["--sha256", "0" * 64]
FILES = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json")


@dataclass
class Site:
    """What a web server on loopback gives; it hangs up after `cut` bytes of each answer, if that is set.

    Before it does, it calls `on_cut`, if there is one, and sends nothing until the test is over.
    """

    url: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    on_cut: Callable[[], None] | None = None
    going: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            asked = self.headers.get("range")
            found.asked.append((self.command, path, asked))
            page = found.pages.get(path)
            if page is None:
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and found.ranges else 0
            if asked and start >= len(page):
                self.send_response(416)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked and found.ranges else 200)
            self.send_header("content-length", str(len(page) - start))
            self.send_header("etag", f'"{hashlib.sha256(page).hexdigest()}"')
            self.send_header("x-repo-commit", "a" * 40)
            if asked and found.ranges:
                self.send_header("content-range", f"bytes {start}-{len(page) - 1}/{len(page)}")
            self.end_headers()
            if body:
                self.wfile.write(page[start:][: found.cut])
                if found.on_cut is not None:
                    found.on_cut()
                    found.going.wait(20)
                self.close_connection = found.cut is not None

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.going.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "many")


def archive_of(model: Path) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
        archive.add(model, "whisper-many")
    return raw.getvalue()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git(content: bytes) -> str:
    """Give the number that git has for a file: `git hash-object`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*")) if directory.exists() else []


# Downloads by URL


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(site, tmp_path):
    """As often as it gets on, over several connections; what comes is what was there."""
    content = bytes(range(256)) * 40
    site.pages["/model.bin"], site.cut = content, 4000
    fetch_from_url(f"{site.url}/model.bin", sha(content), tmp_path / "m")
    assert (tmp_path / "m" / "model.bin").read_bytes() == content
    assert [asked for _, _, asked in site.asked] == [None, "bytes=4000-", "bytes=8000-"]
    assert left_in(tmp_path) == ["SHA256SUMS", "m", "model.bin"]
    assert wrong_files(tmp_path / "m") == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_at_the_next_try(site, tmp_path, ranges):
    """What came is kept; a server that cannot go on gives all of it again."""
    content = bytes(range(256)) * 100
    site.pages["/model.bin"], site.cut, site.ranges = content, 2000, ranges
    with pytest.raises(Interrupted):
        fetch_from_url(f"{site.url}/model.bin", sha(content), tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert part_of(tmp_path / "m").exists()
    site.cut = None
    fetch_from_url(f"{site.url}/model.bin", sha(content), tmp_path / "m")
    assert (tmp_path / "m" / "model.bin").read_bytes() == content
    assert not part_of(tmp_path / "m").exists()


def test_a_wrong_checksum_leaves_nothing(site, tmp_path):
    """The message has the checksum of what came."""
    site.pages["/model.bin"] = b"other"
    with pytest.raises(SetupError, match=sha(b"other")):
        fetch_from_url(f"{site.url}/model.bin", sha(b"right"), tmp_path / "m")
    assert left_in(tmp_path) == []


def test_what_is_not_there_leaves_nothing(site, tmp_path):
    """A 404 is told as such."""
    with pytest.raises(Interrupted, match="HTTP 404"):
        fetch_from_url(f"{site.url}/model.bin", sha(b""), tmp_path / "m")
    assert left_in(tmp_path) == []


def test_an_archive_cannot_write_elsewhere(site, tmp_path):
    """Names that lead out of it are refused, and nothing is kept."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        inside = tarfile.TarInfo("../../evil")
        inside.size = 4
        archive.addfile(inside, io.BytesIO(b"evil"))
    site.pages["/m.tar"] = raw.getvalue()
    with pytest.raises(SetupError, match="cannot be unpacked"):
        fetch_from_url(f"{site.url}/m.tar", sha(raw.getvalue()), tmp_path / "m")
    assert left_in(tmp_path) == []


def test_a_downloaded_model_is_added_verified_and_watched_over(site, model, tmp_path, capsys):
    """An archive's one directory becomes the model; a file that changes later is found."""
    content = archive_of(model)
    site.pages["/many.tar.gz"] = content
    place = ["--data-dir", str(tmp_path)]
    url = ["--url", f"{site.url}/many.tar.gz", "--sha256", sha(content)]
    assert run(["models", "download", "many", "--engine", "faster-whisper", *url, *place]) == 0
    assert {path.name for path in (tmp_path / "models" / "many").iterdir()} >= set(FILES)
    capsys.readouterr()
    assert run(["models", "verify", "many", *place]) == 0
    assert "its files are as downloaded, and faster-whisper-many was loaded" in capsys.readouterr().out
    with (tmp_path / "models" / "many" / "config.json").open("a") as file:
        file.write(" ")
    assert run(["models", "verify", "many", *place]) == 1
    assert "changed since the download: config.json" in capsys.readouterr().err


def test_one_model_is_downloaded_once_at_a_time(site, tmp_path):
    """The second is refused while the first writes; what that has is not touched."""
    part = part_of(tmp_path / "m")
    part.mkdir()
    (part / "half.download").write_bytes(b"half")
    with FileLock(part / "lock"), pytest.raises(SetupError, match="m is being downloaded by another vivavoce"):
        fetch_from_url(f"{site.url}/model.bin", sha(b""), tmp_path / "m")
    assert left_in(part) == ["half.download", "lock"]
    assert site.asked == []


def test_a_full_disk_is_one_line_and_keeps_what_came(site, tmp_path):
    """While a file is written, and while an archive is unpacked, which then need not come again."""
    content = bytes(200_000)
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.bin", content)
    site.pages.update({"/model.bin": content, "/m.zip": raw.getvalue()})
    for name, page in (("model.bin", content), ("m.zip", raw.getvalue())):
        with files_up_to(100_000), pytest.raises(SetupError, match=r"m\.part: File too large; what came is kept: make"):
            fetch_from_url(f"{site.url}/{name}", sha(page), tmp_path / name / "m")
        assert part_of(tmp_path / name / "m").exists()
        site.asked.clear()
        fetch_from_url(f"{site.url}/{name}", sha(page), tmp_path / name / "m")
        assert [asked for _, _, asked in site.asked] == (["bytes=100000-"] if name == "model.bin" else [])
        assert (tmp_path / name / "m" / "model.bin").read_bytes() == content
        assert not part_of(tmp_path / name / "m").exists()


def test_output_that_cannot_be_written_is_one_line():
    """Such as on a full disk."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([program(), "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "vivavoce: No space left on device: make room for what this command writes, and run it again"
    ]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, which it hears of as it does of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_interrupted_download_says_in_one_line_that_it_can_go_on(site, tmp_path, capsys):
    """At once, in the middle of a file."""
    content = bytes(range(100))
    site.pages["/model.bin"], site.cut = content, 5
    url = ["--url", f"{site.url}/model.bin", "--sha256", sha(content)]
    command = ["models", "download", "m", "--engine", "moonshine", *url, "--data-dir", str(tmp_path)]
    assert run(command) == 1
    assert "what came is kept" in capsys.readouterr().err
    # A shell that starts tests in the background has them ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    site.on_cut = lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    try:
        assert run(command) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "vivavoce: m: what came is kept; run the same command again to go on"
    (kept,) = (tmp_path / "models" / "m.part").glob("*.download")
    assert kept.read_bytes() == content[: kept.stat().st_size]


# The hub


def as_hub(site: Site, repository: str, files: dict[str, bytes], **sums: str) -> dict[str, str]:
    """Make the site a mirror of the hub with one repository; give the environment that names it.

    It tells of files what the hub does, git's number or a checksum, unless `sums` has another for a name.
    """
    commit = "a" * 40
    siblings = [{"rfilename": name, "size": len(page), "blobId": git(page)} for name, page in files.items()]
    for each in siblings:
        if each["rfilename"] == "model.bin":
            digest = sums.get("model.bin", sha(files["model.bin"]))
            each["lfs"] = {"sha256": digest, "size": each["size"], "pointerSize": 130}
        else:
            each["blobId"] = sums.get(each["rfilename"], each["blobId"])
    about = json.dumps({"id": repository, "sha": commit, "siblings": siblings, "private": False}).encode()
    site.pages[f"/api/models/{repository}"] = about
    for name, page in files.items():
        site.pages[f"/{repository}/resolve/{commit}/{name}"] = page
    return {"HF_ENDPOINT": site.url, "HF_HUB_DISABLE_TELEMETRY": "1"}


def use_hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process ask the site, as HF_ENDPOINT would another one."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", site.url)
    template = f"{site.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def models(*arguments: str, place: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program, since the hub's library reads its environment once."""
    variables = {**environment(), "HF_HOME": str(place / "hf"), **variables}
    command = [program(), "models", *arguments, "--data-dir", str(place / "data")]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)


def test_a_known_model_comes_from_a_mirror_of_the_hub(site, model, tmp_path):
    """Only the files that are needed; the mirror is named in the environment."""
    files = {name: (model / name).read_bytes() for name in FILES} | {"README.md": b"not needed"}
    variables = as_hub(site, "Systran/faster-whisper-tiny", files)
    ended = models("download", "whisper-tiny", place=tmp_path, **variables)
    assert ended.returncode == 0, ended.stderr
    directory = tmp_path / "data" / "models" / "whisper-tiny"
    assert {path.name for path in directory.iterdir()} == {*FILES, "SHA256SUMS"}
    assert wrong_files(directory) == []
    table = (tmp_path / "data" / "models.toml").read_text()
    assert table == f'[whisper-tiny]\nengine = "faster-whisper"\nmodel = "{directory}"\n'


def test_a_release_of_sherpa_onnx_comes_likewise_and_is_used(site, tmp_path, capsys, monkeypatch):
    """Of a repository with every number format only one is fetched; the directory's name tells the languages."""
    name = "sherpa-onnx-streaming-zipformer-en-2023-06-26"
    made = {path.name: path.read_bytes() for path in streaming(tmp_path / "made").iterdir()}
    small = {each.replace(".onnx", ".int8.onnx"): page for each, page in made.items()}
    as_hub(site, f"csukuangfj/{name}", made | small)
    use_hub(site, monkeypatch)
    place = ["--data-dir", str(tmp_path / "data")]
    assert run(["models", "download", name, *place]) == 0
    assert {path.name for path in (tmp_path / "data" / "models" / name).iterdir()} == {*small, "SHA256SUMS"}
    assert run(["models", "verify", name, *place]) == 0
    assert f"as downloaded, and {name} was loaded and used" in capsys.readouterr().out
    assert run(["models", "list", *place]) == 0
    assert f"{name} sherpa-onnx en installed".split() in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("name", "digest"), [("model.bin", sha(b"other")), ("config.json", git(b"other"))], ids=["large", "small"]
)
def test_a_file_that_the_hub_has_another_checksum_of_leaves_nothing(site, tmp_path, monkeypatch, name, digest):
    """Mirrors and proxies may be wrong, of large files and of small ones."""
    as_hub(site, "owner/other", {name: b"weights", "model.bin": b"weights"}, **{name: digest})
    use_hub(site, monkeypatch)
    with pytest.raises(SetupError, match=f"{name} came with another checksum"):
        fetch_from_hub("owner/other", [], tmp_path / "m")
    assert left_in(tmp_path) == []


def test_a_download_from_the_hub_goes_on_where_it_stopped(site, tmp_path, monkeypatch):
    """What is there and right is not fetched again; what another state of the repository had is left out."""
    content = bytes(range(256)) * 100
    as_hub(site, "owner/other", {"config.json": b"{}", "old.txt": b"old", "model.bin": content})
    use_hub(site, monkeypatch)
    site.cut = 2000
    with pytest.raises(Interrupted, match=r"model\.bin does not come whole"):
        fetch_from_hub("owner/other", [], tmp_path / "m")
    site.cut = None
    as_hub(site, "owner/other", {"config.json": b"{}", "model.bin": content})
    site.asked.clear()
    fetch_from_hub("owner/other", [], tmp_path / "m")
    # The hub's library may ask for something of its own.
    files = [(path.rpartition("/")[2], asked) for _, path, asked in site.asked if "owner/other" in path]
    assert files == [
        ("other", None),
        ("model.bin", f"bytes={2000 * TRIES}-"),
    ]
    assert (tmp_path / "m" / "model.bin").read_bytes() == content
    assert wrong_files(tmp_path / "m") == []
    assert left_in(tmp_path) == ["SHA256SUMS", "config.json", "m", "model.bin"]


@pytest.mark.parametrize(("before", "after"), [("a", "a/b"), ("a/b", "a")])
def test_a_file_of_an_earlier_try_may_be_a_directory_now(site, tmp_path, monkeypatch, before, after):
    """And the reverse: what another state of the repository had is in nobody's way."""
    use_hub(site, monkeypatch)
    as_hub(site, "owner/other", {before: b"old", "model.bin": b"weights"})
    del site.pages[f"/owner/other/resolve/{'a' * 40}/model.bin"]
    with pytest.raises(Interrupted):
        fetch_from_hub("owner/other", [], tmp_path / "m")
    as_hub(site, "owner/other", {after: b"new", "model.bin": b"weights"})
    fetch_from_hub("owner/other", [], tmp_path / "m")
    assert (tmp_path / "m" / after).read_bytes() == b"new"
    assert wrong_files(tmp_path / "m") == []


def test_no_more_comes_than_a_file_has(site, tmp_path, monkeypatch):
    """What goes on without end is given up soon, and not kept."""
    use_hub(site, monkeypatch)
    as_hub(site, "owner/other", {"model.bin": b"weights"})
    endless = site.pages[f"/owner/other/resolve/{'a' * 40}/model.bin"] = b"weights" * 3_000_000
    counted = []
    monkeypatch.setattr("vivavoce.cli.fetching.sha256_of", lambda path: counted.append(path.stat().st_size) or "other")
    with pytest.raises(SetupError, match="another checksum"):
        fetch_from_hub("owner/other", [], tmp_path / "m")
    assert 0 < max(counted) < len(endless) / 2
    assert left_in(tmp_path) == []


def test_a_mirror_cannot_write_elsewhere(site, tmp_path, monkeypatch):
    """Names that lead out of the model's directory are refused, and nothing is kept."""
    as_hub(site, "owner/other", {"../../evil": b"evil"})
    use_hub(site, monkeypatch)
    with pytest.raises(SetupError, match="would be written elsewhere"):
        fetch_from_hub("owner/other", [], tmp_path / "a" / "b" / "m")
    assert left_in(tmp_path) == ["a", "b"]


def test_a_repository_without_the_files_is_told(site, tmp_path, monkeypatch):
    """Rather than that an empty directory becomes a model."""
    as_hub(site, "owner/other", {"README.md": b""})
    use_hub(site, monkeypatch)
    with pytest.raises(SetupError, match=r"owner/other has none of model\.bin"):
        fetch_from_hub("owner/other", ["model.bin"], tmp_path / "m")
    assert left_in(tmp_path) == []


def test_without_a_network_one_line_says_what_to_do(site, tmp_path, capsys, monkeypatch):
    """What to fetch elsewhere, and how to add it; nothing is left behind."""
    use_hub(site, monkeypatch)
    assert run(["models", "download", "whisper-tiny", "--data-dir", str(tmp_path / "data")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{site.url}/Systran/faster-whisper-tiny" in line
    assert "HF_ENDPOINT" in line
    assert "vivavoce models add whisper-tiny --engine faster-whisper --model DIR" in line
    assert left_in(tmp_path / "data" / "models") == []
    assert not (tmp_path / "data" / "models.toml").exists()


def test_a_model_is_verified_by_what_it_hears(tmp_path, capsys):
    """The recording at the rate that engines are promised."""
    (tmp_path / "models.toml").write_text('[own]\nengine = "moonshine"\n')
    assert run(["models", "verify", "own", "--data-dir", str(tmp_path)]) == 0
    assert "it was the best of times" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(("language", "code"), [("en", 1), ("nl", 0)])
def test_a_model_that_hears_nothing_is_told(tmp_path, capsys, monkeypatch, language, code):
    """It fails, unless the speech is in a language that it does not know."""
    deaf = ScriptedEngine(lambda clip: "")
    deaf.info = replace(deaf.info, languages=frozenset({language}))
    monkeypatch.setattr("vivavoce.runtime.engines.Recipe.make", lambda recipe: deaf)
    (tmp_path / "models.toml").write_text('[own]\nengine = "moonshine"\n')
    assert run(["models", "verify", "own", "--data-dir", str(tmp_path)]) == code
    assert "heard no word in 4 s" in capsys.readouterr().err if code else "heard: no word" in capsys.readouterr().out


# The file


def test_adding_keeps_what_is_in_the_file(model, tmp_path):
    """Comments and other tables stay as they are."""
    before = '# ours\n[old]\nengine = "moonshine" # tiny\n'
    (tmp_path / "models.toml").write_text(before)
    options = ["--engine", "faster-whisper", "--model", str(model), "--partials", "old", "--engine-threads", "2"]
    assert run(["models", "add", "new", *options, "--data-dir", str(tmp_path)]) == 0
    after = (tmp_path / "models.toml").read_text()
    assert after.startswith(before)
    assert f'[new]\nengine = "faster-whisper"\nmodel = "{model}"\nengine_threads = 2\npartials = "old"\n' in after
    assert left_in(tmp_path) == ["models.toml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "x", "--engine", "nobody"], "no engine named 'nobody' is installed"),
        (["add", "a b", "--engine", "moonshine"], "'a b' is no name for a model"),
        (["add", "old", "--engine", "moonshine"], "has a model old already; choose another name, or give --replace"),
        (["add", "moonshine", "--engine", "faster-whisper"], "is the name of the server's default model"),
        (["add", "x", "--engine", "moonshine", "--model", "/nowhere"], "--model /nowhere: there is no such directory"),
        (["add", "x", "--engine", "moonshine", "--device", "tpu"], "x.device: must be one of"),
        (["add", "x", "--engine", "moonshine", "--model", "tiny"], "moonshine has one model, and runs it on the CPU"),
        (["add", "x", "--engine", "faster-whisper", "--model", "models/x"], "no such directory, and not in the hub's"),
        (["add", "x", "--engine", "faster-whisper", "--model", "."], "has no model.bin"),
        (["add", "x", "--engine", "sherpa-onnx", "--model", "."], "no model of a known type"),
        (
            ["add", "x", "--engine", "remote", "--model", "ws://127.0.0.1:1"],
            "no recogniser answers at ws://127.0.0.1:1",
        ),
        (["add", "x", "--engine", "moonshine", "--partials", "sherpa-onnx"], "sherpa-onnx needs a --partial-model"),
        (["download", "x"], "no engine knows a model x"),
        (["download", "x", "--hub", "a/b"], "give --engine with either --hub or --url"),
        (["download", "x", "--engine", "moonshine", "--url", "http://127.0.0.1"], "--url needs --sha256"),
        (
            ["download", "old", "--engine", "moonshine", "--hub", "a/b"],
            "has a model old already; choose another name, or remove it with: vivavoce models remove old",
        ),
        (["download", "whisper-small", "--engine", "moonshine"], "whisper-small is a model of faster-whisper: leave"),
        (["download", "x", "--engine", "moonshine", "--hub", "nonsense"], "--hub nonsense is no repository"),
        (["download", "x", "--engine", "moonshine", "--hub", "a/b", *SUM], "--sha256 is the checksum of what --url"),
        (
            ["download", "x", "--engine", "moonshine", "--url", "http://[bad/x", *SUM],
            "--url http://[bad/x is no address",
        ),
        (["download", "x", "--engine", "moonshine", "--url", "nonsense", *SUM], "--url nonsense is no address"),
        (["download", "x", "--engine", "moonshine", "--url", "ftp://a/b", *SUM], "https:// or http://"),
        (["download", "x", "--engine", "moonshine", "--url", "https:///b", *SUM], "https:// or http:// and a host"),
        (["download", "x", "--engine", "moonshine", "--url", "file:///b", *SUM], "is on this machine"),
        (["remove", "x"], "there is no model x"),
        (["remove", "x", "--files"], "there is no model x"),
        (["remove", "..", "--files"], "'..' is no name for a model"),
        (["verify", "x"], "there is no model x"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, monkeypatch, capsys, arguments, said):
    """Each says what is wrong."""
    monkeypatch.chdir(tmp_path)
    text = '[old]\nengine = "moonshine"\n'
    (tmp_path / "models.toml").write_text(text)
    assert run(["models", *arguments, "--data-dir", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert left_in(tmp_path) == ["models.toml"]
    assert (tmp_path / "models.toml").read_text() == text


def test_no_change_of_many_at_once_is_lost(tmp_path):
    """Each command waits for the one before."""
    names = [f"m{nth}" for nth in range(6)]
    settings = load_settings(data_dir=tmp_path)

    def change(name: str) -> None:
        write_table(settings, name, {"engine": "moonshine"}, taken=None)

    with ThreadPoolExecutor(max_workers=4) as threads:
        list(threads.map(change, names))
    assert sorted(read_entries(tmp_path / "models.toml")) == sorted(names)
    assert left_in(tmp_path) == ["models.toml"]


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (["remove", "a"], '# about b\n[b]\nengine = "moonshine"\n# end\n'),
        (["remove", "b"], '[a]\nengine = "moonshine" # tiny\n\n# about b\n# end\n'),
        (
            ["add", "a", "--replace", "--engine", "moonshine", "--engine-threads", "2"],
            '[a]\nengine = "moonshine" # tiny\nengine_threads = 2\n\n# about b\n[b]\nengine = "moonshine"\n# end\n',
        ),
    ],
)
def test_comments_of_other_tables_stay(tmp_path, arguments, after):
    """They stand above their table, which is behind another one."""
    before = '[a]\nengine = "moonshine" # tiny\n\n# about b\n[b]\nengine = "moonshine"\n# end\n'
    (tmp_path / "models.toml").write_text(before)
    assert run(["models", *arguments, "--data-dir", str(tmp_path)]) == 0
    assert (tmp_path / "models.toml").read_text() == after


def test_a_link_stays_a_link_and_a_mode_stays_the_mode(tmp_path):
    """The file may be kept elsewhere, and be for some to read alone."""
    kept = tmp_path / "kept" / "ours.toml"
    kept.parent.mkdir()
    kept.write_text("# ours\n")
    kept.chmod(0o640)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.toml").symlink_to(kept)
    place = ["--data-dir", str(tmp_path / "data")]
    assert run(["models", "add", "new", "--engine", "moonshine", *place]) == 0
    assert (tmp_path / "data" / "models.toml").is_symlink()
    assert kept.read_text() == '# ours\n\n[new]\nengine = "moonshine"\n'
    assert kept.stat().st_mode & 0o777 == 0o640


def test_a_model_is_removed_with_its_files_where_that_is_wanted(site, tmp_path, capsys):
    """Not while another one uses them; other tables and comments stay, and so does what is elsewhere."""
    place = ["--data-dir", str(tmp_path)]
    site.pages["/a.bin"] = b"weights"
    url = ["--url", f"{site.url}/a.bin", "--sha256", sha(b"weights")]
    assert run(["models", "download", "a", "--engine", "moonshine", *url, *place]) == 0
    own = tmp_path / "models" / "a"
    with (tmp_path / "models.toml").open("a", encoding="utf-8") as file:
        file.write(f'[b]\nengine = "moonshine"\nmodel = "{own}"\npartials = "a"\n')
    capsys.readouterr()
    for arguments, said in (
        (["a", "--files"], f"{own} is the model of b too"),
        (["a"], "b.partials: must name another model"),
    ):
        assert run(["models", "remove", *arguments, *place]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert run(["models", "remove", "b", "--files", *place]) == 0
    assert f"b is removed; {own} stays as it is" in capsys.readouterr().err
    assert run(["models", "remove", "a", *place]) == 0
    assert f"a is removed; {own} stays as it is" in capsys.readouterr().err
    assert run(["models", "remove", "a", *place]) == 1
    assert f"add --files to remove {own}" in capsys.readouterr().err
    assert run(["models", "remove", "a", "--files", *place]) == 0
    assert left_in(tmp_path) == ["models", "models.toml"]
    assert (tmp_path / "models.toml").read_text() == ""


@pytest.mark.parametrize("written", ["{0}/models/a/", "{0}/linked", "{0}/models/../models/a", "~/models/a", "models/a"])
@pytest.mark.parametrize("where", ["model", "partial_model", "table"])
def test_files_that_are_in_use_are_not_removed(tmp_path, monkeypatch, capsys, written, where):
    """However the path to them is written: by another table, or by the settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "models" / "a"
    own.mkdir(parents=True)
    (tmp_path / "linked").symlink_to(own)
    used = written.format(tmp_path)
    tables = '[a]\nengine = "moonshine"\n'
    if where == "table":
        tables += f'[b]\nengine = "moonshine"\nmodel = "{used}"\n'
    else:
        monkeypatch.setenv(f"VIVAVOCE_{where.upper()}", used)
    (tmp_path / "models.toml").write_text(tables)
    assert run(["models", "remove", "a", "--files", "--data-dir", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{own} is the " + ("model of b too" if where == "table" else f"server's {where}") in line
    assert own.is_dir()
    assert (tmp_path / "models.toml").read_text() == tables


def test_a_model_that_is_being_downloaded_keeps_its_table(tmp_path, capsys):
    """Nothing is removed before it is known that all can be."""
    part = part_of(tmp_path / "models" / "a")
    part.mkdir(parents=True)
    table = '[a]\nengine = "moonshine"\n'
    (tmp_path / "models.toml").write_text(table)
    with FileLock(part / "lock"):
        assert run(["models", "remove", "a", "--files", "--data-dir", str(tmp_path)]) == 1
    assert "a is being downloaded by another vivavoce" in capsys.readouterr().err
    assert (tmp_path / "models.toml").read_text() == table
    assert run(["models", "remove", "a", "--files", "--data-dir", str(tmp_path)]) == 0
    assert left_in(tmp_path) == ["models", "models.toml"]


def test_what_to_add_is_printed_for_a_shell(tmp_path, capsys):
    """Whatever directories are called."""
    place = tmp_path / "my data"
    (place / "models" / "x").mkdir(parents=True)
    options = ["--engine", "moonshine", "--hub", "a/b", "--data-dir", str(place)]
    assert run(["models", "download", "x", *options]) == 1
    assert f"--model '{place}/models/x', or remove it with: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"%s  a\xff.bin", []),
        (b"%s *a\xff.bin\r\n", []),
        (b"\n%s  b.bin\n", ["b.bin"]),
    ],
)
def test_checksums_are_read_as_sha256sum_writes_them(tmp_path, line, found):
    """Of texts and of binary files, whatever their names are written in."""
    (tmp_path / os.fsdecode(b"a\xff.bin")).write_bytes(b"weights")
    (tmp_path / "SHA256SUMS").write_bytes(line % sha(b"weights").upper().encode())
    assert wrong_files(tmp_path) == found


def test_checksums_of_another_form_are_told(tmp_path):
    """By file and line."""
    (tmp_path / "SHA256SUMS").write_text(f"{sha(b'')}  x\nmodel.bin\n")
    with pytest.raises(SetupError, match=r"SHA256SUMS: line 2 is not as sha256sum writes it"):
        wrong_files(tmp_path)


@pytest.mark.parametrize("model", ["", 'model = "tiny"\n'])
def test_checksums_of_the_current_directory_are_not_the_models(tmp_path, monkeypatch, capsys, model):
    """A model without a directory, or with the name of one that is here, has none."""
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    for place in (tmp_path / "here", tmp_path / "here" / "tiny"):
        (place / "SHA256SUMS").write_text(f"{sha(b'')}  x\n")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "models.toml").write_text(f'[own]\nengine = "moonshine"\n{model}')
    run(["models", "verify", "own", "--data-dir", str(tmp_path)])
    captured = capsys.readouterr()
    assert "changed since" not in captured.err
    assert "as downloaded" not in captured.out


def test_the_list_is_json_whatever_is_wrong_with_a_model(tmp_path, capsys):
    """What else there is to tell, such as why a model cannot describe itself, never gets into it."""
    (tmp_path / "models.toml").write_text('[bad]\nengine = "faster-whisper"\nmodel = "/nowhere/at/all"\n')
    assert run(["models", "list", "--json", "--data-dir", str(tmp_path)]) == 0
    assert "bad" in {each["name"] for each in json.loads(capsys.readouterr().out)["models"]}


def test_the_list_has_what_is_there_and_what_could_be(model, tmp_path, capsys):
    """For people and for machines."""
    (tmp_path / "models.toml").write_text(f'[mine]\nengine = "faster-whisper"\nmodel = "{model}"\n')
    assert run(["models", "list", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["moonshine", "moonshine", "en", "default"]
    assert lines[2].split() == ["mine", "faster-whisper", "99", "languages", "installed"]
    assert any(line.endswith("vivavoce models download whisper-small") for line in lines)
    assert run(["models", "list", "--json", "--data-dir", str(tmp_path)]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert len(found["mine"]["languages"]) == 99
    assert found["whisper-small.en"]["languages"] == ["en"]


def test_what_is_not_here_is_listed_as_such(tmp_path, capsys):
    """With the command that gets it or says why; what it stands for can be had as ever."""
    gone = tmp_path / "models" / "whisper-base"
    text = (
        f'[whisper-base]\nengine = "faster-whisper"\nmodel = "{gone}"\n[gpu]\nengine = "moonshine"\ndevice = "cuda"\n'
    )
    (tmp_path / "models.toml").write_text(text + '[far]\nengine = "remote"\nmodel = "ws://127.0.0.1:1"\n')
    assert run(["models", "list", "--data-dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()}
    assert rows["gpu"] == "vivavoce models verify gpu"
    assert rows["far"] == "vivavoce models verify far"
    assert rows["whisper-base"] == "vivavoce models download whisper-base"
