#!/usr/bin/env python3
"""Computes what BGE-M3 gives for token ids, from the weights alone: the reference for tests/it/embedding_heads.rs.

    bge_m3_reference.py < REQUEST > ANSWER

REQUEST is {"model": GGUF, "sparse": FILE, "colbert": FILE, "unweighted": [ID..], "texts": [[ID..]..]}. ANSWER has for each
text {"dense", "sparse", "colbert", "tokens"}: as BGEM3FlagModel of FlagEmbedding computes them, and the vectors of the
tokens. It reads the files of the tests only: BERT, and floats of 32 bits.
"""

from __future__ import annotations

import json
import struct
import sys

import gguf
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def tensors_of_gguf(path: str) -> tuple[dict[str, Floats], int]:
    """Returns the tensors by name, and the number of attention heads."""
    reader = gguf.GGUFReader(path)
    heads = int(reader.fields["bert.attention.head_count"].contents())
    return {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}, heads


def tensors_of_safetensors(path: str) -> dict[str, Floats]:
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    read = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        read[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
    return read


def normalized(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def layer_norm(rows: Floats, weights: dict[str, Floats], name: str) -> Floats:
    mean = rows.mean(axis=-1, keepdims=True)
    spread = np.sqrt(rows.var(axis=-1, keepdims=True) + 1e-12)
    return (rows - mean) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(rows: Floats) -> Floats:
    """The approximation with tanh; ggml looks its values up in a table of halves (`ggml_vec_gelu_f32`)."""
    halves = rows.astype(np.float16).astype(np.float32)
    curved = 0.5 * halves * (1 + np.tanh(0.79788456080286535587989211986876 * halves * (1 + 0.044715 * halves * halves)))
    looked_up = curved.astype(np.float16).astype(np.float32)
    return np.where(rows <= -10, 0, np.where(rows >= 10, rows, looked_up)).astype(np.float32)


def token_vectors(weights: dict[str, Floats], heads: int, ids: list[int]) -> Floats:
    def linear(rows: Floats, name: str) -> Floats:
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows = weights["token_embd.weight"][ids] + weights["position_embd.weight"][: len(ids)]
    rows = layer_norm(rows + weights["token_types.weight"].reshape(-1), weights, "token_embd_norm")
    size = rows.shape[1] // heads
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blk."))
    for layer in range(layers):
        block = f"blk.{layer}"
        query, key, value = (linear(rows, f"{block}.attn_{part}") for part in "qkv")
        mixed = np.empty_like(rows)
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = query[:, at] @ key[:, at].T / np.sqrt(size)
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed[:, at] = powers / powers.sum(axis=-1, keepdims=True) @ value[:, at]
        rows = layer_norm(rows + linear(mixed, f"{block}.attn_output"), weights, f"{block}.attn_output_norm")
        wide = gelu(linear(rows, f"{block}.ffn_up"))
        rows = layer_norm(rows + linear(wide, f"{block}.ffn_down"), weights, f"{block}.layer_output_norm")
    return rows


def main() -> None:
    request = json.load(sys.stdin)
    weights, heads = tensors_of_gguf(request["model"])
    sparse, colbert = (tensors_of_safetensors(request[head]) for head in ("sparse", "colbert"))
    answer = []
    for ids in request["texts"]:
        rows = token_vectors(weights, heads, ids)
        token_weights = np.maximum(rows @ sparse["weight"].T + sparse["bias"], 0)[:, 0]
        by_id: dict[int, float] = {}
        for token, weight in zip(ids, token_weights.tolist(), strict=True):
            if token not in request["unweighted"] and weight > by_id.get(token, 0):
                by_id[token] = weight
        answer.append(
            {
                "dense": normalized(rows[0]).tolist(),
                "sparse": by_id,
                "colbert": normalized(rows[1:] @ colbert["weight"].T + colbert["bias"]).tolist(),
                "tokens": rows.tolist(),
            }
        )
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
