#!/usr/bin/env python3
"""Measures decoding on the processor against transformers' `generate`: the same model, weights and prompts, in turns.

usage: decode_cpu.py [--program PROGRAM] [--rounds N] [--batches 1,16,64] [--threads N] [--prompt 64] [--new 256]

PROGRAM is the compiled bench `decode_cpu`; where it is not given, `cargo bench --bench decode_cpu` is asked for it. Both sides
take the likeliest tokens with a cache of keys and values in f32; the share of equal tokens is given, as sums in another order
may change a choice between nearly equal tokens and all that follows. python3 must find torch and transformers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# 5.21 million parameters.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 672,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "hidden_act": "silu",
}


def prompts(number, rows, length):
    place = range(length)
    return [[(number * 104729 + row * 7919 + p * p * 31 + p * 17) % CONFIG["vocab_size"] for p in place] for row in range(rows)]


def transformers_side(folder, threads, length, new):
    """Answers every line on standard input with one round, as the Rust program does."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(threads)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    for number, line in enumerate(sys.stdin):
        start, before = time.perf_counter(), time.process_time()
        ids = torch.tensor(prompts(number, int(line), length))
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
            )
        answer = {"wall": time.perf_counter() - start, "cpu": time.process_time() - before}
        answer["tokens"] = out[:, length:].tolist()
        print(json.dumps(answer), flush=True)


class Side:
    """A process that decodes when it is asked to."""

    def __init__(self, command, threads):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def round(self, rows):
        print(rows, file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        if not line:
            sys.exit("a side ended before its time")
        return json.loads(line)


def compiled():
    command = ["cargo", "bench", "--bench", "decode_cpu", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return next(one["executable"] for one in found if one.get("executable") and one["target"]["name"] == "decode_cpu")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        return transformers_side(arguments.folder, arguments.threads, arguments.prompt, arguments.new)
    program = arguments.program or compiled()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps(CONFIG))
        sizes = [str(arguments.prompt), str(arguments.new)]
        ours = Side([program, str(config), *sizes, folder], arguments.threads)
        ours.round(1)
        own = [sys.executable, __file__, "--folder", folder, "--threads", str(arguments.threads)]
        theirs = Side([*own, "--prompt", sizes[0], "--new", sizes[1]], arguments.threads)
        theirs.round(1)
        for rows in map(int, arguments.batches.split(",")):
            pairs = [(ours.round(rows), theirs.round(rows)) for _ in range(arguments.rounds)]
            new = rows * arguments.new
            same = [a == b for one, two in pairs for x, y in zip(one["tokens"], two["tokens"]) for a, b in zip(x, y)]
            middle = lambda side, figure: statistics.median(pair[side][figure] for pair in pairs)
            print(
                f"batch {rows:3}: thresh {new / middle(0, 'wall'):7.0f} tokens/s ({new / middle(0, 'cpu'):6.0f} a CPU second), "
                f"transformers {new / middle(1, 'wall'):6.0f} ({new / middle(1, 'cpu'):6.0f}): "
                f"{middle(1, 'wall') / middle(0, 'wall'):5.2f} times by wall, {middle(1, 'cpu') / middle(0, 'cpu'):5.2f} by CPU; "
                f"{100 * sum(same) / len(same):.1f} % of tokens equal",
                flush=True,
            )


if __name__ == "__main__":
    main()
