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
// Defined outside: M, N, K; BF16; A_INNER, B_INNER; GROUPS (of 64 rows a warpgroup), COLUMNS,
// STAGES, SPLITS; BIAS, GELU; multiply(), the instruction for COLUMNS.

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

// Piece `work` of the work: its tile, and its part of the inner axis in steps of DEPTH.
struct Piece {
    int row, column, first, last, part;

    __device__ explicit Piece(int work) {
        constexpr int across = (N + COLUMNS - 1) / COLUMNS, down = (M + ROWS - 1) / ROWS;
        constexpr int steps = (K + DEPTH - 1) / DEPTH;
        part = work / (across * down);
        const int tile = work % (across * down);
        row = tile / across * ROWS;
        column = tile % across * COLUMNS;
        first = (int)((long long)steps * part / SPLITS);
        last = (int)((long long)steps * (part + 1) / SPLITS);
    }

    static constexpr int COUNT =
        ((N + COLUMNS - 1) / COLUMNS) * ((M + ROWS - 1) / ROWS) * SPLITS;
};

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
#if A_INNER
                    copy_box(to, &a, i * DEPTH, piece.row, barrier);
#else
                    for (int box = 0; box < ROWS / 64; box++)
                        copy_box(to + box * BOX_BYTES, &a, piece.row + box * 64, i * DEPTH, barrier);
#endif
#if B_INNER
                    copy_box(to + A_BYTES, &b, i * DEPTH, piece.column, barrier);
#else
                    for (int box = 0; box < COLUMNS / 64; box++)
                        copy_box(to + A_BYTES + box * BOX_BYTES, &b, piece.column + box * 64,
                                 i * DEPTH, barrier);
#endif
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
            const int row = piece.row + (group * GROUPS + g) * 64 + warp % 4 * 16 + lane / 4;
#if SPLITS > 1
            float *parts = (float *)c + (long long)piece.part * M * N;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j++) {
                const int column = piece.column + 8 * j + lane % 4 * 2;
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int at = row + 8 * half;
                    if (at < M && column < N)
                        *(float2 *)(parts + (long long)at * N + column) =
                            make_float2(sums[g][4 * j + 2 * half], sums[g][4 * j + 2 * half + 1]);
                }
            }
#else
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j += 4) {
#if BIAS
                u32 added[4];
#pragma unroll
                for (int eight = 0; eight < 4; eight++) {
                    const int column = piece.column + 8 * (j + eight) + lane % 4 * 2;
                    added[eight] = column < N ? *(const u32 *)(bias + column) : 0;
                }
#endif
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    u32 pairs[4];
#pragma unroll
                    for (int eight = 0; eight < 4; eight++) {
                        float x = sums[g][4 * (j + eight) + 2 * half];
                        float y = sums[g][4 * (j + eight) + 2 * half + 1];
#if BIAS
                        x += unpack(added[eight] & 0xFFFF);
                        y += unpack(added[eight] >> 16);
#endif
                        pairs[eight] = pack(finish(x), finish(y));
                    }
                    gather(pairs, lane);
                    const int at = row + 8 * half, column = piece.column + 8 * (j + lane % 4);
                    if (at < M && column < N)
                        *(uint4 *)((u16 *)c + (long long)at * N + column) =
                            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
                }
            }
#endif
        }
    }
}
