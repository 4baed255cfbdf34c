// Attention over whole sequences, forward and backward, without ever storing scores (Dao 2023, "FlashAttention-2").
//
// Compiled with -DHEAD=d (a multiple of 16, at most 256) and -DBF16=1 (bf16) or 0 (float, products in tf32); names end in the type
// and d: attend_fwd_bf16_64. Scores, softmax and sums are in float.
//
// Tokens of several sequences lie one after another; seqs[s] = {first query row, queries, first key row, keys}. The last query of
// a sequence stands at its last key: query i sees the keys j <= i + keys - queries and, with a window, only the last `window` of
// them (0: no window). keys >= queries. q, k, v, o point at their first head; *_stride is the distance of two tokens in numbers,
// a multiple of 8; head h lies at h * HEAD. Query head h reads key head h / (heads / kv).
// lse, delta: [heads, n], n being the number of query rows in all.
//
// grid (ceil(longest / rows), heads or kv, sequences); rows a block, threads and dynamic shared memory stand in attend_launch.
// Nothing depends on the order in which blocks run: the same input gives the same bits, whatever else is in the batch.

// Shapes, by registers and shared memory. MI: groups of 16 rows of a warp. The rows of a block are 16 * MI * WARPS.
#ifndef FWD_MI
#define FWD_MI (HEAD <= 128 && (BF16 || HEAD <= 64) ? 2 : 1)
#define FWD_WARPS 4
#define FWD_KEYS (BF16 && HEAD <= 64 ? 64 : 32)
#endif
#ifndef DQ_MI
#define DQ_MI (HEAD <= 64 ? 2 : 1)
#define DQ_WARPS (HEAD <= 64 || HEAD > 128 || !BF16 ? 4 : 8)
#define DQ_KEYS (BF16 || HEAD <= 128 ? 32 : 16)
#endif
#ifndef DKV_MI
#define DKV_MI 1
#define DKV_WARPS (BF16 && HEAD <= 128 ? 8 : 4)
#define DKV_QUERIES (BF16 && HEAD <= 64 ? 64 : HEAD <= 128 ? 32 : 16)
#endif
#define FWD_ROWS (16 * FWD_MI * FWD_WARPS)
#define DQ_ROWS (16 * DQ_MI * DQ_WARPS)
#define DKV_ROWS (16 * DKV_MI * DKV_WARPS)

#define FWD_SHARED ((FWD_ROWS + 4 * FWD_KEYS) * STRIDE * (int)sizeof(T))
#define DQ_SHARED ((2 * DQ_ROWS + 4 * DQ_KEYS) * STRIDE * (int)sizeof(T))
#define DKV_SHARED ((2 * DKV_ROWS + 4 * DKV_QUERIES) * STRIDE * (int)sizeof(T) + 4 * DKV_QUERIES * (int)sizeof(float))

// {rows a block, threads, dynamic shared bytes} of attend_fwd, attend_dq and attend_dkv.
extern "C" __constant__ int attend_launch[9] = {FWD_ROWS, FWD_WARPS *WARP, FWD_SHARED, DQ_ROWS,   DQ_WARPS *WARP,
                                                DQ_SHARED, DKV_ROWS,       DKV_WARPS *WARP, DKV_SHARED};

// ----------------------------------------------------------------------------------------------------------------- forward

// Where scores must not count: keys that lie behind their query, or before its window. first_row is the position of the warp's first
// row, first_column that of the first column; rows are queries and columns keys, or the other way round.
template <bool QUERY_ROWS, int MI, int N> DEVICE void hide(Tile (&scores)[MI][N], int first_row, int first_column, int window) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int t = 0; t < N; ++t)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int row = first_row + m * 16 + lane / 4 + e / 2 * 8, column = first_column + t * 8 + lane % 4 * 2 + e % 2;
                int place = QUERY_ROWS ? row : column, key = QUERY_ROWS ? column : row;
                if (key > place || (window && key <= place - window)) scores[m][t][e] = NEGATIVE_INFINITY;
            }
}

// Turns a block's scores into weights relative to the rows' highest score so far, `top`, adds these to `sum`, and multiplies what was
// added up before, `sum` and `out`, to be relative to it too.
template <int MI, int N>
DEVICE void weigh(Tile (&scores)[MI][N], Tile (&out)[MI][TILES], float (&top)[MI][2], float (&sum)[MI][2], float unit) {
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float high = top[m][half];
#pragma unroll
            for (int t = 0; t < N; ++t) high = fmaxf(high, fmaxf(scores[m][t][2 * half], scores[m][t][2 * half + 1]));
            high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 1));
            high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 2));
            float base = high == NEGATIVE_INFINITY ? 0.0f : high * unit;
            float shrink = exp2_fast(top[m][half] * unit - base), total = 0.0f;
            top[m][half] = high;
#pragma unroll
            for (int t = 0; t < N; ++t)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float p = exp2_fast(scores[m][t][2 * half + e] * unit - base);
                    scores[m][t][2 * half + e] = p;
                    total += p;
                }
            sum[m][half] = sum[m][half] * shrink + total;
#pragma unroll
            for (int t = 0; t < TILES; ++t) out[m][t][2 * half] *= shrink, out[m][t][2 * half + 1] *= shrink;
        }
}

// o = softmax(scale * q k^T) v, and lse (where given), the logarithm of the sum of the exponentials of each row's scores.
KERNEL __launch_bounds__(FWD_WARPS *WARP) NAMED(attend_fwd, TYPE, HEAD)(T *o, float *lse, const T *q, const T *k, const T *v,
                                                                        int o_stride, int q_stride, int k_stride, int v_stride,
                                                                        const int4 *seqs, int heads, int kv, float scale,
                                                                        int window, int n) {
    constexpr int MI = FWD_MI, N = FWD_KEYS / 8, THREADS = FWD_WARPS * WARP;
    T *queries = reinterpret_cast<T *>(memory), *stages = queries + FWD_ROWS * STRIDE; // stages: keys, values, keys, values
    int4 seq = seqs[blockIdx.z];
    int first = (gridDim.x - 1 - blockIdx.x) * FWD_ROWS, head = blockIdx.y, key_head = head / (heads / kv);
    if (first >= seq.y) return;
    int shift = seq.w - seq.y, lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * MI;
    q += (i64)seq.x * q_stride + head * HEAD;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    o += (i64)seq.x * o_stride + head * HEAD;
    int begin = window ? max(0, first + shift - window + 1) / FWD_KEYS * FWD_KEYS : 0;
    int end = min(seq.w, first + FWD_ROWS + shift);

    fetch<FWD_ROWS, THREADS>(queries, q, q_stride, first, seq.y);
    fetch<FWD_KEYS, THREADS>(stages, k, k_stride, begin, seq.w);
    fetch<FWD_KEYS, THREADS>(stages + FWD_KEYS * STRIDE, v, v_stride, begin, seq.w);
    end_fetches();

    Tile out[MI][TILES] = {};
    float top[MI][2], sum[MI][2];
#pragma unroll
    for (int m = 0; m < MI; ++m)
        for (int half = 0; half < 2; ++half) top[m][half] = NEGATIVE_INFINITY, sum[m][half] = 0.0f;
    float unit = scale * LOG2E;
    int lowest = first + warp_row + shift, highest = lowest + 16 * MI - 1; // positions of the warp's queries
    for (int block = begin, stage = 0; block < end; block += FWD_KEYS, stage ^= 1) {
        wait_fetches<0>();
        __syncthreads();
        if (block + FWD_KEYS < end) {
            T *next = stages + (stage ^ 1) * 2 * FWD_KEYS * STRIDE;
            fetch<FWD_KEYS, THREADS>(next, k, k_stride, block + FWD_KEYS, seq.w);
            fetch<FWD_KEYS, THREADS>(next + FWD_KEYS * STRIDE, v, v_stride, block + FWD_KEYS, seq.w);
            end_fetches();
        }
        if (block > highest || (window && block + FWD_KEYS - 1 <= lowest - window)) continue; // nothing for this warp
        const T *keys = stages + stage * 2 * FWD_KEYS * STRIDE;
        Tile scores[MI][N];
        dot<MI, N>(scores, queries + warp_row * STRIDE, keys);
        if (block + FWD_KEYS - 1 > lowest || (window && block <= highest - window)) hide<true>(scores, lowest, block, window);
        weigh(scores, out, top, sum, unit);
        mix<MI, N>(out, scores, keys + FWD_KEYS * STRIDE);
    }
    float factor[MI][2];
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float total = sum_lanes(sum[m][half], 4);
            factor[m][half] = total > 0.0f ? 1.0f / total : 0.0f;
            int row = first + warp_row + m * 16 + half * 8 + lane / 4;
            if (lse && lane % 4 == 0 && row < seq.y) lse[(i64)head * n + seq.x + row] = top[m][half] * scale + logf(total);
        }
    write_rows<MI>(o, o_stride, first + warp_row, seq.y, out, factor, queries + warp_row * STRIDE);
}

// ---------------------------------------------------------------------------------------------------------------- backward

// delta[heads, n] = the sum of o * do_ over each head (strides as attend_fwd's).  grid ceil(n * heads / 32), block 256.
KERNEL __launch_bounds__(256) NAMED(attend_prep, TYPE, HEAD)(float *delta, const T *o, const T *do_, int o_stride, int do_stride,
                                                             int heads, int n) {
    i64 item = (i64)blockIdx.x * 32 + threadIdx.x / 8; // eight lanes a head
    i64 row = item / heads;
    int head = (int)(item - row * heads);
    float sum = 0.0f;
    if (row < n)
        for (int i = threadIdx.x % 8 * 8; i < HEAD; i += 64) {
            Eight a = load8(o + row * o_stride + head * HEAD + i), b = load8(do_ + row * do_stride + head * HEAD + i);
            for (int j = 0; j < 8; ++j) sum += a.v[j] * b.v[j];
        }
    sum = sum_lanes(sum, 8);
    if (row < n && threadIdx.x % 8 == 0) delta[(i64)head * n + row] = sum;
}

// dq from do_, lse and delta: dq lies as q does, do_ as o.
KERNEL __launch_bounds__(DQ_WARPS *WARP) NAMED(attend_dq, TYPE, HEAD)(T *dq, const T *do_, const float *lse, const float *delta,
                                                                      const T *q, const T *k, const T *v, int dq_stride,
                                                                      int do_stride, int q_stride, int k_stride, int v_stride,
                                                                      const int4 *seqs, int heads, int kv, float scale,
                                                                      int window, int n) {
    constexpr int MI = DQ_MI, N = DQ_KEYS / 8, THREADS = DQ_WARPS * WARP;
    T *queries = reinterpret_cast<T *>(memory), *slopes = queries + DQ_ROWS * STRIDE, *stages = slopes + DQ_ROWS * STRIDE;
    int4 seq = seqs[blockIdx.z];
    int first = (gridDim.x - 1 - blockIdx.x) * DQ_ROWS, head = blockIdx.y, key_head = head / (heads / kv);
    if (first >= seq.y) return;
    int shift = seq.w - seq.y, lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * MI;
    q += (i64)seq.x * q_stride + head * HEAD;
    do_ += (i64)seq.x * do_stride + head * HEAD;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    int begin = window ? max(0, first + shift - window + 1) / DQ_KEYS * DQ_KEYS : 0;
    int end = min(seq.w, first + DQ_ROWS + shift);

    fetch<DQ_ROWS, THREADS>(queries, q, q_stride, first, seq.y);
    fetch<DQ_ROWS, THREADS>(slopes, do_, do_stride, first, seq.y);
    fetch<DQ_KEYS, THREADS>(stages, k, k_stride, begin, seq.w);
    fetch<DQ_KEYS, THREADS>(stages + DQ_KEYS * STRIDE, v, v_stride, begin, seq.w);
    end_fetches();

    Tile out[MI][TILES] = {};
    float whole[MI][2], mean[MI][2], factor[MI][2], unit = scale * LOG2E;
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int row = first + warp_row + m * 16 + half * 8 + lane / 4;
            bool there = row < seq.y;
            whole[m][half] = there ? lse[(i64)head * n + seq.x + row] * LOG2E : 0.0f;
            mean[m][half] = there ? delta[(i64)head * n + seq.x + row] : 0.0f;
            factor[m][half] = scale;
        }
    int lowest = first + warp_row + shift, highest = lowest + 16 * MI - 1;
    for (int block = begin, stage = 0; block < end; block += DQ_KEYS, stage ^= 1) {
        wait_fetches<0>();
        __syncthreads();
        if (block + DQ_KEYS < end) {
            T *next = stages + (stage ^ 1) * 2 * DQ_KEYS * STRIDE;
            fetch<DQ_KEYS, THREADS>(next, k, k_stride, block + DQ_KEYS, seq.w);
            fetch<DQ_KEYS, THREADS>(next + DQ_KEYS * STRIDE, v, v_stride, block + DQ_KEYS, seq.w);
            end_fetches();
        }
        if (block > highest || (window && block + DQ_KEYS - 1 <= lowest - window)) continue;
        const T *keys = stages + stage * 2 * DQ_KEYS * STRIDE;
        Tile weights[MI][N], changes[MI][N];
        dot<MI, N>(weights, queries + warp_row * STRIDE, keys);
        dot<MI, N>(changes, slopes + warp_row * STRIDE, keys + DQ_KEYS * STRIDE);
        if (block + DQ_KEYS - 1 > lowest || (window && block <= highest - window)) hide<true>(weights, lowest, block, window);
#pragma unroll
        for (int m = 0; m < MI; ++m)
#pragma unroll
            for (int t = 0; t < N; ++t)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    weights[m][t][e] = exp2_fast(weights[m][t][e] * unit - whole[m][e / 2]) * (changes[m][t][e] - mean[m][e / 2]);
        mix<MI, N>(out, weights, keys);
    }
    write_rows<MI>(dq + (i64)seq.x * dq_stride + head * HEAD, dq_stride, first + warp_row, seq.y, out, factor,
                   queries + warp_row * STRIDE);
}

// One block of queries for a warp's keys: what it adds to dk / scale (with K) and dv (with V). statistics: the queries' lse, then
// their delta.
template <bool K, bool V>
DEVICE void keys_block(Tile (&out_k)[DKV_MI][TILES], Tile (&out_v)[DKV_MI][TILES], const T *keys, const T *values, const T *queries,
                       const T *slopes, const float *statistics, float unit, bool edge, int lowest, int block, int window) {
    constexpr int MI = DKV_MI, N = DKV_QUERIES / 8;
    const float *whole = statistics + threadIdx.x % 4 * 2, *mean = whole + DKV_QUERIES;
    Tile weights[MI][N];
    dot<MI, N>(weights, keys, queries);
    if (edge) hide<false>(weights, lowest, block, window);
#pragma unroll
    for (int t = 0; t < N; ++t) {
        float2 total = *reinterpret_cast<const float2 *>(whole + t * 8);
        total.x *= LOG2E, total.y *= LOG2E;
#pragma unroll
        for (int m = 0; m < MI; ++m)
#pragma unroll
            for (int e = 0; e < 4; ++e) weights[m][t][e] = exp2_fast(weights[m][t][e] * unit - (e % 2 ? total.y : total.x));
    }
    if (V) mix<MI, N>(out_v, weights, slopes);
    if (!K) return;
    Tile changes[MI][N];
    dot<MI, N>(changes, values, slopes);
#pragma unroll
    for (int t = 0; t < N; ++t) {
        float2 average = *reinterpret_cast<const float2 *>(mean + t * 8);
#pragma unroll
        for (int m = 0; m < MI; ++m)
#pragma unroll
            for (int e = 0; e < 4; ++e) weights[m][t][e] *= changes[m][t][e] - (e % 2 ? average.y : average.x);
    }
    mix<MI, N>(out_k, weights, queries);
}

// dk and dv of one block of keys; K and V say which of the two this block is for.
template <bool K, bool V>
DEVICE void keys_backward(T *dk, T *dv, const T *do_, const float *lse, const float *delta, const T *q, const T *k, const T *v,
                          int dk_stride, int dv_stride, int do_stride, int q_stride, int k_stride, int v_stride, int4 seq,
                          int first, int heads, int kv, float scale, int window, int n) {
    constexpr int MI = DKV_MI, THREADS = DKV_WARPS * WARP;
    T *keys = reinterpret_cast<T *>(memory), *values = keys + DKV_ROWS * STRIDE, *stages = values + DKV_ROWS * STRIDE;
    float *statistics = reinterpret_cast<float *>(stages + 4 * DKV_QUERIES * STRIDE); // lse, delta, lse, delta
    int key_head = blockIdx.y, group = heads / kv, shift = seq.w - seq.y;
    int warp_row = threadIdx.x / WARP * 16 * MI;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    // Queries that see any of the keys.
    int begin = max(0, first - shift) / DKV_QUERIES * DKV_QUERIES;
    int end = window ? min(seq.y, first + DKV_ROWS - 1 + window - shift) : seq.y;
    int blocks = end > begin ? (end - begin + DKV_QUERIES - 1) / DKV_QUERIES : 0, turns = blocks * group;

    int next_head = key_head * group, next_row = begin; // what is fetched next
    auto start = [&](int stage) {
        T *to = stages + stage * 2 * DKV_QUERIES * STRIDE;
        fetch<DKV_QUERIES, THREADS>(to, q + (i64)seq.x * q_stride + next_head * HEAD, q_stride, next_row, seq.y);
        fetch<DKV_QUERIES, THREADS>(to + DKV_QUERIES * STRIDE, do_ + (i64)seq.x * do_stride + next_head * HEAD, do_stride, next_row, seq.y);
        // Of a query that is not there q and do_ are zero, so that it adds nothing whatever its statistics say.
        static_assert(2 * DKV_QUERIES <= THREADS, "a number a thread");
        int i = threadIdx.x;
        if (i < 2 * DKV_QUERIES)
            fetch_float(statistics + stage * 2 * DKV_QUERIES + i, (i < DKV_QUERIES ? lse : delta) + (i64)next_head * n + seq.x,
                        next_row + i % DKV_QUERIES, seq.y);
        end_fetches();
        next_row += DKV_QUERIES;
        if (next_row >= begin + blocks * DKV_QUERIES) next_row = begin, ++next_head;
    };

    fetch<DKV_ROWS, THREADS>(keys, k, k_stride, first, seq.w);
    fetch<DKV_ROWS, THREADS>(values, v, v_stride, first, seq.w);
    if (turns > 0) start(0);
    Tile out_k[MI][TILES] = {}, out_v[MI][TILES] = {};
    float unit = scale * LOG2E;
    int lowest = first + warp_row, highest = lowest + 16 * MI - 1; // the warp's keys
    for (int turn = 0, stage = 0, row = begin; turn < turns; ++turn, stage ^= 1) {
        wait_fetches<0>();
        __syncthreads();
        int block = row + shift; // the first query's position
        row = row + DKV_QUERIES < begin + blocks * DKV_QUERIES ? row + DKV_QUERIES : begin;
        if (turn + 1 < turns) start(stage ^ 1);
        if (block + DKV_QUERIES - 1 < lowest || (window && highest <= block - window)) continue;
        const T *queries = stages + stage * 2 * DKV_QUERIES * STRIDE, *slopes = queries + DKV_QUERIES * STRIDE;
        bool edge = block < highest || (window && lowest <= block + DKV_QUERIES - 1 - window);
        keys_block<K, V>(out_k, out_v, keys + warp_row * STRIDE, values + warp_row * STRIDE, queries, slopes,
                         statistics + stage * 2 * DKV_QUERIES, unit, edge, lowest, block, window);
    }
    if (turns == 0) wait_fetches<0>();
    __syncthreads(); // keys and values may be overwritten from here on
    float by_scale[MI][2], by_one[MI][2];
#pragma unroll
    for (int m = 0; m < MI; ++m) by_scale[m][0] = by_scale[m][1] = scale, by_one[m][0] = by_one[m][1] = 1.0f;
    if (K)
        write_rows<MI>(dk + (i64)seq.z * dk_stride + key_head * HEAD, dk_stride, first + warp_row, seq.w, out_k, by_scale,
                       keys + warp_row * STRIDE);
    if (V)
        write_rows<MI>(dv + (i64)seq.z * dv_stride + key_head * HEAD, dv_stride, first + warp_row, seq.w, out_v, by_one,
                       values + warp_row * STRIDE);
}

// dk and dv, which lie as k and v do: sums over the queries that see a key and over the heads that share it, in a fixed order.
// grid (ceil(longest keys / rows) * (HEAD > 128 ? 2 : 1), kv, sequences): in wide heads a block makes one of the two.
KERNEL __launch_bounds__(DKV_WARPS *WARP) NAMED(attend_dkv, TYPE, HEAD)(T *dk, T *dv, const T *do_, const float *lse,
                                                                        const float *delta, const T *q, const T *k, const T *v,
                                                                        int dk_stride, int dv_stride, int do_stride, int q_stride,
                                                                        int k_stride, int v_stride, const int4 *seqs, int heads,
                                                                        int kv, float scale, int window, int n) {
    int4 seq = seqs[blockIdx.z];
#if HEAD > 128
    int first = blockIdx.x / 2 * DKV_ROWS;
    if (first >= seq.w) return;
    if (blockIdx.x % 2)
        keys_backward<true, false>(dk, dv, do_, lse, delta, q, k, v, dk_stride, dv_stride, do_stride, q_stride, k_stride, v_stride,
                                   seq, first, heads, kv, scale, window, n);
    else
        keys_backward<false, true>(dk, dv, do_, lse, delta, q, k, v, dk_stride, dv_stride, do_stride, q_stride, k_stride, v_stride,
                                   seq, first, heads, kv, scale, window, n);
#else
    int first = blockIdx.x * DKV_ROWS;
    if (first >= seq.w) return;
    keys_backward<true, true>(dk, dv, do_, lse, delta, q, k, v, dk_stride, dv_stride, do_stride, q_stride, k_stride, v_stride, seq,
                              first, heads, kv, scale, window, n);
#endif
}
