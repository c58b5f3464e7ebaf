"""Lean graphs for the tiny Moonshine model, built from the weights in the moonshine-voice wheel.

The wheel's own graphs spend more time on the shapes of tensors than on their numbers: a decoder step is a thousand
nodes, most of them slices and reshapes around seventy products. Here the same weights, quantized as they are, stand in
graphs of fused operators, which give the same numbers up to the rounding of floats:

- `stem`: samples to the raw output of the second convolution, and what the norm before it must know. That norm is over
  the whole clip, but the convolution is linear, so the norm can be applied behind it. Frames of the raw output depend
  on `STEM_REACH` samples each, every `STEM_HOP`, and stay valid while a clip grows.
- `encoder`: the normed stem to the keys and values that the decoder looks at, of all layers at once.
- `decoder`: tokens after a cache of earlier ones to the likeliest next tokens. Rows of a batch may have caches of
  unequal length, and look at unequal numbers of frames. The logits of all tokens can be had too.

The head size of the decoder's own attention is padded with zeros, because the fused operator wants multiples of 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

LAYERS, HEADS, HEAD_SIZE, CACHE_SIZE, WIDTH = 6, 8, 36, 48, 288
STEM_HOP, STEM_REACH = 192, 511
"""A frame of the stem covers the samples `[STEM_HOP * n, STEM_HOP * n + STEM_REACH)`."""
STEM_CHANNELS = 576

_ROTARY, _ROTARY_BASE = 32, 10_000.0
_MOST_FRAMES, _MOST_TOKENS = 1024, 512
EPSILON = 1e-5
_MICROSOFT = "com.microsoft"
_NORM_SCALE, _NORM_SHIFT = "onnx::Mul_2080", "onnx::Add_2081"
_ENCODER, _DECODER = "/layers.{}/", "/model/decoder/layers.{}/"
_FLOAT, _UINT8 = TensorProto.FLOAT, TensorProto.UINT8

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """The graphs as ONNX models, and what the norm in the stem adds behind its convolution.

    With mean m and deviation s of the first convolution's output, the normed stem is `raw / s + norm_bias - norm_gain *
    m / s`; both are `[STEM_CHANNELS, 1]`.
    """

    stem: bytes
    encoder: bytes
    decoder: bytes
    norm_gain: _Array
    norm_bias: _Array


def build(folder: Path) -> Graphs:
    """Build the graphs from the `.ort` files in `folder`; raises `KeyError` or `ValueError` for other files."""
    encoder, decoder = _Weights(folder / "encoder_model.ort"), _Weights(folder / "decoder_model_merged.ort")
    weight, scale = encoder.tensor("conv2.weight_add_tensor"), encoder.tensor(_NORM_SCALE)
    return Graphs(
        stem=_stem(encoder),
        encoder=_encoder(encoder, decoder),
        decoder=_decoder(decoder),
        norm_gain=(weight * scale[None]).sum((1, 2))[:, None],
        norm_bias=(weight * encoder.tensor(_NORM_SHIFT)[None]).sum((1, 2))[:, None]
        + encoder.tensor("conv2.bias")[:, None],
    )


class _Weights:
    """The tensors of an `.ort` file by name, and the names of the quantized matrices by the layer they serve."""

    def __init__(self, path: Path) -> None:
        self._tensors: dict[str, Any] = {}
        self._matrices: dict[str, str] = {}
        self._content = path.read_bytes()
        for graph in _graphs(InferenceSession.GetRootAsInferenceSession(self._content, 0).Model().Graph()):
            for i in range(graph.InitializersLength()):
                tensor = graph.Initializers(i)
                self._tensors[tensor.Name().decode()] = tensor
            for i in range(graph.NodesLength()):
                layer, found, _ = graph.Nodes(i).Name().decode().rpartition("/MatMul_quant")
                if found:
                    self._matrices[layer] = graph.Nodes(i).Inputs(1).decode().removesuffix("_quantized")

    def tensor(self, name: str) -> _Array:
        tensor = self._tensors[name]
        kind = {_FLOAT: np.float32, _UINT8: np.uint8}[tensor.DataType()]
        shape = [tensor.Dims(i) for i in range(tensor.DimsLength())]
        return np.frombuffer(tensor.RawDataAsNumpy().tobytes(), kind).reshape(shape)

    def matrix(self, *layers: str) -> tuple[_Array, _Array, _Array]:
        """Give matrices side by side, quantized, with a scale and a zero point for each column."""
        parts, scales, zeros = [], [], []
        for layer in layers:
            name = self._matrices[layer]
            part = self.tensor(f"{name}_quantized")
            parts.append(part)
            scales.append(np.full(part.shape[1], self.tensor(f"{name}_scale").item(), np.float32))
            zeros.append(np.full(part.shape[1], self.tensor(f"{name}_zero_point").item(), np.uint8))
        return np.concatenate(parts, 1), np.concatenate(scales), np.concatenate(zeros)


def _graphs(graph: Any) -> Iterator[Any]:
    """Give a graph and the branches inside it."""
    yield graph
    for i in range(graph.NodesLength()):
        node = graph.Nodes(i)
        for k in range(node.AttributesLength()):
            if (branch := node.Attributes(k).G()) is not None:
                yield from _graphs(branch)


class _Graph:
    """A graph in the making; values are named by those who make them."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and give its first output, named after its place unless named here."""
        names = outputs or (f"value{len(self._nodes)}",)
        self._nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0]

    def fused(self, operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        return self.add(operator, inputs, *outputs, domain=_MICROSOFT, **attributes)

    def product(
        self, value: str, matrix: tuple[_Array, _Array, _Array], bias: _Array | None = None, *outputs: str
    ) -> str:
        weights = [self.constant(part) for part in matrix]
        added = [self.constant(bias)] if bias is not None else []
        return self.fused("DynamicQuantizeMatMul", [value, *weights, *added], *outputs)

    def norm(self, value: str, weight: _Array) -> str:
        zeros = self.constant(np.zeros(WIDTH, np.float32))
        return self.add("LayerNormalization", [value, self.constant(weight), zeros], epsilon=EPSILON)

    def add_and_norm(self, value: str, stream: str, weight: _Array) -> tuple[str, str]:
        """Give the normed sum, and the sum itself, which is the stream that goes on."""
        place = len(self._nodes)
        zeros = self.constant(np.zeros(WIDTH, np.float32))
        normed, total = f"normed{place}", f"stream{place}"
        inputs = [value, stream, self.constant(weight), zeros]
        self.fused("SkipLayerNormalization", inputs, normed, "", "", total, epsilon=EPSILON)
        return normed, total

    def split(self, value: str, parts: int) -> list[str]:
        names = [f"part{len(self._nodes)}_{i}" for i in range(parts)]
        self.add("Split", [value], *names, axis=-1)
        return names

    def rotary(self, most: int) -> tuple[str, str]:
        """Give the cosines and sines of `most` positions."""
        speeds = _ROTARY_BASE ** -(np.arange(0, _ROTARY, 2, dtype=np.float32) / _ROTARY)
        angles = np.outer(np.arange(most, dtype=np.float32), speeds).astype(np.float32)
        return self.constant(np.cos(angles)), self.constant(np.sin(angles))

    def model(self, inputs: Mapping[str, tuple[Any, list[Any]]], outputs: Mapping[str, Any]) -> bytes:
        """Give the model; inputs are types and shapes, outputs types."""
        graph = helper.make_graph(
            self._nodes,
            "moonshine",
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)]
        content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        return content


def _stem(weights: _Weights) -> bytes:
    graph = _Graph()
    samples = graph.add("Unsqueeze", ["samples", graph.constant(np.array([1]))])
    first = graph.add("Conv", [samples, graph.constant(weights.tensor("conv1.weight_add_tensor"))], strides=[64])
    first = graph.add("Tanh", [first])
    # Per frame, so that the caller can add them up without counting the overlap of two runs twice.
    graph.add("ReduceSum", [first, graph.constant(np.array([0, 1]))], "sums", keepdims=0)
    graph.add("ReduceSumSquare", [first], "squares", axes=[0, 1], keepdims=0)
    scaled = weights.tensor("conv2.weight_add_tensor") * weights.tensor(_NORM_SCALE)[None]
    graph.add("Conv", [first, graph.constant(scaled)], "raw", strides=[3])
    return graph.model({"samples": (_FLOAT, [1, "samples"])}, {"raw": _FLOAT, "sums": _FLOAT, "squares": _FLOAT})


def _encoder(weights: _Weights, decoder: _Weights) -> bytes:
    graph = _Graph()
    value = graph.add("Add", [graph.add("Mul", ["raw", "gain"]), "bias"])
    value = graph.fused("Gelu", [value])
    kernel, bias = (graph.constant(weights.tensor(f"conv3.{name}")) for name in ("weight_add_tensor", "bias"))
    value = graph.fused("Gelu", [graph.add("Conv", [value, kernel, bias], strides=[2])])
    stream = graph.add("Transpose", [value], perm=[0, 2, 1])
    rotary = graph.rotary(_MOST_FRAMES)
    begin = graph.constant(np.array([0]))
    names = [f"layers.{layer}.input_layernorm.weight" for layer in range(LAYERS)] + ["layer_norm.weight"]
    normed = graph.norm(stream, weights.tensor(names[0]))
    for layer in range(LAYERS):
        at, name = _ENCODER.format(layer), f"layers.{layer}."
        query, key, seen = graph.split(
            graph.product(normed, weights.matrix(*(f"{at}self_attn/{each}_proj" for each in "qkv"))), 3
        )
        query, key = (
            graph.fused(
                "RotaryEmbedding",
                [each, begin, *rotary],
                interleaved=1,
                num_heads=HEADS,
                rotary_embedding_dim=_ROTARY,
            )
            for each in (query, key)
        )
        found = graph.fused("MultiHeadAttention", [query, key, seen], num_heads=HEADS)
        found = graph.product(found, weights.matrix(f"{at}self_attn/o_proj"))
        normed, stream = graph.add_and_norm(found, stream, weights.tensor(f"{name}post_attention_layernorm.weight"))
        wide = graph.product(normed, weights.matrix(f"{at}mlp/fc1"), weights.tensor(f"{name}mlp.fc1.bias"))
        wide = graph.fused("Gelu", [wide])
        found = graph.product(wide, weights.matrix(f"{at}mlp/fc2"), weights.tensor(f"{name}mlp.fc2.bias"))
        normed, stream = graph.add_and_norm(found, stream, weights.tensor(names[layer + 1]))
    looks = [f"{_DECODER.format(layer)}encoder_attn/{each}_proj" for layer in range(LAYERS) for each in "kv"]
    memory = graph.product(normed, decoder.matrix(*looks))
    memory = graph.add("Reshape", [memory, graph.constant(np.array([-1, 2 * LAYERS, HEADS, HEAD_SIZE]))])
    graph.add("Transpose", [memory], "memory", perm=[1, 2, 0, 3])
    inputs: dict[str, tuple[Any, list[Any]]] = {
        "raw": (_FLOAT, [1, STEM_CHANNELS, "frames"]),
        "gain": (_FLOAT, [1]),
        "bias": (_FLOAT, [STEM_CHANNELS, 1]),
    }
    return graph.model(inputs, {"memory": _FLOAT})


def _decoder(weights: _Weights) -> bytes:
    graph = _Graph()
    int32 = TensorProto.INT32
    inputs: dict[str, tuple[Any, list[Any]]] = {
        "tokens": (TensorProto.INT64, ["rows", "tokens"]),
        "lengths": (int32, ["rows"]),
        "longest": (int32, []),
        "heard": (int32, ["rows", "frames"]),
    }
    outputs = {"next": TensorProto.INT64, "probability": _FLOAT, "logits": _FLOAT}
    embedding = "model.decoder.embed_tokens.weight_merged_0"
    quantized, scale, zero = (
        graph.constant(weights.tensor(f"{embedding}_{each}")) for each in ("quantized", "scale", "zero_point")
    )
    stream = graph.add("DequantizeLinear", [graph.add("Gather", [quantized, "tokens"]), scale, zero])
    rotary = graph.rotary(_MOST_TOKENS)
    names = [f"model.decoder.layers.{layer}.input_layernorm.weight_merged_0" for layer in range(LAYERS)]
    names.append("model.decoder.norm.weight_merged_0")
    normed = graph.norm(stream, weights.tensor(names[0]))
    for layer in range(LAYERS):
        at, name = _DECODER.format(layer), f"model.decoder.layers.{layer}."
        for part in "kv":
            inputs[f"cache_{part}{layer}"] = (_FLOAT, ["rows", HEADS, "cached", CACHE_SIZE])
            inputs[f"memory_{part}{layer}"] = (_FLOAT, ["rows", HEADS, "frames", HEAD_SIZE])
            outputs[f"new_{part}{layer}"] = _FLOAT
        query = graph.product(normed, _wide_heads(weights.matrix(*(f"{at}self_attn/{each}_proj" for each in "qkv"))))
        found = graph.fused(
            "GroupQueryAttention",
            [query, "", "", f"cache_k{layer}", f"cache_v{layer}", "lengths", "longest", *rotary],
            f"said{layer}",
            f"new_k{layer}",
            f"new_v{layer}",
            num_heads=HEADS,
            kv_num_heads=HEADS,
            do_rotary=1,
            rotary_interleaved=1,
            scale=HEAD_SIZE**-0.5,
        )
        found = graph.product(found, _tall_heads(weights.matrix(f"{at}self_attn/o_proj")))
        weight = weights.tensor(f"{name}post_attention_layernorm.weight_merged_0")
        normed, stream = graph.add_and_norm(found, stream, weight)
        query = graph.product(normed, weights.matrix(f"{at}encoder_attn/q_proj"))
        memory = [query, f"memory_k{layer}", f"memory_v{layer}", "", "heard"]
        found = graph.fused("MultiHeadAttention", memory, num_heads=HEADS)
        found = graph.product(found, weights.matrix(f"{at}encoder_attn/o_proj"))
        normed, stream = graph.add_and_norm(found, stream, weights.tensor(f"{name}final_layernorm.weight_merged_0"))
        wide = graph.product(normed, weights.matrix(f"{at}mlp/fc1"), weights.tensor(f"{name}mlp.fc1.bias_merged_0"))
        value, gate = graph.split(wide, 2)
        wide = graph.add("Mul", [value, graph.fused("QuickGelu", [gate], alpha=1.0)])
        found = graph.product(wide, weights.matrix(f"{at}mlp/fc2"), weights.tensor(f"{name}mlp.fc2.bias_merged_0"))
        normed, stream = graph.add_and_norm(found, stream, weights.tensor(names[layer + 1]))
    logits = graph.product(normed, weights.matrix("/proj_out"), None, "logits")
    graph.add("ArgMax", [logits], "next", axis=-1, keepdims=0)
    graph.add("ReduceMax", [graph.add("Softmax", [logits], axis=-1)], "probability", axes=[-1], keepdims=0)
    return graph.model(inputs, outputs)


def _wide_heads(matrix: tuple[_Array, _Array, _Array]) -> tuple[_Array, _Array, _Array]:
    """Pad each head's columns with zeros to `CACHE_SIZE`."""
    weights, scales, zeros = matrix
    heads = weights.shape[1] // HEAD_SIZE
    scales, zeros = (np.repeat(each.reshape(heads, HEAD_SIZE)[:, 0], CACHE_SIZE) for each in (scales, zeros))
    wide = np.broadcast_to(zeros, (WIDTH, heads * CACHE_SIZE)).copy()
    wide.reshape(WIDTH, heads, CACHE_SIZE)[:, :, :HEAD_SIZE] = weights.reshape(WIDTH, heads, HEAD_SIZE)
    return wide, scales, zeros


def _tall_heads(matrix: tuple[_Array, _Array, _Array]) -> tuple[_Array, _Array, _Array]:
    """Pad each head's rows with zeros to `CACHE_SIZE`."""
    weights, scales, zeros = matrix
    tall = np.broadcast_to(zeros, (HEADS, CACHE_SIZE, WIDTH)).copy()
    tall[:, :HEAD_SIZE] = weights.reshape(HEADS, HEAD_SIZE, WIDTH)
    return tall.reshape(HEADS * CACHE_SIZE, WIDTH), scales, zeros
