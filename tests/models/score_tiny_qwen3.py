#!/usr/bin/env python3
"""Scores documents with a Qwen3 of make_tiny_qwen3.py, in NumPy: the reference for the scores of llamagate.

    score_tiny_qwen3.py MODEL < REQUEST

The request is {"query": TEXT, "documents": [TEXT, ...], "instruction": TEXT or null}. Prints, for each document, the logits
of "yes" and "no" at the last position of the model card's template, the number of tokens of the prompt, and the
probability of "yes" against "no".

What stands in the request is tokenized without control tokens: the marks of a chat are text there.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path

import gguf
import numpy as np
from make_tiny_qwen3 import CONTROL, HEAD, HEADS, KV_HEADS, LAYERS, USER_DEFINED, byte_tokens
from numpy.typing import NDArray

Array = NDArray[np.float64]

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# What Qwen2 and Qwen3 split a text at before BPE; `[^\W\d_]` are the letters.
PIECES = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:(?![\r\n])[\W_])?[^\W\d_]+|\d| ?(?:(?!\s)[\W_])+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Byte-level BPE with the vocabulary of a file."""

    def __init__(self, tokens: list[str], merges: list[str]) -> None:
        self._ids = {token: at for at, token in enumerate(tokens)}
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        self._bytes = byte_tokens()
        self._piece = cache(self._merged)

    def id_of(self, token: str) -> int:
        return self._ids[token]

    def encode(self, text: str, *, parses_control: bool) -> list[int]:
        whole = USER_DEFINED + (CONTROL if parses_control else ())
        ids = []
        for part in re.split("(" + "|".join(map(re.escape, whole)) + ")", text):
            if part in whole:
                ids.append(self._ids[part])
            else:
                ids += (self._ids[token] for piece in PIECES.findall(part) for token in self._piece(piece))
        return ids

    def _merged(self, piece: str) -> list[str]:
        parts = [self._bytes[byte] for byte in piece.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        return parts


class Model:
    """A Qwen3 with the weights of a file."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._weights = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
        self._base = reader.fields["qwen3.rope.freq_base"].contents()
        self._epsilon = reader.fields["qwen3.attention.layer_norm_rms_epsilon"].contents()
        fields = (reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
        self.tokenizer = Tokenizer(*fields)

    def logits(self, ids: list[int]) -> Array:
        """Returns the logits after the last of these tokens."""
        states = self._weights["token_embd.weight"][ids]
        for layer in range(LAYERS):
            states = states + self._attention(layer, self._norm(states, f"blk.{layer}.attn_norm"))
            states = states + self._feed_forward(layer, self._norm(states, f"blk.{layer}.ffn_norm"))
        last: Array = self._weights["output.weight"] @ self._norm(states[-1], "output_norm")
        return last

    def _attention(self, layer: int, states: Array) -> Array:
        def heads(part: str, count: int) -> Array:
            return (states @ self._weights[f"blk.{layer}.attn_{part}.weight"].T).reshape(len(states), count, HEAD)

        queries = self._rotated(self._norm(heads("q", HEADS), f"blk.{layer}.attn_q_norm"))
        keys = self._rotated(self._norm(heads("k", KV_HEADS), f"blk.{layer}.attn_k_norm"))
        values = heads("v", KV_HEADS)
        mixed = np.empty_like(queries)
        for head in range(HEADS):
            of = head * KV_HEADS // HEADS
            scores = queries[:, head] @ keys[:, of].T / np.sqrt(HEAD)
            scores[np.triu_indices(len(states), 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, of]
        return mixed.reshape(len(states), -1) @ self._weights[f"blk.{layer}.attn_output.weight"].T

    def _feed_forward(self, layer: int, states: Array) -> Array:
        gate, up, down = (self._weights[f"blk.{layer}.ffn_{part}.weight"].T for part in ("gate", "up", "down"))
        gated = states @ gate
        return (gated / (1 + np.exp(-gated)) * (states @ up)) @ down

    def _norm(self, states: Array, name: str) -> Array:
        mean = (states**2).mean(axis=-1, keepdims=True)
        return states / np.sqrt(mean + self._epsilon) * self._weights[f"{name}.weight"]

    def _rotated(self, states: Array) -> Array:
        """Turns each head by its position; the first half of a head goes with the second."""
        half = HEAD // 2
        angles = np.outer(np.arange(len(states)), self._base ** (-np.arange(half) / half))[:, None, :]
        one, other = states[..., :half], states[..., half:]
        cosines, sines = np.cos(angles), np.sin(angles)
        return np.concatenate([one * cosines - other * sines, other * cosines + one * sines], axis=-1)


def main() -> int:
    model = Model(Path(sys.argv[1]))
    request = json.load(sys.stdin)
    instruction = INSTRUCTION if request.get("instruction") is None else request["instruction"]
    encode = model.tokenizer.encode
    before, after = (encode(text, parses_control=True) for text in (PREFIX, SUFFIX))
    scored = []
    for document in request["documents"]:
        asked = f"<Instruct>: {instruction}\n<Query>: {request['query']}\n<Document>: {document}"
        ids = before + encode(asked, parses_control=False) + after
        logits = model.logits(ids)
        yes, no = (float(logits[model.tokenizer.id_of(word)]) for word in ("yes", "no"))
        probability = 1 / (1 + np.exp(no - yes))
        scored.append({"yes": yes, "no": no, "tokens": len(ids), "score": float(probability)})
    print(json.dumps(scored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
