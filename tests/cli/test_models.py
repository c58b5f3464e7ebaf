"""`vivavoce models`: the file that it writes, and downloads from loopback, whole, cut off, wrong and refused."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server import environment, program
from sherpa_model import streaming
from vivavoce.cli import run
from vivavoce.cli.fetching import Interrupted, fetch_from_url, part_of, wrong_files
from vivavoce.errors import SetupError
from whisper_model import make_model

FILES = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json")


@dataclass
class Site:
    """What a web server on loopback gives; it hangs up after `cut` bytes of each answer, if that is set."""

    url: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
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
                self.close_connection = found.cut is not None

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
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


# The hub


def as_hub(site: Site, repository: str, files: dict[str, bytes], sums: str = "") -> dict[str, str]:
    """Make the site a mirror of the hub with one repository; give the environment that names it."""
    commit = "a" * 40
    siblings = [{"rfilename": name, "size": len(page)} for name, page in files.items()]
    for each in siblings:
        if each["rfilename"] == "model.bin":
            digest = sums or sha(files["model.bin"])
            each["lfs"] = {"sha256": digest, "size": each["size"], "pointerSize": 130}
    about = json.dumps({"id": repository, "sha": commit, "siblings": siblings, "private": False}).encode()
    tree = [{"type": "file", "path": name, "size": len(page), "oid": sha(page)[:40]} for name, page in files.items()]
    site.pages[f"/api/models/{repository}"] = about
    for revision in ("main", commit):
        site.pages[f"/api/models/{repository}/revision/{revision}"] = about
        site.pages[f"/api/models/{repository}/tree/{revision}"] = json.dumps(tree).encode()
        for name, page in files.items():
            site.pages[f"/{repository}/resolve/{revision}/{name}"] = page
    return {"HF_ENDPOINT": site.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


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


def test_a_release_of_sherpa_onnx_comes_likewise_and_is_used(site, tmp_path, capsys):
    """Of a repository with every number format only one is fetched; the directory's name tells the languages."""
    name = "sherpa-onnx-streaming-zipformer-en-2023-06-26"
    made = {path.name: path.read_bytes() for path in streaming(tmp_path / "made").iterdir()}
    small = {each.replace(".onnx", ".int8.onnx"): page for each, page in made.items()}
    ended = models("download", name, place=tmp_path, **as_hub(site, f"csukuangfj/{name}", made | small))
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in (tmp_path / "data" / "models" / name).iterdir()} == {*small, "SHA256SUMS"}
    place = ["--data-dir", str(tmp_path / "data")]
    assert run(["models", "verify", name, *place]) == 0
    assert f"as downloaded, and {name} was loaded and used" in capsys.readouterr().out
    assert run(["models", "list", *place]) == 0
    assert f"{name} sherpa-onnx en installed".split() in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_file_that_the_hub_has_another_checksum_of_leaves_nothing(site, tmp_path):
    """Mirrors and proxies may be wrong."""
    variables = as_hub(site, "owner/other", {"model.bin": b"weights", "config.json": b"{}"}, sha(b"other"))
    options = ["--engine", "faster-whisper", "--hub", "owner/other"]
    ended = models("download", "mine", *options, place=tmp_path, **variables)
    assert ended.returncode == 1
    assert "model.bin came with another checksum" in ended.stderr
    assert left_in(tmp_path / "data" / "models") == []


def test_without_a_network_one_line_says_what_to_do(site, tmp_path):
    """What to fetch elsewhere, and how to add it; nothing is left behind."""
    variables = as_hub(site, "owner/other", {"config.json": b"{}"})
    ended = models("download", "whisper-tiny", place=tmp_path, **variables)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("vivavoce:")]
    assert f"{site.url}/Systran/faster-whisper-tiny" in line
    assert "HF_ENDPOINT" in line
    assert "vivavoce models add whisper-tiny --engine faster-whisper --model DIR" in line
    assert left_in(tmp_path / "data" / "models") == []
    assert not (tmp_path / "data" / "models.toml").exists()


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
        (["add", "old", "--engine", "moonshine"], "has a model old already"),
        (["add", "moonshine", "--engine", "faster-whisper"], "is the name of the server's default model"),
        (["add", "x", "--engine", "moonshine", "--model", "/nowhere"], "--model /nowhere: there is no such directory"),
        (["add", "x", "--engine", "moonshine", "--device", "tpu"], "x.device: must be one of"),
        (["download", "x"], "no engine knows a model x"),
        (["download", "x", "--hub", "a/b"], "give --engine with either --hub or --url"),
        (["download", "x", "--engine", "moonshine", "--url", "http://127.0.0.1"], "--url needs --sha256"),
        (["verify", "x"], "there is no model x"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, capsys, arguments, said):
    """Each says what is wrong."""
    text = '[old]\nengine = "moonshine"\n'
    (tmp_path / "models.toml").write_text(text)
    assert run(["models", *arguments, "--data-dir", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert left_in(tmp_path) == ["models.toml"]
    assert (tmp_path / "models.toml").read_text() == text


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
