#!/usr/bin/env python3
"""Measures training on the processor against PyTorch: the same model, weights and step, side by side in one run.

usage: train_cpu.py [--program PROGRAM] [--steps N] [--cases NAME,...] [--threads N] [--modes host,checkpointing,plain]

PROGRAM is the compiled bench `train_cpu`; where it is not given, `cargo bench --bench train_cpu` is asked for it. Both sides
begin with the same weights and make AdamW steps (clipped at a norm of 1) over the same tokens; they take turns, step by step,
and their losses are compared. PyTorch's side is written out plainly, with `scaled_dot_product_attention` and fused AdamW, and
adapters on activations. python3 must find torch and safetensors.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Name: hidden, inner, layers, heads, kv heads, vocabulary, rows, tokens of a row, rank of adapters (0: all is trained).
CASES = {
    "small": (256, 672, 4, 8, 8, 4096, 8, 512, 0),
    "short": (256, 672, 4, 8, 8, 4096, 32, 128, 0),
    "medium": (512, 1408, 6, 8, 4, 8192, 4, 512, 0),
    "lora": (512, 1408, 6, 8, 4, 8192, 4, 512, 8),
    "long": (256, 672, 4, 4, 2, 4096, 1, 4096, 0),
}


def configuration(case):
    hidden, inner, layers, heads, kv_heads, vocab, _, length, _ = case
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": length, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "hidden_act": "silu",
    }


def torch_side(case, folder, threads):
    """Answers every line on standard input with one step, as the Rust program does."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    hidden, inner, layers, heads, kv_heads, vocab, rows, length, rank = case
    head = hidden // heads
    sys.stdin.readline()
    weights = {name: value.clone().requires_grad_(rank == 0) for name, value in load_file(f"{folder}/model.safetensors").items()}
    maps = [name for name in weights if "_proj" in name]
    adapters = {}
    if rank:
        for name in maps:
            out, wide = weights[name].shape
            adapters[name] = (torch.randn(rank, wide).mul_(wide**-0.5).requires_grad_(), torch.zeros(out, rank, requires_grad=True))
    learnt = [one for pair in adapters.values() for one in pair] if rank else list(weights.values())
    optimiser = torch.optim.AdamW(learnt, lr=1e-3, weight_decay=0.0, fused=True)
    place = torch.arange(length)
    ids = torch.stack([(row * 7919 + place * place * 31 + place * 17) % vocab for row in range(rows)])
    angles = torch.outer(place.float(), 10000.0 ** (-torch.arange(0, head, 2).float() / head))
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def linear(x, name):
        y = F.linear(x, weights[name])
        return y + F.linear(F.linear(x, adapters[name][0]), adapters[name][1]) if name in adapters else y

    def turn(x):
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat((-right, left), -1) * sin

    def norm(x, name):
        return F.rms_norm(x, (hidden,), weights[name], 1e-5)

    def loss():
        x = F.embedding(ids, weights["model.embed_tokens.weight"])
        for index in range(layers):
            name = f"model.layers.{index}."
            y = norm(x, name + "input_layernorm.weight")
            split = lambda part, count: linear(y, f"{name}self_attn.{part}_proj.weight").view(rows, length, count, head).transpose(1, 2)
            q, k, v = turn(split("q", heads)), turn(split("k", kv_heads)), split("v", kv_heads)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
            x = x + linear(y.transpose(1, 2).reshape(rows, length, hidden), name + "self_attn.o_proj.weight")
            y = norm(x, name + "post_attention_layernorm.weight")
            gate = F.silu(linear(y, name + "mlp.gate_proj.weight"))
            x = x + linear(gate * linear(y, name + "mlp.up_proj.weight"), name + "mlp.down_proj.weight")
        x = norm(x[:, :-1], "model.norm.weight")
        logits = F.linear(x, weights["lm_head.weight"])
        return F.cross_entropy(logits.reshape(-1, vocab), ids[:, 1:].reshape(-1))

    while True:
        start, before = time.perf_counter(), time.process_time()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        answer = {"loss": value.item(), "wall": time.perf_counter() - start, "cpu": time.process_time() - before}
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps(answer), flush=True)
        if not sys.stdin.readline():
            return


class Side:
    """A process that makes a step when it is asked to."""

    def __init__(self, command, threads):
        # Our side has a thread for every core that it may use.
        cores = sorted(os.sched_getaffinity(0))[:threads]
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.answers = []

    def step(self):
        print("step", file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        if not line:
            sys.exit("a side ended before its time")
        self.answers.append(json.loads(line))

    def close(self):
        self.child.stdin.close()
        self.child.wait()

    def middle(self, figure):
        return statistics.median(answer[figure] for answer in self.answers[1:])


def compiled():
    command = ["cargo", "bench", "--bench", "train_cpu", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return next(one["executable"] for one in found if one.get("executable") and one["target"]["name"] == "train_cpu")


def run(name, program, modes, steps, threads):
    case = CASES[name]
    tokens = case[6] * case[7]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps(configuration(case)))
        sizes = [str(case[6]), str(case[7]), str(case[8])]
        sides = {mode: Side([program, str(config), *sizes, mode, folder], threads) for mode in modes}
        for side in sides.values():
            side.step()
        torch = [sys.executable, __file__, "--torch", name, "--folder", folder, "--threads", str(threads)]
        sides["torch"] = Side(torch, threads)
        sides["torch"].step()
        for _ in range(steps):
            for side in sides.values():
                side.step()
        for side in sides.values():
            side.close()
    other = sides["torch"]
    for mode, side in sides.items():
        apart = max(abs(ours["loss"] - theirs["loss"]) for ours, theirs in zip(side.answers, other.answers))
        wall, cpu = side.middle("wall"), side.middle("cpu")
        ratio = f"{other.middle('wall') / wall:5.2f} {other.middle('cpu') / cpu:5.2f}"
        print(
            f"{name:8} {mode:14} {tokens / wall:8.0f} tokens/s {wall:7.3f} s {cpu:7.3f} cpu s {side.answers[-1]['peak']:7.0f} MB"
            f"  times torch by wall, cpu: {ratio}  losses apart {apart:.1e}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--cases", default="small,short,medium,lora,long")
    parser.add_argument("--modes", default="host,checkpointing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        return torch_side(CASES[arguments.torch], arguments.folder, arguments.threads)
    program = arguments.program or compiled()
    for name in arguments.cases.split(","):
        run(name, program, arguments.modes.split(","), arguments.steps, arguments.threads)


if __name__ == "__main__":
    main()
