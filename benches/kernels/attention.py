"""Attention over sequences, forward and backward."""

import torch
import torch.nn.functional as F
from device import *


def reference(q, k, v, seqs, scale, window):
    """q [n, heads, d], k and v [m, kv, d], in double: outputs and log-sum-exps [heads, n]."""
    outs, totals = [None] * len(seqs), [None] * len(seqs)
    group = q.shape[1] // k.shape[1]
    out, total = torch.zeros_like(q), torch.zeros(q.shape[1], q.shape[0], device="cuda", dtype=q.dtype)
    for qs, ql, ks, kl in seqs:
        a = q[qs : qs + ql].transpose(0, 1)
        b, c = (x[ks : ks + kl].transpose(0, 1).repeat_interleave(group, 0) for x in (k, v))
        scores = a @ b.transpose(1, 2) * scale
        place, key = torch.arange(ql, device="cuda")[:, None] + kl - ql, torch.arange(kl, device="cuda")[None]
        hidden = key > place
        if window:
            hidden |= key <= place - window
        scores = scores.masked_fill(hidden, float("-inf"))
        out = out.index_copy(0, torch.arange(qs, qs + ql, device="cuda"), (scores.softmax(-1) @ c).transpose(0, 1))
        total = total.index_copy(1, torch.arange(qs, qs + ql, device="cuda"), scores.logsumexp(-1))
    return out, total


class Attention:
    """The kernels of one head size and type."""

    def __init__(self, d, dtype, plain=False, **defines):
        hopper = HOPPER and dtype == BF16 and d in (64, 128) and not plain
        self.k = Kernels("attend_hopper.cu" if hopper else "attend.cu", HEAD=d, BF16=int(dtype == BF16), **defines)
        self.name = f"{SUFFIX[dtype]}_{d}"
        self.d, self.shapes = d, self.k.numbers("attend_launch", 9)

    def forward(self, o, lse, q, k, v, strides, seqs, heads, kv, scale, window, n, longest):
        rows, threads, shared = self.shapes[:3]
        self.k(f"attend_fwd_{self.name}", (ceil(longest, rows), heads, len(seqs)), threads, o, lse, q, k, v, heads * self.d, *strides, seqs, heads, kv, scale, window, n, shared=shared)

    def prepare(self, delta, o, do, heads, n):
        self.k(f"attend_prep_{self.name}", ceil(n * heads, 32), 256, delta, o, do, heads * self.d, heads * self.d, heads, n)

    def backward_q(self, dq, do, lse, delta, q, k, v, strides, seqs, heads, kv, scale, window, n, longest):
        rows, threads, shared = self.shapes[3:6]
        self.k(f"attend_dq_{self.name}", (ceil(longest, rows), heads, len(seqs)), threads, dq, do, lse, delta, q, k, v, strides[0], heads * self.d, *strides, seqs, heads, kv, scale, window, n, shared=shared)

    def backward_kv(self, dk, dv, do, lse, delta, q, k, v, strides, seqs, heads, kv, scale, window, n, longest):
        rows, threads, shared = self.shapes[6:]
        grid = (ceil(longest, rows) * (2 if self.d > 128 else 1), kv, len(seqs))
        self.k(f"attend_dkv_{self.name}", grid, threads, dk, dv, do, lse, delta, q, k, v, *strides[1:], heads * self.d, *strides, seqs, heads, kv, scale, window, n, shared=shared)


def packed(n, heads, kv, d, dtype):
    """Packed heads and views of its queries, keys and values."""
    qkv = random(n, heads + 2 * kv, d, dtype=dtype)
    return qkv, *qkv.split([heads, kv, kv], 1)


def check_case(d, dtype, heads, kv, lengths, window, plain=False):
    n, starts = sum(lengths), [sum(lengths[:i]) for i in range(len(lengths))]
    seqs = [(s, l, s, l) for s, l in zip(starts, lengths)]
    table = torch.tensor(seqs, device="cuda", dtype=torch.int32)
    attention, scale, stride = Attention(d, dtype, plain), d**-0.5, (heads + 2 * kv) * d
    _, q, k, v = packed(n, heads, kv, d, dtype)
    do, o, lse, delta = random(n, heads, d, dtype=dtype), poison(n, heads, d, dtype=dtype), poison(heads, n), poison(heads, n)
    grad = poison(n, heads + 2 * kv, d, dtype=dtype)
    dq, dk, dv = grad.split([heads, kv, kv], 1)
    strides, longest = (stride,) * 3, max(lengths)
    attention.forward(o, lse, q, k, v, strides, table, heads, kv, scale, window, n, longest)
    attention.prepare(delta, o, do, heads, n)
    attention.backward_q(dq, do, lse, delta, q, k, v, strides, table, heads, kv, scale, window, n, longest)
    attention.backward_kv(dk, dv, do, lse, delta, q, k, v, strides, table, heads, kv, scale, window, n, longest)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    expected, total = reference(*leaves, seqs, scale, window)
    expected.backward(do.double())
    name = f"{SUFFIX[dtype]} {heads}/{kv}x{d} {lengths} window {window}{' plain' * plain}"
    # Weights and their slopes are rounded to eight bits (bf16) or eleven (tf32) before they meet values and keys.
    limit = 8e-3 if dtype == BF16 else 1.5e-3
    check(f"attend_fwd {name}", o, expected, limit)
    check(f"attend_fwd {name} lse", lse, total, 1e-4 if dtype == BF16 else 5e-4)
    for part, found, leaf in zip(("dq", "dk", "dv"), (dq, dk, dv), leaves):
        check(f"attend_{part} {name}", found, leaf.grad, 2 * limit)


def check_prefix(d, dtype, heads, kv, window):
    """Queries of which only the last stand at the keys: a prompt behind what is in the cache."""
    q, k, v = random(90, heads, d, dtype=dtype), random(600, kv, d, dtype=dtype), random(600, kv, d, dtype=dtype)
    seqs = [(0, 50, 0, 300), (50, 40, 400, 40)]
    o = poison(90, heads, d, dtype=dtype)
    table = torch.tensor(seqs, device="cuda", dtype=torch.int32)
    Attention(d, dtype).forward(o, None, q, k, v, (heads * d, kv * d, kv * d), table, heads, kv, d**-0.5, window, 90, 50)
    expected, _ = reference(q.double(), k.double(), v.double(), seqs, d**-0.5, window)
    check(f"attend_fwd {SUFFIX[dtype]} {d} behind a prefix, window {window}", o, expected, 8e-3 if dtype == BF16 else 1.5e-3)


def checks():
    for d in (32, 96, 80, 256, 16):
        for dtype in (BF16, F32):
            check_case(d, dtype, 4, 2, [200, 64, 1, 333], 0)
    for plain in (False, True):  # with and without Hopper's own instructions
        check_case(64, BF16, 4, 2, [200, 64, 1, 333], 0, plain)
        check_case(128, BF16, 4, 2, [200, 64, 1, 333], 0, plain)
        check_case(64, BF16, 3, 3, [130, 700], 50, plain)
        check_case(128, BF16, 8, 2, [300, 500], 70, plain)
    check_case(64, F32, 3, 3, [130, 300], 50)
    check_case(128, F32, 4, 2, [200, 64, 1, 333], 0)
    for d, dtype in ((64, BF16), (128, BF16), (64, F32)):
        for window in (0, 100):
            check_prefix(d, dtype, 4, 2, window)
    a, b = (repeat_bits() for _ in range(2))
    expect("attention gives the same bits again", all(torch.equal(x, y) for x, y in zip(a, b)))


def repeat_bits():
    torch.manual_seed(5)
    attention, n, heads, d = Attention(64, BF16), 2048, 8, 64
    _, q, k, v = packed(n, heads, heads, d, BF16)
    do, o, lse, delta, grad = random(n, heads, d, dtype=BF16), poison(n, heads, d, dtype=BF16), poison(heads, n), poison(heads, n), poison(n, 3 * heads, d, dtype=BF16)
    table = torch.tensor([(0, 1024, 0, 1024), (1024, 1024, 1024, 1024)], device="cuda", dtype=torch.int32)
    rest = ((3 * heads * d,) * 3, table, heads, heads, 0.125, 0, n, 1024)
    dq, dk, dv = grad.split([heads] * 3, 1)
    attention.forward(o, lse, q, k, v, *rest)
    attention.prepare(delta, o, do, heads, n)
    attention.backward_q(dq, do, lse, delta, q, k, v, *rest)
    attention.backward_kv(dk, dv, do, lse, delta, q, k, v, *rest)
    return o, lse, grad


def bench_case(batch, seq, heads, kv, d, dtype):
    n, attention = batch * seq, Attention(d, dtype)
    _, q, k, v = packed(n, heads, kv, d, dtype)
    do, o, lse, delta = random(n, heads, d, dtype=dtype), poison(n, heads, d, dtype=dtype), poison(heads, n), poison(heads, n)
    grad = torch.empty(n, heads + 2 * kv, d, device="cuda", dtype=dtype)
    dq, dk, dv = grad.split([heads, kv, kv], 1)
    table = torch.tensor([(i * seq, seq, i * seq, seq) for i in range(batch)], device="cuda", dtype=torch.int32)
    rest = (((heads + 2 * kv) * d,) * 3, table, heads, kv, d**-0.5, 0, n, seq)
    size, flops = do.element_size(), 2 * batch * seq * seq * heads * d  # causal: half of two products
    name, rate = f"{SUFFIX[dtype]} {batch}x{seq} {heads}/{kv}x{d}", FLOPS if dtype == BF16 else FLOPS / 2
    a, b, c = (x.reshape(batch, seq, -1, d).transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v))
    theirs = lambda: F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=heads != kv)
    with torch.no_grad():
        forward = seconds_plain(theirs)
    result = theirs()
    slope = torch.randn_like(result)
    backward = seconds_plain(lambda: torch.autograd.grad(result, (a, b, c), slope, retain_graph=True))
    report(f"attend_fwd {name}", seconds(lambda: attention.forward(o, lse, q, k, v, *rest)), forward, flops=flops, rate=rate, bytes=n * d * size * 2 * (heads + kv))
    times = [
        seconds(lambda: attention.prepare(delta, o, do, heads, n)),
        seconds(lambda: attention.backward_q(dq, do, lse, delta, q, k, v, *rest)),
        seconds(lambda: attention.backward_kv(dk, dv, do, lse, delta, q, k, v, *rest)),
    ]
    report(f"attend_prep {name}", times[0], bytes=n * d * heads * 2 * size)
    report(f"attend_dq {name}", times[1], flops=1.5 * flops, rate=rate)
    report(f"attend_dkv {name}", times[2], flops=2 * flops, rate=rate)
    report(f"attention backward {name}", sum(times), backward, flops=2.5 * flops, rate=rate)


def bench():
    bench_case(32, 1024, 8, 8, 64, BF16)
    bench_case(1, 5256, 32, 8, 128, BF16)
    bench_case(32, 1024, 8, 8, 64, F32)
