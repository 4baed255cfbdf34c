// Attention over whole sequences with the warpgroup instructions of Hopper: what attend.cu promises, for bf16 and heads of 64 or
// 128 numbers, on compute capability 9.0 alone (sm_90a). Functions, arguments, grids and attend_launch are those of attend.cu.

// Warpgroups a block, blocks that a multiprocessor should hold, keys fetched at once (64 or 128): what was fastest on an H200.
#ifndef FWD_GROUPS
#define FWD_GROUPS 2
#define FWD_BLOCKS 2
#define FWD_KEYS (HEAD == 64 ? 128 : 64)
#endif
#ifndef DQ_GROUPS
#define DQ_GROUPS (HEAD == 64 ? 2 : 3)
#define DQ_BLOCKS (HEAD == 64 ? 2 : 1)
#endif
#ifndef DKV_GROUPS
#define DKV_GROUPS 1
#define DKV_BLOCKS (HEAD == 64 ? 3 : 1)
#endif
#define FWD_ROWS (GROUP_ROWS * FWD_GROUPS)
#define DQ_ROWS (GROUP_ROWS * DQ_GROUPS)
#define DKV_ROWS (GROUP_ROWS * DKV_GROUPS)
#define NEXT_BLOCK (BLOCK * 128 >> 4) // from a block of a tile to the next, as descriptors count

#define TILE_BYTES(rows) ((rows) * HEAD * 2)
#define FWD_SHARED (ALIGNMENT + TILE_BYTES(FWD_ROWS + 4 * FWD_KEYS))
#define DQ_SHARED (ALIGNMENT + TILE_BYTES(2 * DQ_ROWS + 4 * BLOCK))
#define DKV_SHARED (ALIGNMENT + TILE_BYTES(2 * DKV_ROWS + 4 * BLOCK) + 4 * BLOCK * 4)

// {rows a block, threads, dynamic shared bytes} of attend_fwd, attend_dq and attend_dkv.
extern "C" __constant__ int attend_launch[9] = {FWD_ROWS, FWD_GROUPS *GROUP, FWD_SHARED, DQ_ROWS,   DQ_GROUPS *GROUP,
                                                DQ_SHARED, DKV_ROWS,         DKV_GROUPS *GROUP, DKV_SHARED};

// ----------------------------------------------------------------------------------------------------------------- forward

// Where scores must not count: keys that lie behind their query, or before its window. The result's first row is that of the thread,
// its first column that of the block; rows are queries (by position) and columns keys, or the other way round.
template <bool QUERY_ROWS> DEVICE void hide(Square &scores, int first_row, int first_column, int window) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        int row = first_row + i / 2 % 2 * 8, column = first_column + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        int place = QUERY_ROWS ? row : column, key = QUERY_ROWS ? column : row;
        if (key > place || (window && key <= place - window)) scores[i] = NEGATIVE_INFINITY;
    }
}

// Turns a block's scores into weights relative to the rows' highest score so far, `top`, and adds these to `sum`. What was
// added up before must be multiplied by `shrink`.
DEVICE void weigh(Square &scores, float (&top)[2], float (&sum)[2], float (&shrink)[2], float unit) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float high = top[half];
#pragma unroll
        for (int t = 0; t < 8; ++t) high = fmaxf(high, fmaxf(scores[4 * t + 2 * half], scores[4 * t + 2 * half + 1]));
        high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 1));
        high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 2));
        float base = high == NEGATIVE_INFINITY ? 0.0f : high * unit, total = 0.0f;
        shrink[half] = exp2_fast(top[half] * unit - base);
        top[half] = high;
#pragma unroll
        for (int t = 0; t < 8; ++t)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float p = exp2_fast(scores[4 * t + 2 * half + e] * unit - base);
                scores[4 * t + 2 * half + e] = p;
                total += p;
            }
        sum[half] = sum[half] * shrink[half] + total;
    }
}

// Always: to skip it where no score is higher cost more than it saved, 584 us instead of 511, for the branch keeps instructions apart.
DEVICE void shrink_rows(Square (&out)[STRIPES], const float (&shrink)[2]) {
#pragma unroll
    for (int s = 0; s < STRIPES; ++s)
#pragma unroll
        for (int i = 0; i < 32; ++i) out[s][i] *= shrink[i / 2 % 2];
}

// One block of keys and values for a warpgroup's queries: what it adds to `out`, with `top` and `sum` as weigh has them.
DEVICE void attend_block(Square (&out)[STRIPES], float (&top)[2], float (&sum)[2], u64 queries, u64 keys, u64 values, float unit,
                         bool edge, int place, int block, int window) {
    constexpr int STRIPE = FWD_KEYS * 128;
    Square scores;
    begin_products();
    dot(scores, queries, FWD_ROWS * 128, keys, STRIPE);
    end_products();
    wait_products<0>();
    settle(scores);
    if (edge) hide<true>(scores, place, block, window);
    float shrink[2];
    weigh(scores, top, sum, shrink, unit);
    shrink_rows(out, shrink);
    Left weights[4];
    as_left(weights, scores);
    begin_products();
    mix(out, weights, values, STRIPE);
    end_products();
    wait_products<0>();
    settle_all(out);
}

// As in attend.cu.
KERNEL __launch_bounds__(FWD_GROUPS *GROUP, FWD_BLOCKS) NAMED(attend_fwd, HEAD)(T *o, float *lse, const T *q, const T *k, const T *v,
                                                                                int o_stride, int q_stride, int k_stride,
                                                                                int v_stride, const int4 *seqs, int heads, int kv,
                                                                                float scale, int window, int n) {
    constexpr int THREADS = FWD_GROUPS * GROUP, STRIPE = FWD_KEYS * 128;
    T *queries = tiles(), *stages = queries + FWD_ROWS * HEAD; // stages: keys, values, keys, values
    int4 seq = seqs[blockIdx.z];
    int first = (gridDim.x - 1 - blockIdx.x) * FWD_ROWS, head = blockIdx.y, key_head = head / (heads / kv);
    if (first >= seq.y) return;
    int shift = seq.w - seq.y, lane = threadIdx.x % WARP;
    int group_row = __shfl_sync(ALL_LANES, threadIdx.x / GROUP, 0) * GROUP_ROWS, warp_row = threadIdx.x / WARP * 16;
    q += (i64)seq.x * q_stride + head * HEAD;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    int begin = window ? max(0, first + shift - window + 1) / BLOCK * BLOCK : 0;
    int end = min(seq.w, first + FWD_ROWS + shift);

    fetch<FWD_ROWS, THREADS>(queries, q, q_stride, first, seq.y);
    fetch<FWD_KEYS, THREADS>(stages, k, k_stride, begin, seq.w);
    fetch<FWD_KEYS, THREADS>(stages + FWD_KEYS * HEAD, v, v_stride, begin, seq.w);
    end_fetches();

    Square out[STRIPES] = {};
    float top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {0.0f, 0.0f}, unit = scale * LOG2E;
    int lowest = first + group_row + shift, highest = lowest + GROUP_ROWS - 1; // positions of the warpgroup's queries
    int place = first + warp_row + shift + lane / 4;                           // and of the thread's first one
    u64 own = describe(queries + group_row * 64, FWD_ROWS * 128);
    for (int start = begin, stage = 0; start < end; start += FWD_KEYS, stage ^= 1) {
        wait_fetches();
        __syncthreads();
        if (start + FWD_KEYS < end) {
            T *next = stages + (stage ^ 1) * 2 * FWD_KEYS * HEAD;
            fetch<FWD_KEYS, THREADS>(next, k, k_stride, start + FWD_KEYS, seq.w);
            fetch<FWD_KEYS, THREADS>(next + FWD_KEYS * HEAD, v, v_stride, start + FWD_KEYS, seq.w);
            end_fetches();
        }
        T *keys = stages + stage * 2 * FWD_KEYS * HEAD;
        u64 key_tile = describe(keys, STRIPE), value_tile = describe(keys + FWD_KEYS * HEAD, STRIPE);
#pragma unroll 1
        for (int sub = 0; sub < FWD_KEYS / BLOCK; ++sub) {
            int block = start + sub * BLOCK;
            if (block > highest || (window && block + BLOCK - 1 <= lowest - window)) continue; // nothing for this warpgroup
            bool edge = block + BLOCK - 1 > lowest || (window && block <= highest - window);
            attend_block(out, top, sum, own, key_tile + sub * NEXT_BLOCK, value_tile + sub * NEXT_BLOCK, unit, edge, place, block, window);
        }
    }
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float total = sum_lanes(sum[half], 4);
        factor[half] = total > 0.0f ? 1.0f / total : 0.0f;
        int row = first + warp_row + half * 8 + lane / 4;
        if (lse && lane % 4 == 0 && row < seq.y) lse[(i64)head * n + seq.x + row] = top[half] * scale + logf(total);
    }
    __syncthreads(); // queries may be overwritten
    write_rows<FWD_ROWS>(o + (i64)seq.x * o_stride + head * HEAD, o_stride, first + warp_row, seq.y, out, factor, queries, warp_row);
}

// ---------------------------------------------------------------------------------------------------------------- backward

// As in attend.cu.
KERNEL __launch_bounds__(256) NAMED(attend_prep, HEAD)(float *delta, const T *o, const T *do_, int o_stride, int do_stride, int heads,
                                                       int n) {
    i64 item = (i64)blockIdx.x * 32 + threadIdx.x / 8;
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

// One block of keys and values for a warpgroup's queries: what it adds to dq / scale.
DEVICE void queries_block(Square (&out)[STRIPES], u64 queries, u64 slopes, u64 keys, u64 values, const float (&whole)[2],
                          const float (&mean)[2], float unit, bool edge, int place, int block, int window) {
    constexpr int STRIPE = BLOCK * 128, OWN = DQ_ROWS * 128;
    Square weights, changes;
    begin_products();
    dot(weights, queries, OWN, keys, STRIPE);
    end_products();
    dot(changes, slopes, OWN, values, STRIPE);
    end_products();
    wait_products<1>();
    settle(weights);
    if (edge) hide<true>(weights, place, block, window);
#pragma unroll
    for (int i = 0; i < 32; ++i) weights[i] = exp2_fast(weights[i] * unit - whole[i / 2 % 2]);
    wait_products<0>();
    settle(changes);
#pragma unroll
    for (int i = 0; i < 32; ++i) weights[i] *= changes[i] - mean[i / 2 % 2];
    Left left[4];
    as_left(left, weights);
    begin_products();
    mix(out, left, keys, STRIPE);
    end_products();
    wait_products<0>();
    settle_all(out);
}

// As in attend.cu.
KERNEL __launch_bounds__(DQ_GROUPS *GROUP, DQ_BLOCKS) NAMED(attend_dq, HEAD)(T *dq, const T *do_, const float *lse, const float *delta,
                                                                             const T *q, const T *k, const T *v, int dq_stride,
                                                                             int do_stride, int q_stride, int k_stride,
                                                                             int v_stride, const int4 *seqs, int heads, int kv,
                                                                             float scale, int window, int n) {
    constexpr int THREADS = DQ_GROUPS * GROUP, STRIPE = BLOCK * 128, OWN = DQ_ROWS * 128;
    T *queries = tiles(), *slopes = queries + DQ_ROWS * HEAD, *stages = slopes + DQ_ROWS * HEAD;
    int4 seq = seqs[blockIdx.z];
    int first = (gridDim.x - 1 - blockIdx.x) * DQ_ROWS, head = blockIdx.y, key_head = head / (heads / kv);
    if (first >= seq.y) return;
    int shift = seq.w - seq.y, lane = threadIdx.x % WARP;
    int group_row = __shfl_sync(ALL_LANES, threadIdx.x / GROUP, 0) * GROUP_ROWS, warp_row = threadIdx.x / WARP * 16;
    q += (i64)seq.x * q_stride + head * HEAD;
    do_ += (i64)seq.x * do_stride + head * HEAD;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    int begin = window ? max(0, first + shift - window + 1) / BLOCK * BLOCK : 0;
    int end = min(seq.w, first + DQ_ROWS + shift);

    fetch<DQ_ROWS, THREADS>(queries, q, q_stride, first, seq.y);
    fetch<DQ_ROWS, THREADS>(slopes, do_, do_stride, first, seq.y);
    fetch<BLOCK, THREADS>(stages, k, k_stride, begin, seq.w);
    fetch<BLOCK, THREADS>(stages + BLOCK * HEAD, v, v_stride, begin, seq.w);
    end_fetches();

    Square out[STRIPES] = {};
    float whole[2], mean[2], factor[2] = {scale, scale}, unit = scale * LOG2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = first + warp_row + half * 8 + lane / 4;
        bool there = row < seq.y;
        whole[half] = there ? lse[(i64)head * n + seq.x + row] * LOG2E : 0.0f;
        mean[half] = there ? delta[(i64)head * n + seq.x + row] : 0.0f;
    }
    int lowest = first + group_row + shift, highest = lowest + GROUP_ROWS - 1, place = first + warp_row + shift + lane / 4;
    u64 own = describe(queries + group_row * 64, OWN), own_slopes = describe(slopes + group_row * 64, OWN);
    for (int block = begin, stage = 0; block < end; block += BLOCK, stage ^= 1) {
        wait_fetches();
        __syncthreads();
        if (block + BLOCK < end) {
            T *next = stages + (stage ^ 1) * 2 * BLOCK * HEAD;
            fetch<BLOCK, THREADS>(next, k, k_stride, block + BLOCK, seq.w);
            fetch<BLOCK, THREADS>(next + BLOCK * HEAD, v, v_stride, block + BLOCK, seq.w);
            end_fetches();
        }
        if (block > highest || (window && block + BLOCK - 1 <= lowest - window)) continue;
        T *keys = stages + stage * 2 * BLOCK * HEAD;
        bool edge = block + BLOCK - 1 > lowest || (window && block <= highest - window);
        queries_block(out, own, own_slopes, describe(keys, STRIPE), describe(keys + BLOCK * HEAD, STRIPE), whole, mean, unit, edge, place,
                      block, window);
    }
    __syncthreads();
    write_rows<DQ_ROWS>(dq + (i64)seq.x * dq_stride + head * HEAD, dq_stride, first + warp_row, seq.y, out, factor, queries, warp_row);
}

// One block of queries for a warpgroup's keys: what it adds to dk / scale and dv. statistics: the queries' lse, then their delta.
DEVICE void keys_block(Square (&out_k)[STRIPES], Square (&out_v)[STRIPES], u64 keys, u64 values, u64 queries, u64 slopes,
                       const float *statistics, float unit, bool edge, int mine, int block, int window) {
    constexpr int STRIPE = BLOCK * 128, OWN = DKV_ROWS * 128;
    const float *whole = statistics + threadIdx.x % 4 * 2, *mean = whole + BLOCK;
    Square weights, changes;
    begin_products();
    dot(weights, keys, OWN, queries, STRIPE);
    end_products();
    dot(changes, values, OWN, slopes, STRIPE);
    end_products();
    wait_products<1>();
    settle(weights);
    if (edge) hide<false>(weights, mine, block, window);
#pragma unroll
    for (int t = 0; t < 8; ++t) {
        float2 total = *reinterpret_cast<const float2 *>(whole + t * 8);
        total.x *= LOG2E, total.y *= LOG2E;
#pragma unroll
        for (int e = 0; e < 4; ++e) weights[4 * t + e] = exp2_fast(weights[4 * t + e] * unit - (e % 2 ? total.y : total.x));
    }
    Left left[4], slope_left[4];
    as_left(left, weights);
    wait_products<0>();
    settle(changes);
    begin_products();
    mix(out_v, left, slopes, STRIPE);
    end_products();
#pragma unroll
    for (int t = 0; t < 8; ++t) {
        float2 average = *reinterpret_cast<const float2 *>(mean + t * 8);
#pragma unroll
        for (int e = 0; e < 4; ++e) weights[4 * t + e] *= changes[4 * t + e] - (e % 2 ? average.y : average.x);
    }
    as_left(slope_left, weights);
    begin_products();
    mix(out_k, slope_left, queries, STRIPE);
    end_products();
    wait_products<0>();
    settle_all(out_k);
    settle_all(out_v);
}

// As in attend.cu.
KERNEL __launch_bounds__(DKV_GROUPS *GROUP, DKV_BLOCKS) NAMED(attend_dkv, HEAD)(T *dk, T *dv, const T *do_, const float *lse, const float *delta,
                                                                       const T *q, const T *k, const T *v, int dk_stride,
                                                                       int dv_stride, int do_stride, int q_stride, int k_stride,
                                                                       int v_stride, const int4 *seqs, int heads, int kv, float scale,
                                                                       int window, int n) {
    constexpr int THREADS = DKV_GROUPS * GROUP, STRIPE = BLOCK * 128, OWN = DKV_ROWS * 128;
    T *keys = tiles(), *values = keys + DKV_ROWS * HEAD, *stages = values + DKV_ROWS * HEAD;
    float *statistics = reinterpret_cast<float *>(stages + 4 * BLOCK * HEAD); // lse, delta, lse, delta
    int4 seq = seqs[blockIdx.z];
    int first = blockIdx.x * DKV_ROWS, key_head = blockIdx.y, group = heads / kv, shift = seq.w - seq.y;
    if (first >= seq.w) return;
    int lane = threadIdx.x % WARP, group_row = __shfl_sync(ALL_LANES, threadIdx.x / GROUP, 0) * GROUP_ROWS, warp_row = threadIdx.x / WARP * 16;
    k += (i64)seq.z * k_stride + key_head * HEAD;
    v += (i64)seq.z * v_stride + key_head * HEAD;
    // Queries that see any of the keys.
    int begin = max(0, first - shift) / BLOCK * BLOCK;
    int end = window ? min(seq.y, first + DKV_ROWS - 1 + window - shift) : seq.y;
    int blocks = end > begin ? (end - begin + BLOCK - 1) / BLOCK : 0, turns = blocks * group;

    int next_head = key_head * group, next_row = begin; // what is fetched next
    auto start = [&](int stage) {
        T *to = stages + stage * 2 * BLOCK * HEAD;
        fetch<BLOCK, THREADS>(to, q + (i64)seq.x * q_stride + next_head * HEAD, q_stride, next_row, seq.y);
        fetch<BLOCK, THREADS>(to + BLOCK * HEAD, do_ + (i64)seq.x * do_stride + next_head * HEAD, do_stride, next_row, seq.y);
        // Of a query that is not there q and do_ are zero, so that it adds nothing whatever its statistics say.
        int i = threadIdx.x;
        if (i < 2 * BLOCK)
            fetch_float(statistics + stage * 2 * BLOCK + i, (i < BLOCK ? lse : delta) + (i64)next_head * n + seq.x,
                        next_row + i % BLOCK, seq.y);
        end_fetches();
        next_row += BLOCK;
        if (next_row >= begin + blocks * BLOCK) next_row = begin, ++next_head;
    };

    fetch<DKV_ROWS, THREADS>(keys, k, k_stride, first, seq.w);
    fetch<DKV_ROWS, THREADS>(values, v, v_stride, first, seq.w);
    if (turns > 0) start(0);
    Square out_k[STRIPES] = {}, out_v[STRIPES] = {};
    float unit = scale * LOG2E;
    int lowest = first + group_row, highest = lowest + GROUP_ROWS - 1, mine = first + warp_row + lane / 4; // the warpgroup's keys
    u64 own = describe(keys + group_row * 64, OWN), own_values = describe(values + group_row * 64, OWN);
    for (int turn = 0, stage = 0, row = begin; turn < turns; ++turn, stage ^= 1) {
        wait_fetches();
        __syncthreads();
        int block = row + shift; // the first query's position
        row = row + BLOCK < begin + blocks * BLOCK ? row + BLOCK : begin;
        if (turn + 1 < turns) start(stage ^ 1);
        if (block + BLOCK - 1 < lowest || (window && highest <= block - window)) continue;
        T *queries = stages + stage * 2 * BLOCK * HEAD, *slopes = queries + BLOCK * HEAD;
        bool edge = block < highest || (window && lowest <= block + BLOCK - 1 - window);
        keys_block(out_k, out_v, own, own_values, describe(queries, STRIPE), describe(slopes, STRIPE), statistics + stage * 2 * BLOCK,
                   unit, edge, mine, block, window);
    }
    if (turns == 0) wait_fetches();
    __syncthreads();
    float by_scale[2] = {scale, scale}, by_one[2] = {1.0f, 1.0f};
    write_rows<DKV_ROWS>(dk + (i64)seq.z * dk_stride + key_head * HEAD, dk_stride, first + warp_row, seq.w, out_k, by_scale, keys, warp_row);
    write_rows<DKV_ROWS>(dv + (i64)seq.z * dv_stride + key_head * HEAD, dv_stride, first + warp_row, seq.w, out_v, by_one, values, warp_row);
}
