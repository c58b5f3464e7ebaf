"""Where a Whisper model's files come from, and on what it is loaded; every way to fail is one line with the way out.

A model is a directory that CTranslate2's converter wrote, the name of a size, or a repository of the Hugging Face hub.
Sizes and repositories are looked for in the hub's cache on this machine first, so that a server that has them starts
without a network.

Which languages a model knows, its tokens tell, but for distilled ones: those have learnt one language and keep the
tokens of all. So theirs are known by the names of the releases, and `vivavoce.toml` in the directory may say it.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import tokenizers

from vivavoce.engines.notes import NOTES, read_notes
from vivavoce.engines.whisper_model import Model, languages_of
from vivavoce.errors import SetupError
from vivavoce.plugins import EngineSettings, KnownModel

log = logging.getLogger(__name__)

DEFAULT_SIZE = "small"

_FILES = {
    "model.bin": "it is not a model that CTranslate2's converter wrote",
    "config.json": "convert it again with ct2-transformers-converter",
    "tokenizer.json": "copy it from the original model, or convert with --copy_files tokenizer.json",
}
_GPU_WORKERS = 2
_MULTILINGUAL_TOKENS = 51_865
"""Models with fewer know English alone."""
_DISTILLED = set("distil faster whisper small medium large v2 v3 5 en ct2 int8 float16 float32".split())  # noqa: SIM905
"""Words in the names of distilled models for English; those for another language say it."""
_AGAIN = "get it again; `vivavoce models verify NAME` tells which of its files are not as they were downloaded"
_FETCHED = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.*")


def label(settings: EngineSettings) -> str:
    """Give the model's name without the path or the owner."""
    return Path(settings.model or DEFAULT_SIZE).name


def known_sizes() -> list[KnownModel]:
    """Give the sizes of Whisper with their places in the hub; names that are only another one's are left out."""
    everything = frozenset(faster_whisper.tokenizer._LANGUAGE_CODES) - {"yue"}  # noqa: SLF001 - as below
    found: dict[str, KnownModel] = {}
    for size, repository in faster_whisper.utils._MODELS.items():  # noqa: SLF001 - the library tells them nowhere else
        languages = frozenset({"en"}) if size.endswith(".en") or _is_distilled(size) else everything
        model = KnownModel(
            name=f"whisper-{size}", model=size, languages=languages, repository=repository, files=_FETCHED
        )
        known = found.setdefault(repository, model)
        if len(size) > len(known.model):
            found[repository] = model
    return list(found.values())


def read_abilities(settings: EngineSettings) -> tuple[frozenset[str], bool]:
    """Give a model's languages and whether it times words, without its weights; raises `SetupError`.

    Also where it is not on this machine, or where the settings ask for what this machine has not.
    """
    model = settings.model or DEFAULT_SIZE
    _compute_type(settings.compute_type, _device(settings.device))
    directory = _on_this_machine(model)
    if directory is None:
        raise _absent(model)
    _require_files(directory)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        multilingual = _count_tokens(directory) >= _MULTILINGUAL_TOKENS
        languages = _languages(model, directory, tokenizer, multilingual=multilingual)
    except SetupError:
        raise
    except Exception as error:
        raise SetupError(f"--model {directory} cannot be read: {' '.join(str(error).split())}; {_AGAIN}") from error
    return languages, bool(config.get("alignment_heads"))


def _languages(model: str, directory: Path, tokenizer: Any, *, multilingual: bool) -> frozenset[str]:
    """Give what is noted in the directory, or else what the name or the tokens tell; raises `SetupError`."""
    known = languages_of(tokenizer) if multilingual else frozenset({"en"})
    noted = frozenset(read_notes(directory).languages)
    if noted - known:
        raise SetupError(
            f"{directory / NOTES}: languages: the model has no tokens for {', '.join(sorted(noted - known))}"
        )
    distilled = _is_distilled(Path(model).name) or _is_distilled(directory.name)
    return noted or (frozenset({"en"}) if distilled else known)


def _is_distilled(name: str) -> bool:
    """Whether a model of this name has learnt English alone, whatever its tokens say."""
    words = set(re.split(r"[-_.]", name.lower()))
    return "distil" in words and words <= _DISTILLED


def _count_tokens(directory: Path) -> int:
    """Count what the model can write; older converters wrote one token a line."""
    listed = directory / "vocabulary.json"
    if listed.is_file():
        return len(json.loads(listed.read_text(encoding="utf-8")))
    return (directory / "vocabulary.txt").read_text(encoding="utf-8").count("\n")


def load(settings: EngineSettings) -> Model:
    """Load the model that the settings name; raises `SetupError`."""
    device = _device(settings.device)
    compute_type = _compute_type(settings.compute_type, device)
    directory = _directory(settings.model or DEFAULT_SIZE)
    _require_files(directory)
    # Partials and finals each have `decode_threads` callers; a GPU shares its time among two as well as among many.
    workers = _GPU_WORKERS if device == "cuda" else 2 * settings.decode_threads
    try:
        whisper = ctranslate2.models.Whisper(
            str(directory),
            device=device,
            compute_type=compute_type,
            intra_threads=settings.engine_threads,
            inter_threads=workers,
        )
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise _failure(error, directory, device, compute_type) from error
    if tokenizer.token_to_id("<|startoftranscript|>") is None:
        raise SetupError(f"--model {directory}: its tokenizer.json is not Whisper's; copy it from the original model")
    languages = _languages(settings.model or DEFAULT_SIZE, directory, tokenizer, multilingual=whisper.is_multilingual)
    return Model(whisper, tokenizer, languages, word_times=bool(config.get("alignment_heads")))


def _require_files(directory: Path) -> None:
    for name, remedy in _FILES.items():
        if not (directory / name).is_file():
            raise SetupError(f"--model {directory} has no {name}: {remedy}")


def _device(wanted: str) -> str:
    found = ctranslate2.get_cuda_device_count()
    if wanted == "cuda" and not found:
        raise SetupError(
            "--device cuda: no CUDA device is found; install the NVIDIA driver with CUDA 12 and cuDNN 9, or use "
            "--device cpu"
        )
    return "cuda" if found and wanted != "cpu" else "cpu"


def _compute_type(wanted: str, device: str) -> str:
    known = ctranslate2.get_supported_compute_types(device)
    if wanted == "auto":
        preferred = ("float16", "int8_float16", "int8", "float32") if device == "cuda" else ("int8", "float32")
        return next(each for each in preferred if each in known)
    if wanted != "default" and wanted not in known:
        listed = ", ".join(["auto", "default", *sorted(known)])
        raise SetupError(f"--compute-type {wanted}: not on this {device.upper()}, which has: {listed}")
    return wanted


def _directory(model: str) -> Path:
    """Give the directory of a model, after a download where it is not on this machine."""
    if (found := _on_this_machine(model)) is not None:
        return found
    if not _may_be_in_hub(model):
        raise _absent(model)
    # Nothing else tells why the start takes minutes.
    log.warning("--model %s is not on this machine: it is being downloaded from the hub", model)
    try:
        return Path(faster_whisper.download_model(model))
    except Exception as error:
        raise SetupError(
            f"--model {model}: not on this machine, and the hub does not give it ({type(error).__name__}); name a "
            "directory that has it with --model, or a mirror of the hub with HF_ENDPOINT"
        ) from error


def _may_be_in_hub(model: str) -> bool:
    """Whether it is the name of a size, or looks like the name of a repository."""
    if model in faster_whisper.available_models():
        return True
    return re.fullmatch(r"[^/\\.~][^/\\]*/[^/\\]+", model) is not None


def _absent(model: str) -> SetupError:
    """Say what to do about a model that is not on this machine."""
    if "/" not in model and "\\" not in model and not _may_be_in_hub(model):
        sizes = ", ".join(faster_whisper.available_models())
        return SetupError(f"--model {model}: no such directory, and no size of Whisper; the sizes are {sizes}")
    if not _may_be_in_hub(model):
        return SetupError(f"--model {model}: there is no such directory")
    repository = faster_whisper.utils._MODELS.get(model, model)  # noqa: SLF001 - as above
    known = {each.repository: each.name for each in known_sizes()}
    name = known.get(repository, f"NAME --engine faster-whisper --hub {repository}")
    return SetupError(
        f"--model {model}: no such directory, and not in the hub's cache here; get it with: vivavoce models download "
        f"{name}"
    )


def _on_this_machine(model: str) -> Path | None:
    """Give a directory by its path, or the complete one in the hub's cache."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        cached = Path(faster_whisper.download_model(model, local_files_only=True))
        return cached if all((cached / name).is_file() for name in _FILES) else None
    except Exception:  # noqa: BLE001 - whatever is wrong with the cache, the hub may mend it
        return None


def _failure(error: Exception, directory: Path, device: str, compute_type: str) -> SetupError:
    text = " ".join(str(error).split())
    if "out of memory" in text.lower():
        return SetupError(
            f"--model {directory}: the GPU has too little free memory for it as {compute_type}; use a smaller model, "
            "--compute-type int8_float16 or --device cpu"
        )
    if device == "cuda" and "librar" in text.lower():
        return SetupError(f"--device cuda: {text}; install CUDA 12 and cuDNN 9, or use --device cpu")
    return SetupError(
        f"--model {directory} cannot be loaded on the {device.upper()} as {compute_type}: {text}; {_AGAIN}"
    )
