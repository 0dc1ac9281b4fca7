// What is done to the sums of a product.

__device__ __forceinline__ float finish(float x) {
#if GELU
    const float inside = 0.7978845608f * x * (1.0f + 0.044715f * x * x);
    x *= 0.5f * (1.0f + fast_tanh(inside));
#endif
    return x;
}

