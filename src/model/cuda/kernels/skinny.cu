// Products of weights with few rows of activations, for decoding: what counts is that the weights come by once, at full speed.
//
// All in bf16, sums in float. w [out, in], row-major; x: `b` rows of `in` numbers, one behind the other; in a multiple of 8. Every
// kernel exists as NAME_8, NAME_16 and NAME_32: for at most so many rows. Compiled with -DHEAD=d (a multiple of 16).
//
// norm, where given, is the weight [in] of a root mean square norm that x goes through first, `eps` and `offset` its numbers: since a
// row's scale can be applied behind the product, the norm needs no pass of its own.
// A block makes 16 rows of the product (32 in NAME_32; then blocks in the second half of the grid have nothing
// to do), its eight warps sharing out the inner dimension: block 256, no dynamic shared memory. What comes of a row of x depends on
// that row alone.

#define WIDE_KERNEL KERNEL __launch_bounds__(256)
#define WARPS 8
#define UNIT 32 // numbers of the inner dimension that a warp takes at once, eight a lane

DEVICE void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Sixteen bytes of weights, which nobody reads again.
DEVICE uint4 stream(const bf16 *p) {
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p));
    return x;
}

struct Norm {
    const float *weight;
    float eps, offset;
};

// What a block computed: 16 MT rows of the product, first the upper ones and then the lower ones, for 8 NB rows of x.
template <int NB, int MT> struct Shared {
    float parts[WARPS][16 * MT][8 * NB + 1], squares[WARPS][8 * NB], scale[8 * NB];

    DEVICE float sum(int r, int c) const {
        float total = 0.0f;
        for (int w = 0; w < WARPS; ++w) total += parts[w][r][c];
        return total * scale[c];
    }
};

// Rows of w for UNROLL units from number k on; zeros behind the end.
template <int MT, int UNROLL> struct Weights {
    uint4 upper[UNROLL][MT], lower[UNROLL][MT];

    DEVICE void fetch(const bf16 *const (&first)[MT], const bf16 *const (&second)[MT], int k, int in) {
#pragma unroll
        for (int u = 0; u < UNROLL; ++u, k += WARPS * UNIT)
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                upper[u][m] = lower[u][m] = make_uint4(0, 0, 0, 0);
                if (k < in) upper[u][m] = stream(first[m] + k), lower[u][m] = stream(second[m] + k);
            }
    }
};

// Eight numbers of x times the norm's weights; their squares are added to `squares`.
DEVICE uint4 weighted(uint4 v, const Eight &weight, float offset, float &squares) {
    float e[8] = {low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y),
                  low_bf16(v.z), high_bf16(v.z), low_bf16(v.w), high_bf16(v.w)};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        squares += e[j] * e[j];
        e[j] *= offset + weight.v[j];
    }
    return make_uint4(pack_bf16(e[0], e[1]), pack_bf16(e[2], e[3]), pack_bf16(e[4], e[5]), pack_bf16(e[6], e[7]));
}

// 8 MT rows of the product of w and x from `upper` on and as many from `lower`; rows from `limit` on are not read and come out wrong.
//
// A lane has eight neighbouring numbers of rows g = lane / 4 of w, and of row g of x. They stand in the instruction where
// others should stand, but in the same place on both sides: a sum has no order.
// AHEAD: the next weights are on their way while these are used, which takes registers and so room for other blocks.
template <int NB, int MT, int UNROLL, bool AHEAD, bool NORM>
DEVICE void product(Shared<NB, MT> &shared, const bf16 *w, const bf16 *x, int in, int b, int upper, int lower, int limit, Norm norm) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, column = lane % 4 * 8;
    const bf16 *first[MT], *second[MT];
#pragma unroll
    for (int m = 0; m < MT; ++m) {
        first[m] = w + (i64)min(upper + m * 8 + g, limit - 1) * in;
        second[m] = w + (i64)min(lower + m * 8 + g, limit - 1) * in;
    }
    float sums[MT][NB][4] = {}, squares[NB] = {};
    Weights<MT, UNROLL> weights, next;
    constexpr int STEP = WARPS * UNIT * UNROLL;
    if (AHEAD) weights.fetch(first, second, warp * UNIT + column, in);
    // Whole warps stay in the loop; lanes behind the end multiply zeros.
    for (int base = warp * UNIT; base < in; base += STEP) {
        int start = base + column;
        if (!AHEAD) weights.fetch(first, second, start, in);
        uint4 d[UNROLL][NB];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int n = 0; n < NB; ++n) {
                int k = start + u * WARPS * UNIT, row = n * 8 + g;
                d[u][n] = make_uint4(0, 0, 0, 0);
                if (k < in && row < b) d[u][n] = *reinterpret_cast<const uint4 *>(x + (i64)row * in + k);
            }
        if (AHEAD) next.fetch(first, second, start + STEP, in);
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            int k = start + u * WARPS * UNIT;
            Eight weight = {};
            if (NORM && k < in) weight = load8(norm.weight + k);
#pragma unroll
            for (int n = 0; n < NB; ++n) {
                uint4 v = NORM ? weighted(d[u][n], weight, norm.offset, squares[n]) : d[u][n];
#pragma unroll
                for (int m = 0; m < MT; ++m) {
                    uint4 a = weights.upper[u][m], c = weights.lower[u][m];
                    multiply(sums[m][n], a.x, c.x, a.y, c.y, v.x, v.y);
                    multiply(sums[m][n], a.z, c.z, a.w, c.w, v.z, v.w);
                }
            }
        }
        if (AHEAD) weights = next;
    }
#pragma unroll
    for (int n = 0; n < NB; ++n) {
#pragma unroll
        for (int m = 0; m < MT; ++m)
            for (int e = 0; e < 4; ++e)
                shared.parts[warp][e / 2 * 8 * MT + m * 8 + g][n * 8 + lane % 4 * 2 + e % 2] = sums[m][n][e];
        if (NORM) {
            float all = sum_lanes(squares[n], 4); // the four lanes of a row of x
            if (lane % 4 == 0) shared.squares[warp][n * 8 + g] = all;
        }
    }
    __syncthreads();
    if (threadIdx.x < 8 * NB) {
        float all = 0.0f;
        if (NORM)
            for (int i = 0; i < WARPS; ++i) all += shared.squares[i][threadIdx.x];
        shared.scale[threadIdx.x] = NORM ? rsqrtf(all / in + norm.eps) : 1.0f;
    }
    __syncthreads();
}

// With many rows of x a block takes more rows of w, or the rows of x would be most of what it reads. With 16 that did not pay.
constexpr int tiles_of(int nb) { return nb == 4 ? 2 : 1; }

template <int NB, bool AHEAD, int MT>
DEVICE void product(Shared<NB, MT> &shared, const bf16 *w, const bf16 *x, int in, int b, int upper, int lower, int limit, Norm norm) {
    constexpr int UNROLL = NB == 4 ? 2 : 4;
    if (norm.weight)
        product<NB, MT, UNROLL, AHEAD && NB == 1, true>(shared, w, x, in, b, upper, lower, limit, norm);
    else
        product<NB, MT, UNROLL, AHEAD && NB == 1, false>(shared, w, x, in, b, upper, lower, limit, norm);
}

// The activation of a gate: kind 0 SiLU, 1 GELU by its tanh approximation.
DEVICE float activate(float x, int kind) {
    if (kind == 0) return x * reciprocal(1.0f + exp_fast(-x));
    float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return x * (1.0f - reciprocal(1.0f + exp_fast(2.0f * inner)));
}

// y[b, out] = x w^T + bias (bias may be null), and with `add` that is added to y.  grid ceil(out / 16).
template <int NB>
DEVICE void store(bf16 *y, const bf16 *w, const bf16 *x, const float *bias, int in, int out, int b, int add, Norm norm) {
    constexpr int MT = tiles_of(NB), ROWS = 16 * MT;
    __shared__ Shared<NB, MT> shared;
    int first = blockIdx.x * ROWS;
    if (first >= out) return;
    product<NB, true>(shared, w, x, in, b, first, first + ROWS / 2, out, norm);
    for (int i = threadIdx.x; i < ROWS * 8 * NB; i += 256) {
        int r = i % ROWS, c = i / ROWS;
        if (c >= b || first + r >= out) continue;
        bf16 *to = y + (i64)c * out + first + r;
        float sum = shared.sum(r, c) + (bias ? bias[first + r] : 0.0f);
        *to = from_float<bf16>(add ? to_float(*to) + to_float(from_float<bf16>(sum)) : sum);
    }
}

// y[b, ld] = x w^T in float: logits.  grid ceil(out / 16).
template <int NB> DEVICE void logits(float *y, const bf16 *w, const bf16 *x, int in, int out, int ld, int b, Norm norm) {
    constexpr int MT = tiles_of(NB), ROWS = 16 * MT;
    __shared__ Shared<NB, MT> shared;
    int first = blockIdx.x * ROWS;
    if (first >= out) return;
    product<NB, false>(shared, w, x, in, b, first, first + ROWS / 2, out, norm);
    for (int i = threadIdx.x; i < ROWS * 8 * NB; i += 256) {
        int r = i % ROWS, c = i / ROWS;
        if (c < b && first + r < out) y[(i64)c * ld + first + r] = shared.sum(r, c);
    }
}

// y[b, m] = activation(gate) * up, where w [2 m, in] holds the gates' rows first (bias [2 m] may be null).  grid ceil(m / 8).
template <int NB>
DEVICE void gated(bf16 *y, const bf16 *w, const bf16 *x, const float *bias, int in, int m, int b, int kind, Norm norm) {
    constexpr int MT = tiles_of(NB), ROWS = 8 * MT;
    __shared__ Shared<NB, MT> shared;
    int first = blockIdx.x * ROWS;
    if (first >= m) return;
    product<NB, false>(shared, w, x, in, b, first, m + first, 2 * m, norm);
    for (int i = threadIdx.x; i < ROWS * 8 * NB; i += 256) {
        int r = i % ROWS, c = i / ROWS;
        if (c >= b || first + r >= m) continue;
        float gate = shared.sum(r, c), up = shared.sum(r + ROWS, c);
        if (bias) gate += bias[first + r], up += bias[m + first + r];
        y[(i64)c * m + first + r] = from_float<bf16>(activate(gate, kind) * up);
    }
}

// Queries, keys and values of one token a row: w [(heads + 2 kv) * HEAD, in], bias likewise or null. Queries and keys are turned by the angles
// of pos[b] (cos, sin [positions, HEAD / 2]); queries go to q [b, q_stride], keys and values to row row[b] of kcache and vcache
// [rows, kv, HEAD]. A row of pos < 0 is none.  grid (heads + 2 kv) * HEAD / 16.
template <int NB>
DEVICE void qkv(bf16 *q, bf16 *kcache, bf16 *vcache, const bf16 *w, const bf16 *x, const float *bias, const float *cos,
                const float *sin, const int *pos, const int *row, int in, int heads, int kv, int q_stride, int b, Norm norm) {
    constexpr int MT = HEAD % 32 == 0 ? tiles_of(NB) : 1, ROWS = 8 * MT, BLOCKS = HEAD / 2 / ROWS; // of a head
    __shared__ Shared<NB, MT> shared;
    int head = blockIdx.x / BLOCKS, place = blockIdx.x % BLOCKS * ROWS;
    if (head >= heads + 2 * kv) return;
    int first = head * HEAD + place, second = first + HEAD / 2;
    product<NB, true>(shared, w, x, in, b, first, second, (heads + 2 * kv) * HEAD, norm);
    for (int i = threadIdx.x; i < ROWS * 8 * NB; i += 256) {
        int r = i % ROWS, c = i / ROWS;
        if (c >= b || pos[c] < 0) continue;
        float upper = shared.sum(r, c), lower = shared.sum(r + ROWS, c);
        if (bias) upper += bias[first + r], lower += bias[second + r];
        if (head < heads + kv) {
            i64 angle = (i64)pos[c] * (HEAD / 2) + place + r;
            float x0 = upper, x1 = lower;
            upper = x0 * cos[angle] - x1 * sin[angle];
            lower = x1 * cos[angle] + x0 * sin[angle];
        }
        bf16 *to = head < heads        ? q + (i64)c * q_stride + head * HEAD
                   : head < heads + kv ? kcache + ((i64)row[c] * kv + head - heads) * HEAD
                                       : vcache + ((i64)row[c] * kv + head - heads - kv) * HEAD;
        to[place + r] = from_float<bf16>(upper);
        to[place + r + HEAD / 2] = from_float<bf16>(lower);
    }
}

#define SKINNY_KERNELS(NB, SUFFIX)                                                                                                \
    WIDE_KERNEL skinny_store##SUFFIX(bf16 *y, const bf16 *w, const bf16 *x, const float *bias, const float *norm, float eps,      \
                                float offset, int in, int out, int b, int add) {                                                  \
        store<NB>(y, w, x, bias, in, out, b, add, Norm{norm, eps, offset});                                                       \
    }                                                                                                                             \
    WIDE_KERNEL skinny_logits##SUFFIX(float *y, const bf16 *w, const bf16 *x, const float *norm, float eps, float offset, int in, \
                                 int out, int ld, int b) {                                                                        \
        logits<NB>(y, w, x, in, out, ld, b, Norm{norm, eps, offset});                                                             \
    }                                                                                                                             \
    WIDE_KERNEL skinny_gated##SUFFIX(bf16 *y, const bf16 *w, const bf16 *x, const float *bias, const float *norm, float eps,      \
                                float offset, int in, int m, int b, int kind) {                                                   \
        gated<NB>(y, w, x, bias, in, m, b, kind, Norm{norm, eps, offset});                                                        \
    }                                                                                                                             \
    WIDE_KERNEL skinny_qkv##SUFFIX(bf16 *q, bf16 *kcache, bf16 *vcache, const bf16 *w, const bf16 *x, const float *bias,          \
                              const float *norm, float eps, float offset, const float *cos, const float *sin, const int *pos,     \
                              const int *row, int in, int heads, int kv, int q_stride, int b) {                                   \
        qkv<NB>(q, kcache, vcache, w, x, bias, cos, sin, pos, row, in, heads, kv, q_stride, b, Norm{norm, eps, offset});          \
    }

SKINNY_KERNELS(1, _8)
SKINNY_KERNELS(2, _16)
SKINNY_KERNELS(4, _32)
