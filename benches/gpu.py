"""Training and sampling on one NVIDIA GPU: thresh beside PyTorch, Transformers and PEFT, figure by figure.

usage: gpu.py [--bench PROGRAM] [--cache FOLDER] [--only FIGURE,...] [--skip-torch]

PROGRAM is the benchmark `gpu` as cargo built it (the newest of target/release/deps where nothing is said). It runs twice for
the first figure, with an empty cache of kernels and with a full one, so that both starts are seen. Both sides take models of
the same shapes with random weights and random tokens; the median of some repetitions counts, after some that do not.
"""

import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FIGURES = ["small", "small-f32", "generate", "large", "generate-large"]

# How many times PyTorch's figure ours should be.
GOALS = {"small": 1.0, "small-f32": 1.0, "generate": 5.0, "large": 1.0, "generate-large": 2.0}


# What of ours went wrong: the rest is measured all the same.
failed = []


def ours(program, cache, figures):
    done = subprocess.run([program, cache, *figures], capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("{")), flush=True)
    if done.returncode != 0:
        failed.append(" ".join(figures))
    return {found["name"]: found for found in map(json.loads, lines)}


class Torch:
    """The same work as a user of PyTorch writes it."""

    def __init__(self):
        import torch
        import transformers

        self.torch, self.transformers = torch, transformers
        torch.manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = True

    def llama(self, large, dtype):
        shape = dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
                     num_key_value_heads=8, max_position_embeddings=2048, tie_word_embeddings=True)
        if large:
            shape = dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                         num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192)
        before = self.torch.get_default_dtype()
        self.torch.set_default_dtype(dtype)
        with self.torch.device("cuda"):
            model = self.transformers.LlamaForCausalLM(self.transformers.LlamaConfig(**shape))
        self.torch.set_default_dtype(before)
        return model

    def timed(self, work, warm, times):
        cuda = self.torch.cuda
        found = []
        cuda.reset_peak_memory_stats()
        for turn in range(warm + times):
            cuda.synchronize()
            begin = time.perf_counter()
            work()
            cuda.synchronize()
            if turn >= warm:
                found.append(time.perf_counter() - begin)
        return statistics.median(found), cuda.max_memory_allocated() / 2**30

    def step(self, model, batch, length, vocab, autocast, compiled=False, rate=3e-4):
        torch = self.torch
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, fused=True)
        ids = torch.randint(0, vocab, (batch, length), device="cuda")
        forward = torch.compile(model) if compiled else model

        def work():
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                loss = forward(input_ids=ids, labels=ids).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return work

    def small(self):
        model = self.llama(False, self.torch.float32)
        seconds, gib = self.timed(self.step(model, 32, 1024, 8192, True), 3, 8)
        yield "small", "eager", 32 * 1024 / seconds, gib
        seconds, gib = self.timed(self.step(model, 32, 1024, 8192, True, compiled=True), 4, 8)
        yield "small", "compiled", 32 * 1024 / seconds, gib

    def small_f32(self):
        model = self.llama(False, self.torch.float32)
        seconds, gib = self.timed(self.step(model, 32, 1024, 8192, False), 2, 6)
        yield "small-f32", "eager, tf32", 32 * 1024 / seconds, gib

    def answers(self, model, batch, prompt, new, vocab):
        torch = self.torch
        ids = torch.randint(0, vocab, (batch, prompt), device="cuda")
        mask = torch.ones_like(ids)

        def work():
            with torch.no_grad():
                model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=True,
                               pad_token_id=0)

        return work

    def generate(self):
        model = self.llama(False, self.torch.bfloat16).eval()
        for batch in (1, 16, 64, 256):
            seconds, gib = self.timed(self.answers(model, batch, 512, 128, 8192), 1, 3)
            yield f"generate-{batch}", "generate", batch * 128 / seconds, gib

    def generate_large(self):
        model = self.llama(True, self.torch.bfloat16).eval()
        for batch in (1, 16):
            seconds, gib = self.timed(self.answers(model, batch, 2048, 64, 128000), 1, 2)
            yield f"generate-large-{batch}", "generate", batch * 64 / seconds, gib

    def large(self):
        import peft

        model = self.llama(True, self.torch.bfloat16).train()
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        targets = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        config = peft.LoraConfig(r=64, lora_alpha=64, lora_dropout=0.05, target_modules=targets, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config)
        seconds, gib = self.timed(self.step(model, 1, 5256, 128000, True, rate=2e-5), 2, 4)
        yield "large", "PEFT, checkpointed", 5256 / seconds, gib

    def figures(self, wanted):
        for name in wanted:
            yield from getattr(self, name.replace("-", "_"))()
            self.torch._dynamo.reset()
            self.torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench")
    parser.add_argument("--cache")
    parser.add_argument("--only", default=",".join(FIGURES))
    parser.add_argument("--skip-torch", action="store_true")
    options = parser.parse_args()
    built = [path for path in glob.glob("target/release/deps/gpu-*") if os.access(path, os.X_OK)]
    program = options.bench or max(built, key=os.path.getmtime, default=None)
    if program is None:
        sys.exit("there is no benchmark: build it with `cargo bench --bench gpu --features cuda --no-run`")
    wanted = options.only.split(",")
    with tempfile.TemporaryDirectory() as fresh:
        cache = options.cache or fresh
        cold = ours(program, os.path.join(fresh, "cold"), wanted[:1])
        found = ours(program, os.path.join(fresh, "cold"), wanted[:1])
        ours(program, cache, ["check"])
        for name in wanted[1:]:
            found |= ours(program, cache, [name])
    for name in cold.keys() & found.keys():
        print(f"seconds until the first step: {cold[name]['start']:.1f} cold, {found[name]['start']:.1f} warm", flush=True)
    for figure in found.values():
        print(f"{figure['name']:20} {figure['tokens_per_second']:12.0f} tokens/s {figure['gib']:6.1f} GiB", flush=True)
    for name, how, rate, gib in [] if options.skip_torch else Torch().figures(wanted):
        if name not in found:
            continue
        mine = found[name]
        goal = GOALS[name if name in GOALS else name.rsplit("-", 1)[0]]
        print(f"{name:20} {mine['tokens_per_second']:12.0f} tokens/s {mine['gib']:6.1f} GiB   PyTorch ({how}) "
              f"{rate:12.0f} tokens/s {gib:6.1f} GiB   {mine['tokens_per_second'] / rate:6.2f} times (goal {goal:g})",
              flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
