// The result of a product whose inner axis was split: parts in float32, summed, and what product.cu
// does to its results. A thread takes eight neighbours.
//
// Defined outside: M, N, SPLITS, BIAS, GELU, BF16.

KERNEL void product_sum(const float *__restrict__ parts,
#if BIAS
                        const u16 *__restrict__ bias,
#endif
                        u16 *__restrict__ c) {
    const long long at = 8 * ((long long)blockIdx.x * 256 + threadIdx.x), count = (long long)M * N;
    if (at >= count) return;
    float sums[8];
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] = 0;
    for (int part = 0; part < SPLITS; part++) {
        const float4 low = *(const float4 *)(parts + part * count + at);
        const float4 high = *(const float4 *)(parts + part * count + at + 4);
        sums[0] += low.x, sums[1] += low.y, sums[2] += low.z, sums[3] += low.w;
        sums[4] += high.x, sums[5] += high.y, sums[6] += high.z, sums[7] += high.w;
    }
#if BIAS
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] += unpack(bias[at % N + i]);
#endif
    u32 pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = pack(finish(sums[2 * i]), finish(sums[2 * i + 1]));
    *(uint4 *)(c + at) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
