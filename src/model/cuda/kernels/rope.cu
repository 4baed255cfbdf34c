// Norm of query and key heads and their rotation by position, forward and backward, with the write into the cache.
//
// Every kernel exists as NAME_bf16 and NAME_f32. `n` tokens with less than 2^30 heads in all;
// heads of d numbers, a multiple of 8, at most 256.

// Rotation works on items: a head of a token. `lanes` neighbouring lanes (a power of two) share an item, each with V numbers of the
// head's first half and the V that turn with them.
template <int V> struct Numbers {
    float v[V];
};
template <int V, class T> DEVICE Numbers<V> load_numbers(const T *p) {
    Numbers<V> out;
    if constexpr (V == 8) {
        Eight x = load8(p);
        for (int j = 0; j < 8; ++j) out.v[j] = x.v[j];
    } else {
        Four x = load4(p);
        for (int j = 0; j < 4; ++j) out.v[j] = x.v[j];
    }
    return out;
}
template <int V, class T> DEVICE void store_numbers(T *p, const Numbers<V> &x) {
    if constexpr (V == 8)
        store8(p, Eight{{x.v[0], x.v[1], x.v[2], x.v[3], x.v[4], x.v[5], x.v[6], x.v[7]}});
    else
        store4(p, Four{{x.v[0], x.v[1], x.v[2], x.v[3]}});
}

struct HeadLane {
    int lanes, slot, slots, place;
    bool live;
};

template <int V> DEVICE HeadLane head_lane(int d) {
    HeadLane l;
    l.lanes = 1;
    while (l.lanes * 2 * V < d) l.lanes *= 2;
    l.slot = threadIdx.x / l.lanes;
    l.slots = blockDim.x / l.lanes;
    l.place = threadIdx.x % l.lanes * V;
    l.live = l.place < d / 2;
    return l;
}

template <int V, class T>
DEVICE void qk_rope_fwd_items(T *out, const T *in, const float *cos, const float *sin, const int *pos, const float *wq,
                              const float *wk, float *rstd, T *kcache, T *vcache, const int *row, int n, int heads, int kv, int d,
                              float eps, float offset) {
    HeadLane l = head_lane<V>(d);
    int total = heads + 2 * kv, half = d / 2, turned = heads + kv;
    int work = !kcache && out == in ? turned : total; // heads of a token to look at
    int items = n * work, step = gridDim.x * l.slots;
    for (int base = blockIdx.x * l.slots; base < items; base += step) { // the whole block stays in
        int item = base + l.slot, head = item % work;
        i64 token = item / work;
        bool live = l.live && item < items, value = head >= turned;
        const T *from = in + (token * total + head) * d + l.place;
        Numbers<V> a = {}, b = {}, c = {}, s = {};
        if (live) {
            a = load_numbers<V>(from);
            b = load_numbers<V>(from + half);
            if (!value) {
                i64 angle = (i64)pos[token] * half + l.place;
                c = load_numbers<V>(cos + angle);
                s = load_numbers<V>(sin + angle);
            }
        }
        if (wq) {
            float squares = 0.0f;
            for (int j = 0; j < V; ++j) squares += a.v[j] * a.v[j] + b.v[j] * b.v[j];
            float scale = rsqrtf(sum_lanes(squares, l.lanes) / d + eps);
            if (live && !value) {
                const float *w = head < heads ? wq : wk;
                for (int j = 0; j < V; ++j) {
                    a.v[j] *= scale * (offset + w[l.place + j]);
                    b.v[j] *= scale * (offset + w[l.place + half + j]);
                }
                if (rstd && l.place == 0) rstd[token * turned + head] = scale;
            }
        }
        if (!live) continue;
        if (!value)
            for (int j = 0; j < V; ++j) {
                float first = a.v[j], second = b.v[j];
                a.v[j] = first * c.v[j] - second * s.v[j];
                b.v[j] = second * c.v[j] + first * s.v[j];
            }
        if (!value || out != in) {
            T *to = out + (token * total + head) * d + l.place;
            store_numbers<V>(to, a);
            store_numbers<V>(to + half, b);
        }
        if (kcache && head >= heads) {
            T *to = (value ? vcache + ((i64)row[token] * kv + head - turned) * d : kcache + ((i64)row[token] * kv + head - heads) * d);
            store_numbers<V>(to + l.place, a);
            store_numbers<V>(to + l.place + half, b);
        }
    }
}

// Packed heads [n, heads + 2 kv, d], queries first, then keys, then values. Of each token i: q and k heads are normed where wq and
// wk [d] are given (rstd[n, heads + kv] written where given), then turned by the angles of pos[i]
// (cos, sin: [positions, d / 2]; the first half of a head turns with the second); v is copied. out may be in; then v is not touched.
// Where kcache is given, turned keys and values go to cache row row[i] of kcache and vcache [rows, kv, d].
// grid: any; n * (heads + 2 kv) / (2048 / d) blocks do all at once. block 128.
template <class T>
DEVICE void qk_rope_fwd(T *out, const T *in, const float *cos, const float *sin, const int *pos, const float *wq, const float *wk,
                        float *rstd, T *kcache, T *vcache, const int *row, int n, int heads, int kv, int d, float eps, float offset) {
    if (d % 16 == 0)
        qk_rope_fwd_items<8, T>(out, in, cos, sin, pos, wq, wk, rstd, kcache, vcache, row, n, heads, kv, d, eps, offset);
    else
        qk_rope_fwd_items<4, T>(out, in, cos, sin, pos, wq, wk, rstd, kcache, vcache, row, n, heads, kv, d, eps, offset);
}

// One head's weight gradient, shared out as HeadLane says, into the block's row of partial sums: the block's slots in order.
template <int V> DEVICE void write_head_partial(float *part, const float *dw, HeadLane l, int d, float *shared) {
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x) shared[i] = 0.0f;
    for (int slot = 0; slot < l.slots; ++slot) {
        __syncthreads();
        if (l.slot == slot && l.live)
            for (int j = 0; j < V; ++j) {
                shared[l.place + j] += dw[j];
                shared[l.place + d / 2 + j] += dw[V + j];
            }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x) part[(i64)blockIdx.x * d + i] = shared[i];
}

template <int V, bool NORMS, class T>
DEVICE void qk_rope_bwd_items(T *din, const T *dout, const T *in, const float *cos, const float *sin, const int *pos,
                              const float *wq, const float *wk, const float *rstd, float *dwq_part, float *dwk_part, int n,
                              int heads, int kv, int d, float offset, float *shared) {
    HeadLane l = head_lane<V>(d);
    int total = heads + 2 * kv, half = d / 2, turned = heads + kv, work = din == dout ? turned : total;
    int items = n * work, step = gridDim.x * l.slots;
    float dwq[2 * V] = {}, dwk[2 * V] = {};
    for (int base = blockIdx.x * l.slots; base < items; base += step) {
        int item = base + l.slot, head = item % work;
        i64 token = item / work;
        bool live = l.live && item < items, value = head >= turned, query = head < heads;
        i64 place = (token * total + head) * d + l.place;
        Numbers<V> a = {}, b = {}, c = {}, s = {};
        if (live) {
            a = load_numbers<V>(dout + place);
            b = load_numbers<V>(dout + place + half);
            if (!value) {
                i64 angle = (i64)pos[token] * half + l.place;
                c = load_numbers<V>(cos + angle);
                s = load_numbers<V>(sin + angle);
            }
        }
        if (!value)
            for (int j = 0; j < V; ++j) {
                float first = a.v[j], second = b.v[j];
                a.v[j] = first * c.v[j] + second * s.v[j];
                b.v[j] = second * c.v[j] - first * s.v[j];
            }
        if (NORMS) {
            Numbers<V> x = {}, y = {};
            float dot = 0.0f, scale = 0.0f;
            if (live && !value) {
                const float *w = query ? wq : wk;
                x = load_numbers<V>(in + place);
                y = load_numbers<V>(in + place + half);
                scale = rstd[token * turned + head];
                for (int j = 0; j < V; ++j) {
                    x.v[j] *= scale;
                    y.v[j] *= scale;
                    // Both lists are indexed by constants, so that they stay in registers.
                    float first = a.v[j] * x.v[j], second = b.v[j] * y.v[j];
                    dwq[j] += query ? first : 0.0f;
                    dwq[V + j] += query ? second : 0.0f;
                    dwk[j] += query ? 0.0f : first;
                    dwk[V + j] += query ? 0.0f : second;
                    a.v[j] *= offset + w[l.place + j];
                    b.v[j] *= offset + w[l.place + half + j];
                    dot += a.v[j] * x.v[j] + b.v[j] * y.v[j];
                }
            }
            dot = sum_lanes(dot, l.lanes) / d;
            if (live && !value)
                for (int j = 0; j < V; ++j) {
                    a.v[j] = scale * (a.v[j] - x.v[j] * dot);
                    b.v[j] = scale * (b.v[j] - y.v[j] * dot);
                }
        }
        if (!live) continue;
        store_numbers<V>(din + place, a);
        store_numbers<V>(din + place + half, b);
    }
    if (NORMS && dwq_part) write_head_partial<V>(dwq_part, dwq, l, d, shared);
    if (NORMS && dwk_part) write_head_partial<V>(dwk_part, dwk, l, d, shared);
}

// The backward pass: din from dout, both packed as above (din may be dout; then v is not touched). With wq and wk: `in` is the
// forward pass's input and rstd its statistics, and dwq_part, dwk_part [blocks, d] get the blocks' sums of the weights' gradients.
// grid: any number of blocks; 528 with norms, as many as forward without. block 128.
template <class T>
DEVICE void qk_rope_bwd(T *din, const T *dout, const T *in, const float *cos, const float *sin, const int *pos, const float *wq,
                        const float *wk, const float *rstd, float *dwq_part, float *dwk_part, int n, int heads, int kv, int d,
                        float offset) {
    __shared__ float shared[256];
    if (d % 16 == 0 && wq)
        qk_rope_bwd_items<8, true>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset, shared);
    else if (d % 16 == 0)
        qk_rope_bwd_items<8, false>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset, shared);
    else if (wq)
        qk_rope_bwd_items<4, true>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset, shared);
    else
        qk_rope_bwd_items<4, false>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset, shared);
}

#define ROPE_KERNELS(T, SUFFIX)                                                                                                  \
    KERNEL __launch_bounds__(128) qk_rope_fwd##SUFFIX(T *out, const T *in, const float *cos, const float *sin, const int *pos,   \
                                                      const float *wq, const float *wk, float *rstd, T *kcache, T *vcache,       \
                                                      const int *row, int n, int heads, int kv, int d, float eps,                \
                                                      float offset) {                                                            \
        qk_rope_fwd<T>(out, in, cos, sin, pos, wq, wk, rstd, kcache, vcache, row, n, heads, kv, d, eps, offset);                 \
    }                                                                                                                            \
    KERNEL __launch_bounds__(128, 8) qk_rope_bwd##SUFFIX(T *din, const T *dout, const T *in, const float *cos, const float *sin, \
                                                      const int *pos, const float *wq, const float *wk, const float *rstd,       \
                                                      float *dwq_part, float *dwk_part, int n, int heads, int kv, int d,         \
                                                      float offset) {                                                            \
        qk_rope_bwd<T>(din, dout, in, cos, sin, pos, wq, wk, rstd, dwq_part, dwk_part, n, heads, kv, d, offset);                 \
    }

ROPE_KERNELS(bf16, _bf16)
ROPE_KERNELS(float, _f32)
