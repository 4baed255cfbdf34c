"""One token a sequence: attention over pages, products with few rows, sampling."""

import torch
import torch.nn.functional as F
from attention import reference
from device import *
from rows import norm_reference, rotate


def pages_of(lengths, kv, d, dtype, spare=5):
    """Caches in pages, in no order, whose unused rows are no numbers; the page table."""
    most = max(ceil(l, 16) for l in lengths) + 1
    total = sum(ceil(l, 16) for l in lengths) + spare
    free, table = torch.randperm(total).tolist(), torch.zeros(len(lengths), most, dtype=torch.int32)
    k, v = poison(total * 16, kv, d, dtype=dtype), poison(total * 16, kv, d, dtype=dtype)
    rows = []
    for i, length in enumerate(lengths):
        mine = [free.pop() for _ in range(ceil(length, 16))]
        table[i, : len(mine)] = torch.tensor(mine, dtype=torch.int32)
        places = torch.tensor([mine[t // 16] * 16 + t % 16 for t in range(length)], device="cuda", dtype=torch.long)
        k[places], v[places] = random(length, kv, d, dtype=dtype), random(length, kv, d, dtype=dtype)
        rows.append(places)
    return k, v, table.cuda(), rows


class Decode:
    def __init__(self, heads, kv, d, dtype):
        self.k = Kernels("decode.cu", HEAD=d, BF16=int(dtype == BF16), GROUP=heads // kv)
        self.name, self.heads, self.kv, self.d = f"attend_decode_{SUFFIX[dtype]}_{d}", heads, kv, d
        self.block_heads, self.threads = self.k.numbers("decode_launch", 2)

    def __call__(self, o, part, counters, q, k, v, table, lengths, window, splits):
        grid = (self.heads // self.block_heads, splits, len(lengths))
        self.k(self.name, grid, self.threads, o, part, counters, q, k, v, table, table.shape[1], lengths, q.shape[1] * self.d, self.heads, self.kv, self.d**-0.5, window, splits)


def check_attention():
    for d, dtype, heads, kv in [(64, BF16, 8, 8), (128, BF16, 32, 8), (64, F32, 7, 1), (96, BF16, 6, 2), (80, F32, 4, 4), (256, BF16, 4, 1), (32, BF16, 8, 1), (16, F32, 2, 1), (48, BF16, 4, 2), (48, F32, 6, 2)]:
        lengths = [1, 37, 16, 500]
        k, v, table, rows = pages_of(lengths, kv, d, dtype)
        q = random(len(lengths), heads + 2 * kv, d, dtype=dtype)
        decode, count = Decode(heads, kv, d, dtype), torch.tensor(lengths, device="cuda", dtype=torch.int32)
        for splits, window in [(1, 0), (7, 0), (3, 100)]:
            o, counters = poison(len(lengths), heads, d, dtype=dtype), torch.zeros(len(lengths) * heads, device="cuda", dtype=torch.int32)
            part = poison(len(lengths) * heads * splits * (d + 2))
            for _ in range(2):  # counters are as before
                decode(o, part, counters, q, k, v, table, count, window, splits)
            expected = torch.cat([reference(q[i : i + 1, :heads].double(), k[r].double(), v[r].double(), [(0, 1, 0, len(r))], d**-0.5, window)[0] for i, r in enumerate(rows)])
            check(f"attend_decode {SUFFIX[dtype]} {heads}/{kv}x{d} splits {splits} window {window}", o, expected, 6e-3 if dtype == BF16 else 1e-5)


def check_skinny():
    k = Kernels("skinny.cu", HEAD=64)
    for most, b, size, out in [(8, 1, 512, 1000), (8, 7, 72, 48), (16, 13, 1408, 512), (32, 32, 4096, 200), (32, 17, 520, 96)]:
        x, w = random(b, size, dtype=BF16), random(out, size, dtype=BF16, scale=size**-0.5)
        bias, norm, base = random(out), random(size), random(b, out, dtype=BF16)
        normed = norm_reference(x.double(), norm.double(), 1e-6, 1.0)
        y = poison(b, out, dtype=BF16)
        name = f"of {most} {b}x{size} to {out}"
        k(f"skinny_store_{most}", ceil(out, 16), 256, y, w, x, bias, None, 0.0, 0.0, size, out, b, 0)
        check(f"skinny_store {name}", y, x.double() @ w.double().t() + bias, 4e-3)
        y = base.clone()
        k(f"skinny_store_{most}", ceil(out, 16), 256, y, w, x, None, norm, 1e-6, 1.0, size, out, b, 1)
        check(f"skinny_store {name} normed, added", y, normed @ w.double().t() + base.double(), 6e-3)
        y = poison(b, out + 8)
        k(f"skinny_logits_{most}", ceil(out, 16), 256, y, w, x, norm, 1e-6, 1.0, size, out, out + 8, b)
        check(f"skinny_logits {name}", y[:, :out], normed @ w.double().t(), 4e-3)
        m = out // 2
        for kind in (0, 1):
            y = poison(b, m, dtype=BF16)
            k(f"skinny_gated_{most}", ceil(m, 8), 256, y, w, x, bias, norm, 1e-6, 1.0, size, m, b, kind)
            gate, up = (normed @ w[: 2 * m].double().t() + bias[: 2 * m]).chunk(2, -1)
            check(f"skinny_gated {name} kind {kind}", y, (F.silu(gate) if kind == 0 else F.gelu(gate, approximate="tanh")) * up, 8e-3)
        heads, kv, d = 4, 2, 64
        w, bias = random((heads + 2 * kv) * d, size, dtype=BF16, scale=size**-0.5), random((heads + 2 * kv) * d)
        pos, row = torch.randint(0, 60, (b,), device="cuda", dtype=torch.int32), torch.randperm(99, device="cuda")[:b].int()
        angles = torch.rand(60, d // 2, device="cuda") * 6
        q, caches = poison(b, 8, d, dtype=BF16), [poison(99, kv, d, dtype=BF16) for _ in range(2)]
        k(f"skinny_qkv_{most}", 8 * d // 16, 256, q, *caches, w, x, bias, norm, 1e-6, 1.0, angles.cos(), angles.sin(), pos, row, size, heads, kv, 8 * d, b)
        a, c, v = (normed @ w.double().t() + bias).reshape(b, 8, d).split([heads, kv, kv], 1)
        cos, sin = angles.cos().double()[pos.long()][:, None], angles.sin().double()[pos.long()][:, None]
        check(f"skinny_qkv {name} queries", q[:, :heads], rotate(a, cos, sin), 6e-3)
        check(f"skinny_qkv {name} keys", caches[0][row.long()], rotate(c, cos, sin), 6e-3)
        check(f"skinny_qkv {name} values", caches[1][row.long()], v, 6e-3)


def draw_reference(row, temperature, top_k, top_p, min_p, uniform):
    """The token drawn, and how near the uniform number is to the border of its share."""
    row = torch.nan_to_num(row.double(), nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    ids = torch.argsort(row, descending=True, stable=True)
    if temperature == 0:
        return ids[0].item(), 1.0
    if top_k:
        ids = ids[:top_k]
    weights = ((row[ids] - row[ids[0]]) / temperature).exp()
    enough = weights.sum() * top_p
    if top_p < 1:
        ids = ids[: int((weights.cumsum(0) < enough).sum()) + 1]
    weights = ((row[ids] - row[ids[0]]) / temperature).exp()
    ids = ids[weights >= min_p]
    ids = ids.sort().values
    shares = ((row[ids] - row.max()) / temperature).exp()
    sums = shares.cumsum(0) / shares.sum()
    place = min(int((sums <= uniform).sum()), len(ids) - 1)
    return ids[place].item(), (sums - uniform).abs().min().item()


def check_sample():
    k = Kernels("sample.cu")
    for v, scale in [(1000, 3.0), (50257, 4.0), (333, 0.01)]:
        b, ld, block = 12, v + 8, 256 if v <= 1024 else 1024
        logits = random(b, ld, scale=scale)
        logits[:, 5:9] = logits[:, 4:5]  # ties
        logits[0, 11], logits[1, :3] = float("nan"), float("-inf")
        heat = torch.tensor([0, 1, 0.7, 1, 1, 1, 0.5, 1, 1.3, 1, 1, 1], device="cuda")
        top_k = torch.tensor([0, 0, 0, 5, 1, 40, 0, 0, 50, 0, v, 2], device="cuda", dtype=torch.int32)
        top_p = torch.tensor([1, 1, 1, 1, 1, 1, 0.9, 0.3, 0.8, 1, 1, 0.0], device="cuda")
        min_p = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0.05, 0.1, 0, 0], device="cuda")
        uniforms, step = torch.rand(3, b, device="cuda"), torch.tensor([1], device="cuda", dtype=torch.int32)
        wrong = 0
        for turn in range(20):
            uniforms.uniform_()
            token, logp = poison(b, dtype=torch.int32), poison(b)
            k("sample", b, block, token, logp, logits, ld, heat, top_p, min_p, top_k, uniforms, step, b, v, None, None)
            for i in range(b):
                expected, margin = draw_reference(logits[i, :v], heat[i].item(), top_k[i].item(), top_p[i].item(), min_p[i].item(), uniforms[1, i].item())
                wrong += int(token[i]) != expected and margin > 1e-5
        expect(f"sample {v}: all draws as sorted by hand", wrong == 0, f"{wrong} of {20 * b} differ")
        check(f"sample {v}: log-probabilities", logp[1:], logits[1:, :v].double().log_softmax(-1).gather(1, token[1:, None].long())[:, 0], 1e-4)
        seen = torch.zeros(b, ceil(v, 32), device="cuda", dtype=torch.int32)
        best = logits[:, :v].nan_to_num(nan=-1e9).argmax(-1)
        for i in range(b):
            seen[i, best[i] // 32] = 1 << int(best[i] % 32) if best[i] % 32 < 31 else -(1 << 31)
        k("sample", b, block, token, None, logits, ld, torch.zeros(b, device="cuda"), None, None, None, uniforms, None, b, v, torch.full((b,), 1e9, device="cuda"), seen)
        expect(f"sample {v}: repetition penalty", bool((token != best.int()).all()))


def check_advance():
    k, b, v = Kernels("sample.cu"), 5, 70
    ids, pos, length, row, token = (torch.tensor(x, device="cuda", dtype=torch.int32) for x in ([9] * 5, [0, 15, 31, -1, 7], [1, 16, 32, 0, 8], [0] * 5, [3, 64, 5, 6, 7]))
    table = torch.arange(15, device="cuda", dtype=torch.int32).reshape(5, 3) * 2
    out, logs, step, seen = poison(4, b, dtype=torch.int32), poison(4, b), torch.tensor([2], device="cuda", dtype=torch.int32), torch.zeros(b, 3, device="cuda", dtype=torch.int32)
    k("advance", 1, 32, ids, pos, length, row, token, random(b), out, logs, step, table, 3, b, seen, v)
    good = pos.tolist() == [1, 16, 32, -1, 8] and row.tolist() == [1, 8 * 16, 16 * 16, 0, 24 * 16 + 8] and ids.tolist() == [3, 64, 5, 9, 7]
    expect("advance", good and length.tolist() == [2, 17, 33, 0, 9] and step.item() == 3 and out[2].tolist() == [3, 64, 5, -7777, 7] and seen[1].tolist() == [0, 0, 1], str((pos.tolist(), row.tolist())))


def checks():
    for part in (check_skinny, check_attention, check_sample, check_advance):
        part()


def bench():
    """Weights rotate among copies, so that they come from memory as in a model."""
    k = Kernels("skinny.cu", HEAD=128)
    for b, most in ((1, 8), (8, 8), (16, 16), (32, 32)):
        for size, out in ((4096, 4096), (4096, 28672), (14336, 4096)):
            copies = [random(out, size, dtype=BF16) for _ in range(max(1, 400_000_000 // (out * size * 2)))]
            x, y, turn = random(b, size, dtype=BF16), torch.empty(b, out, device="cuda", dtype=BF16), [0]

            def weights():
                turn[0] += 1
                return copies[turn[0] % len(copies)]

            ours = seconds(lambda: k(f"skinny_store_{most}", ceil(out, 16), 256, y, weights(), x, None, None, 0.0, 0.0, size, out, b, 0), launches=12)
            report(f"skinny_store {b}x{size} to {out}", ours, seconds(lambda: F.linear(x, weights()), launches=12), bytes=2 * size * out)
            del copies
    norm = random(4096)
    w, x, y = random(28672, 4096, dtype=BF16), random(1, 4096, dtype=BF16), torch.empty(1, 14336, device="cuda", dtype=BF16)
    report("skinny_gated 1x4096 to 2x14336, normed", seconds(lambda: k("skinny_gated_8", 14336 // 8, 256, y, w, x, None, norm, 1e-5, 0.0, 4096, 14336, 1, 0)), bytes=2 * 28672 * 4096)
    w, x, y = random(2816, 512, dtype=BF16), random(1, 512, dtype=BF16), torch.empty(1, 1408, device="cuda", dtype=BF16)
    report("skinny_gated 1x512 to 2x1408, normed", seconds(lambda: k("skinny_gated_8", 176, 256, y, w, x, None, norm, 1e-5, 0.0, 512, 1408, 1, 0)), bytes=2 * 2816 * 512)
    for b, length, heads, kv, d, splits in ((1, 640, 8, 8, 64, 10), (256, 640, 8, 8, 64, 1), (16, 2112, 32, 8, 128, 2), (1, 2112, 32, 8, 128, 33), (1, 2112, 32, 8, 128, 16)):
        key, v, table, _ = pages_of([length] * b, kv, d, BF16)
        q, o = random(b, heads + 2 * kv, d, dtype=BF16), torch.empty(b, heads, d, device="cuda", dtype=BF16)
        decode, count = Decode(heads, kv, d, BF16), torch.full((b,), length, device="cuda", dtype=torch.int32)
        part, counters = torch.empty(b * heads * splits * (d + 2), device="cuda"), torch.zeros(b * heads, device="cuda", dtype=torch.int32)
        report(f"attend_decode {b}x{length} {heads}/{kv}x{d} splits {splits}", seconds(lambda: decode(o, part, counters, q, key, v, table, count, 0, splits)), bytes=4 * b * length * kv * d)
    k = Kernels("sample.cu")
    for b, v in ((1, 8192), (256, 8192), (16, 128256)):
        logits, heat, uniforms = random(b, v, scale=3.0), torch.ones(b, device="cuda"), torch.rand(b, device="cuda")
        token, block = torch.empty(b, device="cuda", dtype=torch.int32), 256 if v <= 1024 else 1024
        logp, p = torch.empty(b, device="cuda"), torch.full((b,), 0.9, device="cuda")
        report(f"sample {b}x{v}", seconds(lambda: k("sample", b, block, token, logp, logits, v, heat, None, None, None, uniforms, None, b, v, None, None)), bytes=4 * b * v)
        report(f"sample {b}x{v} top_p 0.9", seconds(lambda: k("sample", b, block, token, logp, logits, v, heat, p, None, None, uniforms, None, b, v, None, None)), bytes=4 * b * v)
