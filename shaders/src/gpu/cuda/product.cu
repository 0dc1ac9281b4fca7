// C = A B of 16-bit matrices with sums in float32, on Hopper's tensor cores.
//
// Work is a tile of C of ROWS x COLUMNS, over all of the inner axis or one of SPLITS parts of it. As
// many blocks as the GPU has processors go through it. In each, one thread keeps the copy engine
// busy: it fills a ring of STAGES slots with what the next DEPTH of the inner axis takes. Two
// warpgroups share the tile's rows; each multiplies from shared memory into registers, 64 rows at a
// time, and gives the slot back.
//
// Slots hold rows of 128 bytes under the 128-byte swizzle, in boxes the copy engine brings whole:
// along the inner axis (A_INNER, B_INNER: that axis is contiguous in memory) one box of 64 elements
// and all rows of the tile; across it boxes of 64 rows of the tile and DEPTH of the inner axis.
//
// A convolution is such a product too: rows of C are pixels, and the inner axis goes through the
// pixels of the window and the channels of each. A tile's rows are then a rectangle of one image,
// SIDE pixels wide, and the copy engine brings it shifted to each place of the window, with zeros
// from outside of the image.
//
// Defined outside: M, N, K; BF16; A_INNER, B_INNER; GROUPS (of 64 rows a warpgroup), COLUMNS,
// STAGES, SPLITS; BIAS, GELU, RESIDUAL; multiply(), the instruction for COLUMNS; WINDOW, the side of a
// convolution's window, 0 for other products, and of its images HEIGHT, WIDTH and CHANNELS.

#define ROWS (2 * 64 * GROUPS)
#define DEPTH 64
#define A_BYTES (ROWS * DEPTH * 2)
#define B_BYTES (COLUMNS * DEPTH * 2)
#define BOX_BYTES (64 * DEPTH * 2)

// A shared-memory matrix under the 128-byte swizzle: 8 rows of 128 bytes are 1,024 bytes. Across the
// inner axis, groups of 64 are a box apart.
__device__ __forceinline__ u64 matrix(u32 address, bool inner) {
    const u64 group = inner ? 1 : BOX_BYTES >> 4;
    return (u64)((address & 0x3FFFF) >> 4) | group << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// From one 16 of the inner axis to the next, in bytes.
__device__ __forceinline__ u32 step(bool inner) {
    return inner ? 32 : 16 * 128;
}

// Transposes pairs of columns among the four lanes of a row: lane l gives its pair of each of four
// eights of columns, and gets all of the l-th eight.
__device__ __forceinline__ void gather(u32 (&pairs)[4], int lane) {
    const bool odd = lane & 1, upper = lane & 2;
    u32 a = __shfl_xor_sync(~0u, odd ? pairs[0] : pairs[1], 1);
    u32 b = __shfl_xor_sync(~0u, odd ? pairs[2] : pairs[3], 1);
    // Of eights (0, 1) and (2, 3), that of this lane's parity, from the lanes of a pair of lanes.
    const u32 low[2] = {odd ? a : pairs[0], odd ? pairs[1] : a};
    const u32 high[2] = {odd ? b : pairs[2], odd ? pairs[3] : b};
    a = __shfl_xor_sync(~0u, upper ? low[0] : high[0], 2);
    b = __shfl_xor_sync(~0u, upper ? low[1] : high[1], 2);
    pairs[0] = upper ? a : low[0];
    pairs[1] = upper ? b : low[1];
    pairs[2] = upper ? high[0] : a;
    pairs[3] = upper ? high[1] : b;
}

#if WINDOW
#define SIDE 16
#define TILES_ACROSS ((WIDTH + SIDE - 1) / SIDE)
#define TILES_DOWN ((HEIGHT + ROWS / SIDE - 1) / (ROWS / SIDE))
constexpr int TALL = M / (HEIGHT * WIDTH) * TILES_DOWN * TILES_ACROSS;
constexpr int DEEP = (CHANNELS + DEPTH - 1) / DEPTH; // steps for a place of the window
constexpr int STEPS = WINDOW * WINDOW * DEEP;
#else
constexpr int TALL = (M + ROWS - 1) / ROWS;
constexpr int STEPS = (K + DEPTH - 1) / DEPTH;
#endif
constexpr int BROAD = (N + COLUMNS - 1) / COLUMNS;

// Piece `work` of the work: its tile, and its part of the inner axis in steps of DEPTH.
struct Piece {
    int column, first, last, part;
#if WINDOW
    int image, x, y;
#else
    int row;
#endif

    __device__ explicit Piece(int work) {
        part = work / (BROAD * TALL);
        first = (int)((long long)STEPS * part / SPLITS);
        last = (int)((long long)STEPS * (part + 1) / SPLITS);
        column = work % BROAD * COLUMNS;
        const int tile = work / BROAD % TALL;
#if WINDOW
        image = tile / (TILES_DOWN * TILES_ACROSS);
        y = tile / TILES_ACROSS % TILES_DOWN * (ROWS / SIDE);
        x = tile % TILES_ACROSS * SIDE;
#else
        row = tile * ROWS;
#endif
    }

    // The row of C that row `i` of the tile is, M where there is none.
    __device__ int to(int i) const {
#if WINDOW
        const int at_x = x + i % SIDE, at_y = y + i / SIDE;
        return at_x < WIDTH && at_y < HEIGHT ? (image * HEIGHT + at_y) * WIDTH + at_x : M;
#else
        return row + i < M ? row + i : M;
#endif
    }

    static constexpr int COUNT = BROAD * TALL * SPLITS;
};

// Starts to copy what step `i` takes of A and of B.
__device__ __forceinline__ void copy_step(u32 to, const TensorMap *a, const TensorMap *b, const Piece &piece,
                                          int i, u32 barrier) {
    int inner = i * DEPTH;
#if WINDOW
    const int place = i / DEEP, channel = i % DEEP * DEPTH;
    // Channels beyond the last are zero in A, whatever B has there.
    inner = place * CHANNELS + channel;
    copy_image_box(to, a, channel, piece.x + place % WINDOW - WINDOW / 2, piece.y + place / WINDOW - WINDOW / 2,
                   piece.image, barrier);
#elif A_INNER
    copy_box(to, a, inner, piece.row, barrier);
#else
    for (int box = 0; box < ROWS / 64; box++)
        copy_box(to + box * BOX_BYTES, a, piece.row + box * 64, inner, barrier);
#endif
#if B_INNER
    copy_box(to + A_BYTES, b, inner, piece.column, barrier);
#else
    for (int box = 0; box < COLUMNS / 64; box++)
        copy_box(to + A_BYTES + box * BOX_BYTES, b, piece.column + box * 64, inner, barrier);
#endif
}

// The slot of the ring that is next, and the parity of its phase.
struct Ring {
    u32 slot = 0, parity = 0;

    __device__ void advance() {
        if (++slot == STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
};

KERNEL void __launch_bounds__(384, 1)
    product(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
#if BIAS
            const u16 *__restrict__ bias,
#endif
#if RESIDUAL
            const u16 *__restrict__ residual,
#endif
            void *__restrict__ c) {
    SHARED_MEMORY(memory);
    const u32 start = (shared_address(memory) + 1023) & ~1023u;
    const u32 full = start + STAGES * (A_BYTES + B_BYTES), empty = full + 8 * STAGES;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    if (thread == 0) {
        prefetch_map(&a);
        prefetch_map(&b);
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 8); // the warps that multiply
        }
        barrier_publish();
    }
    __syncthreads();

    Ring ring;
    if (warp < 4) {
        registers_give<24>();
        if (thread == 0) {
            for (int work = blockIdx.x; work < Piece::COUNT; work += gridDim.x) {
                const Piece piece(work);
                for (int i = piece.first; i < piece.last; i++) {
                    const u32 to = start + ring.slot * (A_BYTES + B_BYTES);
                    const u32 barrier = full + 8 * ring.slot;
                    barrier_wait(empty + 8 * ring.slot, ring.parity ^ 1);
                    barrier_expect(barrier, A_BYTES + B_BYTES);
                    copy_step(to, &a, &b, piece, i, barrier);
                    ring.advance();
                }
            }
        }
        return;
    }

    registers_take<240>();
    const int group = warp / 4 - 1; // of the two warpgroups
    for (int work = blockIdx.x; work < Piece::COUNT; work += gridDim.x) {
        const Piece piece(work);
        float sums[GROUPS][COLUMNS / 2];
        u32 before = 0;
        for (int i = piece.first; i < piece.last; i++) {
            barrier_wait(full + 8 * ring.slot, ring.parity);
            const u32 at = start + ring.slot * (A_BYTES + B_BYTES);
            product_fence();
#pragma unroll
            for (int inner = 0; inner < DEPTH / 16; inner++) {
                const u64 right = matrix(at + A_BYTES + inner * step(B_INNER), B_INNER);
#pragma unroll
                for (int g = 0; g < GROUPS; g++) {
                    const u32 rows = at + (group * GROUPS + g) * BOX_BYTES;
                    const u64 left = matrix(rows + inner * step(A_INNER), A_INNER);
                    multiply(sums[g], left, right, i > piece.first || inner > 0);
                }
            }
            product_commit();
            // The products before these have ended, and so has the use of their slot.
            product_wait<1>();
            if (i > piece.first && lane == 0) barrier_arrive(empty + 8 * before);
            before = ring.slot;
            ring.advance();
        }
        product_wait<0>();
        if (lane == 0) barrier_arrive(empty + 8 * before);

#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const int row = (group * GROUPS + g) * 64 + warp % 4 * 16 + lane / 4;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int at = piece.to(row + 8 * half);
                // Of 32 bits, since registers are full: where the result has more places, the host does
                // not come here.
                const u32 line = (u32)at * N + piece.column + 8 * (lane % 4);
#if SPLITS > 1
                float *const parts = (float *)c + (long long)piece.part * M * N + line - lane % 4 * 6;
                const int columns = at < M ? N - piece.column - lane % 4 * 2 : 0;
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)
                    if (8 * j < columns)
                        *(float2 *)(parts + 8 * j) =
                            make_float2(sums[g][4 * j + 2 * half], sums[g][4 * j + 2 * half + 1]);
#else
                // A lane finishes pairs of columns, and writes eight columns that lie together.
                const int columns = N - piece.column, to_columns = at < M ? columns - 8 * (lane % 4) : 0;
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j += 4) {
                    u32 pairs[4];
#if RESIDUAL
                    uint4 rest = make_uint4(0, 0, 0, 0);
                    if (8 * j < to_columns)
                        rest = *(const uint4 *)(residual + line + 8 * j);
                    u32 kept[4] = {rest.x, rest.y, rest.z, rest.w};
                    gather(kept, lane); // its own inverse
#endif
#pragma unroll
                    for (int eight = 0; eight < 4; eight++) {
                        float x = sums[g][4 * (j + eight) + 2 * half];
                        float y = sums[g][4 * (j + eight) + 2 * half + 1];
#if BIAS
                        const int column = 8 * (j + eight) + lane % 4 * 2;
                        if (column < columns) {
                            const u32 added = *(const u32 *)(bias + piece.column + column);
                            x += unpack(added & 0xFFFF);
                            y += unpack(added >> 16);
                        }
#endif
#if RESIDUAL
                        x += unpack(kept[eight] & 0xFFFF);
                        y += unpack(kept[eight] >> 16);
#endif
                        pairs[eight] = pack(finish(x), finish(y));
                    }
                    gather(pairs, lane);
                    if (8 * j < to_columns)
                        *(uint4 *)((u16 *)c + line + 8 * j) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
                }
#endif
            }
        }
    }
}
