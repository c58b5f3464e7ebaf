"""Models of sherpa-onnx of the right shape and no sense: random weights, the metadata that it wants, made-up pieces.

One has real weights, those that the default engine runs.

The streaming one has the form of its LSTM transducers, the simplest with a state.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import moonshine_voice
import numpy as np
import sentencepiece
from onnx import TensorProto, helper, numpy_helper, save

from vivavoce.engines.moonshine import read_pieces

PIECES = ("▁one", "▁two", "er", "ing", "s", "▁we", "▁to", "n", "▁li", "ke")
SIGNS = ("你", "好", "世", "界", "大", "家", "早", "上", "天", "气")

_MELS, _SIZE = 80, 16
_CHUNK, _AHEAD = 16, 3  # frames that a chunk moves on by, and those that it sees beyond
_FLOAT, _LONG = TensorProto.FLOAT, TensorProto.INT64


def streaming(
    place: Path,
    *,
    pieces: tuple[str, ...] = PIECES,
    seed: int = 3,
    pause: float = 2.0,
    batch: str | int = "N",
    **metadata: str,
) -> Path:
    """Write a streaming transducer with `pieces`, the more silent the higher `pause` is, for `batch` clips at once.

    `metadata` go into its encoder; empty ones are left out.
    """
    place.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    size = _write_tokens(place, ("<blk>", "<unk>", *pieces))
    known = {
        "model_type": "lstm",
        "num_encoder_layers": "1",
        "T": str(_CHUNK + _AHEAD),
        "decode_chunk_len": str(_CHUNK),
        "rnn_hidden_size": str(_SIZE),
        "d_model": str(_SIZE),
    }
    frames = _CHUNK // 4
    _save(
        place / "encoder-epoch-99-avg-1.onnx",
        [
            helper.make_node("Slice", ["x", "zero", "chunk", "one"], ["heard"]),
            helper.make_node("Reshape", ["heard", "shape"], ["stacked"]),
            helper.make_node("MatMul", ["stacked", "weight"], ["sounds"]),
            helper.make_node("Transpose", ["h"], ["before"], perm=[1, 0, 2]),
            helper.make_node("Add", ["sounds", "before"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["encoder_out"]),
            helper.make_node("ReduceMean", ["encoder_out"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Transpose", ["mean"], ["next_h"], perm=[1, 0, 2]),
            helper.make_node("Add", ["c", "next_h"], ["next_c"]),
        ],
        {"x": [batch, _CHUNK + _AHEAD, _MELS], "h": [1, "N", _SIZE], "c": [1, "N", _SIZE]},
        {"encoder_out": ["N", frames, _SIZE], "next_h": [1, "N", _SIZE], "next_c": [1, "N", _SIZE]},
        {
            "zero": np.array([0, 0]),
            "chunk": np.array([_CHUNK, _MELS]),
            "one": np.array([1, 2]),
            "shape": np.array([0, frames, 4 * _MELS]),
            "weight": _random(rng, 4 * _MELS, _SIZE, scale=0.03),
        },
        known | metadata,
    )
    _save_decoder(place, rng, size, pause)
    return place


def _save_decoder(place: Path, rng: np.random.Generator, size: int, pause: float) -> None:
    _save(
        place / "decoder-epoch-99-avg-1.onnx",
        [
            helper.make_node("Gather", ["table", "y"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["decoder_out"], axes=[1], keepdims=0),
        ],
        {"y": ["N", 2]},
        {"decoder_out": ["N", _SIZE]},
        {"table": _random(rng, size, _SIZE, scale=1.0)},
        {"vocab_size": str(size), "context_size": "2"},
    )
    _save(
        place / "joiner-epoch-99-avg-1.onnx",
        [
            helper.make_node("Add", ["encoder_out", "decoder_out"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["bent"]),
            helper.make_node("MatMul", ["bent", "weight"], ["logits"]),
            helper.make_node("Add", ["logits", "bias"], ["logit"]),
        ],
        {"encoder_out": ["N", _SIZE], "decoder_out": ["N", _SIZE]},
        {"logit": ["N", size]},
        {
            "weight": _random(rng, _SIZE, size, scale=1.0),
            "bias": np.array([pause, *[0.0] * (size - 1)], np.float32),
        },
        {},
    )


def nemo_transducer(place: Path, *, chunks: bool, seed: int = 13) -> Path:
    """Write a transducer in the form of NeMo's: Nemotron, which hears in `chunks`, or Parakeet TDT."""
    place.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    size = _write_tokens(place, (*PIECES, "<blk>"))
    known = {
        "model_type": "EncDecRNNTBPEModel",
        "vocab_size": str(size - 1),
        "subsampling_factor": "8",
        "normalize_type": "",
        "pred_rnn_layers": "1",
        "pred_hidden": str(_SIZE),
        "feat_dim": str(_MELS),
    }
    weight = {"weight": _random(rng, _SIZE, _MELS, 8, scale=0.02)}
    if chunks:
        _save_chunked_encoder(place, weight, known)
    else:
        _save(
            place / "encoder.onnx",
            [
                helper.make_node("Conv", ["audio_signal", "weight"], ["pooled"], strides=[8]),
                helper.make_node("Tanh", ["pooled"], ["outputs"]),
                helper.make_node("Div", ["length", "eight"], ["lengths"]),
            ],
            {"audio_signal": ["N", _MELS, "T"], "length": ["N"]},
            {"outputs": ["N", _SIZE, "T8"], "lengths": ["N"]},
            weight | {"eight": np.array(8)},
            known | {"url": "made for a test/tdt"},
        )
    _save_nemo_decoder(place, rng, size, durations=0 if chunks else 3)
    return place


def _save_chunked_encoder(place: Path, weight: dict[str, np.ndarray], known: dict[str, str]) -> None:
    caches = {
        "cache_last_channel": ["N", 1, 1, _SIZE],
        "cache_last_time": ["N", 1, _SIZE, 1],
        "cache_last_channel_len": ["N"],
    }
    _save(
        place / "encoder.onnx",
        [
            helper.make_node("Slice", ["audio_signal", "zero", "chunk", "axis"], ["heard"]),
            helper.make_node("Conv", ["heard", "weight"], ["pooled"], strides=[8]),
            helper.make_node("Reshape", ["cache_last_time", "flat"], ["before"]),
            helper.make_node("Add", ["pooled", "before"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["outputs"]),
            helper.make_node("ReduceMean", ["outputs"], ["mean"], axes=[2], keepdims=1),
            helper.make_node("Reshape", ["mean", "deep"], ["next_time"]),
            helper.make_node("Identity", ["cache_last_channel"], ["next_channel"]),
            helper.make_node("Add", ["cache_last_channel_len", "axis"], ["next_length"]),
            helper.make_node("Identity", ["length"], ["lengths"]),
        ],
        {"audio_signal": ["N", _MELS, _CHUNK + _AHEAD], "length": ["N"], **caches},
        {
            "outputs": ["N", _SIZE, _CHUNK // 8],
            "lengths": ["N"],
            **{f"next_{name}": caches[f"cache_last_{name}"] for name in ("channel", "time")},
            "next_length": ["N"],
        },
        weight
        | {
            "zero": np.array([0]),
            "chunk": np.array([_CHUNK]),
            "axis": np.array([2]),
            "flat": np.array([-1, _SIZE, 1]),
            "deep": np.array([-1, 1, _SIZE, 1]),
        },
        known
        | {"window_size": str(_CHUNK + _AHEAD), "chunk_shift": str(_CHUNK)}
        | {f"cache_last_{name}": str(value) for name, value in _CACHES.items()},
    )


_CACHES = {
    "channel_dim1": 1,
    "channel_dim2": 1,
    "channel_dim3": _SIZE,
    "time_dim1": 1,
    "time_dim2": _SIZE,
    "time_dim3": 1,
}


def _save_nemo_decoder(place: Path, rng: np.random.Generator, size: int, durations: int) -> None:
    states = {"state_h": [1, "N", _SIZE], "state_c": [1, "N", _SIZE]}
    _save(
        place / "decoder.onnx",
        [
            helper.make_node("Gather", ["table", "targets"], ["rows"]),
            helper.make_node("Transpose", ["rows"], ["outputs"], perm=[0, 2, 1]),
            helper.make_node("Identity", ["target_length"], ["lengths32"]),
            *(helper.make_node("Identity", [name], [f"next_{name}"]) for name in states),
        ],
        {"targets": (["N", 1], TensorProto.INT32), "target_length": (["N"], TensorProto.INT32), **states},
        {
            "outputs": ["N", _SIZE, 1],
            "lengths32": (["N"], TensorProto.INT32),
            **{f"next_{name}": shape for name, shape in states.items()},
        },
        {"table": _random(rng, size, _SIZE, scale=1.0)},
        {},
    )
    bias = np.zeros(size + durations, np.float32)
    bias[size - 1] = 2.5 if not durations else 1.0  # or it would write ten pieces for each frame
    bias[size:] = [-9.0, 1.0, 2.0][:durations]  # a frame or two for each piece, never none
    _save(
        place / "joiner.onnx",
        [
            helper.make_node("Add", ["encoder_outputs", "decoder_outputs"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["bent"]),
            helper.make_node("Reshape", ["bent", "row"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
        ],
        {"encoder_outputs": ["N", _SIZE, 1], "decoder_outputs": ["N", _SIZE, 1]},
        {"logits": ["N", 1, 1, size + durations]},
        {"row": np.array([-1, 1, 1, _SIZE]), "weight": _random(rng, _SIZE, size + durations, scale=1.0), "bias": bias},
        {},
    )


def nemo_ctc(place: Path, *, pieces: tuple[str, ...] = PIECES, seed: int = 5, **metadata: str) -> Path:
    """Write a model in the form of NeMo's CTC models, which hears a whole clip."""
    place.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    size = _write_tokens(place, (*pieces, "<blk>"))
    known = {
        "model_type": "EncDecCTCModelBPE",
        "vocab_size": str(size),
        "subsampling_factor": "8",
        "normalize_type": "per_feature",
    }
    bias = np.zeros(size, np.float32)
    bias[-1] = 2.0
    _save(
        place / "model.onnx",
        [
            helper.make_node("Conv", ["audio_signal", "weight", "bias"], ["pooled"], strides=[8]),
            helper.make_node("Transpose", ["pooled"], ["logits"], perm=[0, 2, 1]),
            helper.make_node("LogSoftmax", ["logits"], ["logprobs"], axis=-1),
        ],
        {"audio_signal": ["N", _MELS, "T"], "length": ["N"]},
        {"logprobs": ["N", "T8", size]},
        {"weight": _random(rng, size, _MELS, 8, scale=0.05), "bias": bias},
        known | metadata,
    )
    return place


def sense_voice(place: Path, *, language: str = "zh") -> Path:
    """Write a model in the form of SenseVoice, which hears `language` whatever is said."""
    place.mkdir(parents=True)
    rng = np.random.default_rng(7)
    tags = ("<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>")
    tokens = ("<blank>", *tags, *SIGNS, "▁one", "▁two", "er", "，")  # noqa: RUF001 - a Chinese comma
    size = _write_tokens(place, tokens)
    head = np.full((1, 4, size), -20.0, np.float32)
    for nth, tag in enumerate((f"<|{language}|>", *tags[2:])):
        head[0, nth, tokens.index(tag)] = 20.0
    bias = np.zeros(size, np.float32)
    bias[1 : 1 + len(tags)] = -20.0
    _save(
        place / "model.int8.onnx",
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["said"]),
            helper.make_node("Shape", ["x"], ["whole"]),
            helper.make_node("Slice", ["whole", "start", "stop"], ["count"]),
            helper.make_node("Concat", ["count", "rest"], ["wide"], axis=0),
            helper.make_node("Expand", ["head", "wide"], ["heads"]),
            helper.make_node("Concat", ["heads", "said"], ["logits"], axis=1),
        ],
        {
            "x": ["N", "T", 560],
            "x_length": (["N"], TensorProto.INT32),
            **{n: (["N"], TensorProto.INT32) for n in ("language", "text_norm")},
        },
        {"logits": ["N", "T4", size]},
        {
            "weight": _random(rng, 560, size, scale=0.1),
            "bias": bias,
            "head": head,
            "start": np.array([0]),
            "stop": np.array([1]),
            "rest": np.array([4, size]),
        },
        {
            "model_type": "sense_voice_ctc",
            "comment": "made for a test",
            "vocab_size": str(size),
            "lfr_window_size": "7",
            "lfr_window_shift": "6",
            "normalize_samples": "0",
            "with_itn": "14",
            "without_itn": "15",
            **{f"lang_{code}": str(nth) for nth, code in enumerate(("auto", "zh", "en", "yue", "ja", "ko"))},
            "neg_mean": ",".join(["-8"] * 560),
            "inv_stddev": ",".join(["0.2"] * 560),
        },
    )
    return place


def moonshine(place: Path) -> Path:
    """Lay out the real weights of the moonshine-voice wheel as sherpa-onnx's releases are: English, heard whole."""
    place.mkdir(parents=True)
    weights = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
    for name in ("encoder_model.ort", "decoder_model_merged.ort"):
        (place / name).symlink_to(weights / name)
    pieces = read_pieces(weights / "tokenizer.bin")
    lines = [f"{base64.b64encode(piece or b' ').decode()} {nth}\n" for nth, piece in enumerate(pieces)]
    (place / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    return place


def bpe(text: str, size: int) -> tuple[bytes, tuple[str, ...]]:
    """Give a `bpe.model` that was trained on `text`, and its pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text]),
        model_writer=model,
        vocab_size=size,
        model_type="bpe",
        minloglevel=2,
        bos_id=-1,
        eos_id=-1,
    )
    known = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return model.getvalue(), tuple(known.id_to_piece(nth) for nth in range(1, known.get_piece_size()))


def written(path: Path, **metadata: str) -> Path:
    """Write an ONNX file that computes nothing of use, with metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, [helper.make_node("Identity", ["x"], ["y"])], {"x": ["N"]}, {"y": ["N"]}, {}, metadata)
    return path


def _random(rng: np.random.Generator, *shape: int, scale: float) -> np.ndarray:
    return rng.normal(0, scale, shape).astype(np.float32)


def _write_tokens(place: Path, tokens: tuple[str, ...]) -> int:
    lines = [f"{token} {nth}\n" for nth, token in enumerate(tokens)]
    (place / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    return len(tokens)


def _save(path, nodes, inputs, outputs, constants, metadata) -> None:  # noqa: PLR0917 - as a graph is put together
    taken, given = ([_described(name, shape) for name, shape in sides.items()] for sides in (inputs, outputs))
    fixed = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, taken, given, fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {key: value for key, value in metadata.items() if value})
    save(model, path)


def _described(name, shape):
    if isinstance(shape, tuple):
        return helper.make_tensor_value_info(name, shape[1], shape[0])
    whole = {"y", "length", "lengths", "cache_last_channel_len", "next_length"}
    return helper.make_tensor_value_info(name, _LONG if name in whole else _FLOAT, shape)
