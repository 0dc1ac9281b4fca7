// The gradients of attention (FlashAttention-2, Algorithm 2), without sums in memory: keys and
// values in one kernel (OF_KEYS), queries in another, each computing the weights
// P = exp(q k^T scale - lse) and the scores' gradients dS = P (dO v^T - delta) scale again.
//
// A warp owns TILES tiles of 16 rows: of keys, with P^T and dS^T, or of queries.

constexpr int ROWS = 16 * TILES * WARPS;

struct Arguments {
    Layout q, k, v, gradient;
#if OF_KEYS
    Layout dk, dv;
#else
    Layout dq;
#endif
    u32 queries, keys, heads;
    float scale;
};

/// `stats` is of each query the logarithm of its sum, and delta.
KERNEL void __launch_bounds__(32 * WARPS)
    attention_backward(const u16 *__restrict__ q, const u16 *__restrict__ k, const u16 *__restrict__ v,
                       const u16 *__restrict__ gradient, const float2 *__restrict__ stats,
#if OF_KEYS
                       u16 *__restrict__ dk, u16 *__restrict__ dv,
#else
                       u16 *__restrict__ dq,
#endif
                       const __grid_constant__ Arguments at) {
    SHARED_MEMORY(memory);
    const int queries = at.queries, keys = at.keys, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#if OF_KEYS
    const int count = keys, others = queries;
#else
    const int count = queries, others = keys;
#endif
    const Place place((count + ROWS - 1) / ROWS, ROWS, at.heads);
    q += at.q.start(place.image, place.head);
    k += at.k.start(place.image, place.head);
    v += at.v.start(place.image, place.head);
    gradient += at.gradient.start(place.image, place.head);
    stats += (long long)(place.image * (int)at.heads + place.head) * queries;

    // Own rows, and behind them two steps of the others: of D values, and of E.
    unsigned char *const steps_d = memory + Tile<D>::bytes(ROWS) + Tile<E>::bytes(ROWS);
    unsigned char *const steps_e = steps_d + 2 * Tile<D>::bytes(STEP);
#if OF_KEYS
    float2 *const their_stats = (float2 *)(steps_e + 2 * Tile<E>::bytes(STEP));
#endif
    const Tile<D> own_d = {(u16 *)memory};
    const Tile<E> own_e = {(u16 *)(memory + Tile<D>::bytes(ROWS))};
    const auto other_d = [&](int step) { return Tile<D>{(u16 *)(steps_d + step % 2 * Tile<D>::bytes(STEP))}; };
    const auto other_e = [&](int step) { return Tile<E>{(u16 *)(steps_e + step % 2 * Tile<E>::bytes(STEP))}; };
    const auto stream = [&](int step) {
#if OF_KEYS
        other_d(step).copy(q, at.q.row, step * STEP, others, STEP);
        other_e(step).copy(gradient, at.gradient.row, step * STEP, others, STEP);
        if (threadIdx.x < STEP) {
            const int query = step * STEP + threadIdx.x;
            their_stats[step % 2 * STEP + threadIdx.x] = query < queries ? stats[query] : make_float2(0, 0);
        }
#else
        other_d(step).copy(k, at.k.row, step * STEP, others, STEP);
        other_e(step).copy(v, at.v.row, step * STEP, others, STEP);
#endif
    };
    own_d.fill_up(ROWS);
    own_e.fill_up(ROWS);
    for (int i = 0; i < 2; i++) {
        other_d(i).fill_up(STEP);
        other_e(i).fill_up(STEP);
    }
#if OF_KEYS
    own_d.copy(k, at.k.row, place.first, count, ROWS);
    own_e.copy(v, at.v.row, place.first, count, ROWS);
    float value_sums[TILES][E / 8][4];
    for (int t = 0; t < TILES; t++) clear(value_sums[t]);
#else
    own_d.copy(q, at.q.row, place.first, count, ROWS);
    own_e.copy(gradient, at.gradient.row, place.first, count, ROWS);
    float2 own_stats[TILES][2];
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
        const int query = place.first + warp * TILES * 16 + 8 * i + lane / 4;
        own_stats[i / 2][i % 2] = query < queries ? stats[query] : make_float2(0, 0);
    }
#endif
    stream(0);
    copy_commit();

    u32 factors_d[TILES][Tile<D>::FULL / 16][4], factors_e[TILES][Tile<E>::FULL / 16][4];
    float sums[TILES][D / 8][4];
#pragma unroll
    for (int t = 0; t < TILES; t++) clear(sums[t]);
    const int steps = (others + STEP - 1) / STEP;
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) stream(step + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        if (step == 0)
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                hold<D>(factors_d[t], own_d, (warp * TILES + t) * 16);
                hold<E>(factors_e[t], own_e, (warp * TILES + t) * 16);
            }
        float weights[TILES][STEP / 8][4], slopes[TILES][STEP / 8][4];
        rows_by_rows<D>(weights, factors_d, other_d(step));
        rows_by_rows<E>(slopes, factors_e, other_e(step));
#pragma unroll
        for (int j = 0; j < STEP / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = 8 * j + lane % 4 * 2 + i % 2;
                const bool there = step * STEP + column < others;
#pragma unroll
                for (int t = 0; t < TILES; t++) {
#if OF_KEYS
                    const float2 known = their_stats[step % 2 * STEP + column];
#else
                    const float2 known = own_stats[t][i / 2];
#endif
                    const float power = (weights[t][j][i] * at.scale - known.x) * LOG2_E;
                    const float p = there ? power_of_two(power) : 0;
                    weights[t][j][i] = p;
                    slopes[t][j][i] = p * (slopes[t][j][i] - known.y) * at.scale;
                }
            }
#if OF_KEYS
        weights_by_rows<E>(value_sums, weights, other_e(step));
#endif
        weights_by_rows<D>(sums, slopes, other_d(step));
        __syncthreads();
    }
#if OF_KEYS
    u16 *const to = dk + at.dk.start(place.image, place.head);
    const u32 row = at.dk.row;
    dv += at.dv.start(place.image, place.head);
#else
    u16 *const to = dq + at.dq.start(place.image, place.head);
    const u32 row = at.dq.row;
#endif
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const int tile = (warp * TILES + t) * 16;
        write<D>(sums[t], 1, 1, own_d, tile, to, row, place.first, count);
#if OF_KEYS
        write<E>(value_sums[t], 1, 1, own_e, tile, dv, at.dv.row, place.first, count);
#endif
    }
}
