"""Tiny random models of every supported architecture, and complete artefacts of them.

Each has a few thousand weights, drawn wide enough that greedy answers wander instead of
repeating one id, and the features that make its family different: grouped heads, sliding
windows shorter than the tests' prompts, soft caps, two rotary bases, layers without any.
The tokenizer is a real byte-level BPE, trained on the spot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx_ir as ir
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.smollm3.configuration_smollm3 import SmolLM3Config

from handlers.artifact.manifest import (
    CHAT_TEMPLATE,
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    FileInfo,
    Manifest,
    ModelInfo,
)
from model_export.decoder.convert import convert
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.save import save
from tests.support.tiny_hybrid import make_hybrid

CONTEXT_LENGTH = 256
VOCABULARY = 512
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, _, IM_END = range(3)

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": 0.3,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": IM_END,
    "pad_token_id": END_OF_TEXT,
    "attention_dropout": 0.0,
}

ATTENTION_ARTIFACTS = (
    "tiny_artifact",
    "tiny_window_artifact",
    "quantised_artifact",
    "quantised_window_artifact",
)
"""Fixtures of what decodes: with and without a window, in fp32 and in int4."""
TINY_ARTIFACTS = (*ATTENTION_ARTIFACTS, "tiny_hybrid_artifact", "quantised_hybrid_artifact")
"""And with a recurrent layer, whose answers are never drafted."""


def _gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=CONTEXT_LENGTH,
        initializer_range=0.3,
        bos_token_id=END_OF_TEXT,
        eos_token_id=IM_END,
    )


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_COMMON),
    "qwen3": lambda: Qwen3Config(**_COMMON, head_dim=32),
    "mistral": lambda: MistralConfig(**_COMMON, sliding_window=12),
    "gemma2": lambda: Gemma2Config(
        **_COMMON,
        head_dim=32,
        sliding_window=12,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=20.0,
        final_logit_softcapping=10.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_COMMON,
        head_dim=32,
        sliding_window=12,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_scaling={"rope_type": "linear", "factor": 4.0},
    ),
    "phi3": lambda: Phi3Config(**_COMMON, sliding_window=None),
    "phi3-partial": lambda: Phi3Config(
        **_COMMON | {"num_attention_heads": 2, "num_key_value_heads": 1},
        partial_rotary_factor=0.5,
        sliding_window=20,
    ),
    "phi3-longrope": lambda: Phi3Config(
        **_COMMON,
        original_max_position_embeddings=CONTEXT_LENGTH,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0 + 0.1 * n for n in range(8)],
            "long_factor": [2.0 + 0.1 * n for n in range(8)],
        },
    ),
    "smollm3": lambda: SmolLM3Config(**_COMMON, no_rope_layers=[1, 0, 1], use_sliding_window=False),
    "gpt2": _gpt2,
    "hybrid": lambda: LlamaConfig(**_COMMON),
}

SAVED = tuple(family for family in FAMILIES if family != "hybrid")
"""Those that transformers can load again: the hybrid's recurrent layer is of the tests' own."""

# Exports, but with its rotary embedding left in the graph: the kernel turns multiples of 16.
UNFUSED: dict[str, Callable[[], PretrainedConfig]] = {
    "phi3-odd": lambda: Phi3Config(**_COMMON, partial_rotary_factor=0.5, sliding_window=20),
}

CHATML = """{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def tiny_model(family: str) -> PreTrainedModel:
    """A random float32 model in evaluation mode, the same at every call."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        (FAMILIES | UNFUSED)[family](),
        attn_implementation="eager",  # transformers' SDPA leaves out Gemma 2's soft cap
    )
    if family == "hybrid":
        make_hybrid(model)
    with torch.no_grad():  # biases and norms start as zeros and ones, which would hide mistakes
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if family.startswith("gemma"):  # which multiplies it by sqrt(hidden_size), and echoes
            model.get_parameter("model.embed_tokens.weight").mul_(0.1)
    model.eval()
    return model


def export_tiny(family: str, directory: Path, weights: str = "fp32") -> Path:
    """Write a complete artefact of `family` into `directory`, and return it."""
    model, precision = tiny_model(family), Precision(weights)
    graph = quantize(fuse(convert(model, CONTEXT_LENGTH)), precision)
    ends = (IM_END, END_OF_TEXT)
    return write_artifact(type(model).__name__, graph, directory, ends, precision.describe())


def write_artifact(
    architecture: str,
    graph: ir.Model,
    directory: Path,
    eos_token_ids: tuple[int, ...],
    precision: str = "fp32",
) -> Path:
    """`graph` as an artefact with the tiny tokenizer, in `directory`, which is returned."""
    context_length = int(graph.metadata_props["context_length"])
    save(graph, directory)
    tiny_tokenizer().save(str(directory / TOKENIZER))
    (directory / CHAT_TEMPLATE).write_text(CHATML, encoding="utf-8")
    manifest = _manifest(architecture, directory, context_length, eos_token_ids, precision)
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return directory


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of VOCABULARY ids, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"The text gives {tokenizer.get_vocab_size()} ids, not {VOCABULARY}.")
    return tokenizer


def _manifest(
    architecture: str,
    directory: Path,
    context_length: int,
    eos_token_ids: tuple[int, ...],
    precision: str,
) -> Manifest:
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return Manifest(
        schema=SCHEMA,
        task="text-generation",
        model=ModelInfo(
            id=f"tiny-{architecture}",
            source="tests",
            revision="0",
            architecture=architecture,
            licence="Apache-2.0",
        ),
        precision=precision,
        vocab_size=VOCABULARY,
        context_length=context_length,
        eos_token_ids=eos_token_ids,
        special_tokens={"bos_token": SPECIAL_TOKENS[0], "eos_token": SPECIAL_TOKENS[IM_END]},
        files={path.name: _file_info(path) for path in files},
        created=0,
        versions={},
        verification={},
    )


def _file_info(path: Path) -> FileInfo:
    content = path.read_bytes()
    return FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())


TEXT = """
The quick brown fox jumps over the lazy dog. Every token has its place in a vocabulary, and the
model reads one after another until it has something to say. A kettle sings when the water boils;
the capital of France is Paris, the largest planet is Jupiter, and seven times eight is fifty-six.
What is the weather like today? It rains in the morning, but the afternoon will be bright and warm.
Please write a short story about a lighthouse keeper who finds a letter inside a green bottle.
Once upon a time there was a keeper who lived alone above the northern sea. He wound the clock,
trimmed the wick and counted ships; nothing else happened for eleven years. Then the bottle came.
user system assistant: You are a helpful assistant. Answer briefly, and say so when you do not know.
def greet(name): return "Hello, " + name + "!"  # the simplest function that anybody ever writes
numbers = [1, 2, 3, 5, 8, 13, 21]; total = sum(number for number in numbers if number % 2 == 0)
"""
