"""A Whisper model of the right shape and no sense: random weights, Whisper's special tokens, and made-up words.

Versions of CTranslate2 tell a multilingual model from an English one by the number of its tokens or by an empty one
among them, so both are as in the real ones. Everything else is as small as it gets.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from ctranslate2.specs import WhisperSpec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from random_weights import Weights

_SIZE, _HEADS, _INNER, _ENCODERS, _DECODERS, _MELS = 32, 2, 64, 1, 2, 80
_LANGUAGES = (  # in Whisper's own order, which its token numbers follow
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_model(
    directory: Path, *, multilingual: bool = True, cantonese: bool = False, seed: int = 1, end: float = 0.0
) -> Path:
    """Write a whole model directory; `end` makes the end of the text likelier at every step, or less likely."""
    directory.mkdir(parents=True)
    tokenizer, tokens = _tokenizer(multilingual, cantonese)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "preprocessor_config.json").write_text(json.dumps({"feature_size": _MELS}), encoding="utf-8")
    spec = WhisperSpec(_ENCODERS, _HEADS, _DECODERS, _HEADS)
    spec.register_vocabulary(tokens)
    begin = tokens.index("<|startoftranscript|>")
    spec.config.suppress_ids = [*range(begin, tokens.index("<|notimestamps|>"))]
    spec.config.suppress_ids_begin = [tokens.index("<|endoftext|>")]
    spec.config.lang_ids = [*range(begin + 1, tokens.index("<|translate|>"))] if multilingual else []
    spec.config.alignment_heads = [(0, 0), (1, 1)]
    _weigh(spec, len(tokens), tokens.index("<|endoftext|>"), end, np.random.default_rng(seed))
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(str(directory))
    return directory


def _tokenizer(multilingual: bool, cantonese: bool) -> tuple[Tokenizer, list[str]]:
    """Give a byte-level tokenizer whose numbers mean what Whisper's do, and all its tokens by number."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    syllables = ("".join(pair) for pair in itertools.product(_LETTERS, "aeiou", _LETTERS, _LETTERS))
    made_up = ((start + each) for each in syllables for start in ("Ġ", ""))
    words = [*letters, *itertools.islice(made_up, 50_256 - len(letters)), *([""] * multilingual)]
    codes = _LANGUAGES.split() + ["yue"] * cantonese if multilingual else ["en"]
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in codes)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    times = [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token) for token in times])
    return tokenizer, [*words, *special, *times]


def _weigh(spec: WhisperSpec, tokens: int, end_token: int, end: float, random: np.random.Generator) -> None:
    weights = Weights(random, _SIZE, _INNER, 0.3)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = weights.of(_SIZE, _MELS, 3), np.zeros(_SIZE, np.float32)
    encoder.conv2.weight, encoder.conv2.bias = weights.of(_SIZE, _SIZE, 3), np.zeros(_SIZE, np.float32)
    encoder.position_encodings.encodings = weights.of(1500, _SIZE)
    decoder.position_encodings.encodings = weights.of(448, _SIZE)
    for coder in (encoder, decoder):
        weights.norm(coder.layer_norm)
        for layer in coder.layer:
            weights.attention(layer.self_attention, [3 * _SIZE, _SIZE])
            weights.forward(layer.ffn)
    for layer in decoder.layer:
        weights.attention(layer.attention, [_SIZE, 2 * _SIZE, _SIZE])
    decoder.embeddings.weight = weights.of(tokens, _SIZE)
    decoder.projection.weight = weights.of(tokens, _SIZE)
    decoder.projection.bias = np.zeros(tokens, np.float32)
    decoder.projection.bias[end_token] = end
