"""Records logits of tiny models of every family, computed by transformers, for src/model/parity_tests.rs.

Run with transformers 5 and torch: python tests/record/logits.py tests/golden/logits
Weights come from a formula over a parameter's name and place, so that no checkpoint needs to be kept.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=40, max_position_embeddings=64, tie_word_embeddings=False, rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=24)
YARN = dict(rope_type="yarn", rope_theta=300.0, factor=4.0, original_max_position_embeddings=16)
CASES = {
    "llama": ("llama", {}),
    "llama_tied_wide_heads": ("llama", dict(tie_word_embeddings=True, head_dim=12, num_key_value_heads=1)),
    "llama_biases": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama_rope_llama3": ("llama", dict(rope_parameters=LLAMA3, head_dim=16)),
    "llama_rope_linear": ("llama", dict(rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=100.0))),
    "llama_rope_yarn": ("llama", dict(rope_parameters=YARN, head_dim=16)),
    "llama_rope_yarn_mscale": ("llama", dict(rope_parameters=dict(
        YARN, mscale=0.7, mscale_all_dim=1.2, beta_fast=8.0, beta_slow=0.5, truncate=False), head_dim=16)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2_window": ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    "qwen3": ("qwen3", dict(head_dim=16)),
    "qwen3_biases_window": ("qwen3", dict(head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=7,
                                          layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "gemma3": ("gemma3_text", dict(num_hidden_layers=7, head_dim=16, query_pre_attn_scalar=24, sliding_window=6,
                                   tie_word_embeddings=True, rope_parameters={
                                       "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=2000.0),
                                       "sliding_attention": dict(rope_type="default", rope_theta=100.0)})),
    "gemma3_plain": ("gemma3_text", dict(num_hidden_layers=2, head_dim=8, sliding_window=4, tie_word_embeddings=True,
                                         attention_bias=True, layer_types=["full_attention", "sliding_attention"])),
}
TOKENS = [(7 * i * i + 3 * i + 1) % 40 for i in range(24)]
POSITIONS = [2, 11, 23]


def fill(name, shape):
    """Numbers in [-1/4, 1/4) of 24 bits: an integer hash of the place, begun with the FNV-1a hash of the name."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = (np.arange(math.prod(shape), dtype=np.uint64) * 2654435761 + seed) % 2**32
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x45D9F3B) % 2**32
    x = (x ^ (x >> np.uint64(16))) * np.uint64(0x45D9F3B) % 2**32
    x ^= x >> np.uint64(16)
    return torch.tensor(((x >> np.uint64(8)).astype(np.float64) / 2**24 - 0.5) / 2, dtype=torch.float32).reshape(shape)


def model_of(kind, settings):
    config = CONFIG_MAPPING[kind](**{**SMALL, **settings})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = fill(name, tuple(parameter.shape))
            norm = name.endswith("norm.weight")
            parameter.copy_(values + 1 if norm and kind != "gemma3_text" else values)
    return model


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, settings) in CASES.items():
        model = model_of(kind, settings)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0]
        config = model.config.to_diff_dict()
        config["transformers_version"] = transformers.__version__
        lines = [f' "config": {json.dumps(config)}', f' "tokens": {json.dumps(TOKENS)}', f' "positions": {POSITIONS}']
        rows = ",\n  ".join(json.dumps([float(np.float32(x)) for x in logits[at]]) for at in POSITIONS)
        lines.append(f' "logits": [\n  {rows}]')
        (folder / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
