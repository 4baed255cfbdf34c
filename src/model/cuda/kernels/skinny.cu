// Products of weights with few rows of activations, for decoding: what counts is that the weights come by once, at full speed.
//
// All in bf16, sums in float. w [out, in], row-major; x: `b` rows of `in` numbers, one behind the other; in a multiple of 8. Every
// kernel exists as NAME_8, NAME_16 and NAME_32: for at most so many rows. Compiled with -DHEAD=d (a multiple of 16).
//
// norm, where given, is the weight [in] of a root mean square norm that x goes through first, `eps` and `offset` its numbers: since a
// row's scale can be applied behind the product, the norm needs no pass of its own.
// A block makes 16 rows of the product, its eight warps sharing out the inner dimension: block 256, no dynamic shared memory. What
// comes of a row of x depends on that row alone.

#define WIDE_KERNEL KERNEL __launch_bounds__(256)
#define WARPS 8
#define UNIT 32   // numbers of the inner dimension that a warp takes at once, eight a lane
#define UNROLL 4  // units whose loads are in flight together

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

// What a block computed: rows r < 16 of the product for column c < 8 NB.
template <int NB> struct Shared {
    float parts[WARPS][16][8 * NB + 1], squares[WARPS][8 * NB], scale[8 * NB];

    DEVICE float sum(int r, int c) const {
        float total = 0.0f;
        for (int w = 0; w < WARPS; ++w) total += parts[w][r][c];
        return total * scale[c];
    }
};

// Rows `upper` to upper + 7 and `lower` to lower + 7 of the product of w and x; rows from `limit` on are not read and come out wrong.
//
// A lane has eight neighbouring numbers of rows g = lane / 4 and g + 8 of w, and of row g of x. They stand in the instruction where
// others should stand, but in the same place on both sides: a sum has no order.
template <int NB, bool NORM>
DEVICE void product(Shared<NB> &shared, const bf16 *w, const bf16 *x, int in, int b, int upper, int lower, int limit, Norm norm) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, column = lane % 4 * 8;
    const bf16 *first = w + (i64)min(upper + g, limit - 1) * in, *second = w + (i64)min(lower + g, limit - 1) * in;
    float sums[NB][4] = {}, squares[NB] = {};
    uint4 a[UNROLL], c[UNROLL], next_a[UNROLL], next_c[UNROLL];
    auto fetch = [&](uint4(&upper_rows)[UNROLL], uint4(&lower_rows)[UNROLL], int start) {
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            int k = start + u * WARPS * UNIT;
            upper_rows[u] = lower_rows[u] = make_uint4(0, 0, 0, 0);
            if (k < in) upper_rows[u] = stream(first + k), lower_rows[u] = stream(second + k);
        }
    };
    // Whole warps stay in the loop; lanes behind the end multiply zeros. With few rows of x there are registers to have the next
    // weights on their way while these are used.
    if (NB == 1) fetch(a, c, warp * UNIT + column);
    for (int base = warp * UNIT; base < in; base += WARPS * UNIT * UNROLL) {
        int start = base + column;
        if (NB > 1) fetch(a, c, start);
        uint4 d[UNROLL][NB];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
#pragma unroll
            for (int n = 0; n < NB; ++n) {
                int k = start + u * WARPS * UNIT, row = n * 8 + g;
                d[u][n] = make_uint4(0, 0, 0, 0);
                if (k < in && row < b) d[u][n] = *reinterpret_cast<const uint4 *>(x + (i64)row * in + k);
            }
        if (NB == 1) fetch(next_a, next_c, start + WARPS * UNIT * UNROLL);
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            int k = start + u * WARPS * UNIT;
            Eight weight = {};
            if (NORM && k < in) weight = load8(norm.weight + k);
#pragma unroll
            for (int n = 0; n < NB; ++n) {
                uint4 v = d[u][n];
                if (NORM) {
                    float e[8] = {low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y),
                                  low_bf16(v.z), high_bf16(v.z), low_bf16(v.w), high_bf16(v.w)};
#pragma unroll
                    for (int j = 0; j < 8; ++j) {
                        squares[n] += e[j] * e[j];
                        e[j] *= norm.offset + weight.v[j];
                    }
                    v = make_uint4(pack_bf16(e[0], e[1]), pack_bf16(e[2], e[3]), pack_bf16(e[4], e[5]), pack_bf16(e[6], e[7]));
                }
                multiply(sums[n], a[u].x, c[u].x, a[u].y, c[u].y, v.x, v.y);
                multiply(sums[n], a[u].z, c[u].z, a[u].w, c[u].w, v.z, v.w);
            }
        }
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
            if (NB == 1) a[u] = next_a[u], c[u] = next_c[u];
    }
#pragma unroll
    for (int n = 0; n < NB; ++n) {
        for (int e = 0; e < 4; ++e) shared.parts[warp][g + e / 2 * 8][n * 8 + lane % 4 * 2 + e % 2] = sums[n][e];
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

template <int NB>
DEVICE void product(Shared<NB> &shared, const bf16 *w, const bf16 *x, int in, int b, int upper, int lower, int limit, Norm norm) {
    if (norm.weight)
        product<NB, true>(shared, w, x, in, b, upper, lower, limit, norm);
    else
        product<NB, false>(shared, w, x, in, b, upper, lower, limit, norm);
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
    __shared__ Shared<NB> shared;
    int first = blockIdx.x * 16;
    product<NB>(shared, w, x, in, b, first, first + 8, out, norm);
    for (int i = threadIdx.x; i < 16 * 8 * NB; i += 256) {
        int r = i % 16, c = i / 16;
        if (c >= b || first + r >= out) continue;
        bf16 *to = y + (i64)c * out + first + r;
        float sum = shared.sum(r, c) + (bias ? bias[first + r] : 0.0f);
        *to = from_float<bf16>(add ? to_float(*to) + to_float(from_float<bf16>(sum)) : sum);
    }
}

// y[b, ld] = x w^T in float: logits.  grid ceil(out / 16).
template <int NB> DEVICE void logits(float *y, const bf16 *w, const bf16 *x, int in, int out, int ld, int b, Norm norm) {
    __shared__ Shared<NB> shared;
    int first = blockIdx.x * 16;
    product<NB>(shared, w, x, in, b, first, first + 8, out, norm);
    for (int i = threadIdx.x; i < 16 * 8 * NB; i += 256) {
        int r = i % 16, c = i / 16;
        if (c < b && first + r < out) y[(i64)c * ld + first + r] = shared.sum(r, c);
    }
}

// y[b, m] = activation(gate) * up, where w [2 m, in] holds the gates' rows first (bias [2 m] may be null).  grid ceil(m / 8).
template <int NB>
DEVICE void gated(bf16 *y, const bf16 *w, const bf16 *x, const float *bias, int in, int m, int b, int kind, Norm norm) {
    __shared__ Shared<NB> shared;
    int first = blockIdx.x * 8;
    product<NB>(shared, w, x, in, b, first, m + first, 2 * m, norm);
    for (int i = threadIdx.x; i < 8 * 8 * NB; i += 256) {
        int r = i % 8, c = i / 8;
        if (c >= b || first + r >= m) continue;
        float gate = shared.sum(r, c), up = shared.sum(r + 8, c);
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
    __shared__ Shared<NB> shared;
    int head = blockIdx.x / (HEAD / 16), place = blockIdx.x % (HEAD / 16) * 8;
    int first = head * HEAD + place, second = first + HEAD / 2;
    product<NB>(shared, w, x, in, b, first, second, (heads + 2 * kv) * HEAD, norm);
    for (int i = threadIdx.x; i < 8 * 8 * NB; i += 256) {
        int r = i % 8, c = i / 8;
        if (c >= b || pos[c] < 0) continue;
        float upper = shared.sum(r, c), lower = shared.sum(r + 8, c);
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
