// Drawing tokens on the device, so that a loop of decode steps needs no answer from the host.

#define COPIES 8 // of the bins, so that few warps add to the same number at once

// A float as an unsigned number in the same order; what is no number comes first.
DEVICE u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    if (x != x) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The place of a token among all: by its logit, the smaller id first where logits are equal. No two are equal.
DEVICE u64 rank(float logit, int id) { return (u64)ordered(logit) << 32 | (u32)~id; }

DEVICE u64 max_block(u64 x, u64 *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int offset = 16; offset > 0; offset /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, x, offset);
        x = other > x ? other : x;
    }
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : 0;
    for (int offset = 16; offset > 0; offset /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

// A row of logits as the sampler sees it: with repeated tokens made less likely.
struct Row {
    const float *logits;
    const u32 *seen; // a bit for every token that the sequence holds, or null
    float penalty;
    int v;

    DEVICE float at(int id) const {
        float x = logits[id];
        if (seen && seen[id / 32] >> id % 32 & 1) x = x < 0.0f ? x * penalty : x / penalty;
        return x == x ? x : NEGATIVE_INFINITY;
    }
};

// What a token weighs in a cut, in units of 2^-44: 1 for each (`scale` 0: a count), or exp((logit - top) * scale).
// Whole numbers, so that sums do not depend on the order in which threads come.
DEVICE u64 weight(float logit, float top, float scale) {
    if (scale == 0.0f) return 1;
    return (u64)(exp_fast((logit - top) * scale) * 17592186044416.0f);
}

// The sum of x over a warp.
DEVICE u64 sum_warp(u64 x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

// The sum of all weights of tokens of rank >= floor.
DEVICE u64 weigh_all(const Row &row, u64 floor, float top, float scale, u64 *scratch) {
    if (threadIdx.x == 0) scratch[0] = 0;
    __syncthreads();
    u64 sum = 0;
#pragma unroll 4
    for (int id = threadIdx.x; id < row.v; id += blockDim.x) {
        float x = row.at(id);
        if (rank(x, id) >= floor) sum += weight(x, top, scale);
    }
    sum = sum_warp(sum);
    if (threadIdx.x % WARP == 0) atomicAdd(scratch, sum);
    __syncthreads();
    sum = scratch[0];
    __syncthreads();
    return sum;
}

// For a warp: the bin, from the highest down, at which `above` and the bins' sums reach `enough`; where rounding keeps them below it,
// the last one that holds anything. found: what lies above it, the prefix with its number, whether all of it belongs to it.
DEVICE void find_bin(const u64 *bins, u64 above, u64 enough, u64 prefix, u64 *found) {
    int lane = threadIdx.x % WARP, highest = 255 - 8 * lane; // a lane has eight bins, downwards
    u64 mine = 0;
    for (int i = 0; i < 8; ++i) mine += bins[highest - i];
    u64 until = mine;
    for (int offset = 1; offset < WARP; offset *= 2) {
        u64 other = __shfl_up_sync(ALL_LANES, until, offset);
        if (lane >= offset) until += other;
    }
    u32 reached = __ballot_sync(ALL_LANES, mine && above + until >= enough), filled = __ballot_sync(ALL_LANES, mine != 0);
    int owner = reached ? __ffs(reached) - 1 : 31 - __clz(filled);
    if (lane != owner) return;
    u64 sum = above + until - mine;
    int bin = highest;
    for (int left = 8; left > 0; --left, --bin) {
        bool last = true; // nothing below it in this lane
        for (int i = 1; i < left; ++i) last = last && bins[bin - i] == 0;
        if (bins[bin] && (sum + bins[bin] >= enough || last)) break;
        sum += bins[bin];
    }
    found[0] = sum;
    found[1] = prefix << 8 | bin;
    found[2] = sum + bins[bin] == enough;
}

// The rank of the token at which the weights of the tokens of rank >= floor, the likeliest first, sum up to `enough` for the first
// time: eight bits of the rank at a time, from sums over each value of these bits (radix selection).
DEVICE u64 cut(const Row &row, u64 floor, float top, float scale, u64 enough, u64 *bins, u64 *found) {
    u64 prefix = 0, above = 0, *mine = bins + threadIdx.x / WARP % COPIES * 256;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256 * COPIES; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        for (int start = 0; start < row.v; start += 4 * blockDim.x) {
            float logits[4]; // in flight together
            for (int j = 0; j < 4; ++j) {
                int id = start + j * blockDim.x + threadIdx.x;
                logits[j] = id < row.v ? row.at(id) : 0.0f;
            }
            for (int j = 0; j < 4; ++j) {
                int id = start + j * blockDim.x + threadIdx.x;
                u64 key = rank(logits[j], id), units = 0;
                bool in = id < row.v && key >= floor && (shift == 56 || key >> (shift + 8) == prefix);
                if (in) units = weight(logits[j], top, scale);
                u32 active = __ballot_sync(ALL_LANES, units != 0);
                if (units == 0) continue;
                int bin = (int)(key >> shift & 255);
                if (shift >= 48) { // the first bits of many tokens are equal: added up in the warp first
                    u32 peers = __match_any_sync(active, bin);
                    u32 low = __reduce_add_sync(peers, (u32)(units & 0x3fffffu)), high = __reduce_add_sync(peers, (u32)(units >> 22));
                    if (threadIdx.x % WARP == __ffs(peers) - 1) atomicAdd(mine + bin, ((u64)high << 22) + low);
                } else {
                    atomicAdd(mine + bin, units);
                }
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 256; i += blockDim.x)
            for (int copy = 1; copy < COPIES; ++copy) bins[i] += bins[copy * 256 + i];
        __syncthreads();
        if (threadIdx.x < WARP) find_bin(bins, above, enough, prefix, found);
        __syncthreads();
        above = found[0];
        prefix = found[1];
        bool whole = found[2];
        __syncthreads();
        if (whole) return prefix << shift; // all that is left belongs to it
    }
    return prefix;
}

// Which tokens survive the cuts: those of rank >= floor that are not more than `least` below the likeliest, in heated logits.
struct Kept {
    u64 floor;
    float top, scale, least;

    DEVICE u64 units(const Row &row, int id) const {
        float x = row.at(id);
        if (!((x - top) * scale >= least) || rank(x, id) < floor) return 0;
        return weight(x, top, scale);
    }
};

// The token in whose share of the whole `uniform` lies, the kept ones sharing [0, 1) by weight in the order of their ids: each warp
// adds up a stretch of ids, the stretch in which it lies is shared out among the warps again, and so on down to 32 ids.
DEVICE int draw(const Row &row, const Kept &kept, float uniform, u64 *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    int first = 0, end = row.v;
    u64 goal = 0, before = 0;
    for (bool whole = true; whole || end - first > WARP; whole = false) {
        int share = ((end - first + warps - 1) / warps + WARP - 1) / WARP * WARP;
        int from = first + warp * share, until = min(end, from + share);
        u64 sum = 0;
#pragma unroll 4
        for (int id = from + lane; id < until; id += WARP) sum += kept.units(row, id);
        sum = sum_warp(sum);
        __syncthreads();
        if (lane == 0) scratch[warp] = sum;
        __syncthreads();
        if (whole) {
            u64 total = 0;
            for (int w = 0; w < warps; ++w) total += scratch[w];
            goal = (u64)((double)uniform * (double)total);
            if (goal >= total) goal = total - 1;
        }
        int w = 0;
        for (; w + 1 < warps && before + scratch[w] <= goal; ++w) before += scratch[w];
        first += w * share;
        end = min(end, first + share);
    }
    u64 until = first + lane < end ? kept.units(row, first + lane) : 0;
    for (int offset = 1; offset < WARP; offset *= 2) {
        u64 other = __shfl_up_sync(ALL_LANES, until, offset);
        if (lane >= offset) until += other;
    }
    u32 hits = __ballot_sync(ALL_LANES, before + until > goal);
    return first + (hits ? __ffs(hits) - 1 : 0);
}

// The logarithm of the sum of exponentials of the plain logits; what is no number is left out.
DEVICE float log_sum(const Row &row, u64 *scratch, float *sums) {
    float highest = NEGATIVE_INFINITY, sum = 0.0f;
#pragma unroll 4
    for (int id = threadIdx.x; id < row.v; id += blockDim.x) highest = fmaxf(highest, row.logits[id]);
    u32 bits = (u32)max_block(ordered(highest), scratch);
    highest = __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
#pragma unroll 4
    for (int id = threadIdx.x; id < row.v; id += blockDim.x) {
        float x = row.logits[id];
        if (x == x) sum += exp_fast(x - highest);
    }
    return highest + logf(sum_block(sum, sums));
}

// token[b]: for each row of logits [b, v] (rows ld apart) the token drawn.
//
// Of each row: repetition penalty (as transformers: penalty[b] and bits seen[b, ceil(v / 32)]; both may be null), temperature (0 takes
// the likeliest, the smallest id on ties), then only the top_k likeliest tokens (0: all), of these the likeliest whose probabilities
// reach top_p (1: all), of these those at least min_p times as likely as the likeliest (0: all). They share [0, 1) in the order of
// their ids, by probability; drawn is the one in whose share uniforms[*step, b] lies (row 0 where step is null). A logit that is no number is
// impossible. logprob[b], where given: the token's log-probability by the plain logits. temperature .. top_k may be null.
// Weights lighter than 2^-44 of the likeliest are none. Sums are of whole numbers: nothing depends on the order of threads.
// grid b, block = v <= 1024 ? 256 : 1024.
KERNEL __launch_bounds__(1024) sample(int *token, float *logprob, const float *logits, int ld, const float *temperature,
                                      const float *top_p, const float *min_p, const int *top_k, const float *uniforms,
                                      const int *step, int b, int v, const float *penalty, const u32 *seen) {
    __shared__ u64 scratch[WARP], bins[256 * COPIES], found[3];
    __shared__ float sums[33];
    int i = blockIdx.x;
    bool repeat = seen && penalty && penalty[i] != 1.0f;
    Row row = {logits + (i64)i * ld, repeat ? seen + (i64)i * ((v + 31) / 32) : nullptr, repeat ? penalty[i] : 1.0f, v};
    u64 best = 0;
#pragma unroll 4
    for (int id = threadIdx.x; id < v; id += blockDim.x) {
        u64 key = rank(row.at(id), id);
        best = key > best ? key : best;
    }
    best = max_block(best, scratch);
    int likeliest = (int)~(u32)best;
    float top = row.at(likeliest), heat = temperature ? temperature[i] : 1.0f;
    int chosen = likeliest;
    if (heat > 0.0f && top > NEGATIVE_INFINITY) {
        Kept kept = {0, top, 1.0f / heat, NEGATIVE_INFINITY};
        if (top_k && top_k[i] > 0 && top_k[i] < v) kept.floor = cut(row, 0, top, 0.0f, top_k[i], bins, found);
        if (top_p && top_p[i] < 1.0f) {
            u64 all = weigh_all(row, kept.floor, top, kept.scale, scratch);
            u64 enough = (u64)ceil((double)all * fmaxf(top_p[i], 0.0f));
            kept.floor = cut(row, kept.floor, top, kept.scale, enough > 0 ? enough : 1, bins, found);
        }
        if (min_p && min_p[i] > 0.0f) kept.least = logf(min_p[i]);
        chosen = draw(row, kept, uniforms[step ? (i64)*step * b + i : i], scratch);
    }
    if (logprob) {
        float whole = log_sum(row, scratch, sums);
        if (threadIdx.x == 0) logprob[i] = row.logits[chosen] - whole;
    }
    if (threadIdx.x == 0) token[i] = chosen;
}

// What follows a step of decoding, for b sequences: the drawn token becomes the next input (ids); position and number of keys
// move on by one; row is the cache row of the new position, by the page table [b, stride] of pages of 16 tokens.
// out_tokens[*step, b] and out_logprobs[*step, b] keep the token; *step moves on. seen, where given, gets the token's bit.
// A sequence with pos < 0 is none: nothing of it changes.
// grid 1, block = b rounded up to a multiple of 32, b <= 1024.
KERNEL advance(int *ids, int *pos, int *len, int *row, const int *token, const float *logprob, int *out_tokens,
               float *out_logprobs, int *step, const int *table, int stride, int b, u32 *seen, int v) {
    int i = threadIdx.x, now = *step;
    __syncthreads();
    if (i == 0) *step = now + 1;
    if (i >= b || pos[i] < 0) return;
    int drawn = token[i], place = pos[i] + 1;
    out_tokens[(i64)now * b + i] = drawn;
    if (out_logprobs) out_logprobs[(i64)now * b + i] = logprob[i];
    ids[i] = drawn;
    pos[i] = place;
    len[i] += 1;
    // The step after the last one may lie behind the table.
    if (place / 16 < stride) row[i] = table[(i64)i * stride + place / 16] * 16 + place % 16;
    if (seen) seen[(i64)i * ((v + 31) / 32) + drawn / 32] |= 1u << drawn % 32;
}
