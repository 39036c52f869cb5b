#!/usr/bin/env python3
"""Writes three tiny GGUF models, and a projector, that a real llama-server loads in a tenth of a second.

    make_tiny_models.py OUTDIR

    tiny-chat.gguf        chat; with a JSON schema or a required tool it produces valid JSON and stops
    tiny-embedding.gguf   sentence embeddings (mean pooling)
    tiny-rerank.gguf      relevance scores (classification head)
    projector/mmproj-tiny.gguf   a multimodal projector for tiny-chat.gguf, in a folder of its own because a
                                 projector beside a model is used with it

The weights are random numbers from a fixed seed: responses make no sense, but they are fast, well formed and always the
same. All models share one vocabulary and have two layers of width 64; the
projector has one layer and reads images of 16 by 16 pixels.

A random chat model would either continue a JSON string for ever or end its turn at once. A few *hidden channels* of the
residual stream control this model. No layer reads or writes them, so they carry values of the last token's embedding
unchanged to the output matrix:

* channel 0 has the same value for every token, so its column of the output matrix is a bias per token;
* each further channel is set if the last token belongs to a class (see RULES), so its column says which tokens the
  model prefers after that class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]

SEED = 20240229
WIDTH = 64
FEED_FORWARD = 128
LAYERS = 2
HEADS = 2  # heads of 32, the smallest size that a quantised KV cache supports
CHAT_CONTEXT = 8192
BERT_CONTEXT = 2048

# ChatML. llama-server renders the template with sample messages to find out how the model writes a tool call. Even if a
# call is required, llama-server allows text before it, so a marker in the prompt makes the model start with the call. A
# turn after a tool's result is prose again.
CHAT_TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\nTools:\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- '\n' }}
    {%- endfor %}
    {{- 'Answer with <tool_call>{"name": NAME, "arguments": ARGUMENTS}</tool_call>.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content %}
        {{- message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson }}
        {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if tools and messages[-1].role != 'tool' %}
        {{- '<|use_tool|>' }}
    {%- endif %}
{%- endif %}
""".strip()

CONTROL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>", "<|use_tool|>")
UNK, BOS, EOS, _, END_OF_TURN, PAD, _ = range(len(CONTROL))
TOOL_CALL = ("<tool_call>", "</tool_call>")  # one token each, so that the model cannot produce half of one
NEWLINE = "<0x0A>"
SPACE = "\u2581"  # how SentencePiece writes a space

WORDS = """
a about after again all also always an and any are as ask at away back be because been before best better big book
but by call came can city cold come could day did do down each early earth end every eye far fast few find fire first
five food for found four from full game garden gate get give go good great green had hand happy has have he head hello
help her here high him his home hot house how i idea if in into is it its just keep know land large last late learn
left letter life light like line little live long look made make man many may me mean might model moon more morning
most mother much must my name near never new next night no not now number of off old on one only open or other our out
over own page paper part people place play please point put question rain read red right river road room run said same
say school sea second see she short should show side small so some song soon star start still stone stop story street
sun table take tell than thank that the their them then there these they thing think this three time to today too town
tree true try turn two under until up us use very walk want warm was water way we well went were what when where which
white who why will wind winter with wonder word work world would write year yes you young your
""".split()


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a SentencePiece model, in the order of their ids."""

    tokens: list[str]
    types: list[gguf.TokenType]

    def ids(self, texts: Iterable[str]) -> list[int]:
        return [self.tokens.index(text) for text in texts]

    def __len__(self) -> int:
        return len(self.tokens)


def make_vocabulary() -> Vocabulary:
    """Returns control tokens, all bytes, the tool call marks, printable ASCII, and words with all their prefixes.

    The bytes allow any UTF-8 text. The prefixes are needed because the tokenizer builds a word only by merging two
    neighbouring tokens at a time.
    """
    tokens = list(CONTROL)
    types = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * (len(CONTROL) - 1)
    for byte in range(256):
        tokens.append(f"<0x{byte:02X}>")
        types.append(gguf.TokenType.BYTE)

    tokens += TOOL_CALL
    types += [gguf.TokenType.USER_DEFINED] * len(TOOL_CALL)

    normal = [SPACE, *map(chr, range(0x21, 0x7F))]
    normal += (SPACE + word[:length] for word in WORDS for length in range(1, len(word) + 1))
    for text in dict.fromkeys(normal):
        tokens.append(text)
        types.append(gguf.TokenType.NORMAL)
    return Vocabulary(tokens, types)


# --- the chat model's preferences --------------------------------------------------------------------------------

# Logits added to a token in any position. Words get 0; the random part of a logit has a standard deviation of about 2.
NEVER = -60.0  # end of turn, raw bytes, parts of words: only when a grammar allows nothing else
RARE = -20.0  # other single characters: only where a grammar requires them
BIAS_OF = {
    '"': 4.0,  # ends a string in JSON after about ten words
    ".": 1.0,
    "}": -14.0,  # a JSON object ends rather than continues,
    "]": -14.0,
    ",": -18.0,
    "{": -26.0,  # and holds plain values rather than objects
    "[": -26.0,
    "\\": -40.0,
}


@dataclass(frozen=True)
class Rule:
    """After a token of `after`, adds `boost` to the logits of `prefer`."""

    after: tuple[str, ...]
    prefer: tuple[str, ...]
    boost: float


RULES = (
    # `}` is rare in prose, so this rule ends only JSON documents and tool calls; in the middle of one, the grammar does
    # not allow the end of the turn.
    Rule(after=("}", "</tool_call>"), prefer=("<|im_end|>", "</tool_call>"), boost=100.0),
    Rule(after=("<|use_tool|>",), prefer=("<tool_call>",), boost=100.0),
    Rule(after=("<tool_call>",), prefer=(NEWLINE,), boost=100.0),
    # Numbers are short.
    Rule(after=tuple("0123456789"), prefer=("}", "]", ","), boost=12.0),
    # Strings are not empty.
    Rule(after=('"',), prefer=('"',), boost=-20.0),
)
HIDDEN = 1 + len(RULES)  # the constant channel, and one for each rule
HIDDEN_VALUE = 4.0


def token_bias(vocabulary: Vocabulary) -> Weights:
    """Returns the logit bias of every token, from the constants above."""
    words = {SPACE + word for word in WORDS}
    bias = np.full(len(vocabulary), NEVER, dtype=np.float32)
    for index, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True)):
        if text in BIAS_OF:
            bias[index] = BIAS_OF[text]
        elif text in words:
            bias[index] = 0.0
        elif kind == gguf.TokenType.NORMAL and len(text) == 1:
            bias[index] = RARE
    return bias


# --- tensors -----------------------------------------------------------------------------------------------------


class Random:
    """A source of random weights; the seed alone decides their sequence."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, spread: float | None = None) -> Weights:
        """Returns a matrix whose rows are outputs. The default spread keeps the length of a vector in a product."""
        spread = columns**-0.5 if spread is None else spread
        return (self._generator.standard_normal((rows, columns)) * spread).astype(np.float32)


def ones(size: int) -> Weights:
    return np.ones(size, dtype=np.float32)


def zeros(size: int) -> Weights:
    return np.zeros(size, dtype=np.float32)


def chat_tensors(vocabulary: Vocabulary) -> dict[str, Weights]:
    random = Random(SEED)

    def reader(rows: int) -> Weights:
        matrix = random.matrix(rows, WIDTH)
        matrix[:, :HIDDEN] = 0.0
        return matrix

    def writer(columns: int) -> Weights:
        matrix = random.matrix(WIDTH, columns)
        matrix[:HIDDEN, :] = 0.0
        return matrix

    embedding = random.matrix(len(vocabulary), WIDTH, spread=0.6)
    output = random.matrix(len(vocabulary), WIDTH, spread=0.25)
    embedding[:, :HIDDEN] = 0.0
    output[:, :HIDDEN] = 0.0

    embedding[:, 0] = HIDDEN_VALUE
    output[:, 0] = token_bias(vocabulary) / HIDDEN_VALUE
    for channel, rule in enumerate(RULES, start=1):
        embedding[vocabulary.ids(rule.after), channel] = HIDDEN_VALUE
        output[vocabulary.ids(rule.prefer), channel] = rule.boost / HIDDEN_VALUE

    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones(WIDTH), "output.weight": output}
    for layer in range(LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": ones(WIDTH),
            f"blk.{layer}.attn_q.weight": reader(WIDTH),
            f"blk.{layer}.attn_k.weight": reader(WIDTH),
            f"blk.{layer}.attn_v.weight": reader(WIDTH),
            f"blk.{layer}.attn_output.weight": writer(WIDTH),
            f"blk.{layer}.ffn_norm.weight": ones(WIDTH),
            f"blk.{layer}.ffn_gate.weight": reader(FEED_FORWARD),
            f"blk.{layer}.ffn_up.weight": reader(FEED_FORWARD),
            f"blk.{layer}.ffn_down.weight": writer(FEED_FORWARD),
        }
    return tensors


def bert_tensors(vocabulary: Vocabulary, *, rerank: bool) -> dict[str, Weights]:
    random = Random(SEED + (2 if rerank else 1))
    tensors: dict[str, Weights] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}.weight"] = random.matrix(rows, columns)
        tensors[f"{name}.bias"] = zeros(rows)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = ones(WIDTH)
        tensors[f"{name}.bias"] = zeros(WIDTH)

    tensors["token_embd.weight"] = random.matrix(len(vocabulary), WIDTH, spread=1.0)
    tensors["token_types.weight"] = random.matrix(1, WIDTH, spread=0.1)
    tensors["position_embd.weight"] = random.matrix(BERT_CONTEXT, WIDTH, spread=0.1)
    norm("token_embd_norm")
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            linear(f"blk.{layer}.{part}", WIDTH, WIDTH)
        norm(f"blk.{layer}.attn_output_norm")
        linear(f"blk.{layer}.ffn_up", FEED_FORWARD, WIDTH)
        linear(f"blk.{layer}.ffn_down", WIDTH, FEED_FORWARD)
        norm(f"blk.{layer}.layer_output_norm")
    if rerank:
        linear("cls", WIDTH, WIDTH)
        linear("cls.output", 1, WIDTH)
    return tensors


# --- files -------------------------------------------------------------------------------------------------------


def open_writer(path: Path, architecture: str, context: int, vocabulary: Vocabulary) -> gguf.GGUFWriter:
    """Returns a writer with the keys that all three models have."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(vocabulary))
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)

    writer.add_tokenizer_model("llama")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores([-float(index) for index in range(len(vocabulary))])
    writer.add_token_types(vocabulary.types)
    writer.add_unk_token_id(UNK)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    # With a space prefix, llama-server refuses every request with a grammar.
    writer.add_add_space_prefix(False)
    return writer


def finish(writer: gguf.GGUFWriter, tensors: dict[str, Weights]) -> None:
    for name, weights in tensors.items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_chat(path: Path, vocabulary: Vocabulary) -> None:
    writer = open_writer(path, "llama", CHAT_CONTEXT, vocabulary)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_eot_token_id(END_OF_TURN)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    finish(writer, chat_tensors(vocabulary))


def write_bert(path: Path, vocabulary: Vocabulary, *, rerank: bool) -> None:
    writer = open_writer(path, "bert", BERT_CONTEXT, vocabulary)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if rerank else gguf.PoolingType.MEAN)
    writer.add_token_type_count(1)
    writer.add_add_eos_token(True)
    writer.add_sep_token_id(EOS)
    finish(writer, bert_tensors(vocabulary, rerank=rerank))


def write_projector(path: Path) -> None:
    """Writes a SigLIP tower with Gemma 3's projector, which needs the fewest tensors."""
    random = np.random.default_rng(SEED)
    image, patch, width, feed_forward = 16, 8, 32, 64

    def weights(*shape: int) -> Weights:
        return (random.standard_normal(shape) * 0.02).astype(np.float32)

    def ones(size: int) -> Weights:
        return np.ones(size, np.float32)

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "gemma3")
    for key, value in {
        "image_size": image,
        "patch_size": patch,
        "embedding_length": width,
        "feed_forward_length": feed_forward,
        "projection_dim": WIDTH,
        "block_count": 1,
        "attention.head_count": 2,
        "projector.scale_factor": 2,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)

    block = "v.blk.0."
    tensors = {
        "v.patch_embd.weight": weights(width, 3, patch, patch),
        "v.patch_embd.bias": weights(width),
        "v.position_embd.weight": weights((image // patch) ** 2, width),
        block + "ffn_up.weight": weights(feed_forward, width),
        block + "ffn_up.bias": weights(feed_forward),
        block + "ffn_down.weight": weights(width, feed_forward),
        block + "ffn_down.bias": weights(width),
        "v.post_ln.weight": ones(width),
        "v.post_ln.bias": weights(width),
        "mm.input_projection.weight": weights(width, WIDTH),
        "mm.soft_emb_norm.weight": ones(width),
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors[f"{block}{name}.weight"] = weights(width, width)
        tensors[f"{block}{name}.bias"] = weights(width)
    for name in ("ln1", "ln2"):
        tensors[f"{block}{name}.weight"] = ones(width)
        tensors[f"{block}{name}.bias"] = weights(width)
    finish(writer, tensors)


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = make_vocabulary()
    write_chat(folder / "tiny-chat.gguf", vocabulary)
    write_bert(folder / "tiny-embedding.gguf", vocabulary, rerank=False)
    write_bert(folder / "tiny-rerank.gguf", vocabulary, rerank=True)
    (folder / "projector").mkdir(exist_ok=True)
    write_projector(folder / "projector" / "mmproj-tiny.gguf")
    return 0


if __name__ == "__main__":
    sys.exit(main())
