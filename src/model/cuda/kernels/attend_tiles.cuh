// Products of tiles on the tensor cores by one warp, and movement of tiles: what attend.cu is made of. Its text stands before that.

#if BF16
typedef bf16 T;
#define TYPE bf16
#define KSTEP 16 // columns of one matrix instruction
#define PADDING 8
#else
typedef float T;
#define TYPE f32
#define KSTEP 8
#define PADDING 4
#endif

#define STRIDE (HEAD + PADDING) // of a row in shared memory: eight rows in a row lie in different banks
#define STEPS (HEAD / KSTEP)
#define TILES (HEAD / 8)
#define JOINED(name, type, head) name##_##type##_##head
#define NAMED(name, type, head) JOINED(name, type, head)

// ------------------------------------------------------------------------------------------------------- matrix instructions

// Operands of a product of 16 x KSTEP by KSTEP x 8, as the lanes of a warp hold them. With g = lane / 4 and t = lane % 4 a lane
// has of the result: [0], [1] row g, columns 2 t and 2 t + 1; [2], [3] the same of row g + 8.
struct Left {
    u32 r[4];
};
struct Right {
    u32 r[2];
};
typedef float Tile[4];

DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

#if BF16
DEVICE void multiply(Tile &c, const Left &a, const Right &b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

// The left operand: 16 rows of `tile` (rows STRIDE apart) from column k.
DEVICE Left load_left(const T *tile, int k) {
    int lane = threadIdx.x % WARP;
    u32 at = shared_address(tile + lane % 16 * STRIDE + k + lane / 16 * 8);
    Left a;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a.r[0]), "=r"(a.r[1]), "=r"(a.r[2]), "=r"(a.r[3])
                 : "r"(at));
    return a;
}

// Two right operands whose columns are 16 rows of `tile`, from column k: for a product with the transposed tile.
DEVICE void load_rows(Right (&b)[2], const T *tile, int k) {
    int lane = threadIdx.x % WARP;
    u32 at = shared_address(tile + (lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0].r[0]), "=r"(b[0].r[1]), "=r"(b[1].r[0]), "=r"(b[1].r[1])
                 : "r"(at));
}

// Two right operands: KSTEP rows of `tile` and its columns n to n + 15: for a product with the tile itself.
DEVICE void load_columns(Right (&b)[2], const T *tile, int n) {
    int lane = threadIdx.x % WARP;
    u32 at = shared_address(tile + (lane / 8 % 2 * 8 + lane % 8) * STRIDE + n + lane / 16 * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0].r[0]), "=r"(b[0].r[1]), "=r"(b[1].r[0]), "=r"(b[1].r[1])
                 : "r"(at));
}

// Results as the left operand of another product: step k of their columns.
template <int N> DEVICE Left as_left(const Tile (&c)[N], int k) {
    return Left{{pack_bf16(c[2 * k][0], c[2 * k][1]), pack_bf16(c[2 * k][2], c[2 * k][3]),
                 pack_bf16(c[2 * k + 1][0], c[2 * k + 1][1]), pack_bf16(c[2 * k + 1][2], c[2 * k + 1][3])}};
}
#else
DEVICE void multiply(Tile &c, const Left &a, const Right &b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

DEVICE u32 tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

DEVICE Left load_left(const T *tile, int k) {
    int lane = threadIdx.x % WARP;
    const T *at = tile + lane / 4 * STRIDE + k + lane % 4;
    return Left{{tf32(at[0]), tf32(at[8 * STRIDE]), tf32(at[4]), tf32(at[8 * STRIDE + 4])}};
}

DEVICE void load_rows(Right (&b)[2], const T *tile, int k) {
    int lane = threadIdx.x % WARP;
    const T *at = tile + lane / 4 * STRIDE + k + lane % 4;
    b[0] = Right{{tf32(at[0]), tf32(at[4])}};
    b[1] = Right{{tf32(at[8 * STRIDE]), tf32(at[8 * STRIDE + 4])}};
}

// Rows 2 t and 2 t + 1 stand where the instruction takes rows t and t + 4, as columns do in as_left: a sum has no order.
DEVICE void load_columns(Right (&b)[2], const T *tile, int n) {
    int lane = threadIdx.x % WARP;
    const T *at = tile + lane % 4 * 2 * STRIDE + n + lane / 4;
    b[0] = Right{{tf32(at[0]), tf32(at[STRIDE])}};
    b[1] = Right{{tf32(at[8]), tf32(at[STRIDE + 8])}};
}

template <int N> DEVICE Left as_left(const Tile (&c)[N], int k) {
    return Left{{tf32(c[k][0]), tf32(c[k][2]), tf32(c[k][1]), tf32(c[k][3])}};
}
#endif

// c = (16 MI rows of `left`) * (8 N rows of `right`) transposed, over the whole head.
template <int MI, int N> DEVICE void dot(Tile (&c)[MI][N], const T *left, const T *right) {
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        Left a[MI];
#pragma unroll
        for (int m = 0; m < MI; ++m) a[m] = load_left(left + m * 16 * STRIDE, step * KSTEP);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            Right b[2];
            load_rows(b, right + n * 8 * STRIDE, step * KSTEP);
#pragma unroll
            for (int m = 0; m < MI; ++m) {
                multiply(c[m][n], a[m], b[0]);
                multiply(c[m][n + 1], a[m], b[1]);
            }
        }
    }
}

// The same with the left operand already in registers.
template <int MI, int N> DEVICE void dot(Tile (&c)[MI][N], const Left (&left)[MI][STEPS], const T *right) {
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            Right b[2];
            load_rows(b, right + n * 8 * STRIDE, step * KSTEP);
#pragma unroll
            for (int m = 0; m < MI; ++m) {
                multiply(c[m][n], left[m][step], b[0]);
                multiply(c[m][n + 1], left[m][step], b[1]);
            }
        }
}

// out += weights * (8 N rows of `rows`).
template <int MI, int N> DEVICE void mix(Tile (&out)[MI][TILES], const Tile (&weights)[MI][N], const T *rows) {
#pragma unroll
    for (int k = 0; k < N * 8 / KSTEP; ++k) {
        Left a[MI];
#pragma unroll
        for (int m = 0; m < MI; ++m) a[m] = as_left(weights[m], k);
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            Right b[2];
            load_columns(b, rows + k * KSTEP * STRIDE, n * 8);
#pragma unroll
            for (int m = 0; m < MI; ++m) {
                multiply(out[m][n], a[m], b[0]);
                multiply(out[m][n + 1], a[m], b[1]);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- movement

#define CHUNK (16 / (int)sizeof(T)) // numbers moved at once
#define CHUNKS (HEAD / CHUNK)

// Starts to copy rows first .. first + ROWS of a matrix into a tile; rows from `limit` on become zero. Where a row's chunks divide
// the threads, a thread keeps to one column, which saves most of the arithmetic.
template <int ROWS, int THREADS> DEVICE void fetch(T *tile, const T *from, int stride, int first, int limit) {
    auto copy = [&](u32 to, const T *source, bool there) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(there ? source : from), "r"(there ? 16 : 0)
                     : "memory");
    };
    if constexpr (THREADS % CHUNKS == 0) {
        constexpr int TOGETHER = THREADS / CHUNKS, PASSES = (ROWS + TOGETHER - 1) / TOGETHER;
        int row = threadIdx.x / CHUNKS, column = threadIdx.x % CHUNKS * CHUNK;
        const T *source = from + ((i64)(first + row) * stride + column);
        u32 to = shared_address(tile + row * STRIDE + column);
        i64 step = (i64)TOGETHER * stride;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            if (PASSES * TOGETHER != ROWS && row + pass * TOGETHER >= ROWS) break;
            copy(to + pass * TOGETHER * STRIDE * (int)sizeof(T), source + pass * step, first + row + pass * TOGETHER < limit);
        }
    } else {
        for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
            copy(shared_address(tile + row * STRIDE + column), from + ((i64)(first + row) * stride + column), first + row < limit);
        }
    }
}
// The same for one number: from[at], or zero where that is not below `limit`.
DEVICE void fetch_float(float *to, const float *from, int at, int limit) {
    bool there = at < limit;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(there ? from + at : from),
                 "r"(there ? 4 : 0)
                 : "memory");
}
DEVICE void end_fetches() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> DEVICE void wait_fetches() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// Writes a warp's 16 MI rows, multiplied by factor[m][row < 8 ? 0 : 1], by way of its own rows of a tile in shared memory.
template <int MI>
DEVICE void write_rows(T *to, i64 stride, int first, int limit, const Tile (&c)[MI][TILES], const float (&factor)[MI][2], T *tile) {
    int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MI; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < TILES; ++n) {
                T *at = tile + (m * 16 + half * 8 + lane / 4) * STRIDE + n * 8 + lane % 4 * 2;
                float x = c[m][n][2 * half] * factor[m][half], y = c[m][n][2 * half + 1] * factor[m][half];
#if BF16
                *reinterpret_cast<u32 *>(at) = pack_bf16(x, y);
#else
                *reinterpret_cast<float2 *>(at) = make_float2(x, y);
#endif
            }
    __syncwarp();
    for (int i = lane; i < 16 * MI * CHUNKS; i += WARP) {
        int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
        if (first + row < limit)
            *reinterpret_cast<uint4 *>(to + (first + row) * stride + column) =
                *reinterpret_cast<const uint4 *>(tile + row * STRIDE + column);
    }
}

extern __shared__ __align__(16) unsigned char memory[];

#define LOG2E 1.4426950408889634f
