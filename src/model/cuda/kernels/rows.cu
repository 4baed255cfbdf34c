// Work on rows of activations between matrix products: all bound by memory, so each reads and writes everything once.
//
// Every kernel exists as NAME_bf16 and NAME_f32. `n` rows (tokens); widths are multiples of 8 (heads too: multiples of 8, <= 256).
// Sums are taken in a fixed order: the same input gives the same bits, and a row's result depends on that row alone.

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

#define ROW_KERNELS(T, SUFFIX)                                                                                           \
    KERNEL embed_fwd##SUFFIX(T *out, const T *table, const int *ids, int n, int h, float scale) {                        \
        embed_fwd<T>(out, table, ids, n, h, scale);                                                                      \
    }                                                                                                                    \
    KERNEL __launch_bounds__(256) embed_bwd##SUFFIX(float *dtable, const T *dx, const int *order, const int *starts,     \
                                                    const int *which, int u, int h, float scale) {                       \
        embed_bwd<T>(dtable, dx, order, starts, which, h, scale);                                                        \
    }                                                                                                                    \
    KERNEL gate_fwd##SUFFIX(T *out, const T *gu, int n, int m, int kind) { gate_fwd<T>(out, gu, n, m, kind); }           \
    KERNEL gate_bwd##SUFFIX(T *dgu, T *out, const T *dout, const T *gu, int n, int m, int kind) {                        \
        gate_bwd<T>(dgu, out, dout, gu, n, m, kind);                                                                     \
    }                                                                                                                    \
    KERNEL gather_rows##SUFFIX(T *out, const T *in, const int *idx, int m, int h) { gather_rows<T>(out, in, idx, h); }   \
    KERNEL scatter_rows##SUFFIX(T *out, const T *in, const int *idx, int m, int h) { scatter_rows<T>(out, in, idx, h); } \
    KERNEL scale_rows##SUFFIX(T *out, const T *in, const float *s, int m, int h) { scale_rows<T>(out, in, s, h); }       \
    KERNEL bias_add##SUFFIX(T *y, const float *b, int n, int m) { bias_add<T>(y, b, n, m); }                             \
    KERNEL bias_bwd##SUFFIX(float *part, const T *dy, int n, int m) { bias_bwd<T>(part, dy, n, m); }                     \
    KERNEL dropout##SUFFIX(T *out, const T *in, i64 count, float p, u64 seed) {                                          \
        dropout<T, false>(out, in, count, p, seed);                                                                      \
    }                                                                                                                    \
    KERNEL dropout_add##SUFFIX(T *out, const T *in, i64 count, float p, u64 seed) {                                      \
        dropout<T, true>(out, in, count, p, seed);                                                                       \
    }                                                                                                                    \
    KERNEL add##SUFFIX(T *out, const T *a, const T *b, i64 count) { add<T>(out, a, b, count); }                          \
    KERNEL transpose##SUFFIX(T *out, const T *in, int rows, int columns) { transpose<T>(out, in, rows, columns); }

ROW_KERNELS(bf16, _bf16)
ROW_KERNELS(float, _f32)

// out = in, rounded to nearest even where it becomes bf16.  count: any.  grid ceil(count / 8 / 256), block 256.
KERNEL cast_bf16_f32(float *out, const bf16 *in, i64 count) { cast<float, bf16>(out, in, count); }
KERNEL cast_f32_bf16(bf16 *out, const float *in, i64 count) { cast<bf16, float>(out, in, count); }
