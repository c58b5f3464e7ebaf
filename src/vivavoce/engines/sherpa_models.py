"""Which model of sherpa-onnx is in a directory, and how it is loaded; every way to fail is one line with the way out.

The type is read from the names of the files and from what the exporter wrote into them; `vivavoce.toml` in the
directory may say it instead, and which languages the model knows. The library ends the process when a model is not as
it should be. So each model is first loaded and tried in a child process.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import sentencepiece

from vivavoce.engines.notes import NOTES, read_notes
from vivavoce.engines.sherpa_words import unspaced
from vivavoce.errors import SetupError
from vivavoce.model import LANGUAGES, SAMPLE_RATE
from vivavoce.plugins import EngineSettings

_LATENESS_S = 0.3  # how much later than its sound a transducer may write a piece
_TRIAL_S = 600.0
_WIRES = (0, 2)  # protobuf's numbers for the two forms of field that models have: a number, and what has a length


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type of model: its files by the arguments of `factory`, a method of sherpa-onnx's recognizers.

    `word_times` are measured by it; a `streaming` one is fed bit by bit; `hints` are taken where the directory has what
    they are spelled with; with `told` its language is a setting of the recognizer; it `tells` which one it heard.
    """

    factory: str
    files: tuple[str, ...]
    streaming: bool = False
    word_times: bool = True
    hints: bool = False
    told: bool = False
    tells: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


_TRANSDUCER = ("encoder", "decoder", "joiner")
_NEMO: Mapping[str, Any] = {"model_type": "nemo_transducer"}
KINDS = {
    "streaming-transducer": Kind(factory="from_transducer", files=_TRANSDUCER, streaming=True, hints=True),
    "streaming-nemo-transducer": Kind(factory="from_transducer", files=_TRANSDUCER, streaming=True),
    "streaming-zipformer-ctc": Kind(factory="from_zipformer2_ctc", files=("model",), streaming=True),
    "streaming-nemo-ctc": Kind(factory="from_nemo_ctc", files=("model",), streaming=True),
    "transducer": Kind(factory="from_transducer", files=_TRANSDUCER, hints=True),
    "nemo-transducer": Kind(factory="from_transducer", files=_TRANSDUCER, options=_NEMO),
    "nemo-ctc": Kind(factory="from_nemo_ctc", files=("model",)),
    "zipformer-ctc": Kind(factory="from_zipformer_ctc", files=("model",)),
    "sense-voice": Kind(factory="from_sense_voice", files=("model",), tells=True, options={"use_itn": True}),
    "canary": Kind(factory="from_nemo_canary", files=("encoder", "decoder"), word_times=False, told=True),
    "whisper": Kind(
        factory="from_whisper",
        files=("encoder", "decoder"),
        word_times=False,
        told=True,
        tells=True,
        options={"language": ""},
    ),
    "moonshine": Kind(
        factory="from_moonshine",
        files=("preprocessor", "encoder", "uncached_decoder", "cached_decoder"),
        word_times=False,
    ),
    "moonshine-v2": Kind(factory="from_moonshine_v2", files=("encoder", "decoder"), word_times=False),
}

# What tells a file's part in a model, the first that its name has.
_PARTS = {
    "uncached_decode": "uncached_decoder",
    "cached_decode": "cached_decoder",
    "preprocess": "preprocessor",
    "joiner": "joiner",
    "decoder": "decoder",
    "encode": "encoder",
    "model": "model",
}
_PRECISIONS = {"int8": ".int8", "float16": ".fp16", "float32": ""}

_EUROPEAN = "en bg hr cs da nl et fi fr de el hu it lv lt mt pl pt ro sk sl es sv ru uk"
_CODES = f"{_EUROPEAN} ar bn ca fa he hi id ja ka kk ko ms no sr sw ta te th tr ur vi zh".split()
_NAMED = {code: code for code in _CODES} | {
    "english": "en",
    "chinese": "zh",
    "cantonese": "zh",
    "japanese": "ja",
    "korean": "ko",
    "thai": "th",
    "russian": "ru",
    "german": "de",
    "french": "fr",
    "spanish": "es",
    "vietnamese": "vi",
    "arabic": "ar",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How hints are written for a transducer: in the units of its tokens; no `unit` where it takes none."""

    unit: str = ""
    letters: frozenset[str] = frozenset()

    def fit(self, hint: str) -> str:
        """Give a hint in letters that the model has, upper or lower case if need be; empty if it has not all of them.

        What cannot be spelled is left out here, since the library would print it.
        """
        if not self.unit:
            return ""
        spoken = " ".join(hint.replace("-", " ").split())
        return next(
            (each for each in (spoken, spoken.upper(), spoken.lower()) if set(each) - {" "} <= self.letters), ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that was found in a directory: its type, files by their part, languages (the likeliest first).

    It takes several clips at once if it `batches`; some are exported for one.
    """

    directory: Path
    name: str
    files: Mapping[str, Path]
    languages: tuple[str, ...]
    facts: Mapping[str, str]
    spelling: Spelling
    provider: str
    threads: int
    batches: bool = True

    @property
    def kind(self) -> Kind:
        """What its type says of it."""
        return KINDS[self.name]

    @property
    def tail_s(self) -> float:
        """How much silence behind a clip pushes all of it through a model that hears in chunks of frames."""
        frames = int(self.facts.get("T") or self.facts.get("window_size") or 0)
        return (frames + 1) / 100 + _LATENESS_S


def run(recognizer: Any, streams: Sequence[Any]) -> None:
    """Decode streams side by side for as long as any of them has a whole chunk."""
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)


_NOT_INSTALLED = "--engine sherpa-onnx: sherpa-onnx is not installed; pip install 'vivavoce[sherpa]'"


def _library() -> Any:
    try:
        return importlib.import_module("sherpa_onnx")
    except ImportError as error:
        raise SetupError(_NOT_INSTALLED) from error


def load(model: Model) -> Any:
    """Give sherpa-onnx's recognizer for a model; what is wrong with the model may end the process."""
    library, kind = _library(), model.kind
    recognizers = library.OnlineRecognizer if kind.streaming else library.OfflineRecognizer
    options = dict(kind.options)
    if model.name == "streaming-transducer":
        options["model_type"] = model.facts.get("model_type", "")  # which the library would load the weights for
    with tempfile.TemporaryDirectory() as place:
        if model.spelling.unit:
            options |= {"decoding_method": "modified_beam_search", "modeling_unit": model.spelling.unit}
        if "bpe" in model.spelling.unit:
            options["bpe_vocab"] = str(_bpe_vocabulary(model.directory, Path(place)))
        return getattr(recognizers, kind.factory)(
            **{part: str(path) for part, path in model.files.items()},
            num_threads=model.threads,
            provider=model.provider,
            **options,
        )


def _bpe_vocabulary(directory: Path, place: Path) -> Path:
    """Give the file of pieces and their scores; written from `bpe.model` where the directory has only that."""
    written = directory / "bpe.vocab"
    if written.is_file():
        return written
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / "bpe.model"))
    lines = [f"{pieces.id_to_piece(nth)}\t{pieces.get_score(nth)}\n" for nth in range(pieces.get_piece_size())]
    written = place / "bpe.vocab"
    written.write_text("".join(lines), encoding="utf-8")
    return written


def tried(settings: EngineSettings) -> Model:
    """Give the model that the settings name, for the best device that a child process could use it on.

    Raises `SetupError`.
    """
    _library()
    for provider in providers(settings.device):
        model = find(settings, provider)
        failure, batches = _trial(settings, provider)
        if failure is None:
            return replace(model, batches=batches)
    way_out = (
        "use a smaller model, or --device cpu"
        if provider == "cuda"
        else "get it again; `vivavoce models verify NAME` tells which of its files are not as they were downloaded"
    )
    raise SetupError(
        f"--model {model.directory} cannot be used as {model.name} on the {provider.upper()}: {failure}; {way_out}"
    )


def providers(device: str) -> list[str]:
    """Give what may compute where the settings say `device`, the best first; raises `SetupError`."""
    try:
        installed = version("sherpa-onnx")
    except PackageNotFoundError as error:
        raise SetupError(_NOT_INSTALLED) from error
    with_cuda = "cuda" in installed
    if device == "cuda" and not with_cuda:
        raise SetupError(
            f"--device cuda: the installed sherpa-onnx {installed} is built for the CPU alone; install its CUDA build, "
            "or use --device cpu"
        )
    return ["cuda"] * (with_cuda and device != "cpu") + ["cpu"] * (device != "cuda")


_DECODED = b"vivavoce: decoded\n"
_CHILD = "import sys; from vivavoce.engines import sherpa_models; sherpa_models.decode_noise(*sys.argv[1:])"


def _trial(settings: EngineSettings, provider: str) -> tuple[str | None, bool]:
    """Load and use the model in a child process; give one line that says why it failed, or None, and if it batches."""
    arguments = [str(settings.model), settings.compute_type, provider]
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter and our own words
            [sys.executable, "-P", "-c", _CHILD, *arguments], capture_output=True, timeout=_TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {_TRIAL_S:.0f} s", False
    if _DECODED in ended.stdout:
        return None, ended.returncode == 0
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    said = re.sub(r"^\S+:\S+:\d+ |^(\w+\.)*\w+(Error|Exception): ", "", lines[-1]).strip() if lines else ""
    return said or f"the process that tried it ended with {ended.returncode}", False


def decode_noise(model: str, compute_type: str, provider: str) -> None:
    """Load a model and decode a second of noise with it, in a child process that this may end.

    Says so on standard output, and decodes it twice side by side, which may end the process too.
    """
    found = find(EngineSettings(model=model, compute_type=compute_type), provider)
    recognizer = load(found)
    _decode_noise(found, recognizer, 1)
    sys.stdout.buffer.write(_DECODED)
    sys.stdout.flush()
    _decode_noise(found, recognizer, 2)


def _decode_noise(model: Model, recognizer: Any, count: int) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, SAMPLE_RATE).astype(np.float32)
    streams = [recognizer.create_stream() for _ in range(count)]
    for stream in streams:
        stream.accept_waveform(SAMPLE_RATE, noise)
        if model.kind.streaming:
            stream.accept_waveform(SAMPLE_RATE, np.zeros(round(model.tail_s * SAMPLE_RATE), np.float32))
            stream.input_finished()
    if model.kind.streaming:
        run(recognizer, streams)
        recognizer.get_result_all(streams[0])
    else:
        recognizer.decode_streams(streams)


def find(settings: EngineSettings, provider: str = "cpu") -> Model:
    """Find out what is in the directory that the settings name, without loading it; raises `SetupError`."""
    if settings.model is None:
        raise SetupError("--engine sherpa-onnx needs a --model: the directory that one of its releases unpacks to")
    directory = Path(settings.model).expanduser()
    if not directory.is_dir():
        raise SetupError(
            f"--model {settings.model}: there is no such directory; `vivavoce models list` names some to download"
        )
    found = _files(directory, settings.compute_type, provider)
    leading = found.get("encoder") or found.get("model")
    facts = _facts(leading) if leading is not None and leading.suffix == ".onnx" else {}
    notes = read_notes(directory, KINDS)
    name = notes.type or _name(found, facts)
    if name is None:
        told = facts.get("model_type", "none")
        raise SetupError(
            f"--model {directory}: no model of a known type (its parts: {', '.join(sorted(found)) or 'none'}; "
            f'model_type: {told}); name it in {NOTES} there: type = "…", one of {", ".join(KINDS)}'
        )
    missing = [part for part in (*KINDS[name].files, "tokens") if part not in found]
    if missing:
        raise SetupError(f"--model {directory} has no {missing[0]}, which a model of the type {name} needs")
    languages = notes.languages or languages_of(name, directory.name, facts)
    if not languages:
        raise SetupError(
            f'--model {directory}: nothing says which languages it knows; write languages = ["en"], or whichever they '
            f"are, into {NOTES} there"
        )
    return Model(
        directory=directory,
        name=name,
        files={part: found[part] for part in (*KINDS[name].files, "tokens")},
        languages=languages,
        facts=facts,
        spelling=_spelling(directory, found["tokens"]) if KINDS[name].hints else Spelling(),
        provider=provider,
        threads=settings.engine_threads,
    )


def _files(directory: Path, compute_type: str, provider: str) -> dict[str, Path]:
    """Give the files of a model by their part, those with the wanted numbers first."""
    usual = ["float16", "float32", "int8"] if provider == "cuda" else ["int8", "float32", "float16"]
    if compute_type not in {"auto", "default", *_PRECISIONS}:
        listed = ", ".join(["auto", *_PRECISIONS])
        raise SetupError(f"--compute-type {compute_type}: models of sherpa-onnx come as {listed}")
    order = [compute_type, *usual] if compute_type in _PRECISIONS else usual
    found: dict[str, Path] = {}
    given: set[str] = set()
    for precision in dict.fromkeys(order):
        for path in sorted(directory.iterdir()):
            ending = Path(path.stem).suffix if Path(path.stem).suffix in {".int8", ".fp16"} else ""
            if path.suffix not in {".onnx", ".ort"} or ending != _PRECISIONS[precision]:
                continue
            part = next((part for mark, part in _PARTS.items() if mark in path.name), None)
            if part is not None:
                given.add(precision)
                found.setdefault(part, path)
    if found and compute_type in _PRECISIONS and compute_type not in given:
        raise SetupError(f"--compute-type {compute_type}: {directory} has {', '.join(sorted(given))} alone")
    tokens = sorted(directory.glob("*tokens.txt"))
    return found | ({"tokens": tokens[0]} if tokens else {})


def _name(found: Mapping[str, Path], facts: Mapping[str, str]) -> str | None:
    """Give the type of a model by its parts and by what its exporter wrote into it."""
    written = facts.get("model_type", "")
    nemo, whisper = written.startswith("EncDec"), written.startswith("whisper")
    if "preprocessor" in found:
        return "moonshine"
    if "joiner" in found:
        if {"cache_last_channel_dim1", "streaming_model_type"} & facts.keys():
            return "streaming-nemo-transducer"
        if "decode_chunk_len" in facts:
            return "streaming-transducer"
        name = "nemo-transducer" if nemo else "transducer" if written else None
    elif "encoder" in found:
        ready = found["encoder"].suffix == ".ort"
        name = "moonshine-v2" if ready else "whisper" if whisper else "canary" if "MultiTask" in written else None
    elif "lang_auto" in facts:
        name = "sense-voice"
    else:
        known = {"zipformer2_ctc": ("zipformer-ctc", "decode_chunk_len"), "nemo": ("nemo-ctc", "window_size")}
        name, chunks = known.get("nemo" if nemo else written, (None, ""))
        name = f"streaming-{name}" if chunks in facts else name
    return name


def languages_of(kind: str, name: str, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Give the languages of a model, the likeliest first; those that its name names where the type does not say."""
    match kind:
        case "canary":
            return ("en", "de", "es", "fr")
        case "sense-voice":
            return ("zh", "en", "ja", "ko")
        case "whisper":
            codes = facts.get("all_language_codes", "").split(",") if facts.get("is_multilingual") == "1" else ["en"]
            return _known("zh" if code == "yue" else code for code in codes)
        case _:
            pass
    if prompts := facts.get("prompt_dictionary"):
        return _known(code.partition("-")[0].lower() for code in json.loads(prompts))
    known = f"{name}-{facts.get('url', '').rpartition('/')[2]}".lower()
    parts = re.split(r"[-_]", known)
    if "parakeet" in parts:
        return tuple(_EUROPEAN.split()) if "v3" in parts else tuple(_named(parts)) or ("en",)
    return tuple(_named(parts))


def _known(codes: Iterable[str]) -> tuple[str, ...]:
    """Give the codes that sessions may ask for, each once."""
    return tuple(dict.fromkeys(code for code in codes if code in LANGUAGES))


def _named(parts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_NAMED[part] for part in parts if part in _NAMED))


def _spelling(directory: Path, tokens: Path) -> Spelling:
    """Tell how hints are written: in pieces of `bpe.model` or `bpe.vocab`, or in characters, where tokens are those."""
    lines = tokens.read_text(encoding="utf-8").splitlines()
    pieces = {line.split()[0].removeprefix("▁") for line in lines if len(line.split()) > 1}
    letters = frozenset(piece for piece in pieces if len(piece) == 1 and piece not in ":#@/▁")
    characters = any(unspaced(letter) for letter in letters)
    if any((directory / name).is_file() for name in ("bpe.vocab", "bpe.model")):
        return Spelling(unit="cjkchar+bpe" if characters else "bpe", letters=letters)
    # Latin letters in a row are one unit then, which such a model has no token for.
    spelled = frozenset(letter for letter in letters if not letter.isascii())
    return Spelling(unit="cjkchar", letters=spelled) if characters else Spelling()


def _facts(path: Path) -> dict[str, str]:
    """Read what an exporter wrote into an ONNX file, past the weights; raises `SetupError`."""
    try:
        with path.open("rb") as file:
            return dict(_properties(file, path.stat().st_size))
    except Exception as error:
        raise SetupError(f"--model: {path} is not a whole ONNX file; get it again") from error


def _properties(file: BinaryIO, size: int) -> Iterator[tuple[str, str]]:
    """Give the names and values of a serialized ONNX model, whose other fields are passed over."""
    while file.tell() < size:
        number, wire = divmod(_varint(file), 8)
        length = _varint(file)
        if wire not in _WIRES or (wire and file.tell() + length > size):
            raise ValueError("these are not a model's bytes")
        if wire and number == onnx.ModelProto.METADATA_PROPS_FIELD_NUMBER:
            entry = onnx.StringStringEntryProto.FromString(file.read(length))
            yield entry.key, entry.value
        elif wire:
            file.seek(length, 1)


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:  # noqa: PLR2004 - the last byte of a number has the top bit clear
            return value
    raise ValueError("it ends too early")
