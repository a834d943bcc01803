// Products of codes with one scale per group of inner indices: int8, or weights of 4 bits two a byte.
//
// Sums of a group are exact in int32; they are scaled and added up in float32. Packed as in gemm.cpp,
// with k filled up to whole groups. Two a byte, the low halves are the codes of GROUP inner indices
// and the high ones those of the next GROUP, each with 8 added: where the processor multiplies bytes
// they go into products as they are.

#include "blocks.h"
#include "native.h"

#include <algorithm>
#include <vector>

namespace {

#if defined(__AVX512VNNI__)
constexpr int HIGH[5] = {0, 6, 6, 4, 3};  // rows of a block, by its vectors of columns
#else
constexpr int HIGH[5] = {0, 3, 2, 1, 1};
#endif
constexpr bool HALVES = OFFSET != 0;  // whether codes of 4 bits are packed two a byte
constexpr int64_t CHUNK = 512;        // inner indices of a partial sum of X
constexpr int64_t THIN = 16;          // columns of U that are summed together

#if defined(__AVX512VNNI__)
inline ints low(ints b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
inline ints high(ints b) { return low(_mm512_srli_epi16(b, 4)); }
#elif defined(__AVXVNNI__)
inline ints low(ints b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
inline ints high(ints b) { return low(_mm256_srli_epi16(b, 4)); }
#endif

// The right operand and the codes of the left one; scales and sums per row or column and group.
struct Groups {
    const int8_t* A;  // (m, groups * group)
    const float* s;   // (m, groups)
    const int32_t* sums;
    int64_t group, groups;
};

// MR rows times one panel of NV vectors of columns; t (groups, NV LANES).
template <int MR, int NV, bool HALF>
void block(const Groups& a, const int8_t* panel, const float* t, const Result& r, int64_t i,
           int64_t j, int64_t columns, const float* Y) {
    constexpr int STEP = HALF ? 2 * GROUP : GROUP;
    const int64_t ld = a.groups * a.group;
    const int8_t* left = a.A + i * ld;
    floats f[MR][NV];
    UNROLL for (int x = 0; x < MR; ++x) UNROLL for (int v = 0; v < NV; ++v) f[x][v] = all(0);
    for (int64_t g = 0; g < a.groups; ++g, left += a.group, t += NV * LANES) {
        ints c[MR][NV];
        UNROLL for (int x = 0; x < MR; ++x) UNROLL for (int v = 0; v < NV; ++v) c[x][v] = zero();
        for (int64_t l = 0; l < a.group; l += STEP, panel += NV * LANES * GROUP) {
            decltype(load(panel)) right[NV];
            UNROLL for (int v = 0; v < NV; ++v) right[v] = load(panel + v * LANES * GROUP);
            if constexpr (HALF) {
                ints part[NV];
                UNROLL for (int v = 0; v < NV; ++v) part[v] = low(right[v]);
                UNROLL for (int x = 0; x < MR; ++x) {
                    const auto codes = group_of(left + x * ld + l);
                    UNROLL for (int v = 0; v < NV; ++v)
                        c[x][v] = multiply_add(c[x][v], part[v], codes);
                }
                UNROLL for (int v = 0; v < NV; ++v) part[v] = high(right[v]);
                UNROLL for (int x = 0; x < MR; ++x) {
                    const auto codes = group_of(left + x * ld + l + GROUP);
                    UNROLL for (int v = 0; v < NV; ++v)
                        c[x][v] = multiply_add(c[x][v], part[v], codes);
                }
            } else {
                UNROLL for (int x = 0; x < MR; ++x) {
                    const auto codes = group_of(left + x * ld + l);
                    UNROLL for (int v = 0; v < NV; ++v)
                        c[x][v] = multiply_add(c[x][v], right[v], codes);
                }
            }
        }
        UNROLL for (int x = 0; x < MR; ++x) {
            const int64_t at = (i + x) * a.groups + g;
            const floats scale = all(a.s[at]);
            const int32_t off = a.sums[at] * (HALF ? 8 : OFFSET);
            UNROLL for (int v = 0; v < NV; ++v)
                f[x][v] += to_float(minus(c[x][v], off)) * (scale * load(t + v * LANES));
        }
    }
    write<MR, NV>(f, r, i, j, columns, Y);
}

typedef decltype(&block<1, 1, false>) Block;

template <int NV, bool HALF, int MR>
Block of_rows(int64_t rows) {
    if constexpr (MR == 0) return nullptr;
    else return rows == MR ? &block<MR, NV, HALF> : of_rows<NV, HALF, MR - 1>(rows);
}

template <bool HALF>
Block block_of(int64_t rows, int vectors) {
    switch (vectors) {
        case 1: return of_rows<1, HALF, HIGH[1]>(rows);
        case 2: return of_rows<2, HALF, HIGH[2]>(rows);
        case 3: return of_rows<3, HALF, HIGH[3]>(rows);
        default: return of_rows<4, HALF, HIGH[4]>(rows);
    }
}

// X = A~ U for the codes, U packed: for each THIN columns (k, THIN). Partial sums of CHUNK inner
// indices, so that none depends on the threads.
void times_thin(const Groups& a, int64_t m, int64_t k, const float* U, int64_t q, float* X,
                int threads) {
    const int64_t chunks = (k + CHUNK - 1) / CHUNK, ld = a.groups * a.group;
    std::vector<float> partial(static_cast<size_t>(m * chunks * up(q, THIN)));
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t i = 0; i < m; ++i)
        for (int64_t b = 0; b < chunks; ++b)
            for (int64_t y0 = 0; y0 < q; y0 += THIN) {
                const float* u = U + y0 * k;
                float sum[THIN] = {0};
                for (int64_t l = b * CHUNK; l < std::min(k, (b + 1) * CHUNK); ++l) {
                    const float x =
                        a.s[i * a.groups + l / a.group] * static_cast<float>(a.A[i * ld + l]);
                    for (int64_t y = 0; y < THIN; ++y) sum[y] += x * u[l * THIN + y];
                }
                std::copy(sum, sum + THIN, partial.data() + (i * chunks + b) * up(q, THIN) + y0);
            }
    for (int64_t i = 0; i < m; ++i)
        for (int64_t b = 0; b < chunks; ++b)
            for (int64_t y = 0; y < q; ++y)
                X[i * q + y] += partial[(i * chunks + b) * up(q, THIN) + y];
}

}  // namespace

extern "C" {

// Whether codes of 4 bits are packed two a byte.
int64_t packs_halves() { return HALVES; }

// Bytes of packed B (k, n) in groups.
int64_t packed_groups_size(int64_t k, int64_t n, int64_t group, int half) {
    return (k + group - 1) / group * group * up(n, LANES) / (half && HALVES ? 2 : 1);
}

// Codes of B^T (n, k), rows of ld, and its scales (n, groups), in panels.
void pack_groups(const int8_t* codes, int64_t ld, const float* scale, int64_t k, int64_t n,
                 int64_t group, int half, int8_t* panels, float* scales, int threads) {
    const int64_t groups = (k + group - 1) / group, deep = groups * group;
    const int64_t count = (n + WIDTH - 1) / WIDTH, bytes = half && HALVES ? 2 : 1;
    const int64_t step = bytes * GROUP;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < count; ++p) {
        const int64_t first = p * WIDTH, columns = std::min(WIDTH, n - first);
        const int64_t wide = up(columns, LANES);
        int8_t* panel = panels + first * deep / bytes;
        for (int64_t l0 = 0; l0 < deep; l0 += step)
            for (int64_t j = 0; j < wide; ++j)
                for (int64_t g = 0; g < GROUP; ++g) {
                    int32_t byte = 0;
                    for (int64_t b = 0; b < bytes; ++b) {
                        const int64_t l = l0 + b * GROUP + g;
                        const int32_t code = j < columns && l < k ? codes[(first + j) * ld + l] : 0;
                        byte |= bytes == 2 ? (code + 8) << (4 * b) : (code + OFFSET);
                    }
                    panel[(l0 / step * wide + j) * GROUP + g] = static_cast<int8_t>(byte);
                }
        for (int64_t g = 0; g < groups; ++g)
            for (int64_t j = 0; j < wide; ++j)
                scales[first * groups + g * wide + j] =
                    j < columns ? scale[(first + j) * groups + g] : 0;
    }
}

// Elements of packed U (k, q) and V (n, q).
int64_t packed_left_size(int64_t k, int64_t q) { return k * up(q, THIN); }
int64_t packed_right_size(int64_t n, int64_t q) { return q * up(n, LANES); }

// U (k, q) and V (n, q), contiguous, as `multiply_groups` takes them.
void pack_factors(const float* U, const float* V, int64_t k, int64_t n, int64_t q, float* left,
                  float* right) {
    for (int64_t y = 0; y < up(q, THIN); ++y)
        for (int64_t l = 0; l < k; ++l)
            left[(y / THIN * k + l) * THIN + y % THIN] = y < q ? U[l * q + y] : 0;
    for (int64_t p = 0; p < n; p += WIDTH) {
        const int64_t columns = std::min(WIDTH, n - p), wide = up(columns, LANES);
        for (int64_t l = 0; l < q; ++l)
            for (int64_t j = 0; j < wide; ++j)
                right[p * q + l * wide + j] = j < columns ? V[(p + j) * q + l] : 0;
    }
}

// A (m, k) float quantised in groups, times packed B, with A~ U V^T added: C (m, n); packed U (k, q)
// and V (n, q). Work space: codes (m, groups * group).
void multiply_groups(const float* A, int64_t ld_A, int64_t m, int64_t k, int64_t n, float top,
                     int mode, int64_t group, int half, int8_t* codes, const int8_t* panels,
                     const float* scales, const float* U, const float* V, int64_t q, float* C,
                     int64_t ld_C, int threads) {
    const int64_t groups = (k + group - 1) / group, deep = groups * group;
    const int64_t count = (n + WIDTH - 1) / WIDTH, bytes = half && HALVES ? 2 : 1;
    std::vector<float> s(static_cast<size_t>(m * groups)), X(static_cast<size_t>(m * q));
    std::vector<int32_t> sums(s.size());
    quantize_groups(A, m, k, ld_A, top, mode, group, codes, s.data(), sums.data(),
                    team(threads, m * k));
    const Groups left{codes, s.data(), sums.data(), group, groups};
    if (q) times_thin(left, m, k, U, q, X.data(), team(threads, m * k * q));
    threads = team(threads, m * k + k * n);
    const Result result{nullptr, C, ld_C, nullptr, nullptr, X.data(), V, q};
    const int64_t tall = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(deep, 1) / 3) * 3;
    const int64_t blocks = (m + tall - 1) / tall;
#pragma omp parallel for num_threads(threads) schedule(dynamic) collapse(2)
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t p = 0; p < count; ++p) {
            const int64_t columns = std::min(WIDTH, n - p * WIDTH);
            const int vectors = static_cast<int>((columns + LANES - 1) / LANES);
            const int64_t high = HIGH[vectors], end = std::min(m, (b + 1) * tall);
            for (int64_t i = b * tall; i < end; i += high) {
                const int64_t rows = std::min(high, end - i);
                Block run = block_of<false>(rows, vectors);
                if constexpr (HALVES)
                    if (half) run = block_of<true>(rows, vectors);
                run(left, panels + p * WIDTH * deep / bytes, scales + p * WIDTH * groups, result, i,
                    p * WIDTH, columns, V + p * WIDTH * q);
            }
        }
}
}
