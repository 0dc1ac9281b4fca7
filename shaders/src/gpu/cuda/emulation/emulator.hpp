// Runs a CUDA kernel on the processor, so that it is tested where there is no GPU: each thread is a
// fibre, warps and warpgroups meet where the hardware makes them meet, and the instructions of
// hopper.cuh and ampere.cuh do what the PTX manual says, byte for byte in shared memory.
//
// What the hardware may do late is done late (products, when they are waited for) and what it may do
// early is done early (copies, when they start), so that a slot given back too soon shows. It says
// nothing of speed, and nothing of races between warps.

#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct uint2 { u32 x, y; };
struct uint4 { u32 x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float __uint_as_float(u32 bits) { float x; memcpy(&x, &bits, 4); return x; }

#define KERNEL
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __grid_constant__
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) unsigned char *name = emulator::shared.data()

struct Index { int x = 0; };
static Index threadIdx, blockIdx, gridDim;

namespace emulator {

[[noreturn]] inline void fail(const char *what) {
    printf("%s\n", what);
    exit(1);
}

/// As a block sees it: addresses are places here. Nothing may be written behind it.
static std::vector<unsigned char> shared;
constexpr int BEHIND = 64 * 1024;

struct Fibre {
    ucontext_t context;
    std::vector<char> stack;
    bool ended = false;
};
static std::vector<Fibre> fibres;
static ucontext_t scheduler;
static std::function<void()> body;
static u64 progress = 0;

inline void yield() {
    const int self = threadIdx.x;
    swapcontext(&fibres[self].context, &scheduler);
    threadIdx.x = self;
}

inline void entry() {
    body();
    fibres[threadIdx.x].ended = true;
    progress++;
    swapcontext(&fibres[threadIdx.x].context, &scheduler);
}

/// Where `size` neighbouring threads meet: each leaves a value and gets all of them.
struct Meeting {
    int arrived = 0;
    u64 round = 0;
    std::vector<std::vector<unsigned char>> left, taken;
};
static std::vector<Meeting> warps, warpgroups, blocks;

template <class T> std::vector<T> meet(std::vector<Meeting> &meetings, int size, const T &value) {
    Meeting &meeting = meetings[threadIdx.x / size];
    meeting.left.resize(size);
    auto &mine = meeting.left[threadIdx.x % size];
    mine.resize(sizeof(T));
    memcpy(mine.data(), &value, sizeof(T));
    const u64 round = meeting.round;
    progress++;
    if (++meeting.arrived == size) {
        meeting.arrived = 0;
        meeting.round++;
        std::swap(meeting.left, meeting.taken);
    } else {
        while (meeting.round == round) yield();
    }
    std::vector<T> all(size);
    for (int i = 0; i < size; i++) memcpy(&all[i], meeting.taken[i].data(), sizeof(T));
    return all;
}

/// Runs `count` blocks of `threads` with so much shared memory, one after another.
inline void launch(int count, int threads, int bytes, std::function<void()> kernel) {
    gridDim.x = count;
    body = kernel;
    for (blockIdx.x = 0; blockIdx.x < count; blockIdx.x++) {
        // What was there is not zero.
        shared.assign(bytes + BEHIND, 0xFF);
        warps.assign((threads + 31) / 32, {});
        warpgroups.assign((threads + 127) / 128, {});
        blocks.assign(1, {});
        fibres.assign(threads, {});
        for (auto &fibre : fibres) {
            fibre.stack.resize(256 * 1024);
            getcontext(&fibre.context);
            fibre.context.uc_stack.ss_sp = fibre.stack.data();
            fibre.context.uc_stack.ss_size = fibre.stack.size();
            makecontext(&fibre.context, entry, 0);
        }
        for (int ended = 0; ended < threads;) {
            const u64 before = progress;
            ended = 0;
            for (int i = 0; i < threads; i++) {
                if (!fibres[i].ended) {
                    threadIdx.x = i;
                    swapcontext(&scheduler, &fibres[i].context);
                }
                ended += fibres[i].ended;
            }
            if (ended < threads && progress == before) fail("the threads wait for one another");
        }
        for (int i = bytes; i < bytes + BEHIND; i++)
            if (shared[i] != 0xFF) fail("shared memory is too small");
    }
}

inline float half(u16 bits) {
    _Float16 x;
    memcpy(&x, &bits, 2);
    return (float)x;
}

} // namespace emulator

// Instructions of every GPU.

inline void __syncthreads() { emulator::meet(emulator::blocks, (int)emulator::fibres.size(), 0); }
inline void __syncwarp() { emulator::meet(emulator::warps, 32, 0); }
template <class T> T __shfl_xor_sync(u32, T value, int mask) {
    return emulator::meet(emulator::warps, 32, value)[(threadIdx.x % 32) ^ mask];
}
inline u32 shared_address(const void *place) {
    return (u32)((const unsigned char *)place - emulator::shared.data());
}
inline u16 narrow(float x) {
#if BF16
    u32 bits;
    memcpy(&bits, &x, 4);
    return (u16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
#else
    const _Float16 y = (_Float16)x;
    u16 bits;
    memcpy(&bits, &y, 2);
    return bits;
#endif
}
inline float unpack(u16 value) {
#if BF16
    return __uint_as_float((u32)value << 16);
#else
    return emulator::half(value);
#endif
}
inline u32 pack(float low, float high) { return narrow(low) | (u32)narrow(high) << 16; }
inline float fast_tanh(float x) { return tanhf(x); }

// Barriers in shared memory: what is left of arrivals and bytes, and the phase.

struct Barrier {
    u16 arrivals, left;
    int bytes : 31;
    u32 phase : 1;

    void settle() {
        if (left == 0 && bytes == 0) {
            left = arrivals;
            phase ^= 1;
        }
        emulator::progress++;
    }
};
static_assert(sizeof(Barrier) == 8);
inline Barrier &barrier_at(u32 address) { return *(Barrier *)&emulator::shared[address]; }
inline void barrier_init(u32 barrier, u32 arrivals) {
    barrier_at(barrier) = {(u16)arrivals, (u16)arrivals, 0, 0};
}
inline void barrier_publish() {}
inline void barrier_arrive(u32 barrier) {
    barrier_at(barrier).left--;
    barrier_at(barrier).settle();
}
inline void barrier_expect(u32 barrier, u32 bytes) {
    barrier_at(barrier).bytes += bytes;
    barrier_arrive(barrier);
}
inline void barrier_wait(u32 barrier, u32 parity) {
    while (barrier_at(barrier).phase == parity) emulator::yield();
}

// The copy engine.

/// Of up to four axes, the innermost first: their lengths, the distances of neighbours, and the box.
struct TensorMap {
    const u16 *values;
    long long lengths[4], strides[4];
    int box[4];

    static TensorMap rows(const u16 *values, long long columns, long long rows, int box_rows) {
        return {values, {columns, rows, 1, 1}, {1, columns, 0, 0}, {64, box_rows, 1, 1}};
    }
};
inline void prefetch_map(const TensorMap *) {}
inline u32 swizzle(u32 address) { return address ^ (address >> 7 & 7) << 4; }
inline void copy_image_box(u32 to, const TensorMap *map, int x, int y, int z, int w, u32 barrier) {
    if (to % 1024) emulator::fail("a box is not aligned");
    if (map->box[0] != 64) emulator::fail("a box's rows are not of 128 bytes");
    const int start[4] = {x, y, z, w}, count = map->box[0] * map->box[1] * map->box[2] * map->box[3];
    for (int i = 0; i < count; i++) {
        const u16 *place = map->values;
        bool inside = true;
        for (int axis = 0, rest = i; axis < 4; axis++) {
            const int at = start[axis] + rest % map->box[axis];
            inside &= at >= 0 && at < map->lengths[axis];
            place += at * map->strides[axis];
            rest /= map->box[axis];
        }
        const u16 value = inside ? *place : 0;
        memcpy(&emulator::shared[swizzle(to + i * 2)], &value, 2);
    }
    barrier_at(barrier).bytes -= count * 2;
    barrier_at(barrier).settle();
}
inline void copy_box(u32 to, const TensorMap *map, int x, int y, u32 barrier) {
    copy_image_box(to, map, x, y, 0, 0, barrier);
}

// Products of warpgroups.

template <int COUNT> void registers_give() {}
template <int COUNT> void registers_take() {}
inline void product_fence() {}

struct Product {
    float *sums;
    u64 a, b;
    int columns, keep;
    bool a_inner, b_inner;
};
static std::vector<Product> products[1024];
static std::vector<int> groups[1024];

/// Element (row, inner) of a matrix that a descriptor describes.
inline float element(u64 matrix, int row, int inner, bool is_inner) {
    if (matrix >> 62 != 1) emulator::fail("not the 128-byte swizzle");
    const u32 start = (u32)(matrix & 0x3FFF) << 4;
    const u32 group = (u32)(matrix >> 16 & 0x3FFF) << 4, eight = (u32)(matrix >> 32 & 0x3FFF) << 4;
    const u32 at = is_inner ? start + row % 8 * 128 + row / 8 * eight + inner * 2
                            : start + row % 64 * 2 + row / 64 * group + inner % 8 * 128 + inner / 8 * eight;
    u16 value;
    memcpy(&value, &emulator::shared[swizzle(at)], 2);
    return unpack(value);
}
inline void product_commit() {
    auto &mine = groups[threadIdx.x];
    mine.push_back((int)products[threadIdx.x].size());
}
template <int PENDING> void product_wait() {
    const int thread = threadIdx.x;
    auto &mine = groups[thread];
    if ((int)mine.size() > PENDING) {
        const int count = mine[mine.size() - 1 - PENDING];
        for (int i = 0; i < count; i++) {
            const Product &p = products[thread][i];
            for (int j = 0; j < p.columns / 2; j++) {
                const int row = thread % 128 / 32 * 16 + thread % 32 / 4 + j % 4 / 2 * 8;
                const int column = j / 4 * 8 + thread % 4 * 2 + j % 2;
                float sum = p.keep ? p.sums[j] : 0;
                for (int k = 0; k < 16; k++)
                    sum += element(p.a, row, k, p.a_inner) * element(p.b, column, k, p.b_inner);
                p.sums[j] = sum;
            }
        }
        products[thread].erase(products[thread].begin(), products[thread].begin() + count);
        std::vector<int> rest;
        for (size_t i = mine.size() - PENDING; i < mine.size(); i++) rest.push_back(mine[i] - count);
        mine = rest;
    }
    emulator::meet(emulator::warpgroups, 128, 0);
}
template <int COUNT, bool A_IS_INNER, bool B_IS_INNER>
void multiply_emulated(float (&sums)[COUNT], u64 a, u64 b, int keep) {
    products[threadIdx.x].push_back({sums, a, b, 2 * COUNT, keep, A_IS_INNER, B_IS_INNER});
}

// Copies and products of warps.

/// Late, since the hardware may be.
struct Copy {
    u32 to;
    uint4 values;
};
static std::vector<Copy> copies[1024];
static std::vector<int> copy_groups[1024];

inline void copy_16(u32 to, const void *from, bool there) {
    if (to % 16 || (size_t)from % 16) emulator::fail("a copy is not aligned");
    copies[threadIdx.x].push_back({to, there ? *(const uint4 *)from : uint4{0, 0, 0, 0}});
}
inline void copy_commit() { copy_groups[threadIdx.x].push_back((int)copies[threadIdx.x].size()); }
template <int PENDING> void copy_wait() {
    auto &mine = copies[threadIdx.x];
    auto &ends = copy_groups[threadIdx.x];
    if ((int)ends.size() <= PENDING) return;
    const int count = ends[ends.size() - 1 - PENDING];
    for (int i = 0; i < count; i++) memcpy(&emulator::shared[mine[i].to], &mine[i].values, 16);
    mine.erase(mine.begin(), mine.begin() + count);
    std::vector<int> rest;
    for (size_t i = ends.size() - PENDING; i < ends.size(); i++) rest.push_back(ends[i] - count);
    ends = rest;
}
inline void load(u32 (&to)[4], u32 address, bool transposed) {
    if (address % 16) emulator::fail("a matrix's row is not aligned");
    const auto rows = emulator::meet(emulator::warps, 32, address);
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; matrix++) {
        u16 pair[2];
        for (int i = 0; i < 2; i++) {
            const int row = transposed ? lane % 4 * 2 + i : lane / 4;
            const int column = transposed ? lane / 4 : lane % 4 * 2 + i;
            memcpy(&pair[i], &emulator::shared[rows[matrix * 8 + row] + column * 2], 2);
        }
        to[matrix] = pair[0] | (u32)pair[1] << 16;
    }
    __syncwarp();
}
inline void load_matrices(u32 (&to)[4], u32 address) { load(to, address, false); }
inline void load_transposed(u32 (&to)[4], u32 address) { load(to, address, true); }
inline void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    struct Factors {
        u32 a[4], b[2];
    };
    const auto all = emulator::meet(emulator::warps, 32, Factors{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const auto half = [](u32 pair, int i) { return unpack(i ? pair >> 16 : pair & 0xFFFF); };
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            const Factors &left = all[row % 8 * 4 + k % 8 / 2], &right = all[column * 4 + k % 8 / 2];
            sums[i] += half(left.a[row / 8 + k / 8 * 2], k % 2) * half(right.b[k / 8], k % 2);
        }
    }
}
inline float power_of_two(float x) { return exp2f(x); }

// Numbers for tests.

static std::mt19937 generator(1);
inline std::vector<u16> random_values(size_t count, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<u16> values(count);
    for (auto &x : values) x = narrow(normal(generator));
    return values;
}
