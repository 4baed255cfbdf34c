// Work on rows of activations between matrix products: all bound by memory, so each reads and writes everything once.
//
// Every kernel exists as NAME_bf16 and NAME_f32. `n` rows (tokens); widths are multiples of 8 (heads too: multiples of 8, <= 256).
// Sums are taken in a fixed order: the same input gives the same bits, and a row's result depends on that row alone.

// The range of rows that a block of `workers` rows at once walks: rows first, first + step, ...
struct Walk {
    int first, step;
};

// ---------------------------------------------------------------------------------------------------------------- embedding

// out[n, h] = table[ids[n], h] * scale.  grid n, block 128.
template <class T> DEVICE void embed_fwd(T *out, const T *table, const int *ids, int n, int h, float scale) {
    const T *from = table + (i64)ids[blockIdx.x] * h;
    T *to = out + (i64)blockIdx.x * h;
    for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8) {
        Eight x = load8(from + i);
        for (int j = 0; j < 8; ++j) x.v[j] *= scale;
        store8(to + i, x);
    }
}

// dtable[which[i], h] += scale * sum of dx[order[starts[i] .. starts[i + 1]], h], rows dealt out to 8 workers, whose sums are
// added in order.  grid (u, ceil(h / 256)), block (32, 8).
template <class T>
DEVICE void embed_bwd(float *dtable, const T *dx, const int *order, const int *starts, const int *which, int h, float scale) {
    __shared__ float parts[8][WARP * 8 + 8];
    int column = blockIdx.y * 256 + threadIdx.x * 8, worker = threadIdx.y;
    int end = starts[blockIdx.x + 1];
    float sum[8] = {};
    if (column < h)
        for (int i = starts[blockIdx.x] + worker; i < end; i += 8) {
            Eight x = load8(dx + (i64)order[i] * h + column);
            for (int j = 0; j < 8; ++j) sum[j] += x.v[j];
        }
    for (int j = 0; j < 8; ++j) parts[worker][threadIdx.x * 8 + j] = sum[j];
    __syncthreads();
    int mine = worker * WARP + threadIdx.x; // 256 threads, 256 columns
    if (blockIdx.y * 256 + mine < h) {
        float total = 0.0f;
        for (int i = 0; i < 8; ++i) total += parts[i][mine];
        dtable[(i64)which[blockIdx.x] * h + blockIdx.y * 256 + mine] += total * scale;
    }
}

// --------------------------------------------------------------------------------------------------------------------- norms

// s = x + r (x alone where r is null; written to `sum` where that is given);  y = s * rsqrt(mean(s^2) + eps) * (offset + w).
// What is normed is s as `sum` holds it, rounded.  rstd[n] where given.  sum may be x or r.
// A row is the work of `threads` threads: h <= 32 * threads.  VECTORS is ceil(h / 8 / threads) at most.
template <class T, int VECTORS>
DEVICE void rmsnorm_row(T *y, float *rstd, T *sum, const T *x, const T *r, const float *w, int row, int h, float eps,
                        float offset, int thread, int threads, float *scratch) {
    i64 base = (i64)row * h;
    Eight held[VECTORS];
    float squares = 0.0f;
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        int i = (v * threads + thread) * 8;
        if (i >= h) continue;
        held[v] = load8(x + base + i);
        if (r) {
            Eight more = load8(r + base + i);
            for (int j = 0; j < 8; ++j) held[v].v[j] = to_float(from_float<T>(held[v].v[j] + more.v[j]));
        }
        if (sum) store8(sum + base + i, held[v]);
        for (int j = 0; j < 8; ++j) squares += held[v].v[j] * held[v].v[j];
    }
    squares = scratch ? sum_block(squares, scratch) : sum_lanes(squares, WARP);
    float scale = rsqrtf(squares / h + eps);
    if (rstd && thread == 0) rstd[row] = scale;
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
        int i = (v * threads + thread) * 8;
        if (i >= h) continue;
        Eight weight = load8(w + i);
        for (int j = 0; j < 8; ++j) held[v].v[j] *= scale * (offset + weight.v[j]);
        store8(y + base + i, held[v]);
    }
}

// The norm for h <= 1024: a warp a row.  grid ceil(n / 8), block 256.
// And for h <= 16384: a block a row.  grid n, block = h <= 8192 ? 256 : 512.  One function: the grid says which.
template <class T>
DEVICE void rmsnorm_fwd(T *y, float *rstd, T *sum, const T *x, const T *r, const float *w, int n, int h, float eps, float offset) {
    __shared__ float scratch[33];
    if (h <= 1024) {
        int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (row >= n) return;
        if (h <= 512)
            rmsnorm_row<T, 2>(y, rstd, sum, x, r, w, row, h, eps, offset, lane, WARP, nullptr);
        else
            rmsnorm_row<T, 4>(y, rstd, sum, x, r, w, row, h, eps, offset, lane, WARP, nullptr);
    } else if (h <= 4096) {
        rmsnorm_row<T, 2>(y, rstd, sum, x, r, w, blockIdx.x, h, eps, offset, threadIdx.x, blockDim.x, scratch);
    } else {
        rmsnorm_row<T, 4>(y, rstd, sum, x, r, w, blockIdx.x, h, eps, offset, threadIdx.x, blockDim.x, scratch);
    }
}

// Rows `walk` of the norm's backward pass for `threads` threads a row; a thread's columns' weight gradients in `dweight`.
template <class T, int VECTORS>
DEVICE void rmsnorm_bwd_rows(T *dx, Eight *dweight, const T *dy, const T *x, const float *w, const float *rstd, const T *dres,
                             int n, int h, float offset, Walk walk, int thread, int threads, float *scratch) {
    for (int row = walk.first; row < n; row += walk.step) {
        i64 base = (i64)row * h;
        Eight values[VECTORS], slopes[VECTORS];
        float dot = 0.0f, scale = rstd[row];
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int i = (v * threads + thread) * 8;
            if (i >= h) continue;
            values[v] = load8(x + base + i);
            slopes[v] = load8(dy + base + i);
            Eight weight = load8(w + i);
            for (int j = 0; j < 8; ++j) {
                values[v].v[j] *= scale; // the normed number
                dweight[v].v[j] += slopes[v].v[j] * values[v].v[j];
                slopes[v].v[j] *= offset + weight.v[j];
                dot += slopes[v].v[j] * values[v].v[j];
            }
        }
        dot = (scratch ? sum_block(dot, scratch) : sum_lanes(dot, WARP)) / h;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int i = (v * threads + thread) * 8;
            if (i >= h) continue;
            Eight out;
            for (int j = 0; j < 8; ++j) out.v[j] = scale * (slopes[v].v[j] - values[v].v[j] * dot);
            if (dres) {
                Eight more = load8(dres + base + i);
                for (int j = 0; j < 8; ++j) out.v[j] += more.v[j];
            }
            store8(dx + base + i, out);
        }
    }
}

// Adds the columns' sums of the block's warps in order and writes the block's row of partial sums.
template <int VECTORS> DEVICE void write_warps_partial(float *part, const Eight *dweight, int h, float *shared) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int turn = 0; turn < warps; ++turn) {
        __syncthreads();
        if (warp != turn) continue;
        for (int v = 0; v < VECTORS; ++v)
            for (int j = 0; j < 8; ++j) {
                int place = (v * 8 + j) * WARP + lane; // neighbouring lanes in neighbouring banks
                shared[place] = (turn == 0 ? 0.0f : shared[place]) + dweight[v].v[j];
            }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < h; i += blockDim.x) {
        int v = i / 8 / WARP, l = i / 8 % WARP;
        part[(i64)blockIdx.x * h + i] = shared[(v * 8 + i % 8) * WARP + l];
    }
}

template <class T, int VECTORS, bool BLOCK>
DEVICE void rmsnorm_bwd_sized(T *dx, float *part, const T *dy, const T *x, const float *w, const float *rstd, const T *dres, int n,
                              int h, float offset, float *shared) {
    Eight dweight[VECTORS] = {};
    int warps = blockDim.x / WARP;
    if (BLOCK) {
        Walk walk = {(int)blockIdx.x, (int)gridDim.x};
        rmsnorm_bwd_rows<T, VECTORS>(dx, dweight, dy, x, w, rstd, dres, n, h, offset, walk, threadIdx.x, blockDim.x, shared);
        if (!part) return;
        for (int v = 0; v < VECTORS; ++v) {
            int i = (v * blockDim.x + threadIdx.x) * 8;
            if (i < h) store8(part + (i64)blockIdx.x * h + i, dweight[v]);
        }
    } else {
        Walk walk = {(int)(blockIdx.x * warps + threadIdx.x / WARP), (int)(gridDim.x * warps)};
        rmsnorm_bwd_rows<T, VECTORS>(dx, dweight, dy, x, w, rstd, dres, n, h, offset, walk, threadIdx.x % WARP, WARP, nullptr);
        if (part) write_warps_partial<VECTORS>(part, dweight, h, shared);
    }
}

// dx = dres + the norm's backward pass of dy (dres may be null, or dx, or dx dy);  dw_part[blocks, h], where given, gets each
// block's sums for the weight's gradient: colsum_f32 adds them up.  x is what was normed (`sum`), rstd the forward pass's.
// grid: any number of blocks (528 is good), block = h <= 8192 ? 256 : 512, h <= 16384.
template <class T>
DEVICE void rmsnorm_bwd(T *dx, float *part, const T *dy, const T *x, const float *w, const float *rstd, const T *dres, int n,
                        int h, float offset) {
    __shared__ float shared[1024];
    if (h <= 512)
        rmsnorm_bwd_sized<T, 2, false>(dx, part, dy, x, w, rstd, dres, n, h, offset, shared);
    else if (h <= 1024)
        rmsnorm_bwd_sized<T, 4, false>(dx, part, dy, x, w, rstd, dres, n, h, offset, shared);
    else if (h <= 4096)
        rmsnorm_bwd_sized<T, 2, true>(dx, part, dy, x, w, rstd, dres, n, h, offset, shared);
    else
        rmsnorm_bwd_sized<T, 4, true>(dx, part, dy, x, w, rstd, dres, n, h, offset, shared);
}

// out[h] += the columns' sums of part[rows, h]: 8 workers a column, added in order.  grid ceil(h / 32), block (32, 8).
extern "C" __global__ void colsum_f32(float *out, const float *part, int rows, int h) {
    __shared__ float parts[8][WARP];
    int column = blockIdx.x * WARP + threadIdx.x;
    float sum = 0.0f;
    if (column < h)
        for (int row = threadIdx.y; row < rows; row += 8) sum += part[(i64)row * h + column];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < h) {
        for (int i = 1; i < 8; ++i) sum += parts[i][threadIdx.x];
        out[column] += sum;
    }
}

// ---------------------------------------------------------------------------------------------------------------------- rope

// How a warp shares out heads: `lanes` lanes a head (a power of two >= d / 8), each with 4 numbers of the first half and the 4
// that turn with them.
struct HeadLane {
    int lanes, heads_at_once, slot, place;
    bool live;
};

DEVICE HeadLane head_lane(int d) {
    HeadLane l;
    l.lanes = 1;
    while (l.lanes < d / 8) l.lanes *= 2;
    int lane = threadIdx.x % WARP;
    l.heads_at_once = WARP / l.lanes;
    l.slot = lane / l.lanes;
    l.place = lane % l.lanes * 4;
    l.live = l.place < d / 2;
    return l;
}

// Packed heads [n, heads + 2 kv, d], queries first, then keys, then values. Of each token i: q and k heads are normed where wq and
// wk [d] are given (rstd[n, heads + kv] written where given), then turned by the angles of pos[i]
// (cos, sin: [positions, d / 2]; the first half of a head turns with the second); v is copied. out may be in; then v is not touched.
// Where kcache is given, turned keys and values go to cache row row[i] of kcache and vcache [rows, kv, d].
// grid n, block 128.
template <class T>
DEVICE void qk_rope_fwd(T *out, const T *in, const float *cos, const float *sin, const int *pos, const float *wq, const float *wk,
                        float *rstd, T *kcache, T *vcache, const int *row, int heads, int kv, int d, float eps, float offset) {
    HeadLane l = head_lane(d);
    i64 token = blockIdx.x;
    int total = heads + 2 * kv, half = d / 2, stride = blockDim.x / WARP * l.heads_at_once;
    i64 base = token * total * d, angle = (i64)pos[token] * half + l.place;
    Four c = {}, s = {};
    if (l.live) {
        c = load4(cos + angle);
        s = load4(sin + angle);
    }
    int rounds = (total + stride - 1) / stride;
    for (int turn = 0; turn < rounds; ++turn) {
        int head = turn * stride + threadIdx.x / WARP * l.heads_at_once + l.slot;
        bool live = l.live && head < total, value = head >= heads + kv;
        bool needed = live && !(value && !kcache && out == in);
        const T *from = in + base + (i64)head * d + l.place;
        Four a = {}, b = {};
        if (needed) {
            a = load4(from);
            b = load4(from + half);
        }
        if (wq) {
            float squares = 0.0f;
            for (int j = 0; j < 4; ++j) squares += a.v[j] * a.v[j] + b.v[j] * b.v[j];
            float scale = rsqrtf(sum_lanes(squares, l.lanes) / d + eps);
            if (live && !value) {
                const float *w = head < heads ? wq : wk;
                for (int j = 0; j < 4; ++j) {
                    a.v[j] *= scale * (offset + w[l.place + j]);
                    b.v[j] *= scale * (offset + w[l.place + half + j]);
                }
                if (rstd && l.place == 0) rstd[token * (heads + kv) + head] = scale;
            }
        }
        if (!needed) continue;
        if (!value)
            for (int j = 0; j < 4; ++j) {
                float first = a.v[j], second = b.v[j];
                a.v[j] = first * c.v[j] - second * s.v[j];
                b.v[j] = second * c.v[j] + first * s.v[j];
            }
        if (!value || out != in) {
            store4(out + base + (i64)head * d + l.place, a);
            store4(out + base + (i64)head * d + l.place + half, b);
        }
        if (kcache && head >= heads) {
            T *to = (value ? vcache + ((i64)row[token] * kv + head - heads - kv) * d
                           : kcache + ((i64)row[token] * kv + head - heads) * d) + l.place;
            store4(to, a);
            store4(to + half, b);
        }
    }
}

// One head's weight gradient, shared out as HeadLane says, into the block's row of partial sums: the block's lanes in order.
DEVICE void write_head_partial(float *part, const float *dw, HeadLane l, int d, float *shared) {
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x) shared[i] = 0.0f;
    for (int warp = 0; warp < blockDim.x / WARP; ++warp)
        for (int slot = 0; slot < l.heads_at_once; ++slot) {
            __syncthreads();
            if (threadIdx.x / WARP == warp && l.slot == slot && l.live)
                for (int j = 0; j < 4; ++j) {
                    shared[l.place + j] += dw[j];
                    shared[l.place + d / 2 + j] += dw[4 + j];
                }
        }
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x) part[(i64)blockIdx.x * d + i] = shared[i];
}

// The backward pass: din from dout, both packed as above (din may be dout; then v is not touched). With wq and wk: `in` is the
// forward pass's input and rstd its statistics, and dwq_part, dwk_part [blocks, d] get the blocks' sums of the weights' gradients.
// grid: any number of blocks (528 is good), block 128.
template <class T>
DEVICE void qk_rope_bwd(T *din, const T *dout, const T *in, const float *cos, const float *sin, const int *pos, const float *wq,
                        const float *wk, const float *rstd, float *dwq_part, float *dwk_part, int n, int heads, int kv, int d,
                        float offset) {
    __shared__ float shared[256];
    HeadLane l = head_lane(d);
    int total = heads + 2 * kv, half = d / 2, stride = blockDim.x / WARP * l.heads_at_once;
    int rounds = (total + stride - 1) / stride;
    float dwq[8] = {}, dwk[8] = {};
    for (i64 token = blockIdx.x; token < n; token += gridDim.x) {
        i64 base = token * total * d, angle = (i64)pos[token] * half + l.place;
        Four c = {}, s = {};
        if (l.live) {
            c = load4(cos + angle);
            s = load4(sin + angle);
        }
        for (int turn = 0; turn < rounds; ++turn) {
            int head = turn * stride + threadIdx.x / WARP * l.heads_at_once + l.slot;
            bool live = l.live && head < total, value = head >= heads + kv;
            bool needed = live && !(value && din == dout);
            i64 place = base + (i64)head * d + l.place;
            Four a = {}, b = {};
            if (needed) {
                a = load4(dout + place);
                b = load4(dout + place + half);
            }
            if (!value)
                for (int j = 0; j < 4; ++j) {
                    float first = a.v[j], second = b.v[j];
                    a.v[j] = first * c.v[j] + second * s.v[j];
                    b.v[j] = second * c.v[j] - first * s.v[j];
                }
            if (wq) {
                Four x = {}, y = {};
                float dot = 0.0f, scale = 0.0f;
                if (live && !value) {
                    const float *w = head < heads ? wq : wk;
                    x = load4(in + place);
                    y = load4(in + place + half);
                    scale = rstd[token * (heads + kv) + head];
                    for (int j = 0; j < 4; ++j) {
                        x.v[j] *= scale;
                        y.v[j] *= scale;
                        // Both lists are indexed by constants, so that they stay in registers.
                        float first = a.v[j] * x.v[j], second = b.v[j] * y.v[j];
                        dwq[j] += head < heads ? first : 0.0f;
                        dwq[4 + j] += head < heads ? second : 0.0f;
                        dwk[j] += head < heads ? 0.0f : first;
                        dwk[4 + j] += head < heads ? 0.0f : second;
                        a.v[j] *= offset + w[l.place + j];
                        b.v[j] *= offset + w[l.place + half + j];
                        dot += a.v[j] * x.v[j] + b.v[j] * y.v[j];
                    }
                }
                dot = sum_lanes(dot, l.lanes) / d;
                if (live && !value)
                    for (int j = 0; j < 4; ++j) {
                        a.v[j] = scale * (a.v[j] - x.v[j] * dot);
                        b.v[j] = scale * (b.v[j] - y.v[j] * dot);
                    }
            }
            if (!needed) continue;
            store4(din + place, a);
            store4(din + place + half, b);
        }
    }
    if (dwq_part) write_head_partial(dwq_part, dwq, l, d, shared);
    if (dwk_part) write_head_partial(dwk_part, dwk, l, d, shared);
}

// ---------------------------------------------------------------------------------------------------------------------- gate

// The activation and its slope at x: kind 0 SiLU, 1 GELU by its tanh approximation.
DEVICE float activate(float x, int kind, float *slope) {
    if (kind == 0) {
        float sigmoid = reciprocal(1.0f + exp_fast(-x));
        *slope = sigmoid * (1.0f + x * (1.0f - sigmoid));
        return x * sigmoid;
    }
    float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    float t = 1.0f - 2.0f * reciprocal(1.0f + exp_fast(2.0f * inner)); // tanh
    *slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608028654f * (1.0f + 0.134145f * x * x);
    return 0.5f * x * (1.0f + t);
}

// out[n, m] = activation(gate) * up, of gu[n, 2 m], gate first in each row.  grid ceil(n * m / 8 / 256), block 256.
template <class T> DEVICE void gate_fwd(T *out, const T *gu, int n, int m, int kind) {
    i64 vector = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    int width = m / 8;
    if (vector >= (i64)n * width) return;
    i64 row = vector / width;
    int column = (int)(vector - row * width) * 8;
    const T *from = gu + row * 2 * m + column;
    Eight gate = load8(from), up = load8(from + m);
    float slope;
    for (int j = 0; j < 8; ++j) up.v[j] *= activate(gate.v[j], kind, &slope);
    store8(out + row * m + column, up);
}

// dgu (may be gu) from dout; the forward pass's result again in `out`, where given (it may be dout).  Grid as gate_fwd.
template <class T> DEVICE void gate_bwd(T *dgu, T *out, const T *dout, const T *gu, int n, int m, int kind) {
    i64 vector = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    int width = m / 8;
    if (vector >= (i64)n * width) return;
    i64 row = vector / width;
    int column = (int)(vector - row * width) * 8;
    i64 place = row * 2 * m + column;
    Eight gate = load8(gu + place), up = load8(gu + place + m), d = load8(dout + row * m + column), product;
    for (int j = 0; j < 8; ++j) {
        float slope, active = activate(gate.v[j], kind, &slope);
        product.v[j] = active * up.v[j];
        gate.v[j] = d.v[j] * up.v[j] * slope;
        up.v[j] = d.v[j] * active;
    }
    store8(dgu + place, gate);
    store8(dgu + place + m, up);
    if (out) store8(out + row * m + column, product);
}

// ------------------------------------------------------------------------------------------------------- rows and elements

// out[i, h] = in[idx[i], h].  grid m, block 128.
template <class T> DEVICE void gather_rows(T *out, const T *in, const int *idx, int h) {
    const T *from = in + (i64)idx[blockIdx.x] * h;
    for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8) store8(out + (i64)blockIdx.x * h + i, load8(from + i));
}

// out[idx[i], h] = in[i, h]; rows that idx does not name stay.  grid m, block 128.
template <class T> DEVICE void scatter_rows(T *out, const T *in, const int *idx, int h) {
    T *to = out + (i64)idx[blockIdx.x] * h;
    for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8) store8(to + i, load8(in + (i64)blockIdx.x * h + i));
}

// out[i, h] = s[i] * in[i, h] (out may be in).  grid m, block 128.
template <class T> DEVICE void scale_rows(T *out, const T *in, const float *s, int h) {
    float by = s[blockIdx.x];
    for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8) {
        Eight x = load8(in + (i64)blockIdx.x * h + i);
        for (int j = 0; j < 8; ++j) x.v[j] *= by;
        store8(out + (i64)blockIdx.x * h + i, x);
    }
}

// y[n, m] += b[m].  grid ceil(n * m / 8 / 256), block 256.
template <class T> DEVICE void bias_add(T *y, const float *b, int n, int m) {
    i64 vector = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (vector >= (i64)n * (m / 8)) return;
    Eight x = load8(y + vector * 8), bias = load8(b + vector % (m / 8) * 8);
    for (int j = 0; j < 8; ++j) x.v[j] += bias.v[j];
    store8(y + vector * 8, x);
}

// part[blocks, m] = each block's sums of columns of dy[n, m], for colsum_f32.  grid (blocks, ceil(m / 256)), block (32, 8):
// block b of a column takes rows [b, b + 1) * ceil(n / blocks).
template <class T> DEVICE void bias_bwd(float *part, const T *dy, int n, int m) {
    __shared__ float parts[8][WARP * 8 + 8];
    int column = blockIdx.y * 256 + threadIdx.x * 8, worker = threadIdx.y;
    int share = (n + gridDim.x - 1) / gridDim.x, first = blockIdx.x * share, end = first + share < n ? first + share : n;
    float sum[8] = {};
    if (column < m)
        for (int row = first + worker; row < end; row += 8) {
            Eight x = load8(dy + (i64)row * m + column);
            for (int j = 0; j < 8; ++j) sum[j] += x.v[j];
        }
    for (int j = 0; j < 8; ++j) parts[worker][threadIdx.x * 8 + j] = sum[j];
    __syncthreads();
    int mine = worker * WARP + threadIdx.x;
    if (blockIdx.y * 256 + mine < m) {
        float total = 0.0f;
        for (int i = 0; i < 8; ++i) total += parts[i][mine];
        part[(i64)blockIdx.x * m + blockIdx.y * 256 + mine] = total;
    }
}

// out = in * keep / (1 - p) or, with ADD, out += that; keep is drawn from (seed, element).  out may be in.  count: a multiple of 8.
// grid ceil(count / 8 / 256), block 256.
template <class T, bool ADD> DEVICE void dropout(T *out, const T *in, i64 count, float p, u64 seed) {
    i64 vector = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (vector * 8 >= count) return;
    uint4 a = philox(seed, 0, vector * 2), b = philox(seed, 0, vector * 2 + 1);
    u32 draws[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    Eight x = load8(in + vector * 8), sum = {};
    if (ADD) sum = load8(out + vector * 8);
    float scale = 1.0f / (1.0f - p);
    for (int j = 0; j < 8; ++j) sum.v[j] += unit(draws[j]) >= p ? x.v[j] * scale : 0.0f;
    store8(out + vector * 8, sum);
}

// out = a + b (out may be either).  count: any.  grid ceil(count / 8 / 256), block 256.
template <class T> DEVICE void add(T *out, const T *a, const T *b, i64 count) {
    i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= count) {
        Eight x = load8(a + first), y = load8(b + first);
        for (int j = 0; j < 8; ++j) x.v[j] += y.v[j];
        store8(out + first, x);
    } else {
        for (i64 i = first; i < count; ++i) out[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
    }
}

template <class To, class From> DEVICE void cast(To *out, const From *in, i64 count) {
    i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= count) {
        store8(out + first, load8(in + first));
    } else {
        for (i64 i = first; i < count; ++i) out[i] = from_float<To>(to_float(in[i]));
    }
}

// out[columns, rows] = in[rows, columns] transposed.  grid (ceil(columns / 32), ceil(rows / 32)), block (32, 8).  Any sizes.
template <class T> DEVICE void transpose(T *out, const T *in, int rows, int columns) {
    __shared__ T tile[WARP][WARP + 2];
    int column = blockIdx.x * WARP + threadIdx.x;
    for (int i = threadIdx.y; i < WARP; i += 8) {
        int row = blockIdx.y * WARP + i;
        if (row < rows && column < columns) tile[i][threadIdx.x] = in[(i64)row * columns + column];
    }
    __syncthreads();
    int row = blockIdx.y * WARP + threadIdx.x;
    for (int i = threadIdx.y; i < WARP; i += 8) {
        int to = blockIdx.x * WARP + i;
        if (to < columns && row < rows) out[(i64)to * rows + row] = tile[threadIdx.x][i];
    }
}

#define KERNEL extern "C" __global__ void

#define ROW_KERNELS(T, SUFFIX)                                                                                                 \
    KERNEL embed_fwd##SUFFIX(T *out, const T *table, const int *ids, int n, int h, float scale) {                              \
        embed_fwd<T>(out, table, ids, n, h, scale);                                                                            \
    }                                                                                                                          \
    KERNEL __launch_bounds__(256) embed_bwd##SUFFIX(float *dtable, const T *dx, const int *order, const int *starts,           \
                                                    const int *which, int u, int h, float scale) {                             \
        embed_bwd<T>(dtable, dx, order, starts, which, h, scale);                                                              \
    }                                                                                                                          \
    KERNEL __launch_bounds__(512) rmsnorm_fwd##SUFFIX(T *y, float *rstd, T *sum, const T *x, const T *r, const float *w,       \
                                                      int n, int h, float eps, float offset) {                                 \
        rmsnorm_fwd<T>(y, rstd, sum, x, r, w, n, h, eps, offset);                                                              \
    }                                                                                                                          \
    KERNEL __launch_bounds__(512) rmsnorm_bwd##SUFFIX(T *dx, float *dw_part, const T *dy, const T *x, const float *w,          \
                                                      const float *rstd, const T *dres, int n, int h, float offset) {          \
        rmsnorm_bwd<T>(dx, dw_part, dy, x, w, rstd, dres, n, h, offset);                                                       \
    }                                                                                                                          \
    KERNEL __launch_bounds__(128) qk_rope_fwd##SUFFIX(T *out, const T *in, const float *cos, const float *sin, const int *pos, \
                                                      const float *wq, const float *wk, float *rstd, T *kcache, T *vcache,     \
                                                      const int *row, int n, int heads, int kv, int d, float eps,              \
                                                      float offset) {                                                          \
        qk_rope_fwd<T>(out, in, cos, sin, pos, wq, wk, rstd, kcache, vcache, row, heads, kv, d, eps, offset);                  \
    }                                                                                                                          \
    KERNEL __launch_bounds__(128) qk_rope_bwd##SUFFIX(T *din, const T *dout, const T *in, const float *cos, const float *sin,  \
                                                      const int *pos, const float *wq, const float *wk, const float *rstd,     \
                                                      float *dwq_part, float *dwk_part, int n, int heads, int kv, int d,       \
                                                      float offset) {                                                          \
        qk_rope_bwd<T>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset);               \
    }                                                                                                                          \
    KERNEL gate_fwd##SUFFIX(T *out, const T *gu, int n, int m, int kind) { gate_fwd<T>(out, gu, n, m, kind); }                 \
    KERNEL gate_bwd##SUFFIX(T *dgu, T *out, const T *dout, const T *gu, int n, int m, int kind) {                              \
        gate_bwd<T>(dgu, out, dout, gu, n, m, kind);                                                                           \
    }                                                                                                                          \
    KERNEL gather_rows##SUFFIX(T *out, const T *in, const int *idx, int m, int h) { gather_rows<T>(out, in, idx, h); }         \
    KERNEL scatter_rows##SUFFIX(T *out, const T *in, const int *idx, int m, int h) { scatter_rows<T>(out, in, idx, h); }       \
    KERNEL scale_rows##SUFFIX(T *out, const T *in, const float *s, int m, int h) { scale_rows<T>(out, in, s, h); }             \
    KERNEL bias_add##SUFFIX(T *y, const float *b, int n, int m) { bias_add<T>(y, b, n, m); }                                   \
    KERNEL bias_bwd##SUFFIX(float *part, const T *dy, int n, int m) { bias_bwd<T>(part, dy, n, m); }                           \
    KERNEL dropout##SUFFIX(T *out, const T *in, i64 count, float p, u64 seed) {                                                \
        dropout<T, false>(out, in, count, p, seed);                                                                            \
    }                                                                                                                          \
    KERNEL dropout_add##SUFFIX(T *out, const T *in, i64 count, float p, u64 seed) {                                            \
        dropout<T, true>(out, in, count, p, seed);                                                                             \
    }                                                                                                                          \
    KERNEL add##SUFFIX(T *out, const T *a, const T *b, i64 count) { add<T>(out, a, b, count); }                                \
    KERNEL transpose##SUFFIX(T *out, const T *in, int rows, int columns) { transpose<T>(out, in, rows, columns); }

ROW_KERNELS(bf16, _bf16)
ROW_KERNELS(float, _f32)

// out = in, rounded to nearest even where it becomes bf16.  count: any.  grid ceil(count / 8 / 256), block 256.
KERNEL cast_bf16_f32(float *out, const bf16 *in, i64 count) { cast<float, bf16>(out, in, count); }
KERNEL cast_f32_bf16(bf16 *out, const float *in, i64 count) { cast<bf16, float>(out, in, count); }
