// The optimiser's step over flat ranges of parameters.


// AdamW (Loshchilov and Hutter 2019, as torch computes it) on `count` parameters: with g times `factor`, m and v the running means,
// w -= lr * wd * w, then w -= lr * (m / c1) / (sqrt(v / c2) + eps), where c1 = 1 - b1^t and c2 = 1 - b2^t.  `copy`, where given,
// gets w as bf16.  rest1 and rest2 are 1 - b1 and 1 - b2, taken where b1 and b2 are not yet rounded.
// All but copy are aligned to 16 bytes, copy to 8.  grid ceil(count / 4 / 256), block 256.
KERNEL adamw(float *w, bf16 *copy, const float *g, float *m, float *v, i64 count, float lr, float rest1, float b2, float rest2,
             float eps, float wd, float c1, float c2, float factor) {
    i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (first >= count) return;
    int live = count - first < 4 ? (int)(count - first) : 4;
    Four weight = {}, slope = {}, mean = {}, square = {};
    if (live == 4) {
        weight = load4(w + first), slope = load4(g + first), mean = load4(m + first), square = load4(v + first);
    } else {
        for (int j = 0; j < 3; ++j)
            if (j < live) weight.v[j] = w[first + j], slope.v[j] = g[first + j], mean.v[j] = m[first + j], square.v[j] = v[first + j];
    }
    float root = rsqrtf(c2);
    for (int j = 0; j < 4; ++j) {
        float s = slope.v[j] * factor;
        mean.v[j] += (s - mean.v[j]) * rest1;
        square.v[j] = b2 * square.v[j] + rest2 * s * s;
        weight.v[j] -= lr * wd * weight.v[j];
        weight.v[j] -= lr / c1 * mean.v[j] / (sqrtf(square.v[j]) * root + eps);
    }
    if (live == 4) {
        store4(w + first, weight), store4(m + first, mean), store4(v + first, square);
        if (copy) store4(copy + first, weight);
    } else {
        for (int j = 0; j < 3; ++j)
            if (j < live) {
                w[first + j] = weight.v[j], m[first + j] = mean.v[j], v[first + j] = square.v[j];
                if (copy) copy[first + j] = from_float<bf16>(weight.v[j]);
            }
    }
}

// part[blocks] = sums of the squares of g, dealt out to blocks and threads in a fixed way.  grid: any number of blocks (1024 is
// good), block 256.  g is aligned to 16 bytes.
KERNEL sum_squares(double *part, const float *g, i64 count) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < count; i += (i64)gridDim.x * blockDim.x * 4) {
        float squares = 0.0f;
        if (i + 4 <= count) {
            Four x = load4(g + i);
            for (int j = 0; j < 4; ++j) squares += x.v[j] * x.v[j];
        } else {
            for (i64 j = i; j < count; ++j) squares += g[j] * g[j];
        }
        sum += squares;
    }
    sums[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) part[blockIdx.x] = sums[0];
}

// x *= factor.  grid ceil(count / 4 / 256), block 256; x is aligned to 16 bytes.
KERNEL scale_f32(float *x, i64 count, float factor) {
    i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (first + 4 <= count) {
        Four f = load4(x + first);
        for (int j = 0; j < 4; ++j) f.v[j] *= factor;
        store4(x + first, f);
    } else {
        for (i64 i = first; i < count; ++i) x[i] *= factor;
    }
}
