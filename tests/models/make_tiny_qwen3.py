#!/usr/bin/env python3
"""Writes a tiny Qwen3-Reranker without a ranking head, as many files on the hub are.

    make_tiny_qwen3.py OUTDIR

    tiny-qwen3-reranker.gguf   a decoder that is asked for "yes" or "no"

Architecture and tokenizer are those of Qwen3: grouped heads, a norm of each query and key, byte-level BPE in which the
marks of a chat are control tokens and `<think>` is a token of any text. The weights are random numbers from a fixed seed,
so the scores make no sense, but differ from document to document and are always the same. score_tiny_qwen3.py computes
them from the same file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
from make_tiny_models import FEED_FORWARD, LAYERS, SEED, WIDTH, Random, Weights, finish, ones

HEADS = 2
KV_HEADS = 1
HEAD = 32
CONTEXT = 4096

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<think>", "</think>")
# Each word is a token, and so are the beginnings that its merges go through.
WORDS = """
yes no system user assistant Judge Document Query Instruct answer that the \u0120the \u0120that \u0120and \u0120is \u0120a \u0120of \u0120bird
\u0120birds \u0120small \u0120rain \u0120road \u0120query \u0120web \u0120search \u0120relevant \u0120yes \u0120no
""".split()


def byte_tokens() -> list[str]:
    """Returns the character that stands for each byte in byte-level BPE, as GPT-2 chose them."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in shown)
    moved = {byte: chr(256 + at) for at, byte in enumerate(others)}
    return [moved.get(byte, chr(byte)) for byte in range(256)]


def make_vocabulary() -> tuple[list[str], list[str], list[gguf.TokenType]]:
    """Returns tokens, merges, and the types of the tokens."""
    tokens = byte_tokens()
    merges = []
    for word in WORDS:
        for length in range(2, len(word) + 1):
            if word[:length] not in tokens:
                merges.append(f"{word[: length - 1]} {word[length - 1]}")
                tokens.append(word[:length])
    types = [gguf.TokenType.NORMAL] * len(tokens)
    tokens += CONTROL + USER_DEFINED
    types += [gguf.TokenType.CONTROL] * len(CONTROL) + [gguf.TokenType.USER_DEFINED] * len(USER_DEFINED)
    return tokens, merges, types


def tensors(tokens: int) -> dict[str, Weights]:
    random = Random(SEED + 3)

    def norm(size: int) -> Weights:
        return ones(size) + random.matrix(1, size, spread=0.1)[0]

    made = {
        "token_embd.weight": random.matrix(tokens, WIDTH, spread=0.6),
        "output_norm.weight": norm(WIDTH),
        "output.weight": random.matrix(tokens, WIDTH, spread=0.25),
    }
    for layer in range(LAYERS):
        made |= {
            f"blk.{layer}.attn_norm.weight": norm(WIDTH),
            f"blk.{layer}.attn_q.weight": random.matrix(HEADS * HEAD, WIDTH),
            f"blk.{layer}.attn_q_norm.weight": norm(HEAD),
            f"blk.{layer}.attn_k.weight": random.matrix(KV_HEADS * HEAD, WIDTH),
            f"blk.{layer}.attn_k_norm.weight": norm(HEAD),
            f"blk.{layer}.attn_v.weight": random.matrix(KV_HEADS * HEAD, WIDTH),
            f"blk.{layer}.attn_output.weight": random.matrix(WIDTH, HEADS * HEAD),
            f"blk.{layer}.ffn_norm.weight": norm(WIDTH),
            f"blk.{layer}.ffn_gate.weight": random.matrix(FEED_FORWARD, WIDTH),
            f"blk.{layer}.ffn_up.weight": random.matrix(FEED_FORWARD, WIDTH),
            f"blk.{layer}.ffn_down.weight": random.matrix(WIDTH, FEED_FORWARD),
        }
    return made


def write(path: Path) -> None:
    tokens, merges, types = make_vocabulary()
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name("Tiny Qwen3 Reranker")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types(types)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    finish(writer, tensors(len(tokens)))


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "tiny-qwen3-reranker.gguf")
    return 0


if __name__ == "__main__":
    sys.exit(main())
