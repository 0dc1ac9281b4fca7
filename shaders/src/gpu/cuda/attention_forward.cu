// out = softmax(q k^T scale) v and the logarithms of its sums (FlashAttention-2, Algorithm 1). A warp
// owns TILES tiles of 16 queries; scores are in powers of two.

constexpr int ROWS = 16 * TILES * WARPS;

struct Arguments {
    Layout q, k, v, out;
    u32 queries, keys, heads;
    float scale;
};

KERNEL void __launch_bounds__(32 * WARPS)
    attention_forward(const u16 *__restrict__ q, const u16 *__restrict__ k, const u16 *__restrict__ v,
                      u16 *__restrict__ out, float *__restrict__ lse, const __grid_constant__ Arguments at) {
    SHARED_MEMORY(memory);
    const int queries = at.queries, keys = at.keys, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Place place((queries + ROWS - 1) / ROWS, ROWS, at.heads);
    q += at.q.start(place.image, place.head);
    k += at.k.start(place.image, place.head);
    v += at.v.start(place.image, place.head);
    out += at.out.start(place.image, place.head);
    lse += (long long)(place.image * (int)at.heads + place.head) * queries;

    // Queries, and behind them two steps of keys and values; results take the place of queries.
    constexpr int OWN = Tile<D>::bytes(ROWS) > Tile<E>::bytes(ROWS) ? Tile<D>::bytes(ROWS)
                                                                        : Tile<E>::bytes(ROWS);
    const Tile<D> own = {(u16 *)memory};
    const auto key_tile = [&](int step) {
        return Tile<D>{(u16 *)(memory + OWN + step % 2 * Tile<D>::bytes(STEP))};
    };
    const auto value_tile = [&](int step) {
        return Tile<E>{(u16 *)(memory + OWN + 2 * Tile<D>::bytes(STEP) + step % 2 * Tile<E>::bytes(STEP))};
    };
    own.fill_up(ROWS);
    own.copy(q, at.q.row, place.first, queries, ROWS);
    for (int i = 0; i < 2; i++) {
        key_tile(i).fill_up(STEP);
        value_tile(i).fill_up(STEP);
    }
    const int steps = (keys + STEP - 1) / STEP;
    key_tile(0).copy(k, at.k.row, 0, keys, STEP);
    value_tile(0).copy(v, at.v.row, 0, keys, STEP);
    copy_commit();

    u32 factors[TILES][Tile<D>::FULL / 16][4];
    float sums[TILES][E / 8][4], maximum[TILES][2], total[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        clear(sums[t]);
        maximum[t][0] = maximum[t][1] = -1e30f;
        total[t][0] = total[t][1] = 0;
    }
    const float scale = at.scale * LOG2_E;
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) {
            key_tile(step + 1).copy(k, at.k.row, (step + 1) * STEP, keys, STEP);
            value_tile(step + 1).copy(v, at.v.row, (step + 1) * STEP, keys, STEP);
        }
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        if (step == 0)
#pragma unroll
            for (int t = 0; t < TILES; t++) hold<D>(factors[t], own, (warp * TILES + t) * 16);
        float scores[TILES][STEP / 8][4];
        rows_by_rows<D>(scores, factors, key_tile(step));
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float largest = maximum[t][half];
#pragma unroll
                for (int j = 0; j < STEP / 8; j++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        const int key = step * STEP + 8 * j + lane % 4 * 2 + i % 2;
                        scores[t][j][i] = key < keys ? scores[t][j][i] * scale : -1e30f;
                        largest = fmaxf(largest, scores[t][j][i]);
                    }
                largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
                const float factor = power_of_two(maximum[t][half] - largest);
                maximum[t][half] = largest;
                total[t][half] *= factor;
#pragma unroll
                for (int j = 0; j < STEP / 8; j++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        scores[t][j][i] = power_of_two(scores[t][j][i] - largest);
                        total[t][half] += scores[t][j][i];
                    }
#pragma unroll
                for (int j = 0; j < E / 8; j++) {
                    sums[t][j][2 * half] *= factor;
                    sums[t][j][2 * half + 1] *= factor;
                }
            }
        weights_by_rows<E>(sums, scores, value_tile(step));
        __syncthreads();
    }
    const Tile<E> results = {(u16 *)memory};
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const int row = (warp * TILES + t) * 16;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            // Each of a row's four lanes has the sum of its columns.
            total[t][half] += __shfl_xor_sync(~0u, total[t][half], 1);
            total[t][half] += __shfl_xor_sync(~0u, total[t][half], 2);
            const int query = place.first + row + lane / 4 + 8 * half;
            if (lane % 4 == 0 && query < queries)
                lse[query] = maximum[t][half] / LOG2_E + logf(total[t][half]);
        }
        write<E>(sums[t], 1 / total[t][0], 1 / total[t][1], results, row, out, at.out.row, place.first, queries);
    }
}
