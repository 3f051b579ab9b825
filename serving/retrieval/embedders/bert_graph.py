"""Builds a compact ONNX graph of a BERT encoder from its safetensors, with products of integers.

The usual export keeps each operation apart; ONNX Runtime then spends most of its time between
them. Here attention and quantised products are one operation each, and texts run one at a time
without padding, so that attention needs no mask: more than twice as many passages a second as a
published 8-bit export of the same model (`benchmarks/retrieval`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from serving.retrieval.embedders.protocol import EmbedderError

_CONTRIB = "com.microsoft"  # ONNX Runtime's own operations
_OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid(_CONTRIB, 1)]
_IR_VERSION = 9  # the oldest that has these operator sets: older runtimes read it too
# Weights have 7 bits: x86 without VNNI sums two products of 8 bits in 16, which then never
# overflows, so that every machine makes the same vectors.
WEIGHT_MAX = 63


def build_bert_graph(folder: Path, target: Path, *, quantize: bool) -> None:
    """Write the graph of the BERT model in `folder` to `target`.

    Its inputs are `input_ids`, `token_type_ids` and `mask` [1, tokens], all int32; its output
    `hidden` is [1, tokens, width]. A text has no padding: attention reads every position. With `quantize`, weights are integers of 7 bits per
    output channel, and activations are quantised while it runs; without, everything is float32.

    Raises EmbedderError for another architecture.
    """
    config = json.loads((folder / "config.json").read_text())
    _require_bert(config, folder)
    builder = _Builder(_weights(folder), config, quantize)
    onnx.save(builder.build(), str(target))


def _require_bert(config: dict[str, Any], folder: Path) -> None:
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, value in expected.items():
        found = config.get(name, "absolute" if name == "position_embedding_type" else None)
        if found != value:
            raise EmbedderError(
                f"The embedder in {folder} has {name} {found!r}; expected {value!r}.",
                hint="Use a folder that also has onnx/model.onnx, or an endpoint.",
            )


def _weights(folder: Path) -> dict[str, NDArray[Any]]:
    found = load_file(str(folder / "model.safetensors"))
    return {name.removeprefix("bert."): value.astype(np.float32) for name, value in found.items()}


class _Builder:
    def __init__(
        self, weights: dict[str, NDArray[Any]], config: dict[str, Any], quantize: bool
    ) -> None:
        self._weights = weights
        self._config = config
        self._quantize = quantize
        self._epsilon = config.get("layer_norm_eps", 1e-12)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        width = config["hidden_size"]
        self._mean_weights = self._constant("mean.w", np.full((width, 1), 1 / width, np.float32))
        self._epsilon_name = self._constant("epsilon", np.array([self._epsilon], np.float32))

    def build(self) -> onnx.ModelProto:
        hidden = self._embed()
        for layer in range(self._config["num_hidden_layers"]):
            hidden = self._layer(hidden, f"encoder.layer.{layer}.")
        self._nodes.append(helper.make_node("Identity", [hidden], ["hidden"]))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"])
            for name in ("input_ids", "token_type_ids", "mask")
        ]
        shape = ["batch", "tokens", self._config["hidden_size"]]
        output = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], self._initializers)
        return helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION)

    def _embed(self) -> str:
        tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        inputs = ["input_ids", "token_type_ids"]
        inputs += [self._parameter(f"embeddings.{name}.weight") for name in tables]
        inputs += self._norm("embeddings.LayerNorm")
        node = helper.make_node(
            "EmbedLayerNormalization", [*inputs, "mask"], ["embedded", "embedded.mask"],
            domain=_CONTRIB, epsilon=self._epsilon,
        )  # fmt: skip
        self._nodes.append(node)
        return "embedded"

    def _layer(self, hidden: str, prefix: str) -> str:
        attention = self._attention(hidden, f"{prefix}attention.self.")
        projected = self._linear(attention, [f"{prefix}attention.output.dense"])
        hidden = self._add_and_norm(projected, hidden, f"{prefix}attention.output.LayerNorm")
        inner = self._linear(hidden, [f"{prefix}intermediate.dense"])
        inner = self._node("Gelu", [inner], f"{prefix}gelu")
        inner = self._linear(inner, [f"{prefix}output.dense"])
        return self._add_and_norm(inner, hidden, f"{prefix}output.LayerNorm")

    def _attention(self, hidden: str, prefix: str) -> str:
        joint = self._linear(hidden, [f"{prefix}{name}" for name in ("query", "key", "value")])
        parts = [f"{prefix}{name}.split" for name in "qkv"]
        self._nodes.append(helper.make_node("Split", [joint], parts, axis=-1, num_outputs=3))
        heads = self._config["num_attention_heads"]
        return self._node("MultiHeadAttention", parts, f"{prefix}heads", num_heads=heads)

    def _linear(self, x: str, names: list[str]) -> str:
        """Multiply `x` with the weights of `names` side by side, and add their biases."""
        weight = np.concatenate([self._weights[f"{name}.weight"] for name in names])
        bias = self._constant(
            f"{names[0]}.b", np.concatenate([self._weights[f"{name}.bias"] for name in names])
        )
        if not self._quantize:
            matrix = self._constant(f"{names[0]}.w", weight.T)
            product = self._basic("MatMul", [x, matrix], f"{names[0]}.product")
            return self._basic("Add", [product, bias], f"{names[0]}.out")
        scale = np.maximum(np.abs(weight).max(axis=1) / WEIGHT_MAX, 1e-12).astype(np.float32)
        integers = np.rint(weight / scale[:, None]).astype(np.int8)
        inputs = [
            x,
            self._constant(f"{names[0]}.w", integers.T),
            self._constant(f"{names[0]}.s", scale),
            self._constant(f"{names[0]}.z", np.zeros(len(scale), np.int8)),
            bias,
        ]
        return self._node("DynamicQuantizeMatMul", inputs, f"{names[0]}.out")

    def _add_and_norm(self, x: str, skip: str, name: str) -> str:
        """Add and normalise in single steps, with means as products.

        ONNX Runtime's SkipLayerNormalization sums one number after the other and takes more than
        twice as long: a quarter of the whole graph's time.
        """
        total = self._basic("Add", [x, skip], f"{name}.sum")
        mean = self._basic("MatMul", [total, self._mean_weights], f"{name}.mean")
        centred = self._basic("Sub", [total, mean], f"{name}.centred")
        squares = self._basic("Mul", [centred, centred], f"{name}.squares")
        variance = self._basic("MatMul", [squares, self._mean_weights], f"{name}.variance")
        variance = self._basic("Add", [variance, self._epsilon_name], f"{name}.above_zero")
        inverse = self._basic("Reciprocal", [variance], f"{name}.inverse")
        factor = self._basic("Sqrt", [inverse], f"{name}.factor")
        weight, bias = self._norm(name)
        unit = self._basic("Mul", [centred, factor], f"{name}.unit")
        weighted = self._basic("Mul", [unit, weight], f"{name}.weighted")
        return self._basic("Add", [weighted, bias], f"{name}.out")

    def _norm(self, name: str) -> list[str]:
        return [self._parameter(f"{name}.weight"), self._parameter(f"{name}.bias")]

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = helper.make_node(kind, inputs, [output], domain=_CONTRIB, **attributes)
        self._nodes.append(node)
        return output

    def _basic(self, kind: str, inputs: list[str], output: str) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def _parameter(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
