"""A Marian model of the right shape and no sense: random weights, and pieces learnt from a few sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sentencepiece
from ctranslate2.specs import TransformerSpec

from random_weights import Weights

_SIZE, _HEADS, _INNER, _LAYERS = 16, 2, 32, 1
_SENTENCES = {
    "en": ["hello there", "good morning this is the library", "can you help me please", "we are open until five"],
    "nl": ["hallo daar", "goedemorgen met de bibliotheek", "kunt u mij helpen", "wij zijn open tot vijf uur"],
}


def make_model(directory: Path, *, add_source_eos: bool = False, seed: int = 1) -> None:
    """Write a whole model directory, as the converter leaves it beside its SentencePiece files."""
    directory.mkdir(parents=True)
    pieces = ["</s>", "<unk>"]
    for name, language in (("source", "en"), ("target", "nl")):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_SENTENCES[language] * 5),
            model_prefix=str(directory / name),
            vocab_size=40,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=0,
            unk_id=1,
            minloglevel=2,
        )
        (directory / f"{name}.model").rename(directory / f"{name}.spm")
        learnt = sentencepiece.SentencePieceProcessor(model_file=str(directory / f"{name}.spm"))
        pieces += [learnt.id_to_piece(nth) for nth in range(learnt.get_piece_size())]
    _write(directory, list(dict.fromkeys(pieces)), add_source_eos, np.random.default_rng(seed))


def _write(directory: Path, pieces: list[str], add_source_eos: bool, random: np.random.Generator) -> None:
    spec = TransformerSpec.from_config(_LAYERS, _HEADS, pre_norm=False)
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.config.add_source_eos = add_source_eos
    spec.config.unk_token, spec.config.eos_token, spec.config.decoder_start_token = "<unk>", "</s>", "</s>"
    spec.decoder.start_from_zero_embedding = True

    weights = Weights(random, _SIZE, _INNER, 0.5)
    places = weights.of(512, _SIZE)
    for coder in (spec.encoder, spec.decoder):
        coder.position_encodings.encodings = places
        for layer in coder.layer:
            weights.attention(layer.self_attention, [3 * _SIZE, _SIZE])
            weights.forward(layer.ffn)
    spec.encoder.embeddings[0].weight = weights.of(len(pieces), _SIZE)
    spec.decoder.embeddings.weight = weights.of(len(pieces), _SIZE)
    for layer in spec.decoder.layer:
        weights.attention(layer.attention, [_SIZE, 2 * _SIZE, _SIZE])
    weights.linear(spec.decoder.projection, len(pieces), _SIZE)
    spec.validate()
    spec.save(str(directory))
