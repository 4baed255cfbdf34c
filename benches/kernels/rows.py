"""Rows, the loss over the vocabulary, AdamW."""

import torch
import torch.nn.functional as F
from device import *


def norm_reference(x, w, eps, offset):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (offset + w)


def norm_forward(k, dtype, x, r, w, eps, offset, total=None):
    n, h = x.shape
    y, rstd = poison(n, h, dtype=dtype), poison(n)
    grid, block = (ceil(n, 8), 256) if h <= 1024 else (n, 256 if h <= 8192 else 512)
    k(f"rmsnorm_fwd_{SUFFIX[dtype]}", grid, block, y, rstd, total, x, r, w, n, h, eps, offset)
    return y, rstd


def check_norms():
    k = Kernels("norms.cu")
    for dtype, n, h, offset in [(BF16, 37, 512, 0.0), (F32, 37, 64, 1.0), (BF16, 5, 1152, 1.0), (F32, 9, 1000, 0.0), (BF16, 7, 4096, 0.0), (F32, 3, 6144, 1.0)]:
        limit = 6e-3 if dtype == BF16 else 1e-5
        x, r, dy, dres = (random(n, h, dtype=dtype) for _ in range(4))
        w, total = random(h), poison(n, h, dtype=dtype)
        y, rstd = norm_forward(k, dtype, x, r, w, 1e-5, offset, total)
        s = (x.float() + r.float()).to(dtype)
        check(f"rmsnorm_fwd {SUFFIX[dtype]} {n}x{h} sum", total, s, 1e-7)
        leaf, weight = s.double().requires_grad_(), w.double().requires_grad_()
        expected = norm_reference(leaf, weight, 1e-5, offset)
        check(f"rmsnorm_fwd {SUFFIX[dtype]} {n}x{h}", y, expected, limit)
        expected.backward(dy.double())
        blocks = 3
        dx, part, dw = poison(n, h, dtype=dtype), poison(blocks, h), torch.ones(h, device="cuda")
        k(f"rmsnorm_bwd_{SUFFIX[dtype]}", blocks, 256 if h <= 8192 else 512, dx, part, dy, s, w, rstd, dres, n, h, offset)
        k("colsum_f32", ceil(h, 32), (32, 8), dw, part, blocks, h)
        check(f"rmsnorm_bwd {SUFFIX[dtype]} {n}x{h} dx", dx, leaf.grad + dres.double(), limit)
        check(f"rmsnorm_bwd {SUFFIX[dtype]} {n}x{h} dw", dw - 1, weight.grad, 1e-4)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def check_rope():
    k = Kernels("rope.cu")
    for dtype, heads, kv, d, norms in [(BF16, 8, 8, 64, False), (F32, 6, 2, 80, True), (BF16, 4, 1, 256, True), (BF16, 3, 1, 96, False), (F32, 2, 2, 8, True)]:
        n, total, limit = 29, heads + 2 * kv, 6e-3 if dtype == BF16 else 1e-5
        x, dy = random(n, total, d, dtype=dtype), random(n, total, d, dtype=dtype)
        pos = torch.randint(0, 100, (n,), device="cuda", dtype=torch.int32)
        row = torch.randperm(50, device="cuda")[:n].int()
        angles = torch.rand(100, d // 2, device="cuda") * 6
        cos, sin = angles.cos(), angles.sin()
        wq, wk = (random(d), random(d)) if norms else (None, None)
        out, rstd = poison(n, total, d, dtype=dtype), poison(n, heads + kv)
        caches = [torch.zeros(50, kv, d, device="cuda", dtype=dtype) for _ in range(2)]
        k(f"qk_rope_fwd_{SUFFIX[dtype]}", n, 128, out, x, cos, sin, pos, wq, wk, rstd if norms else None, *caches, row, n, heads, kv, d, 1e-6, 1.0)
        leaf = x.double().requires_grad_()
        weights = [w.double().requires_grad_() for w in (wq, wk)] if norms else []
        q, key, v = leaf.split([heads, kv, kv], 1)
        if norms:
            q, key = norm_reference(q, weights[0], 1e-6, 1.0), norm_reference(key, weights[1], 1e-6, 1.0)
        c, s = cos.double()[pos.long()][:, None], sin.double()[pos.long()][:, None]
        expected = torch.cat([rotate(q, c, s), rotate(key, c, s), v], 1)
        name = f"{SUFFIX[dtype]} {heads}/{kv}x{d}{' normed' if norms else ''}"
        check(f"qk_rope_fwd {name}", out, expected, limit)
        check(f"qk_rope_fwd {name} keys in cache", caches[0][row.long()], expected[:, heads : heads + kv], limit)
        check(f"qk_rope_fwd {name} values in cache", caches[1][row.long()], v, 1e-7)
        expected.backward(dy.double())
        din, parts = poison(n, total, d, dtype=dtype), [poison(3, d), poison(3, d)] if norms else [None, None]
        k(f"qk_rope_bwd_{SUFFIX[dtype]}", 3, 128, din, dy, x if norms else None, cos, sin, pos, wq, wk, rstd if norms else None, *parts, n, heads, kv, d, 1.0)
        check(f"qk_rope_bwd {name}", din, leaf.grad, limit)
        for part, weight in zip(parts, weights):
            check(f"qk_rope_bwd {name} weight", part.sum(0), weight.grad, 1e-4)
        if not norms:
            again = dy.clone()
            k(f"qk_rope_bwd_{SUFFIX[dtype]}", 3, 128, again, again, None, cos, sin, pos, None, None, None, None, None, n, heads, kv, d, 1.0)
            expect(f"qk_rope_bwd {name} in place", torch.equal(again, din))


def check_gate():
    k = Kernels("rows.cu")
    for dtype, kind in [(BF16, 0), (F32, 1)]:
        n, m, limit = 21, 344, 8e-3 if dtype == BF16 else 1e-5
        gu, d = random(n, 2 * m, dtype=dtype, scale=2.0), random(n, m, dtype=dtype)
        out, dgu, again = poison(n, m, dtype=dtype), poison(n, 2 * m, dtype=dtype), d.clone()
        k(f"gate_fwd_{SUFFIX[dtype]}", ceil(n * m, 2048), 256, out, gu, n, m, kind)
        k(f"gate_bwd_{SUFFIX[dtype]}", ceil(n * m, 2048), 256, dgu, again, again, gu, n, m, kind)
        leaf = gu.double().requires_grad_()
        gate, up = leaf.chunk(2, -1)
        expected = (F.silu(gate) if kind == 0 else F.gelu(gate, approximate="tanh")) * up
        expected.backward(d.double())
        check(f"gate_fwd {SUFFIX[dtype]} kind {kind}", out, expected, limit)
        check(f"gate_bwd {SUFFIX[dtype]} kind {kind}", dgu, leaf.grad, limit)
        expect(f"gate_bwd {SUFFIX[dtype]} kind {kind} recomputes", torch.equal(again, out))


def check_moves():
    k = Kernels("rows.cu")
    for dtype in (BF16, F32):
        s, n, h, v = SUFFIX[dtype], 300, 520, 40
        table, ids = random(v, h, dtype=dtype), torch.randint(0, v, (n,), device="cuda", dtype=torch.int32)
        ids[: n // 2] = 3
        out = poison(n, h, dtype=dtype)
        k(f"embed_fwd_{s}", n, 128, out, table, ids, n, h, 2.0)
        check(f"embed_fwd {s}", out, table.double()[ids.long()] * 2, 1e-7)
        dx, dtable = random(n, h, dtype=dtype), torch.ones(v, h, device="cuda")
        order = torch.argsort(ids, stable=True).int()
        which, counts = torch.unique(ids, return_counts=True)
        starts = torch.cat([torch.zeros(1, device="cuda"), counts.cumsum(0)]).int()
        k(f"embed_bwd_{s}", (len(which), ceil(h, 256)), (32, 8), dtable, dx, order, starts, which.int(), len(which), h, 0.5)
        expected = torch.ones(v, h, device="cuda", dtype=torch.float64).index_add_(0, ids.long(), dx.double() * 0.5)
        check(f"embed_bwd {s}", dtable, expected, 1e-5)
        idx = torch.randperm(n, device="cuda")[:70].int()
        out, back = poison(70, h, dtype=dtype), dx.clone()
        k(f"gather_rows_{s}", 70, 128, out, dx, idx, 70, h)
        expect(f"gather_rows {s}", torch.equal(out, dx[idx.long()]))
        k(f"scatter_rows_{s}", 70, 128, back, out * 2, idx, 70, h)
        expected = dx.clone()
        expected[idx.long()] = out * 2
        expect(f"scatter_rows {s}", torch.equal(back, expected))
        by = random(n)
        k(f"scale_rows_{s}", n, 128, back, dx, by, n, h)
        check(f"scale_rows {s}", back, dx.double() * by[:, None], 3e-3)
        bias, y = random(h), dx.clone()
        k(f"bias_add_{s}", ceil(n * h, 2048), 256, y, bias, n, h)
        check(f"bias_add {s}", y, dx.double() + bias, 3e-3)
        part = poison(7, h)
        k(f"bias_bwd_{s}", (7, ceil(h, 256)), (32, 8), part, dx, n, h)
        check(f"bias_bwd {s}", part.sum(0), dx.double().sum(0), 1e-5)
        out, p = poison(n, h, dtype=dtype), 0.3
        k(f"dropout_{s}", ceil(n * h, 2048), 256, out, dx, COUNT(n * h), p, SEED(7))
        kept = (out != 0).double().mean().item()
        expect(f"dropout {s} keeps 0.7", abs(kept - 0.7) < 0.006, f"{kept:.4f}")
        check(f"dropout {s} scales", out, torch.where(out != 0, dx.double() / 0.7, 0.0), 3e-3)
        more = dx.clone()
        k(f"dropout_add_{s}", ceil(n * h, 2048), 256, more, dx, COUNT(n * h), p, SEED(7))
        check(f"dropout_add {s} has the same mask", more, dx.double() + torch.where(out != 0, dx.double() / 0.7, 0.0), 3e-3)
        a, b, total = random(1003, dtype=dtype), random(1003, dtype=dtype), poison(1003, dtype=dtype)
        k(f"add_{s}", 1, 256, total, a, b, COUNT(1003))
        check(f"add {s}", total, a.double() + b.double(), 3e-3)
        turned = poison(h, n, dtype=dtype)
        k(f"transpose_{s}", (ceil(h, 32), ceil(n, 32)), (32, 8), turned, dx, n, h)
        expect(f"transpose {s}", torch.equal(turned, dx.t()))
    x, low, back = random(1003), poison(1003, dtype=BF16), poison(1003)
    k("cast_f32_bf16", 1, 256, low, x, COUNT(1003))
    k("cast_bf16_f32", 1, 256, back, low, COUNT(1003))
    expect("cast", torch.equal(low, x.to(BF16)) and torch.equal(back, low.float()))


def check_head():
    k = Kernels("head.cu")
    for suffix, lt, gt in [("f32", F32, F32), ("f32_bf16", F32, BF16), ("bf16", BF16, BF16)]:
        for m, v in [(9, 1000), (5, 8192), (3, 50257)]:
            stride = ceil(v, 8) * 8
            logits = random(m, stride, dtype=lt, scale=3.0)
            targets = torch.randint(0, v, (m,), device="cuda", dtype=torch.int32)
            targets[1] = -1
            slope, logp, lse = random(m), poison(m), poison(m)
            grad, later = poison(m, stride, dtype=gt), poison(m, stride, dtype=gt)
            block = 256 if v <= 8192 else 512 if v <= 16384 else 1024
            leaf = logits[:, :v].double().requires_grad_()
            whole = leaf.log_softmax(-1)
            expected = torch.where(targets >= 0, whole.gather(1, targets.clamp_min(0).long()[:, None])[:, 0], 0.0)
            (expected * slope).sum().backward()
            k(f"cross_entropy_{suffix}", m, block, logp, lse, grad, logits, targets, slope, m, v, stride)
            k(f"cross_entropy_bwd_{suffix}", (ceil(stride, 2048), m), 256, later, logits, lse, targets, slope, m, v, stride)
            if suffix == "bf16":
                k(f"cross_entropy_{suffix}", m, block, logp, lse, logits, logits, targets, slope, m, v, stride)
                expect("cross_entropy bf16 in place", torch.equal(logits, grad))
            check(f"cross_entropy {suffix} {v} logp", logp, expected, 1e-5)
            check(f"cross_entropy {suffix} {v} gradient", grad[:, :v], leaf.grad, 1e-5 if gt == F32 else 4e-3)
            expect(f"cross_entropy {suffix} {v} padding, bwd", bool((grad[:, v:] == 0).all()) and error(later, grad) < 1e-6)


def check_step():
    k = Kernels("step.cu")
    count = 10007
    w, g = random(count), random(count)
    leaf = w.clone().requires_grad_()
    optimiser = torch.optim.AdamW([leaf], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    m, v, copy = torch.zeros_like(w), torch.zeros_like(w), poison(count, dtype=BF16)
    for step in (1, 2, 3):
        leaf.grad = g * step * 0.5
        optimiser.step()
        k("adamw", ceil(count, 1024), 256, w, copy, g * step, m, v, COUNT(count), 1e-2, 1 - 0.9, 0.99, 1 - 0.99, 1e-8, 0.1, 1 - 0.9**step, 1 - 0.99**step, 0.5)
    check("adamw, three steps", w, leaf, 1e-6)
    expect("adamw copy", torch.equal(copy, w.to(BF16)))
    part = poison(64, dtype=torch.float64)
    k("sum_squares", 64, 256, part, g, COUNT(count))
    check("sum_squares", part.sum(), g.double().square().sum(), 1e-6)
    k("scale_f32", ceil(count, 1024), 256, w, COUNT(count), 0.25)
    check("scale_f32", w, leaf * 0.25, 1e-6)


def checks():
    for part in (check_norms, check_rope, check_gate, check_moves, check_head, check_step):
        part()


def bench():
    """At the shape of the 30 M model's training step: 32 x 1,024 tokens, hidden 512, inner 1,408, vocabulary 8,192."""
    k, n, h, m, v = Kernels("norms.cu"), 32768, 512, 1408, 8192
    x, r, dres, dy, w = random(n, h, dtype=BF16), random(n, h, dtype=BF16), random(n, h, dtype=BF16), random(n, h, dtype=BF16), random(h)
    y, total, rstd, part, dx = torch.empty_like(x), torch.empty_like(x), torch.empty(n, device="cuda"), torch.empty(528, h, device="cuda"), torch.empty_like(x)
    wb = w.to(BF16)
    report("rmsnorm_fwd with residual bf16", seconds(lambda: k("rmsnorm_fwd_bf16", ceil(n, 8), 256, y, rstd, total, x, r, w, n, h, 1e-5, 0.0)),
           seconds(lambda: F.rms_norm(x + r, (h,), wb, 1e-5)), bytes=4 * n * h * 2)
    report("rmsnorm_bwd bf16", seconds(lambda: k("rmsnorm_bwd_bf16", 528, 256, dx, part, dy, total, w, rstd, dres, n, h, 0.0)), bytes=4 * n * h * 2)
    k = Kernels("rope.cu")
    qkv = random(n, 24, 64, dtype=BF16)
    angles = torch.rand(1024, 32, device="cuda")
    cos, sin, pos = angles.cos(), angles.sin(), torch.arange(n, device="cuda", dtype=torch.int32) % 1024
    report("qk_rope_fwd bf16, in place", seconds(lambda: k("qk_rope_fwd_bf16", n // 2, 128, qkv, qkv, cos, sin, pos, None, None, None, None, None, None, n, 8, 8, 64, 1e-5, 0.0)), bytes=2 * n * 1024 * 2)
    report("qk_rope_bwd bf16, in place", seconds(lambda: k("qk_rope_bwd_bf16", n // 2, 128, qkv, qkv, None, cos, sin, pos, None, None, None, None, None, n, 8, 8, 64, 0.0)), bytes=2 * n * 1024 * 2)
    k = Kernels("rows.cu")
    gu, d, act = random(n, 2 * m, dtype=BF16), random(n, m, dtype=BF16), torch.empty(n, m, device="cuda", dtype=BF16)
    report("gate_fwd bf16", seconds(lambda: k("gate_fwd_bf16", ceil(n * m, 2048), 256, act, gu, n, m, 0)), seconds(lambda: F.silu(gu[:, :m]) * gu[:, m:]), bytes=3 * n * m * 2)
    dgu = torch.empty_like(gu)
    report("gate_bwd bf16, recomputing", seconds(lambda: k("gate_bwd_bf16", ceil(n * m, 2048), 256, dgu, act, d, gu, n, m, 0)), bytes=6 * n * m * 2)
    table, ids, out = random(v, h, dtype=BF16), torch.randint(0, v, (n,), device="cuda", dtype=torch.int32), torch.empty(n, h, device="cuda", dtype=BF16)
    report("embed_fwd bf16", seconds(lambda: k("embed_fwd_bf16", n, 128, out, table, ids, n, h, 1.0)), seconds(lambda: F.embedding(ids, table)), bytes=2 * n * h * 2)
    order = torch.argsort(ids, stable=True).int()
    which, counts = torch.unique(ids, return_counts=True)
    starts, dtable = torch.cat([torch.zeros(1, device="cuda"), counts.cumsum(0)]).int(), torch.zeros(v, h, device="cuda")
    report("embed_bwd bf16", seconds(lambda: k("embed_bwd_bf16", (len(which), 2), (32, 8), dtable, dx, order, starts, which.int(), len(which), h, 1.0)),
           bytes=n * h * 2 + 2 * v * h * 4)
    k = Kernels("head.cu")
    targets, slope, logp, lse = ids, torch.full((n,), -1.0 / n, device="cuda"), torch.empty(n, device="cuda"), torch.empty(n, device="cuda")
    low = random(n, v, dtype=BF16)
    report("cross_entropy bf16 in place", seconds(lambda: k("cross_entropy_bf16", n, 256, logp, lse, low, low, targets, slope, n, v, v)), bytes=2 * n * v * 2)
    del low
    logits, grad = random(n, v), torch.empty(n, v, device="cuda", dtype=BF16)
    report("cross_entropy f32 to bf16", seconds(lambda: k("cross_entropy_f32_bf16", n, 256, logp, lse, grad, logits, targets, slope, n, v, v)),
           seconds(lambda: F.cross_entropy(logits, targets.long())), bytes=6 * n * v)
    del logits, grad
    k, count = Kernels("step.cu"), 30_000_000
    p, g, a, b, copy = (*(random(count) for _ in range(2)), torch.zeros(count, device="cuda"), torch.zeros(count, device="cuda"), torch.empty(count, device="cuda", dtype=BF16))
    report("adamw 30 M", seconds(lambda: k("adamw", ceil(count, 1024), 256, p, copy, g, a, b, COUNT(count), 1e-3, 1 - 0.9, 0.99, 1 - 0.99, 1e-8, 0.1, 0.1, 0.01, 1.0)), bytes=30 * count)
    part = torch.empty(1024, device="cuda", dtype=torch.float64)
    report("sum_squares 30 M", seconds(lambda: k("sum_squares", 1024, 256, part, g, COUNT(count))), bytes=4 * count)
