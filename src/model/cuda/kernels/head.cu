// The loss over the vocabulary: log-probabilities of targets, and the logits' gradient.
//
// Every kernel exists as NAME_f32 (float logits and gradient), NAME_f32_bf16 (float logits, bf16 gradient) and NAME_bf16 (both
// bf16; the gradient may then overwrite the logits). `m` rows of `v` logits; rows start `stride` numbers apart, a multiple of 8.
// A row whose target is negative has no log-probability (0 is written) and a zero gradient.

#define HELD 4 // vectors of 8 logits that a thread keeps; further ones are read twice

// The running maximum of logits and the sum of their exponentials relative to it.
struct Total {
    float top, sum;
};

DEVICE Total join(Total a, Total b) {
    float top = fmaxf(a.top, b.top);
    if (top == NEGATIVE_INFINITY) return a;
    return Total{top, a.sum * exp_fast(a.top - top) + b.sum * exp_fast(b.top - top)};
}

DEVICE Total join_block(Total t, Total *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int offset = 16; offset > 0; offset /= 2)
        t = join(t, Total{__shfl_xor_sync(ALL_LANES, t.top, offset), __shfl_xor_sync(ALL_LANES, t.sum, offset)});
    if (lane == 0) scratch[warp] = t;
    __syncthreads();
    t = lane < warps ? scratch[lane] : Total{NEGATIVE_INFINITY, 0.0f};
    for (int offset = 16; offset > 0; offset /= 2)
        t = join(t, Total{__shfl_xor_sync(ALL_LANES, t.top, offset), __shfl_xor_sync(ALL_LANES, t.sum, offset)});
    return t;
}

// Eight logits from column i on; those from column v on count as impossible.
template <class L> DEVICE Eight logits8(const L *row, int i, int v) {
    Eight x = load8(row + i);
    if (i + 8 > v)
        for (int j = 0; j < 8; ++j)
            if (i + j >= v) x.v[j] = NEGATIVE_INFINITY;
    return x;
}

DEVICE Total total8(Total t, const Eight &x) {
    float top = t.top;
    for (int j = 0; j < 8; ++j) top = fmaxf(top, x.v[j]);
    if (top == NEGATIVE_INFINITY) return t;
    float sum = t.sum * exp_fast(t.top - top);
    for (int j = 0; j < 8; ++j) sum += exp_fast(x.v[j] - top);
    return Total{top, sum};
}

// slope * (onehot - softmax) of eight logits from column i on; impossible logits get 0.
DEVICE Eight gradient8(Eight x, int i, float lse, int target, float slope) {
    for (int j = 0; j < 8; ++j) x.v[j] = slope * ((i + j == target ? 1.0f : 0.0f) - exp_fast(x.v[j] - lse));
    return x;
}

// logp[m] = logits[target] - lse;  lse[m] where given;  where dlogits is given, slope[m] * (onehot - softmax) goes there
// (columns v..stride get 0).  grid m, block = v <= 8192 ? 256 : v <= 16384 ? 512 : 1024.
template <class G, class L>
DEVICE void cross_entropy(float *logp, float *lse, G *dlogits, const L *logits, const int *targets, const float *slope, int v,
                          int stride) {
    __shared__ Total scratch[WARP];
    const L *row = logits + (i64)blockIdx.x * stride;
    int target = targets[blockIdx.x];
    Eight held[HELD];
    Total t = {NEGATIVE_INFINITY, 0.0f};
    float hit = target >= 0 ? to_float(row[target]) : 0.0f;
#pragma unroll
    for (int h = 0; h < HELD; ++h) {
        int i = (h * blockDim.x + threadIdx.x) * 8;
        if (i >= stride) continue;
        held[h] = logits8(row, i, v);
    }
#pragma unroll
    for (int h = 0; h < HELD; ++h)
        if ((h * blockDim.x + threadIdx.x) * 8 < stride) t = total8(t, held[h]);
    for (int i = (HELD * blockDim.x + threadIdx.x) * 8; i < stride; i += blockDim.x * 8) t = total8(t, logits8(row, i, v));
    t = join_block(t, scratch);
    float whole = t.top + logf(t.sum);
    if (threadIdx.x == 0) {
        logp[blockIdx.x] = target >= 0 ? hit - whole : 0.0f;
        if (lse) lse[blockIdx.x] = whole;
    }
    if (!dlogits) return;
    float by = target >= 0 ? slope[blockIdx.x] : 0.0f;
    G *to = dlogits + (i64)blockIdx.x * stride;
#pragma unroll
    for (int h = 0; h < HELD; ++h) {
        int i = (h * blockDim.x + threadIdx.x) * 8;
        if (i < stride) store8(to + i, gradient8(held[h], i, whole, target, by));
    }
    for (int i = (HELD * blockDim.x + threadIdx.x) * 8; i < stride; i += blockDim.x * 8)
        store8(to + i, gradient8(logits8(row, i, v), i, whole, target, by));
}

// The gradient alone, of logits whose lse is known.  grid (ceil(stride / 2048), m), block 256.
template <class G, class L>
DEVICE void cross_entropy_bwd(G *dlogits, const L *logits, const float *lse, const int *targets, const float *slope, int v,
                              int stride) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i >= stride) return;
    int target = targets[blockIdx.y];
    Eight x = logits8(logits + (i64)blockIdx.y * stride, i, v);
    store8(dlogits + (i64)blockIdx.y * stride + i,
           gradient8(x, i, lse[blockIdx.y], target, target >= 0 ? slope[blockIdx.y] : 0.0f));
}

#define HEAD_KERNELS(G, L, SUFFIX)                                                                                             \
    KERNEL __launch_bounds__(1024) cross_entropy##SUFFIX(float *logp, float *lse, G *dlogits, const L *logits,                 \
                                                         const int *targets, const float *slope, int m, int v, int stride) {   \
        cross_entropy<G, L>(logp, lse, dlogits, logits, targets, slope, v, stride);                                            \
    }                                                                                                                          \
    KERNEL __launch_bounds__(256) cross_entropy_bwd##SUFFIX(G *dlogits, const L *logits, const float *lse, const int *targets, \
                                                            const float *slope, int m, int v, int stride) {                    \
        cross_entropy_bwd<G, L>(dlogits, logits, lse, targets, slope, v, stride);                                              \
    }

HEAD_KERNELS(float, float, _f32)
HEAD_KERNELS(bf16, float, _f32_bf16)
HEAD_KERNELS(bf16, bf16, _bf16)
