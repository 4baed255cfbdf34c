// Attention of one new token a sequence over keys and values in pages.
//
// Compiled with -DHEAD=d (a multiple of 16, at most 256), -DBF16=1 or 0 and -DGROUP=g, the query heads that share a key head.
// A page holds 16 consecutive tokens: token t of sequence s lies in row table[s * stride + t / 16] * 16 + t % 16 of kcache and
// vcache [rows, kv, HEAD].

#if BF16
typedef bf16 T;
#define TYPE bf16
#else
typedef float T;
#define TYPE f32
#endif
#define JOINED(name, type, head) name##_##type##_##head
#define NAMED(name, type, head) JOINED(name, type, head)

#define PAGE 16
#define WARPS 4
#define MOST_SPLITS 64
#define LANES (HEAD >= 64 ? 8 : HEAD >= 32 ? 4 : 2) // of a key; a power of two, so that keys share a warp out evenly
#define CHUNKS ((HEAD / 8 + LANES - 1) / LANES)    // of eight numbers that a lane has
#define KEYS (WARP / LANES)                        // that a warp looks at together
#define TURNS (PAGE / KEYS)                        // for a page
static_assert(HEAD % 8 == 0 && WARP % LANES == 0 && PAGE % KEYS == 0, "lanes, keys and pages must come out even");

// The most query heads of a group that a block can take: their sums fit into registers.
constexpr int heads_of_block() {
    int most = HEAD > 128 ? 1 : 512 / HEAD;
    int heads = GROUP < most ? GROUP : most;
    while (GROUP % heads) --heads;
    return heads;
}
constexpr int G = heads_of_block();

// {query heads a block, threads}
extern "C" __constant__ int decode_launch[2] = {G, WARPS *WARP};

// Eight numbers as they lie in memory.
#if BF16
struct __align__(16) Raw {
    uint4 bits;

    DEVICE Eight widen() const {
        return Eight{{low_bf16(bits.x), high_bf16(bits.x), low_bf16(bits.y), high_bf16(bits.y), low_bf16(bits.z), high_bf16(bits.z),
                      low_bf16(bits.w), high_bf16(bits.w)}};
    }
};
#else
struct __align__(16) Raw {
    Eight numbers;

    DEVICE Eight widen() const { return numbers; }
};
#endif

// A chunk of row `key` of a page; zeros where a head has no such chunk.
DEVICE Raw load_raw(const T *page, int key, int kv, int chunk) {
    Raw raw = {};
    if (HEAD % (8 * LANES) == 0 || chunk * 8 < HEAD)
        raw = *reinterpret_cast<const Raw *>(page + (i64)key * kv * HEAD + chunk * 8);
    return raw;
}

// The softmax over the keys that a group of lanes has seen, for every query head: the highest score (in powers of 2), the sum of the
// weights relative to it, and the weighted sum of values, of which a lane has its chunks.
struct Seen {
    float sums[G][CHUNKS][8], top[G], total[G];
};

// Where a lane stands in its warp: which of the keys looked at together, and which of a key's lanes.
struct Place {
    int slot, lane;
};

// A page's keys and values, of which those at start .. keys count; its first token is the `first`-th of the sequence.
DEVICE void add_page(Seen &seen, const float (&query)[G][CHUNKS][8], const T *page_keys, const T *page_values, int kv, int first, int start,
                     int keys, Place place) {
    // All loads first, so that they are in flight together. A page's memory is there even where its tokens are not yet.
    Raw k[TURNS][CHUNKS], v[TURNS][CHUNKS];
#pragma unroll
    for (int u = 0; u < TURNS; ++u)
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) k[u][c] = load_raw(page_keys, u * KEYS + place.slot, kv, c * LANES + place.lane);
#pragma unroll
    for (int u = 0; u < TURNS; ++u)
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) v[u][c] = load_raw(page_values, u * KEYS + place.slot, kv, c * LANES + place.lane);
    float score[TURNS][G];
#pragma unroll
    for (int u = 0; u < TURNS; ++u) {
        int at = first + u * KEYS + place.slot;
        bool counts = at < keys && at >= start;
#pragma unroll
        for (int g = 0; g < G; ++g) score[u][g] = 0.0f;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            Eight x = k[u][c].widen();
#pragma unroll
            for (int g = 0; g < G; ++g)
#pragma unroll
                for (int j = 0; j < 8; ++j) score[u][g] += x.v[j] * query[g][c][j];
            if (!counts) v[u][c] = Raw{}; // what lies there may be no number
        }
#pragma unroll
        for (int g = 0; g < G; ++g) {
            score[u][g] = sum_lanes(score[u][g], LANES);
            if (!counts) score[u][g] = NEGATIVE_INFINITY;
        }
    }
#pragma unroll
    for (int g = 0; g < G; ++g) {
        float high = seen.top[g];
#pragma unroll
        for (int u = 0; u < TURNS; ++u) high = fmaxf(high, score[u][g]);
        float base = high == NEGATIVE_INFINITY ? 0.0f : high, shrink = exp2_fast(seen.top[g] - base);
        seen.top[g] = high;
        seen.total[g] *= shrink;
#pragma unroll
        for (int u = 0; u < TURNS; ++u) {
            score[u][g] = exp2_fast(score[u][g] - base);
            seen.total[g] += score[u][g];
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
            for (int j = 0; j < 8; ++j) seen.sums[g][c][j] *= shrink;
    }
#pragma unroll
    for (int u = 0; u < TURNS; ++u)
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            Eight x = v[u][c].widen();
#pragma unroll
            for (int g = 0; g < G; ++g)
#pragma unroll
                for (int j = 0; j < 8; ++j) seen.sums[g][c][j] += score[u][g] * x.v[j];
        }
}

// A softmax in memory: the weighted sum of values, then the highest score and the sum of weights.
typedef float Part[HEAD + 2];

// What the warp's groups of lanes have seen, as one.
DEVICE void merge_lanes(Part (&merged)[G], const Seen &seen, Place place) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
        float high = seen.top[g];
#pragma unroll
        for (int offset = LANES; offset < WARP; offset *= 2) high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, offset));
        float shrink = high == NEGATIVE_INFINITY ? 0.0f : exp2_fast(seen.top[g] - high), all = seen.total[g] * shrink;
#pragma unroll
        for (int offset = LANES; offset < WARP; offset *= 2) all += __shfl_xor_sync(ALL_LANES, all, offset);
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float x = seen.sums[g][c][j] * shrink;
#pragma unroll
                for (int offset = LANES; offset < WARP; offset *= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
                int chunk = c * LANES + place.lane;
                if (place.slot == 0 && chunk * 8 < HEAD) merged[g][chunk * 8 + j] = x;
            }
        if (threadIdx.x % WARP == 0) merged[g][HEAD] = high, merged[g][HEAD + 1] = all;
    }
}

// What the block's warps have seen, as one: to o [G, HEAD], or to parts [G, splits] where another share of the keys is elsewhere.
DEVICE void merge_warps(T *o, Part *parts, int splits, const Part (&merged)[WARPS][G]) {
    for (int i = threadIdx.x; i < G * HEAD; i += WARPS * WARP) {
        int g = i / HEAD, d = i % HEAD;
        float high = NEGATIVE_INFINITY, sum = 0.0f, all = 0.0f;
        for (int w = 0; w < WARPS; ++w) high = fmaxf(high, merged[w][g][HEAD]);
        if (high > NEGATIVE_INFINITY)
            for (int w = 0; w < WARPS; ++w) {
                float shrink = exp2_fast(merged[w][g][HEAD] - high);
                sum += merged[w][g][d] * shrink;
                all += merged[w][g][HEAD + 1] * shrink;
            }
        if (splits == 1) {
            o[i] = from_float<T>(all > 0.0f ? sum / all : 0.0f);
        } else {
            float *to = parts[g * splits + blockIdx.y];
            to[d] = sum;
            if (d == 0) to[HEAD] = high, to[HEAD + 1] = all;
        }
    }
}

// All shares of the keys, parts [G, splits], as one, to o [G, HEAD]. What another block wrote is read past this multiprocessor's own
// cache.
DEVICE void merge_splits(T *o, const Part *parts, int splits, float *tops, float *totals) {
    for (int i = threadIdx.x; i < G * splits; i += WARPS * WARP) {
        tops[i] = __ldcg(parts[i] + HEAD);
        totals[i] = __ldcg(parts[i] + HEAD + 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < G * HEAD; i += WARPS * WARP) {
        int g = i / HEAD, d = i % HEAD;
        float high = NEGATIVE_INFINITY, sum = 0.0f, all = 0.0f;
        for (int s = 0; s < splits; ++s) high = fmaxf(high, tops[g * splits + s]);
        float base = high == NEGATIVE_INFINITY ? 0.0f : high;
#pragma unroll 8
        for (int s = 0; s < splits; ++s) {
            float by = exp2_fast(tops[g * splits + s] - base);
            sum += by * __ldcg(parts[g * splits + s] + d);
            all += by * totals[g * splits + s];
        }
        o[i] = from_float<T>(all > 0.0f ? sum / all : 0.0f);
    }
}

// o[b, heads, HEAD] = attention of the one query of each sequence, q[b] at q + b * q_stride; len[b] keys, the new one included; scale and
// window as in attend_fwd. A sequence whose len is 0 gets zeros.
// A block takes decode_launch[0] query heads and every split-th share of the keys; with splits > 1 part [b, heads, splits, HEAD + 2] floats
// and counters [b * heads] ints are needed, which are 0 before the first call and 0 again after each: the last block of a head adds
// the shares up, in order. splits <= 64.  grid (heads / decode_launch[0], splits, b), block 128.
KERNEL __launch_bounds__(WARPS *WARP, BF16 && G == 1 && HEAD <= 64 ? 8 : 1) NAMED(attend_decode, TYPE, HEAD)(T *o, float *part, int *counters, const T *q, const T *kcache,
                                                                       const T *vcache, const int *table, int stride, const int *len,
                                                                       int q_stride, int heads, int kv, float scale, int window,
                                                                       int splits) {
    __shared__ Part merged[WARPS][G];
    __shared__ float tops[G * MOST_SPLITS], totals[G * MOST_SPLITS];
    __shared__ int last;
    int b = blockIdx.z, first_head = blockIdx.x * G, key_head = first_head / GROUP;
    int warp = threadIdx.x / WARP;
    Place place = {(int)threadIdx.x % WARP / LANES, (int)threadIdx.x % LANES};
    int keys = len[b], start = window && keys > window ? keys - window : 0;
    int first_page = start / PAGE, pages = (keys + PAGE - 1) / PAGE - first_page, share = (pages + splits - 1) / splits;
    int from = first_page + blockIdx.y * share, until = min(from + share, first_page + pages);
    o += ((i64)b * heads + first_head) * HEAD;

    float query[G][CHUNKS][8];
    Seen seen = {};
#pragma unroll
    for (int g = 0; g < G; ++g) {
        seen.top[g] = NEGATIVE_INFINITY;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            int chunk = c * LANES + place.lane;
            Eight x = {};
            if (chunk * 8 < HEAD) x = load8(q + (i64)b * q_stride + (first_head + g) * HEAD + chunk * 8);
#pragma unroll
            for (int j = 0; j < 8; ++j) query[g][c][j] = x.v[j] * (scale * 1.4426950408889634f);
        }
    }
    const int *row_table = table + (i64)b * stride;
    int next = from + warp < until ? row_table[from + warp] : 0;
    for (int page = from + warp; page < until; page += WARPS) {
        i64 base = ((i64)next * PAGE * kv + key_head) * HEAD;
        if (page + WARPS < until) next = row_table[page + WARPS];
        add_page(seen, query, kcache + base, vcache + base, kv, page * PAGE, start, keys, place);
    }
    merge_lanes(merged[warp], seen, place);
    __syncthreads();
    Part *parts = reinterpret_cast<Part *>(part) + ((i64)b * heads + first_head) * splits;
    merge_warps(o, parts, splits, merged);
    if (splits == 1) return;
    __threadfence();
    __syncthreads();
    int *counter = counters + (i64)b * gridDim.x + blockIdx.x;
    if (threadIdx.x == 0) last = atomicAdd(counter, 1) == splits - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (threadIdx.x == 0) *counter = 0;
    merge_splits(o, parts, splits, tops, totals);
}
