// A B in emulation, against sums in double precision.

#include "emulator.hpp"

inline void multiply(float (&sums)[COLUMNS / 2], u64 a, u64 b, int keep) {
    multiply_emulated<COLUMNS / 2, A_INNER, B_INNER>(sums, a, b, keep);
}
#include "epilogue.cuh"
#include "product.cu"
#include "product_sum.cu"

int main() {
    // Element (i, k) of A and (k, j) of B, as the kernel was told they lie.
    const auto b = random_values((size_t)K * N), bias = random_values(N), residual = random_values((size_t)M * N);
    const auto right = [&](int k, int j) { return unpack(B_INNER ? b[(size_t)j * K + k] : b[(size_t)k * N + j]); };
    const TensorMap b_map = B_INNER ? TensorMap::rows(b.data(), K, N, COLUMNS) : TensorMap::rows(b.data(), N, K, DEPTH);
#if WINDOW
    const auto a = random_values((size_t)M * CHANNELS);
    const auto left = [&](int i, int k) {
        const int place = k / CHANNELS, x = i % WIDTH + place % WINDOW - WINDOW / 2;
        const int y = i / WIDTH % HEIGHT + place / WINDOW - WINDOW / 2, image = i / WIDTH / HEIGHT;
        if (x < 0 || x >= WIDTH || y < 0 || y >= HEIGHT) return 0.0f;
        return unpack(a[((size_t)(image * HEIGHT + y) * WIDTH + x) * CHANNELS + k % CHANNELS]);
    };
    const TensorMap a_map = {a.data(),
                             {CHANNELS, WIDTH, HEIGHT, M / (HEIGHT * WIDTH)},
                             {1, CHANNELS, WIDTH * CHANNELS, HEIGHT * WIDTH * CHANNELS},
                             {64, SIDE, ROWS / SIDE, 1}};
#else
    const auto a = random_values((size_t)M * K);
    const auto left = [&](int i, int k) { return unpack(A_INNER ? a[(size_t)i * K + k] : a[(size_t)k * M + i]); };
    const TensorMap a_map = A_INNER ? TensorMap::rows(a.data(), K, M, ROWS) : TensorMap::rows(a.data(), M, K, DEPTH);
#endif
    std::vector<float> parts((size_t)SPLITS * M * N, NAN);
    std::vector<u16> c((size_t)M * N, 0x7FFF);
    emulator::launch(BLOCKS, THREADS, SHARED_BYTES, [&] {
        product(a_map, b_map,
#if BIAS
                bias.data(),
#endif
#if RESIDUAL
                residual.data(),
#endif
                SPLITS > 1 ? (void *)parts.data() : (void *)c.data());
    });
    if (SPLITS > 1)
        emulator::launch((M * N / 8 + 255) / 256, 256, 0, [&] {
            product_sum(parts.data(),
#if BIAS
                        bias.data(),
#endif
                        c.data());
        });
    double error = 0, norm = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double expected = 0;
            for (int k = 0; k < K; k++) expected += (double)left(i, k) * right(k, j);
            if (BIAS) expected += unpack(bias[j]);
            if (RESIDUAL) expected += unpack(residual[(size_t)i * N + j]);
            if (GELU) expected *= 0.5 * (1 + tanh(0.7978845608 * expected * (1 + 0.044715 * expected * expected)));
            const double found = unpack(c[(size_t)i * N + j]);
            error += (found - expected) * (found - expected);
            norm += expected * expected;
        }
    error = sqrt(error / norm);
    printf("relative error %.2e\n", error);
    return !(error < (BF16 ? 4e-3 : 5e-4));
}
