#!/usr/bin/env python3
"""Writes small models of several shapes, whose weights are zeros: what memory they take is all that matters.

    make_shaped_models.py OUTDIR

    dense.gguf    qwen3: as many KV heads as the others, tied embeddings
    wide.gguf     qwen3: wide, a large vocabulary, output weights of its own
    sliding.gguf  gemma3: five of six layers see a window of 512 tokens
    hybrid.gguf   lfm2: layers with a convolution between those with attention
    state.gguf    mamba: no attention, a state for each sequence
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
from make_tiny_qwen3 import make_vocabulary


class Model:
    """A model that is being written."""

    def __init__(self, path: Path, architecture: str, width: int, layers: int, tokens: int) -> None:
        self.path, self.width, self.layers = path, width, layers
        self.writer = gguf.GGUFWriter(path, architecture)
        self.writer.add_name(path.stem)
        self.writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        self.writer.add_context_length(131072)
        self.writer.add_embedding_length(width)
        self.writer.add_block_count(layers)
        self.writer.add_layer_norm_rms_eps(1e-6)
        self.writer.add_rope_freq_base(1_000_000.0)
        words, merges, types = make_vocabulary()
        more = [f"<more{at}>" for at in range(tokens - len(words))]
        self.tokens = words + more
        self.writer.add_vocab_size(len(self.tokens))
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("qwen2")
        self.writer.add_token_list(self.tokens)
        self.writer.add_token_merges(merges)
        self.writer.add_token_types(types + [gguf.TokenType.NORMAL] * len(more))
        self.writer.add_eos_token_id(words.index("<|im_end|>"))
        self.writer.add_add_bos_token(False)
        self.weights("token_embd", len(self.tokens), width)

    def weights(self, name: str, *shape: int) -> None:
        """Adds a tensor: norms and other lists of numbers as F32, the others as F16."""
        kind = np.float32 if len(shape) == 1 or "conv" in name or "ssm_a" in name else np.float16
        self.writer.add_tensor(name if "." in name and name.endswith("ssm_a") else f"{name}.weight", np.zeros(shape, kind))

    def attention(self, heads: int, kv_heads: list[int] | int, head: int) -> None:
        self.heads, self.head = heads, head
        self.kv_heads = kv_heads if isinstance(kv_heads, list) else [kv_heads] * self.layers
        self.writer.add_head_count(heads)
        self.writer.add_head_count_kv(kv_heads)
        self.writer.add_key_length(head)
        self.writer.add_value_length(head)

    def attention_weights(self, layer: int, names: tuple[str, str] = ("attn_q_norm", "attn_k_norm")) -> None:
        block, width = f"blk.{layer}.", self.width
        self.weights(f"{block}attn_q", self.heads * self.head, width)
        self.weights(f"{block}attn_k", self.kv_heads[layer] * self.head, width)
        self.weights(f"{block}attn_v", self.kv_heads[layer] * self.head, width)
        self.weights(f"{block}attn_output", width, self.heads * self.head)
        for name in names:
            self.weights(f"{block}{name}", self.head)

    def feed_forward(self, layer: int, inner: int) -> None:
        block = f"blk.{layer}."
        self.weights(f"{block}ffn_norm", self.width)
        self.weights(f"{block}ffn_gate", inner, self.width)
        self.weights(f"{block}ffn_up", inner, self.width)
        self.weights(f"{block}ffn_down", self.width, inner)

    def finish(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def write_qwen3(path: Path, *, width: int, inner: int, heads: int, kv_heads: int, head: int, tokens: int, tied: bool) -> None:
    model = Model(path, "qwen3", width, 4, tokens)
    model.writer.add_feed_forward_length(inner)
    model.attention(heads, kv_heads, head)
    model.weights("output_norm", width)
    if not tied:
        model.weights("output", tokens, width)
    for layer in range(model.layers):
        model.weights(f"blk.{layer}.attn_norm", width)
        model.attention_weights(layer)
        model.feed_forward(layer, inner)
    model.finish()


def write_gemma3(path: Path) -> None:
    width, inner = 256, 1024
    model = Model(path, "gemma3", width, 12, 2000)
    model.writer.add_feed_forward_length(inner)
    model.attention(4, 1, 256)
    model.writer.add_sliding_window(512)
    model.weights("output_norm", width)
    for layer in range(model.layers):
        for name in ("attn_norm", "post_attention_norm", "post_ffw_norm"):
            model.weights(f"blk.{layer}.{name}", width)
        model.attention_weights(layer)
        model.feed_forward(layer, inner)
    model.finish()


def write_lfm2(path: Path) -> None:
    width, inner, kernel = 256, 768, 3
    has_attention = [False, False, True, False, False, True]
    model = Model(path, "lfm2", width, len(has_attention), 2000)
    model.writer.add_feed_forward_length(inner)
    model.attention(4, [2 if attention else 0 for attention in has_attention], 64)
    model.writer.add_shortconv_l_cache(kernel)
    model.weights("token_embd_norm", width)
    for layer, attention in enumerate(has_attention):
        model.weights(f"blk.{layer}.attn_norm", width)
        if attention:
            model.attention_weights(layer)
        else:
            model.weights(f"blk.{layer}.shortconv.conv", width, kernel)
            model.weights(f"blk.{layer}.shortconv.in_proj", 3 * width, width)
            model.weights(f"blk.{layer}.shortconv.out_proj", width, width)
        model.feed_forward(layer, inner)
    model.finish()


def write_mamba(path: Path) -> None:
    width, inner, kernel, state, rank = 256, 512, 4, 16, 16
    model = Model(path, "mamba", width, 4, 2000)
    model.writer.add_feed_forward_length(0)
    model.writer.add_head_count(0)
    model.writer.add_ssm_conv_kernel(kernel)
    model.writer.add_ssm_inner_size(inner)
    model.writer.add_ssm_state_size(state)
    model.writer.add_ssm_time_step_rank(rank)
    model.weights("output_norm", width)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.weights(f"{block}attn_norm", width)
        model.weights(f"{block}ssm_in", 2 * inner, width)
        model.weights(f"{block}ssm_conv1d", inner, kernel)
        model.writer.add_tensor(f"{block}ssm_conv1d.bias", np.zeros(inner, np.float32))
        model.weights(f"{block}ssm_x", rank + 2 * state, inner)
        model.weights(f"{block}ssm_dt", inner, rank)
        model.writer.add_tensor(f"{block}ssm_dt.bias", np.zeros(inner, np.float32))
        model.weights(f"{block}ssm_a", inner, state)
        model.writer.add_tensor(f"{block}ssm_d", np.zeros(inner, np.float32))
        model.weights(f"{block}ssm_out", width, inner)
    model.finish()


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_qwen3(folder / "dense.gguf", width=256, inner=768, heads=4, kv_heads=4, head=64, tokens=2000, tied=True)
    write_qwen3(folder / "wide.gguf", width=512, inner=1536, heads=8, kv_heads=4, head=128, tokens=20000, tied=False)
    write_gemma3(folder / "sliding.gguf")
    write_lfm2(folder / "hybrid.gguf")
    write_mamba(folder / "state.gguf")
    return 0


if __name__ == "__main__":
    sys.exit(main())
