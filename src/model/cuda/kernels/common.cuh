// What all kernels share. The text of this file stands before that of every other one; no header is needed.
//
// Types of activations are written T: `bf16` or `float`. Arithmetic is in float. Vectors of eight numbers are moved at once
// (16 bytes of bf16, 32 of float), so rows start at multiples of 8 numbers and pointers are aligned to 16 bytes.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define WARP 32
#define ALL_LANES 0xffffffffu
#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// The upper half of a float.
struct bf16 {
    u16 bits;
};

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Two floats rounded to nearest even, `low` in the lower half.
DEVICE u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
DEVICE float low_bf16(u32 packed) { return __uint_as_float(packed << 16); }
DEVICE float high_bf16(u32 packed) { return __uint_as_float(packed & 0xffff0000u); }

template <class T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE bf16 from_float<bf16>(float x) { return bf16{(u16)(pack_bf16(x, 0.0f) & 0xffffu)}; }

// Eight consecutive numbers in registers.
struct Eight {
    float v[8];
};

DEVICE Eight load8(const bf16 *p) {
    uint4 raw = *reinterpret_cast<const uint4 *>(p);
    return Eight{{low_bf16(raw.x), high_bf16(raw.x), low_bf16(raw.y), high_bf16(raw.y), low_bf16(raw.z), high_bf16(raw.z),
                  low_bf16(raw.w), high_bf16(raw.w)}};
}
DEVICE Eight load8(const float *p) {
    float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    return Eight{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
DEVICE void store8(bf16 *p, const Eight &e) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(pack_bf16(e.v[0], e.v[1]), pack_bf16(e.v[2], e.v[3]),
                                               pack_bf16(e.v[4], e.v[5]), pack_bf16(e.v[6], e.v[7]));
}
DEVICE void store8(float *p, const Eight &e) {
    reinterpret_cast<float4 *>(p)[0] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
}

// Four consecutive numbers in registers.
struct Four {
    float v[4];
};

DEVICE Four load4(const bf16 *p) {
    uint2 raw = *reinterpret_cast<const uint2 *>(p);
    return Four{{low_bf16(raw.x), high_bf16(raw.x), low_bf16(raw.y), high_bf16(raw.y)}};
}
DEVICE Four load4(const float *p) {
    float4 a = *reinterpret_cast<const float4 *>(p);
    return Four{{a.x, a.y, a.z, a.w}};
}
DEVICE void store4(bf16 *p, const Four &f) {
    *reinterpret_cast<uint2 *>(p) = make_uint2(pack_bf16(f.v[0], f.v[1]), pack_bf16(f.v[2], f.v[3]));
}
DEVICE void store4(float *p, const Four &f) {
    *reinterpret_cast<float4 *>(p) = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
}

// 2^x and 1/x by the special function unit: two units in the last place at most.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float exp_fast(float x) { return exp2_fast(x * 1.4426950408889634f); }
DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Sums over `lanes` neighbouring lanes (a power of two); every lane gets the sum.
DEVICE float sum_lanes(float x, int lanes) {
    for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

// The sum of x over the block, in a fixed order; every thread gets it. `scratch` holds 33 floats and may be used again at once.
// Blocks are whole warps.
DEVICE float sum_block(float x, float *scratch) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = sum_lanes(x, WARP);
    if (warps == 1) return x;
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return sum_lanes(lane < warps ? scratch[lane] : 0.0f, WARP);
}

// Random numbers of a counter: the same (seed, counter) gives the same four numbers on any device.
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox 4x32 with ten rounds.
DEVICE uint4 philox(u64 seed, u64 high, u64 low) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    uint4 c = make_uint4((u32)low, (u32)(low >> 32), (u32)high, (u32)(high >> 32));
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u32 h0 = __umulhi(0xD2511F53u, c.x), l0 = 0xD2511F53u * c.x;
        u32 h1 = __umulhi(0xCD9E8D57u, c.z), l1 = 0xCD9E8D57u * c.z;
        c = make_uint4(h1 ^ c.y ^ k0, l1, h0 ^ c.w ^ k1, l0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// A number in (0, 1) from 32 random bits, 0 and 1 excluded: 23 of them count, so that adding a half is exact.
DEVICE float unit(u32 bits) { return ((float)(bits >> 9) + 0.5f) * 1.1920928955078125e-7f; }
