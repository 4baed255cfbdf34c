// Products of tiles by warpgroups, and movement of tiles: what attend_hopper.cu is made of. Its text stands before that.
//
// A warpgroup (four warps) owns 64 rows of every product. What is multiplied from the right lies in shared memory as tiles whose
// rows are cut into stripes of 64 numbers (128 bytes); chunk c of row r of a stripe stands at place c ^ (r % 8), which is the
// 128-byte swizzle that the instructions read (PTX ISA, "asynchronous warpgroup level matrix multiply-accumulate").

#define T bf16
#define JOINED(name, head) name##_bf16_##head
#define NAMED(name, head) JOINED(name, head)

#define STRIPES (HEAD / 64)
#define STEPS (HEAD / 16)
#define GROUP_ROWS 64
#define GROUP 128 // threads of a warpgroup

#define BLOCK 64       // rows of the other side that are worked on at once
#define ALIGNMENT 1024 // of tiles; dynamic shared memory is only promised to be aligned to 16 bytes

extern __shared__ __align__(16) unsigned char memory[];
DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
DEVICE T *tiles() { return reinterpret_cast<T *>(memory + (ALIGNMENT - shared_address(memory) % ALIGNMENT) % ALIGNMENT); }

// ------------------------------------------------------------------------------------------------------- matrix instructions

// 64 x 64 of a result, shared out over a warpgroup: warp w has rows 16 w to 16 w + 15, and of these lane 4 g + t has, for each n < 8,
// [4 n], [4 n + 1]: row g, columns 8 n + 2 t and 8 n + 2 t + 1; [4 n + 2], [4 n + 3]: the same of row g + 8.
typedef float Square[32];
// 16 columns of 64 rows as a left operand.
typedef u32 Left[4];

#define SQUARE_REGISTERS                                                                                                       \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"
#define SQUARE_OPERANDS(c)                                                                                                     \
    "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]),    \
        "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]),   \
        "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),   \
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])

// c = a b, or c += a b: the right operand by its descriptor, its columns being rows of the tile (ACROSS 0) or columns (1).
template <int ACROSS> DEVICE void multiply(Square &c, const Left &a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SQUARE_REGISTERS
                 ", {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}"
                 : SQUARE_OPERANDS(c)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(ACROSS));
}
// The same with the left operand in shared memory, its rows being rows of the tile.
template <int ACROSS> DEVICE void multiply(Square &c, u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " SQUARE_REGISTERS ", %32, %33, p, 1, 1, 0, %35;\n}"
                 : SQUARE_OPERANDS(c)
                 : "l"(a), "l"(b), "r"(add), "n"(ACROSS));
}
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
// Keeps the compiler from moving reads of a result before the wait above, of which it does not know what it is for.
DEVICE void settle(Square &c) {
#pragma unroll
    for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

DEVICE void settle_all(Square (&c)[STRIPES]) {
#pragma unroll
    for (int s = 0; s < STRIPES; ++s) settle(c[s]);
}

// Describes rows from `tile` on: eight rows take 1,024 bytes. `stripe` is the size of a stripe in bytes.
DEVICE u64 describe(const T *tile, int stripe) {
    return (u64)((shared_address(tile) & 0x3ffff) >> 4) | (u64)(stripe >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// c = 64 rows (left) * 64 rows of a tile transposed, over the whole head; stripes are `stripe` bytes.
DEVICE void dot(Square &c, const Left (&left)[STEPS], u64 right, int stripe) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
        multiply<0>(c, left[step], right + step / 4 * (stripe >> 4) + step % 4 * 2, step > 0);
}
DEVICE void dot(Square &c, u64 left, int left_stripe, u64 right, int stripe) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
        multiply<0>(c, left + step / 4 * (left_stripe >> 4) + step % 4 * 2, right + step / 4 * (stripe >> 4) + step % 4 * 2, step > 0);
}

// out += weights (64 x 64) * 64 rows of a tile.
DEVICE void mix(Square (&out)[STRIPES], const Left (&weights)[4], u64 rows, int stripe) {
#pragma unroll
    for (int s = 0; s < STRIPES; ++s)
#pragma unroll
        for (int k = 0; k < 4; ++k) multiply<1>(out[s], weights[k], rows + s * (stripe >> 4) + k * 128, 1);
}

// A result as the left operand of another product.
DEVICE void as_left(Left (&a)[4], const Square &c) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[k][i] = pack_bf16(c[8 * k + 2 * i], c[8 * k + 2 * i + 1]);
}

// ---------------------------------------------------------------------------------------------------------------- movement

// The chunk of eight numbers `chunk` of a row of a tile of `rows` rows.
template <int ROWS> DEVICE T *chunk_of(T *tile, int row, int chunk) {
    return tile + chunk / 8 * ROWS * 64 + row * 64 + (chunk % 8 ^ row % 8) * 8;
}

// Starts to copy rows first .. first + ROWS of a matrix into a tile; rows from `limit` on become zero. A thread keeps to one column.
template <int ROWS, int THREADS> DEVICE void fetch(T *tile, const T *from, int stride, int first, int limit) {
    constexpr int CHUNKS = HEAD / 8, TOGETHER = THREADS / CHUNKS, PASSES = (ROWS + TOGETHER - 1) / TOGETHER;
    static_assert(THREADS % CHUNKS == 0 && TOGETHER % 8 == 0, "the swizzle must be the same in all passes");
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const T *source = from + ((i64)(first + row) * stride + chunk * 8);
    u32 to = shared_address(chunk_of<ROWS>(tile, row, chunk));
    i64 step = (i64)TOGETHER * stride;
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
        if (PASSES * TOGETHER != ROWS && row + pass * TOGETHER >= ROWS) break;
        bool there = first + row + pass * TOGETHER < limit;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + pass * TOGETHER * 128),
                     "l"(there ? source + pass * step : from), "r"(there ? 16 : 0)
                     : "memory");
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
// Waits for the thread's own copies and shows them to the matrix instructions; a barrier must follow.
DEVICE void wait_fetches() {
    asm volatile("cp.async.wait_group 0;\nfence.proxy.async.shared::cta;" ::: "memory");
}

// A warp's 16 rows of a tile as left operands.
template <int ROWS> DEVICE void load_left(Left (&a)[STEPS], T *tile, int row) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        u32 at = shared_address(chunk_of<ROWS>(tile, row + lane % 16, step * 2 + lane / 16));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[step][0]), "=r"(a[step][1]), "=r"(a[step][2]), "=r"(a[step][3])
                     : "r"(at));
    }
}

// Writes a warp's 16 rows of a result, times factor[row < 8 ? 0 : 1], by way of rows `row` and following of a tile.
template <int ROWS>
DEVICE void write_rows(T *to, i64 stride, int first, int limit, const Square (&c)[STRIPES], const float (&factor)[2], T *tile, int row) {
    int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int s = 0; s < STRIPES; ++s)
#pragma unroll
        for (int i = 0; i < 16; ++i) // pairs: tile i / 2, half i % 2
            *reinterpret_cast<u32 *>(chunk_of<ROWS>(tile, row + i % 2 * 8 + lane / 4, s * 8 + i / 2) + lane % 4 * 2) =
                pack_bf16(c[s][2 * i] * factor[i % 2], c[s][2 * i + 1] * factor[i % 2]);
    __syncwarp();
    for (int i = lane; i < 16 * (HEAD / 8); i += WARP) {
        int r = i / (HEAD / 8), chunk = i % (HEAD / 8);
        if (first + r < limit)
            *reinterpret_cast<uint4 *>(to + (first + r) * stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(chunk_of<ROWS>(tile, row + r, chunk));
    }
}

#define LOG2E 1.4426950408889634f
