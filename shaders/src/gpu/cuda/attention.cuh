// What the passes of attention share. A warp owns rows, 16 to a tile, and holds everything of them
// in registers; the other side's rows stream through shared memory, STEP at a time, twice buffered.
//
// Fragments are those of mma.m16n8k16 (PTX ISA, "Matrix fragments"): of a tile of sums, lane `l`
// holds columns `2 (l % 4)` and the next of rows `l / 4` (0, 1) and `l / 4 + 8` (2, 3). Two tiles of
// sums side by side, rounded, are the left factor of the next product without leaving the registers.
//
// Defined outside: D and E, values of a query or key and of a value, multiples of 8; STEP; TILES, of a
// warp; BF16.

/// Where the values of a token's head begin: offset + image batch + token row + head head.
struct Layout {
    u32 offset, batch, row, head;

    __device__ long long start(int image, int of_head) const {
        return offset + (long long)image * batch + (long long)of_head * head;
    }
};

constexpr int WARPS = 4;
constexpr float LOG2_E = 1.4426950408889634f;

/// Rows of WIDTH values in shared memory, filled up with zeros to a multiple of 16, and one more
/// eight, so that eight rows begin in different banks.
template <int WIDTH> struct Tile {
    static constexpr int FULL = (WIDTH + 15) / 16 * 16, PITCH = FULL + 8;
    u16 *values;

    static constexpr __device__ int bytes(int rows) {
        return rows * PITCH * 2;
    }

    /// Zeros behind the rows, which copies leave alone.
    __device__ void fill_up(int rows) const {
        if (FULL > WIDTH)
            for (int row = threadIdx.x; row < rows; row += 32 * WARPS)
                *(uint4 *)(values + row * PITCH + WIDTH) = make_uint4(0, 0, 0, 0);
    }

    /// Starts to copy `rows` rows from `first` on; those from `count` on become zero.
    __device__ void copy(const u16 *from, u32 stride, int first, int count, int rows) const {
        constexpr int eights = WIDTH / 8;
        for (int i = threadIdx.x; i < rows * eights; i += 32 * WARPS) {
            const int row = i / eights, column = i % eights * 8;
            const bool there = first + row < count;
            const u16 *place = from + (there ? (long long)(first + row) * stride + column : 0);
            copy_16(shared_address(values + row * PITCH + column), place, there);
        }
    }

    /// The left factor of products over the columns: 16 rows from `row` on, 16 columns from
    /// `column` on.
    __device__ void left(u32 (&to)[4], int row, int column) const {
        const int lane = threadIdx.x % 32;
        load_matrices(to, shared_address(values + (row + lane % 16) * PITCH + column + lane / 16 * 8));
    }

    /// The right factor of `A rows^T`: 16 rows from `row` on (two tiles of sums), 16 columns.
    __device__ void across(u32 (&to)[4], int row, int column) const {
        const int lane = threadIdx.x % 32;
        const int at = row + lane / 16 * 8 + lane % 8;
        load_matrices(to, shared_address(values + at * PITCH + column + lane / 8 % 2 * 8));
    }

    /// The right factor of `P rows`: 16 rows, 16 columns from `column` on (two tiles of sums).
    __device__ void down(u32 (&to)[4], int row, int column) const {
        const int lane = threadIdx.x % 32;
        load_transposed(to, shared_address(values + (row + lane % 16) * PITCH + column + lane / 16 * 8));
    }
};

template <int COUNT> __device__ __forceinline__ void clear(float (&sums)[COUNT][4]) {
#pragma unroll
    for (int j = 0; j < COUNT; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[j][i] = 0;
}

/// `sums = own rows^T` over the columns: of tiles of 16 rows whose factors are `own`.
template <int WIDTH>
__device__ __forceinline__ void rows_by_rows(float (&sums)[TILES][STEP / 8][4],
                                             const u32 (&own)[TILES][Tile<WIDTH>::FULL / 16][4],
                                             const Tile<WIDTH> &rows) {
#pragma unroll
    for (int t = 0; t < TILES; t++) clear(sums[t]);
#pragma unroll
    for (int k = 0; k < Tile<WIDTH>::FULL / 16; k++)
#pragma unroll
        for (int j = 0; j < STEP / 8; j += 2) {
            u32 right[4];
            rows.across(right, 8 * j, 16 * k);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                multiply_add(sums[t][j], own[t][k], right[0], right[1]);
                multiply_add(sums[t][j + 1], own[t][k], right[2], right[3]);
            }
        }
}

/// `sums += weights rows`: of tiles of 16 rows of STEP weights, rounded.
template <int WIDTH>
__device__ __forceinline__ void weights_by_rows(float (&sums)[TILES][WIDTH / 8][4],
                                                const float (&weights)[TILES][STEP / 8][4],
                                                const Tile<WIDTH> &rows) {
#pragma unroll
    for (int k = 0; k < STEP / 16; k++) {
        u32 left[TILES][4];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&from)[4] = weights[t][2 * k + i / 2];
                left[t][i] = pack(from[i % 2 * 2], from[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j += 2) {
            u32 right[4];
            rows.down(right, 16 * k, 8 * j);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                multiply_add(sums[t][j], left[t], right[0], right[1]);
                if (j + 1 < WIDTH / 8) multiply_add(sums[t][j + 1], left[t], right[2], right[3]);
            }
        }
    }
}

/// The factors of a warp's 16 rows.
template <int WIDTH>
__device__ __forceinline__ void hold(u32 (&own)[Tile<WIDTH>::FULL / 16][4], const Tile<WIDTH> &tile, int row) {
#pragma unroll
    for (int k = 0; k < Tile<WIDTH>::FULL / 16; k++) tile.left(own[k], row, 16 * k);
}

/// Writes a warp's 16 rows, each times its factor, through their place in shared memory, which
/// makes whole rows of them.
template <int WIDTH>
__device__ __forceinline__ void write(const float (&sums)[WIDTH / 8][4], float upper, float lower, const Tile<WIDTH> &by,
                      int row, u16 *to, u32 stride, int first, int count) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        const int at = (row + lane / 4) * Tile<WIDTH>::PITCH + 8 * j + lane % 4 * 2;
        *(u32 *)(by.values + at) = pack(sums[j][0] * upper, sums[j][1] * upper);
        *(u32 *)(by.values + at + 8 * Tile<WIDTH>::PITCH) = pack(sums[j][2] * lower, sums[j][3] * lower);
    }
    __syncwarp();
    constexpr int eights = WIDTH / 8;
    for (int i = lane; i < 16 * eights; i += 32) {
        const int at = row + i / eights, column = i % eights * 8;
        if (first + at < count)
            *(uint4 *)(to + (long long)(first + at) * stride + column) =
                *(const uint4 *)(by.values + at * Tile<WIDTH>::PITCH + column);
    }
}

/// A block's part of the work: a tile of rows of one head of one image.
struct Place {
    int first, head, image;

    __device__ Place(int tiles, int rows, int heads) {
        first = blockIdx.x % tiles * rows;
        head = blockIdx.x / tiles % heads;
        image = blockIdx.x / tiles / heads;
    }
};
