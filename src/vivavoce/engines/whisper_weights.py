"""Where a Whisper model's files come from, and on what it is loaded; every way to fail is one line with the way out.

A model is a directory that CTranslate2's converter wrote, the name of a size, or a repository of the Hugging Face hub.
Sizes and repositories are looked for in the hub's cache on this machine first, so that a server that has them starts
without a network.
"""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import faster_whisper
import tokenizers

from vivavoce.engines.whisper_model import Model, languages_of
from vivavoce.errors import SetupError
from vivavoce.plugins import EngineSettings, KnownModel

DEFAULT_SIZE = "small"

_FILES = {
    "model.bin": "it is not a model that CTranslate2's converter wrote",
    "config.json": "convert it again with ct2-transformers-converter",
    "tokenizer.json": "copy it from the original model, or convert with --copy_files tokenizer.json",
}
_GPU_WORKERS = 2
_MULTILINGUAL_TOKENS = 51_865
"""Models with fewer know English alone."""
_FETCHED = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.*")


def label(settings: EngineSettings) -> str:
    """Give the model's name without the path or the owner."""
    return Path(settings.model or DEFAULT_SIZE).name


def known_sizes() -> list[KnownModel]:
    """Give the sizes of Whisper with their places in the hub; names that are only another one's are left out."""
    everything = frozenset(faster_whisper.tokenizer._LANGUAGE_CODES) - {"yue"}  # noqa: SLF001 - as below
    found: dict[str, KnownModel] = {}
    for size, repository in faster_whisper.utils._MODELS.items():  # noqa: SLF001 - the library tells them nowhere else
        # Distilled ones have learnt English alone, whatever their tokens say.
        languages = frozenset({"en"}) if size.endswith(".en") or size.startswith("distil") else everything
        model = KnownModel(
            name=f"whisper-{size}", model=size, languages=languages, repository=repository, files=_FETCHED
        )
        known = found.setdefault(repository, model)
        if len(size) > len(known.model):
            found[repository] = model
    return list(found.values())


def learnt(settings: EngineSettings, languages: frozenset[str]) -> frozenset[str]:
    """Give those of the languages of a model's tokens that it has learnt: nothing but its name tells of distilled ones.

    That is the name of a size, of its repository, or of the directory that it was downloaded to.
    """
    name = label(settings)
    known = (each for each in known_sizes() if name in {each.name, each.model, Path(each.repository or "").name})
    size = next(known, None)
    return languages if size is None or size.languages is None else languages & size.languages


def read_abilities(settings: EngineSettings) -> tuple[frozenset[str], bool]:
    """Give a model's languages and whether it times words, without its weights; raises `SetupError`."""
    directory = _on_this_machine(settings.model or DEFAULT_SIZE)
    if directory is None:
        raise SetupError(f"--model {settings.model} is not on this machine")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        tokens = _count_tokens(directory)
    except Exception as error:
        raise SetupError(f"--model {directory} cannot be read: {' '.join(str(error).split())}") from error
    languages = languages_of(tokenizer) if tokens >= _MULTILINGUAL_TOKENS else frozenset({"en"})
    return languages, bool(config.get("alignment_heads"))


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
    for name, remedy in _FILES.items():
        if not (directory / name).is_file():
            raise SetupError(f"--model {directory} has no {name}: {remedy}")
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
    return Model(whisper, tokenizer, word_times=bool(config.get("alignment_heads")))


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
    path = Path(model).expanduser()
    if (found := _on_this_machine(model)) is not None:
        return found
    if "/" not in model and "\\" not in model and model not in faster_whisper.available_models():
        sizes = ", ".join(faster_whisper.available_models())
        raise SetupError(f"--model {model}: no such directory, and no size of Whisper; the sizes are {sizes}")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise SetupError(f"--model {model}: there is no such directory")
    try:
        return Path(faster_whisper.download_model(model))
    except Exception as error:
        raise SetupError(
            f"--model {model}: not on this machine, and the hub does not give it ({type(error).__name__}); name a "
            "directory that has it with --model, or a mirror of the hub with HF_ENDPOINT"
        ) from error


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
    return SetupError(f"--model {directory} cannot be loaded on the {device.upper()} as {compute_type}: {text}")
