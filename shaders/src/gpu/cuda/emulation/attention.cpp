// Attention and its gradients in emulation, against double precision.

#include "emulator.hpp"

namespace forward {
#define TILES FORWARD_TILES
#define STEP FORWARD_STEP
#include "attention.cuh"
#include "attention_forward.cu"
#undef TILES
#undef STEP
}
namespace keys_pass {
#define TILES KEYS_PASS_TILES
#define STEP KEYS_PASS_STEP
#define OF_KEYS 1
#include "attention.cuh"
#include "attention_backward.cu"
#undef TILES
#undef STEP
#undef OF_KEYS
}
namespace queries_pass {
#define TILES QUERIES_PASS_TILES
#define STEP QUERIES_PASS_STEP
#define OF_KEYS 0
#include "attention.cuh"
#include "attention_backward.cu"
}

constexpr int HEADS = 2, IMAGES = 2;

/// `[IMAGES, count, HEADS, width]`, in rows that are longer than what they hold.
struct Rows {
    int count, width;
    std::vector<u16> values;

    Rows(int count, int width, bool random) : count(count), width(width) {
        const size_t size = (size_t)IMAGES * count * pitch() + 8;
        values = random ? random_values(size) : std::vector<u16>(size, 0x7FFF);
    }
    int pitch() const { return HEADS * width + 16; }
    template <class Layout> Layout layout() const { return {8, (u32)(count * pitch()), (u32)pitch(), (u32)width}; }
    double at(int image, int head, int row, int column) const {
        return unpack(values[8 + (size_t)(image * count + row) * pitch() + head * width + column]);
    }
};

struct Error {
    double difference = 0, norm = 0;
    void add(double found, double expected) {
        difference += (found - expected) * (found - expected);
        norm += expected * expected;
    }
    bool report(const char *name, double most) const {
        const double error = sqrt(difference / norm);
        printf("%s %.2e ", name, error);
        return error < most;
    }
};

int main() {
    const float scale = 1 / sqrtf(D);
    Rows q(QUERIES, D, true), k(KEYS, D, true), v(KEYS, E, true), out(QUERIES, E, false), gradient(QUERIES, E, true);
    Rows dq(QUERIES, D, false), dk(KEYS, D, false), dv(KEYS, E, false);
    std::vector<float> lse((size_t)IMAGES * HEADS * QUERIES, NAN);
    std::vector<float2> stats(lse.size());
    const auto blocks = [](int rows, int tile) { return (rows + tile - 1) / tile * HEADS * IMAGES; };
    emulator::launch(blocks(QUERIES, FORWARD_TILES * 64), 128, FORWARD_BYTES, [&] {
        using forward::Layout;
        forward::attention_forward(q.values.data(), k.values.data(), v.values.data(), out.values.data(), lse.data(),
            {q.layout<Layout>(), k.layout<Layout>(), v.layout<Layout>(), out.layout<Layout>(), QUERIES, KEYS, HEADS, scale});
    });
    // The result, weights and gradients as they are defined.
    Error of_out, of_lse, of_dq, of_dk, of_dv;
    for (int image = 0; image < IMAGES; image++)
        for (int head = 0; head < HEADS; head++) {
            std::vector<double> p((size_t)QUERIES * KEYS), ds(p.size());
            for (int i = 0; i < QUERIES; i++) {
                double sum = 0, delta = 0;
                for (int j = 0; j < KEYS; j++) {
                    double score = 0;
                    for (int c = 0; c < D; c++) score += q.at(image, head, i, c) * k.at(image, head, j, c);
                    sum += p[i * KEYS + j] = exp(score * scale);
                }
                for (int j = 0; j < KEYS; j++) p[i * KEYS + j] /= sum;
                for (int c = 0; c < E; c++) {
                    double expected = 0;
                    for (int j = 0; j < KEYS; j++) expected += p[i * KEYS + j] * v.at(image, head, j, c);
                    of_out.add(out.at(image, head, i, c), expected);
                    delta += expected * gradient.at(image, head, i, c);
                }
                const size_t row = (size_t)(image * HEADS + head) * QUERIES + i;
                of_lse.add(lse[row], log(sum));
                stats[row] = {(float)log(sum), (float)delta};
            }
        }
    emulator::launch(blocks(KEYS, KEYS_PASS_TILES * 64), 128, KEYS_PASS_BYTES, [&] {
        using keys_pass::Layout;
        keys_pass::attention_backward(q.values.data(), k.values.data(), v.values.data(), gradient.values.data(), stats.data(),
            dk.values.data(), dv.values.data(),
            {q.layout<Layout>(), k.layout<Layout>(), v.layout<Layout>(), gradient.layout<Layout>(), dk.layout<Layout>(), dv.layout<Layout>(), QUERIES, KEYS, HEADS, scale});
    });
    emulator::launch(blocks(QUERIES, QUERIES_PASS_TILES * 64), 128, QUERIES_PASS_BYTES, [&] {
        using queries_pass::Layout;
        queries_pass::attention_backward(q.values.data(), k.values.data(), v.values.data(), gradient.values.data(), stats.data(),
            dq.values.data(),
            {q.layout<Layout>(), k.layout<Layout>(), v.layout<Layout>(), gradient.layout<Layout>(), dq.layout<Layout>(), QUERIES, KEYS, HEADS, scale});
    });
    for (int image = 0; image < IMAGES; image++)
        for (int head = 0; head < HEADS; head++) {
            std::vector<double> p((size_t)QUERIES * KEYS), ds(p.size());
            for (int i = 0; i < QUERIES; i++)
                for (int j = 0; j < KEYS; j++) {
                    const float2 known = stats[(size_t)(image * HEADS + head) * QUERIES + i];
                    double score = 0, slope = 0;
                    for (int c = 0; c < D; c++) score += q.at(image, head, i, c) * k.at(image, head, j, c);
                    for (int c = 0; c < E; c++) slope += gradient.at(image, head, i, c) * v.at(image, head, j, c);
                    p[i * KEYS + j] = exp(score * scale - known.x);
                    ds[i * KEYS + j] = p[i * KEYS + j] * (slope - known.y) * scale;
                }
            const auto compare = [&](Error &error, const Rows &found, int columns, auto expected) {
                for (int row = 0; row < found.count; row++)
                    for (int c = 0; c < columns; c++) error.add(found.at(image, head, row, c), expected(row, c));
            };
            compare(of_dq, dq, D, [&](int i, int c) {
                double sum = 0;
                for (int j = 0; j < KEYS; j++) sum += ds[i * KEYS + j] * k.at(image, head, j, c);
                return sum;
            });
            compare(of_dk, dk, D, [&](int j, int c) {
                double sum = 0;
                for (int i = 0; i < QUERIES; i++) sum += ds[i * KEYS + j] * q.at(image, head, i, c);
                return sum;
            });
            compare(of_dv, dv, E, [&](int j, int c) {
                double sum = 0;
                for (int i = 0; i < QUERIES; i++) sum += p[i * KEYS + j] * gradient.at(image, head, i, c);
                return sum;
            });
        }
    const double most = BF16 ? 6e-3 : 8e-4;
    bool right = of_out.report("out", most);
    right &= of_lse.report("lse", 1e-5);
    right &= of_dq.report("dq", most);
    right &= of_dk.report("dk", most);
    right &= of_dv.report("dv", most);
    return !right;
}
