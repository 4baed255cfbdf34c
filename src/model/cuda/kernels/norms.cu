// The root mean square norm with the residual stream's sum before it, forward and backward.
//
// Every kernel exists as NAME_bf16 and NAME_f32. `n` rows (tokens) of `h` numbers, h a multiple of 8. Everything is read and written
// once; sums are taken in a fixed order, and a row's result depends on that row alone.

// The range of rows that a block of `workers` rows at once walks: rows first, first + step, ...
struct Walk {
    int first, step;
};

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
        Eight values[VECTORS], slopes[VECTORS], more[VECTORS];
        float dot = 0.0f, scale = rstd[row];
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int i = (v * threads + thread) * 8;
            if (i >= h) continue;
            values[v] = load8(x + base + i);
            slopes[v] = load8(dy + base + i);
            // Early, to be in flight with the others, where registers allow that.
            if (VECTORS <= 2) more[v] = dres ? load8(dres + base + i) : Eight{};
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
            if (VECTORS > 2) more[v] = dres ? load8(dres + base + i) : Eight{};
            for (int j = 0; j < 8; ++j) out.v[j] += more[v].v[j];
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

#define NORM_KERNELS(T, SUFFIX)                                                                                          \
    KERNEL __launch_bounds__(512) rmsnorm_fwd##SUFFIX(T *y, float *rstd, T *sum, const T *x, const T *r, const float *w, \
                                                      int n, int h, float eps, float offset) {                           \
        rmsnorm_fwd<T>(y, rstd, sum, x, r, w, n, h, eps, offset);                                                        \
    }                                                                                                                    \
    KERNEL __launch_bounds__(512) rmsnorm_bwd##SUFFIX(T *dx, float *dw_part, const T *dy, const T *x, const float *w,    \
                                                      const float *rstd, const T *dres, int n, int h, float offset) {    \
        rmsnorm_bwd<T>(dx, dw_part, dy, x, w, rstd, dres, n, h, offset);                                                 \
    }

NORM_KERNELS(bf16, _bf16)
NORM_KERNELS(float, _f32)
