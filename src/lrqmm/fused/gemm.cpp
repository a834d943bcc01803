// Integer products of the fused CPU path: int8 x int8 -> int32, exact, B packed in panels; written
// as int32, or scaled with a low-rank update before the only write of C.
//
// Compiled with passes.cpp for each level of processor; fused/gemm.py tries the one that is loaded.
//
// A panel is WIDTH columns of B: for each GROUP of inner indices, the GROUP bytes of each column side
// by side. Where the processor multiplies bytes, those of B are stored as b + 128, unsigned, and 128
// times the sum of A's row is taken off: sums wrap around modulo 2^32 and come back.
//
// Built with -fno-tree-pre: with it GCC 12 writes all sums to memory at every step, at half the speed.

#include "blocks.h"
#include "native.h"

#include <algorithm>
#include <vector>

namespace {

constexpr int64_t BLOCK = 1 << 18;          // bytes of A that stay in a core's second cache
constexpr int64_t STEP = 64;                // inner indices that are turned over together

// MR rows of A times a panel of NV vectors of columns, `columns` of which are of the result.
template <int MR, int NV>
void block(const int8_t* A, int64_t ld_A, const int8_t* panel, int64_t k, const int32_t* row_sums,
           const Result& r, int64_t i, int64_t j, int64_t columns, const float* Y) {
    ints c[MR][NV];
    UNROLL for (int x = 0; x < MR; ++x)
        UNROLL for (int v = 0; v < NV; ++v) c[x][v] = zero();
    const int8_t* b = panel;
    int64_t l = 0;
    for (; l + GROUP <= k; l += GROUP, b += NV * LANES * GROUP) {
        decltype(load(b)) right[NV];
        UNROLL for (int v = 0; v < NV; ++v) right[v] = load(b + v * LANES * GROUP);
        UNROLL for (int x = 0; x < MR; ++x) {
            const auto left = group_of(A + x * ld_A + l);
            UNROLL for (int v = 0; v < NV; ++v) c[x][v] = multiply_add(c[x][v], right[v], left);
        }
    }
    if (l < k) UNROLL for (int x = 0; x < MR; ++x) {
            int8_t rest[GROUP] = {0};
            std::memcpy(rest, A + x * ld_A + l, static_cast<size_t>(k - l));
            const auto left = group_of(rest);
            UNROLL for (int v = 0; v < NV; ++v)
                c[x][v] = multiply_add(c[x][v], load(b + v * LANES * GROUP), left);
        }
    if (OFFSET)
        UNROLL for (int x = 0; x < MR; ++x)
            UNROLL for (int v = 0; v < NV; ++v) c[x][v] = minus(c[x][v], row_sums[x] * OFFSET);
    const bool whole = columns == NV * LANES;
    if (r.sums) {
        UNROLL for (int x = 0; x < MR; ++x) {
            int32_t* row = r.sums + (i + x) * r.ld + j;
            int32_t rest[NV * LANES];
            UNROLL for (int v = 0; v < NV; ++v) store((whole ? row : rest) + v * LANES, c[x][v]);
            if (!whole) std::memcpy(row, rest, static_cast<size_t>(columns) * 4);
        }
        return;
    }
    float scales[NV * LANES];
    const float* t = r.t + j;
    if (!whole) {
        std::fill(scales, scales + NV * LANES, 0.f);
        std::copy(t, t + columns, scales);
        t = scales;
    }
    floats f[MR][NV];
    UNROLL for (int x = 0; x < MR; ++x)
        UNROLL for (int v = 0; v < NV; ++v)
            f[x][v] = to_float(c[x][v]) * (all(r.s[i + x]) * load(t + v * LANES));
    write<MR, NV>(f, r, i, j, columns, Y);
}

typedef decltype(&block<1, 1>) Block;

template <int NV, int MR>
Block of_rows(int64_t rows) {
    if constexpr (MR == 0) return nullptr;
    else return rows == MR ? &block<MR, NV> : of_rows<NV, MR - 1>(rows);
}

Block block_of(int64_t rows, int vectors) {
    switch (vectors) {
        case 1: return of_rows<1, ROWS[1]>(rows);
        case 2: return of_rows<2, ROWS[2]>(rows);
        case 3: return of_rows<3, ROWS[3]>(rows);
        default: return of_rows<4, ROWS[4]>(rows);
    }
}

// Rows [from, to) of A times one panel of `columns` columns at column j.
void rows_times_panel(const int8_t* A, int64_t ld_A, int64_t from, int64_t to,
                      const int8_t* panel, int64_t k, const int32_t* row_sums, const Result& r,
                      int64_t j, int64_t columns) {
    const int vectors = static_cast<int>((columns + LANES - 1) / LANES);
    const float* Y = r.Y ? r.Y + j * r.q : nullptr;
    const int64_t most = ROWS[vectors];
    Block run = block_of(most, vectors);
    for (int64_t i = from; i < to; i += most) {
        const int64_t rows = std::min(most, to - i);
        if (rows < most) run = block_of(rows, vectors);
        run(A + i * ld_A, ld_A, panel, k, row_sums + i, r, i, j, columns, Y);
    }
}

int32_t sum_of(const int8_t* a, int64_t k) {
    int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t l = 0; l < k; ++l) sum += a[l];
    return sum;
}

// One panel of B: element (l, j) at B[l * row + j * column], one of the two 1.
void pack_panel(const int8_t* B, int64_t row, int64_t column, int64_t k, int64_t columns,
                int8_t* panel) {
    const int64_t wide = up(columns, LANES), whole = k / GROUP * GROUP;
    const int8_t zero = static_cast<int8_t>(OFFSET);
    if (column == 1) {
        for (int64_t l0 = 0; l0 < whole; l0 += GROUP) {
            int8_t* group = panel + l0 * wide;
            const int8_t* from = B + l0 * row;
            for (int64_t j = 0; j < columns; ++j)
                for (int64_t l = 0; l < GROUP; ++l)
                    group[j * GROUP + l] = static_cast<int8_t>(from[l * row + j] ^ OFFSET);
        }
    } else {
        for (int64_t l0 = 0; l0 < whole; l0 += STEP)
            for (int64_t j = 0; j < columns; ++j) {
                const int8_t* from = B + j * column;
                for (int64_t l = l0; l < std::min(whole, l0 + STEP); l += GROUP)
                    for (int64_t g = 0; g < GROUP; ++g)
                        panel[l * wide + j * GROUP + g] =
                            static_cast<int8_t>(from[l + g] ^ OFFSET);
            }
    }
    for (int64_t l = 0; l < whole; l += GROUP)
        std::fill(panel + l * wide + columns * GROUP, panel + (l + GROUP) * wide, zero);
    if (whole < k) {
        std::fill(panel + whole * wide, panel + (whole + GROUP) * wide, zero);
        for (int64_t j = 0; j < columns; ++j)
            for (int64_t l = whole; l < k; ++l)
                panel[whole * wide + j * GROUP + l - whole] =
                    static_cast<int8_t>(B[l * row + j * column] ^ OFFSET);
    }
}

}  // namespace

extern "C" {

// Bytes of packed B (k, n).
int64_t packed_size(int64_t k, int64_t n) { return up(k, GROUP) * up(n, LANES); }

// B (k, n) with these strides, one of them 1, in panels.
void pack(const int8_t* B, int64_t row, int64_t column, int64_t k, int64_t n, int8_t* panels,
          int threads) {
    const int64_t deep = up(k, GROUP), count = (n + WIDTH - 1) / WIDTH;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < count; ++p)
        pack_panel(B + p * WIDTH * column, row, column, k, std::min(WIDTH, n - p * WIDTH),
                   panels + p * WIDTH * deep);
}

// A (m, k) int8 with rows of ld_A times packed B (k, n): sums (m, n) int32 where `sums` is given,
// else C = s_i t_j sum_ij + (X Y^T)_ij with X (m, q) and Y (n, q).
void multiply(const int8_t* A, int64_t ld_A, const int8_t* panels, int64_t m, int64_t k, int64_t n,
              int32_t* sums, float* C, int64_t ld, const float* s, const float* t, const float* X,
              const float* Y, int64_t q, int threads) {
    const int64_t deep = up(k, GROUP), count = (n + WIDTH - 1) / WIDTH, high = ROWS[VECTORS];
    const int64_t tall = std::max<int64_t>(1, BLOCK / std::max<int64_t>(k, 1) / high) * high;
    const int64_t blocks = (m + tall - 1) / tall;
    const int64_t chunk = std::min<int64_t>(4, std::max<int64_t>(1, count * blocks / (8 * threads)));
    const int64_t chunks = (count + chunk - 1) / chunk;
    std::vector<int32_t> row_sums(static_cast<size_t>(m));
    std::vector<float> packed(static_cast<size_t>(sums ? 0 : q * up(n, LANES)));
    const Result result{sums, C, ld, s, t, X, packed.data(), q};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < (OFFSET ? m : 0); ++i) row_sums[i] = sum_of(A + i * ld_A, k);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < (packed.empty() ? 0 : count); ++p) {
            const int64_t columns = std::min(WIDTH, n - p * WIDTH), wide = up(columns, LANES);
            float* to = packed.data() + p * WIDTH * q;
            for (int64_t j = 0; j < wide; ++j)
                for (int64_t l = 0; l < q; ++l)
                    to[l * wide + j] = j < columns ? Y[(p * WIDTH + j) * q + l] : 0;
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < blocks * chunks; ++task) {
            const int64_t from = task / chunks * tall, first = task % chunks * chunk;
            for (int64_t p = first; p < std::min(first + chunk, count); ++p)
                rows_times_panel(A, ld_A, from, std::min(from + tall, m), panels + p * WIDTH * deep,
                                 k, row_sums.data(), result, p * WIDTH,
                                 std::min(WIDTH, n - p * WIDTH));
        }
    }
}

// Few rows A (m, k) times B (k, n) as it lies, packed panel by panel: sums (m, n) int32.
void multiply_thin(const int8_t* A, int64_t ld_A, const int8_t* B, int64_t row, int64_t column,
                   int64_t m, int64_t k, int64_t n, int32_t* sums, int threads) {
    const int64_t count = (n + WIDTH - 1) / WIDTH;
    std::vector<int32_t> row_sums(static_cast<size_t>(m));
    for (int64_t i = 0; i < (OFFSET ? m : 0); ++i) row_sums[i] = sum_of(A + i * ld_A, k);
    const Result result{sums, nullptr, n, nullptr, nullptr, nullptr, nullptr, 0};
#pragma omp parallel num_threads(threads)
    {
        std::vector<int8_t> panel(static_cast<size_t>(up(k, GROUP) * WIDTH));
#pragma omp for schedule(static)
        for (int64_t p = 0; p < count; ++p) {
            const int64_t columns = std::min(WIDTH, n - p * WIDTH);
            pack_panel(B + p * WIDTH * column, row, column, k, columns, panel.data());
            rows_times_panel(A, ld_A, 0, m, panel.data(), k, row_sums.data(), result, p * WIDTH,
                             columns);
        }
    }
}
}
