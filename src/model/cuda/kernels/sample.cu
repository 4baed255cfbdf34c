// Drawing tokens on the device, so that a loop of decode steps needs no answer from the host.

#define KERNEL extern "C" __global__ void

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

// The sum of all weights of tokens of rank >= floor.
DEVICE u64 weigh_all(const Row &row, u64 floor, float top, float scale, u64 *scratch) {
    if (threadIdx.x == 0) scratch[0] = 0;
    __syncthreads();
    u64 sum = 0;
    for (int id = threadIdx.x; id < row.v; id += blockDim.x) {
        float x = row.at(id);
        if (rank(x, id) >= floor) sum += weight(x, top, scale);
    }
    atomicAdd(scratch, sum);
    __syncthreads();
    sum = scratch[0];
    __syncthreads();
    return sum;
}

// The rank of the token at which the weights of the tokens of rank >= floor, the likeliest first, sum up to `enough` for the first
// time: eight bits of the rank at a time, from sums over each value of these bits (radix selection).
DEVICE u64 cut(const Row &row, u64 floor, float top, float scale, u64 enough, u64 *bins, u64 *found) {
    u64 prefix = 0, above = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        int rounds = (row.v + blockDim.x - 1) / blockDim.x;
        for (int turn = 0; turn < rounds; ++turn) {
            int id = turn * blockDim.x + threadIdx.x;
            float x = id < row.v ? row.at(id) : 0.0f;
            u64 key = rank(x, id), units = 0;
            bool in = id < row.v && key >= floor && (shift == 56 || key >> (shift + 8) == prefix);
            if (in) units = weight(x, top, scale);
            u32 active = __ballot_sync(ALL_LANES, units != 0);
            if (units == 0) continue;
            int bin = (int)(key >> shift & 255);
            u32 peers = __match_any_sync(active, bin);
            u32 low = __reduce_add_sync(peers, (u32)(units & 0x3fffffu)), high = __reduce_add_sync(peers, (u32)(units >> 22));
            if (threadIdx.x % WARP == __ffs(peers) - 1) atomicAdd(bins + bin, ((u64)high << 22) + low);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = 255, last = 255;
            u64 sum = above;
            for (; bin >= 0; --bin) {
                if (bins[bin]) last = bin;
                if (bins[bin] && sum + bins[bin] >= enough) break;
                sum += bins[bin];
            }
            if (bin < 0) bin = last, sum -= bins[last]; // rounding: all of them
            found[0] = sum;
            found[1] = prefix << 8 | bin;
            found[2] = sum + bins[bin] == enough;
        }
        __syncthreads();
        above = found[0];
        prefix = found[1];
        bool whole = found[2];
        __syncthreads();
        if (whole) return prefix << shift; // all that is left belongs to it
    }
    return prefix;
}

// token[b]: for each row of logits [b, stride] (v are used) the token drawn.
//
// Of each row: repetition penalty (as transformers: penalty[b], bits seen[b, ceil(v / 32)]; both may be null), temperature (0 takes the
// likeliest, the smallest id on ties), then of the likeliest top_k tokens (0: all), of the likeliest whose probabilities reach
// top_p (1: all), of those at least min_p times as likely as the likeliest (0: all), one is drawn: the largest of
// logit / temperature + Gumbel noise, which comes from (seed[b], pos[b], token id) alone. A logit that is no number is impossible.
// logp[b], where given: the token's log-probability by the plain logits.  temperature .. top_k may be null.
// grid b, block = v <= 16384 ? 256 : 1024.
KERNEL __launch_bounds__(1024) sample(int *token, float *logp, const float *logits, int stride, const float *temperature,
                                      const float *top_p, const float *min_p, const int *top_k, const float *penalty,
                                      const u32 *seen, const u64 *seed, const int *pos, int v) {
    __shared__ u64 scratch[WARP], bins[256], found[3];
    __shared__ float sums[33];
    int b = blockIdx.x;
    bool repeat = seen && penalty && penalty[b] != 1.0f;
    Row row = {logits + (i64)b * stride, repeat ? seen + (i64)b * ((v + 31) / 32) : nullptr, repeat ? penalty[b] : 1.0f, v};
    u64 best = 0;
    for (int id = threadIdx.x; id < v; id += blockDim.x) {
        u64 key = rank(row.at(id), id);
        best = key > best ? key : best;
    }
    best = max_block(best, scratch);
    int likeliest = (int)~(u32)best;
    float top = row.at(likeliest), heat = temperature ? temperature[b] : 1.0f;
    int chosen = likeliest;
    if (heat > 0.0f && top > NEGATIVE_INFINITY) {
        float scale = 1.0f / heat;
        u64 floor = 0;
        if (top_k && top_k[b] > 0 && top_k[b] < v) floor = cut(row, 0, top, 0.0f, top_k[b], bins, found);
        if (top_p && top_p[b] < 1.0f) {
            u64 all = weigh_all(row, floor, top, scale, scratch), enough = (u64)((double)all * fmaxf(top_p[b], 0.0f));
            floor = cut(row, floor, top, scale, enough > 0 ? enough : 1, bins, found);
        }
        // No noise bridges a gap of 21: it lies between -2.9 and 17.4.
        float least = -21.0f;
        if (min_p && min_p[b] > 0.0f) least = fmaxf(least, logf(min_p[b]));
        best = 0;
        for (int id = threadIdx.x; id < v; id += blockDim.x) {
            float x = row.at(id), gap = (x - top) * scale;
            if (!(gap >= least) || rank(x, id) < floor) continue;
            uint4 four = philox(seed[b], (u64)(u32)pos[b], id / 4);
            u32 bits = id % 4 == 0 ? four.x : id % 4 == 1 ? four.y : id % 4 == 2 ? four.z : four.w;
            u64 key = rank(gap - logf(-logf(unit(bits))), id);
            best = key > best ? key : best;
        }
        best = max_block(best, scratch);
        chosen = (int)~(u32)best;
    }
    if (logp) {
        float highest = NEGATIVE_INFINITY, sum = 0.0f;
        for (int id = threadIdx.x; id < v; id += blockDim.x) highest = fmaxf(highest, row.logits[id]);
        u32 highest_bits = (u32)(max_block(ordered(highest), scratch));
        highest = __uint_as_float(highest_bits & 0x80000000u ? highest_bits & 0x7fffffffu : ~highest_bits);
        for (int id = threadIdx.x; id < v; id += blockDim.x) {
            float x = row.logits[id];
            if (x == x) sum += exp_fast(x - highest);
        }
        sum = sum_block(sum, sums);
        if (threadIdx.x == 0) logp[b] = row.logits[chosen] - highest - logf(sum);
    }
    if (threadIdx.x == 0) token[b] = chosen;
}

// What follows a step of decoding, for b sequences: the drawn token becomes the next input (ids), position, number of keys and cache row
// move on by one, and out_tokens[*step, b] keeps the token; *step moves on too. A sequence with active[b] 0 stays as it is; one that draws a
// token of stops[stop_count] becomes inactive (stops may be null). seen, where given, gets the token's bit.
// grid 1, block = b rounded up to a multiple of 32, b <= 1024.
KERNEL advance(int *ids, int *pos, int *len, int *row, const int *token, int *active, int *out_tokens, int *step, const int *stops,
               int stop_count, u32 *seen, int b, int v) {
    int i = threadIdx.x, now = *step;
    __syncthreads();
    if (i == 0) *step = now + 1;
    if (i >= b) return;
    int drawn = token[i];
    if (!active[i]) drawn = -1;
    if (out_tokens) out_tokens[(i64)now * b + i] = drawn;
    if (drawn < 0) return;
    ids[i] = drawn;
    pos[i] += 1;
    len[i] += 1;
    row[i] += 1;
    if (seen) seen[(i64)i * ((v + 31) / 32) + drawn / 32] |= 1u << drawn % 32;
    for (int s = 0; s < stop_count; ++s)
        if (stops[s] == drawn) active[i] = 0;
}
