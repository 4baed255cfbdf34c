// Drawing tokens on the device, so that a loop of decode steps needs no answer from the host.

// A float as an unsigned number in the same order; what is no number comes first.
DEVICE u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    if (x != x) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float from_ordered(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// The place of a token among all: by its logit, the smaller id first where logits are equal. No two are equal.
DEVICE u64 rank(float logit, int id) { return (u64)ordered(logit) << 32 | (u32)~id; }

DEVICE u64 sum_warp(u64 x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

DEVICE u64 max_warp(u64 x) {
    for (int offset = 16; offset > 0; offset /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

DEVICE u64 max_block(u64 x, u64 *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = max_warp(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return max_warp(lane < warps ? scratch[lane] : 0);
}

// A row of logits as the sampler sees it: with repeated tokens made less likely, and impossible where a logit is no number.
struct Row {
    const float *logits;
    const u32 *seen; // a bit for every token that the sequence holds, or null
    float penalty;
    int v;

    DEVICE float adjusted(float x, int id) const {
        if (seen && seen[id / 32] >> id % 32 & 1) x = x < 0.0f ? x * penalty : x / penalty;
        return x == x ? x : NEGATIVE_INFINITY;
    }
    DEVICE float at(int id) const { return adjusted(logits[id], id); }

    // Calls visit(logit, id) for all tokens, shared out over the block; every thread comes as often as the others, with id >= v at the
    // end. Four loads are in flight together.
    template <class Visit> DEVICE void each(Visit visit) const {
        for (int start = threadIdx.x; start - (int)threadIdx.x < v; start += 4 * blockDim.x) {
            float x[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                int id = start + j * blockDim.x;
                x[j] = id < v ? logits[id] : NEGATIVE_INFINITY;
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                int id = start + j * blockDim.x;
                visit(id < v ? adjusted(x[j], id) : NEGATIVE_INFINITY, id);
            }
        }
    }
};

// Which tokens are left and what they weigh: those of rank >= floor that are not more than `least` below the likeliest, in heated
// logits, weigh exp((logit - top) * scale) in units of 2^-44. Whole numbers, so that sums do not depend on the order in which threads come.
struct Kept {
    u64 floor;
    float top, scale, least;

    DEVICE u64 weight(float logit) const { return (u64)(exp_fast((logit - top) * scale) * 17592186044416.0f); }
    DEVICE bool holds(float logit, int id) const {
        return (logit - top) * scale >= least && (floor == 0 || rank(logit, id) >= floor);
    }
    DEVICE u64 units(const Row &row, int id) const {
        float x = row.at(id);
        return holds(x, id) ? weight(x) : 0;
    }
};

// The sum of all weights.
DEVICE u64 weigh_all(const Row &row, const Kept &kept, u64 *scratch) {
    __syncthreads();
    if (threadIdx.x == 0) scratch[0] = 0;
    __syncthreads();
    u64 sum = 0;
    row.each([&](float x, int id) { sum += id < row.v && kept.holds(x, id) ? kept.weight(x) : 0; });
    sum = sum_warp(sum);
    if (threadIdx.x % WARP == 0) atomicAdd(scratch, sum);
    __syncthreads();
    return scratch[0];
}

// The first token at which the sum of units(id), in the order of ids, exceeds goal(sum of all): each warp adds up a stretch of ids, the
// stretch in which it lies is shared out among the warps again, and so on down to 32 ids.
template <class Units, class Goal> DEVICE int locate(int v, Units units, Goal goal_of, u64 *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    int first = 0, end = v;
    u64 goal = 0, before = 0;
    for (bool whole = true; whole || end - first > WARP; whole = false) {
        int share = ((end - first + warps - 1) / warps + WARP - 1) / WARP * WARP;
        int from = first + warp * share, until = min(end, from + share);
        u64 sum = 0;
#pragma unroll 4
        for (int id = from + lane; id < until; id += WARP) sum += units(id);
        sum = sum_warp(sum);
        __syncthreads();
        if (lane == 0) scratch[warp] = sum;
        __syncthreads();
        if (whole) {
            u64 total = 0;
            for (int w = 0; w < warps; ++w) total += scratch[w];
            goal = goal_of(total);
        }
        int w = 0;
        for (; w + 1 < warps && before + scratch[w] <= goal; ++w) before += scratch[w];
        first += w * share;
        end = min(end, first + share);
    }
    u64 until = first + lane < end ? units(first + lane) : 0;
    for (int offset = 1; offset < WARP; offset *= 2) {
        u64 other = __shfl_up_sync(ALL_LANES, until, offset);
        if (lane >= offset) until += other;
    }
    u32 hits = __ballot_sync(ALL_LANES, before + until > goal);
    return first + (hits ? __ffs(hits) - 1 : 0);
}

#define BINS 2048

// The bin, from the highest down, at which `above` and the bins' sums reach `enough`; where rounding keeps them below it, the last
// one that holds anything. found: its number and what lies above it.
DEVICE void find_bin(const u64 *bins, u64 above, u64 enough, u64 *groups, u64 *found) {
    for (int i = threadIdx.x; i < 256; i += blockDim.x) { // groups of eight bins, downwards
        u64 sum = 0;
        for (int j = 0; j < 8; ++j) sum += bins[BINS - 1 - 8 * i - j];
        groups[i] = sum;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        int lane = threadIdx.x;
        u64 mine = 0;
        for (int j = 0; j < 8; ++j) mine += groups[lane * 8 + j];
        u64 until = mine;
        for (int offset = 1; offset < WARP; offset *= 2) {
            u64 other = __shfl_up_sync(ALL_LANES, until, offset);
            if (lane >= offset) until += other;
        }
        u32 reached = __ballot_sync(ALL_LANES, mine && above + until >= enough), filled = __ballot_sync(ALL_LANES, mine != 0);
        if (lane == (reached ? __ffs(reached) - 1 : 31 - __clz(filled))) {
            u64 sum = above + until - mine;
            int last = 0; // the last bin that holds anything, and what lies above it
            u64 last_sum = sum;
            for (int i = 64 * lane; i < 64 * lane + 64; ++i) {
                u64 held = bins[BINS - 1 - i];
                if (held) last = BINS - 1 - i, last_sum = sum;
                if (held && sum + held >= enough) break;
                sum += held;
            }
            found[0] = last;
            found[1] = last_sum;
        }
    }
    __syncthreads();
}

// The rank of the token at which the weights of the tokens that `kept` holds, the likeliest first, sum up to `enough` for the first
// time. COUNT: each weighs 1. Eleven bits of the logit at a time, from sums over each value of these bits (radix selection); then, where
// several tokens have this logit, the smaller ids first.
template <bool COUNT>
DEVICE u64 cut(const Row &row, const Kept &kept, u64 enough, u64 *bins, u64 *groups, u64 *found, u64 *scratch) {
    u32 prefix = 0;
    u64 above = 0, equal = 0;
    for (int shift = 21, done = 0; done < 32; done += 11, shift = shift > 10 ? 10 : 0) {
        int bits = shift == 0 ? 10 : 11;
        for (int i = threadIdx.x; i < BINS; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        row.each([&](float x, int id) {
            u32 key = ordered(x);
            bool in = id < row.v && (done == 0 || key >> (shift + bits) == prefix) && kept.holds(x, id);
            u64 units = in ? (COUNT ? 1 : kept.weight(x)) : 0;
            u32 active = __ballot_sync(ALL_LANES, units != 0);
            if (units == 0) return;
            int bin = (int)(key >> shift & (1u << bits) - 1);
            if (done == 0) { // the first bits of many tokens are equal: added up in the warp first
                u32 peers = __match_any_sync(active, bin);
                u32 low = __reduce_add_sync(peers, (u32)(units & 0x3fffffu)), high = __reduce_add_sync(peers, (u32)(units >> 22));
                if (threadIdx.x % WARP == __ffs(peers) - 1) atomicAdd(bins + bin, ((u64)high << 22) + low);
            } else {
                atomicAdd(bins + bin, units);
            }
        });
        __syncthreads();
        find_bin(bins, above, enough, groups, found);
        prefix = prefix << bits | (u32)found[0];
        above = found[1];
        equal = bins[found[0]];
        __syncthreads();
    }
    u64 each = COUNT ? 1 : kept.weight(from_ordered(prefix));
    u64 tokens = equal / each, needed = (enough - above + each - 1) / each;
    if (needed >= tokens || enough <= above) return (u64)prefix << 32;
    auto tie = [&](int id) {
        float x = row.at(id);
        return (u64)(ordered(x) == prefix && kept.holds(x, id));
    };
    int id = locate(row.v, tie, [&](u64) { return needed - 1; }, scratch);
    return (u64)prefix << 32 | (u32)~id;
}

// The logarithm of the sum of exponentials of the plain logits; what is no number is left out.
DEVICE float log_sum(const Row &row, u64 *scratch, float *sums) {
    Row plain = {row.logits, nullptr, 1.0f, row.v};
    float highest = NEGATIVE_INFINITY, sum = 0.0f;
    plain.each([&](float x, int) { highest = fmaxf(highest, x); });
    highest = from_ordered((u32)max_block(ordered(highest), scratch));
    plain.each([&](float x, int) { sum += exp_fast(x - highest); });
    return highest + logf(sum_block(sum, sums));
}

// token[b]: for each row of logits [b, v] (rows ld apart) the token drawn.
//
// Of each row: repetition penalty (as transformers: penalty[b] and bits seen[b, ceil(v / 32)]; both may be null), temperature (0 takes
// the likeliest, the smallest id on ties), then only the top_k likeliest tokens (0: all), of these the likeliest whose probabilities
// reach top_p (1: all), of these those at least min_p times as likely as the likeliest (0: all). They share [0, 1) in the order of
// their ids, by probability; drawn is the one in whose share uniforms[*step, b] lies (row 0 where step is null). A logit that is no number is
// impossible; where no token is possible, or a logit is +infinity, -1 is drawn. logprob[b], where given: the token's log-probability by the plain logits. temperature .. top_k may be null.
// Weights lighter than 2^-44 of the likeliest are none. Sums are of whole numbers: nothing depends on the order of threads.
// grid b, block = v <= 1024 ? 256 : 1024.
KERNEL __launch_bounds__(1024) sample(int *token, float *logprob, const float *logits, int ld, const float *temperature,
                                      const float *top_p, const float *min_p, const int *top_k, const float *uniforms,
                                      const int *step, int b, int v, const float *penalty, const u32 *seen) {
    __shared__ u64 scratch[WARP], bins[BINS], groups[256], found[2];
    __shared__ float sums[33];
    int i = blockIdx.x;
    bool repeat = seen && penalty && penalty[i] != 1.0f;
    Row row = {logits + (i64)i * ld, repeat ? seen + (i64)i * ((v + 31) / 32) : nullptr, repeat ? penalty[i] : 1.0f, v};
    u64 best = 0;
    row.each([&](float x, int id) {
        u64 key = id < v ? rank(x, id) : 0;
        best = key > best ? key : best;
    });
    best = max_block(best, scratch);
    int chosen = (int)~(u32)best;
    float top = row.at(chosen), heat = temperature ? temperature[i] : 1.0f;
    bool possible = top > NEGATIVE_INFINITY && top < -NEGATIVE_INFINITY; // the same for the whole block
    if (heat > 0.0f && possible) {
        Kept kept = {0, top, 1.0f / heat, NEGATIVE_INFINITY};
        if (top_k && top_k[i] > 0 && top_k[i] < v) kept.floor = cut<true>(row, kept, top_k[i], bins, groups, found, scratch);
        if (top_p && top_p[i] < 1.0f) {
            u64 enough = (u64)ceil((double)weigh_all(row, kept, scratch) * fmaxf(top_p[i], 0.0f));
            kept.floor = cut<false>(row, kept, enough > 0 ? enough : 1, bins, groups, found, scratch);
        }
        if (min_p && min_p[i] > 0.0f) kept.least = logf(min_p[i]);
        double uniform = uniforms[step ? (i64)*step * b + i : i];
        auto goal = [&](u64 total) {
            u64 at = (u64)(uniform * (double)total);
            return at < total ? at : total - 1;
        };
        chosen = locate(v, [&](int id) { return kept.units(row, id); }, goal, scratch);
    }
    if (logprob) {
        float whole = log_sum(row, scratch, sums);
        if (threadIdx.x == 0) logprob[i] = possible ? row.logits[chosen] - whole : NEGATIVE_INFINITY;
    }
    if (threadIdx.x == 0) token[i] = possible ? chosen : -1;
}

// What follows a step of decoding, for b sequences: the drawn token becomes the next input (ids); position and number of keys
// move on by one; row is the cache row of the new position, by the page table [b, stride] of pages of 16 tokens.
// out_tokens[*step, b] and out_logprobs[*step, b] keep the token; *step moves on. seen, where given, gets the token's bit.
// A sequence with pos < 0 is none: nothing of it changes. A token of -1 is kept as it is, and token 0 is what comes in next.
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
    ids[i] = drawn < 0 ? 0 : drawn;
    pos[i] = place;
    len[i] += 1;
    // The step after the last one may lie behind the table.
    if (place / 16 < stride) row[i] = table[(i64)i * stride + place / 16] * 16 + place % 16;
    if (seen && drawn >= 0) seen[(i64)i * ((v + 31) / 32) + drawn / 32] |= 1u << drawn % 32;
}
