// Vectors of one processor level, and what becomes of a block of sums: for gemm.cpp and groups.cpp.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512VNNI__)
typedef __m512i ints;
typedef __m512 floats;
constexpr int LANES = 16, GROUP = 4, ROWS[5] = {0, 12, 12, 8, 6};
constexpr int OFFSET = 128;
inline ints zero() { return _mm512_setzero_si512(); }
inline ints load(const int8_t* b) { return _mm512_loadu_si512(b); }
inline ints group_of(const int8_t* a) {
    int32_t word;
    std::memcpy(&word, a, 4);
    return _mm512_set1_epi32(word);
}
inline ints multiply_add(ints c, ints b, ints a) { return _mm512_dpbusd_epi32(c, b, a); }
inline ints minus(ints c, int32_t x) { return _mm512_sub_epi32(c, _mm512_set1_epi32(x)); }
inline void store(int32_t* p, ints c) { _mm512_storeu_si512(p, c); }
inline floats to_float(ints c) { return _mm512_cvtepi32_ps(c); }
inline floats all(float x) { return _mm512_set1_ps(x); }
inline floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, floats c) { _mm512_storeu_ps(p, c); }
#elif defined(__AVX2__)
typedef __m256i ints;
typedef __m256 floats;
constexpr int LANES = 8;
inline ints zero() { return _mm256_setzero_si256(); }
#if defined(__AVXVNNI__)
constexpr int GROUP = 4, OFFSET = 128, ROWS[5] = {0, 6, 6, 3, 2};
inline ints load(const int8_t* b) { return _mm256_loadu_si256(reinterpret_cast<const ints*>(b)); }
inline ints group_of(const int8_t* a) {
    int32_t word;
    std::memcpy(&word, a, 4);
    return _mm256_set1_epi32(word);
}
inline ints multiply_add(ints c, ints b, ints a) { return _mm256_dpbusd_avx_epi32(c, b, a); }
#else
constexpr int GROUP = 2, OFFSET = 0, ROWS[5] = {0, 6, 6, 3, 2};
inline ints load(const int8_t* b) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
}
inline ints group_of(const int8_t* a) {
    return _mm256_set1_epi32((static_cast<uint32_t>(static_cast<int32_t>(a[1])) << 16) |
                             static_cast<uint16_t>(a[0]));
}
inline ints multiply_add(ints c, ints b, ints a) {
    return _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
}
#endif
inline ints minus(ints c, int32_t x) { return _mm256_sub_epi32(c, _mm256_set1_epi32(x)); }
inline void store(int32_t* p, ints c) { _mm256_storeu_si256(reinterpret_cast<ints*>(p), c); }
inline floats to_float(ints c) { return _mm256_cvtepi32_ps(c); }
inline floats all(float x) { return _mm256_set1_ps(x); }
inline floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, floats c) { _mm256_storeu_ps(p, c); }
#else
constexpr int LANES = 4, GROUP = 2, OFFSET = 0, ROWS[5] = {0, 4, 2, 1, 1};
typedef int32_t ints __attribute__((vector_size(16)));
typedef float floats __attribute__((vector_size(16)));
inline ints zero() { return ints{0, 0, 0, 0}; }
struct Pairs { ints even, odd; };
inline Pairs load(const int8_t* b) {
    return {ints{b[0], b[2], b[4], b[6]}, ints{b[1], b[3], b[5], b[7]}};
}
inline Pairs group_of(const int8_t* a) {
    return {ints{a[0], a[0], a[0], a[0]}, ints{a[1], a[1], a[1], a[1]}};
}
inline ints multiply_add(ints c, Pairs b, Pairs a) { return c + a.even * b.even + a.odd * b.odd; }
inline ints minus(ints c, int32_t x) { return c - ints{x, x, x, x}; }
inline void store(int32_t* p, ints c) { std::memcpy(p, &c, sizeof c); }
inline floats to_float(ints c) { return __builtin_convertvector(c, floats); }
inline floats all(float x) { return floats{x, x, x, x}; }
inline floats load(const float* p) { floats c; std::memcpy(&c, p, sizeof c); return c; }
inline void store(float* p, floats c) { std::memcpy(p, &c, sizeof c); }
#endif

constexpr int VECTORS = 4;
constexpr int64_t WIDTH = LANES * VECTORS;  // columns of a whole panel

int64_t up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

// What becomes of a block of sums: written as they are, or scaled and added to a low-rank update.
struct Result {
    int32_t* sums;  // (m, n), or null for
    float* C;       // (m, n)
    int64_t ld;
    const float *s, *t;  // C = s_i t_j sum_ij + (X Y^T)_ij
    const float* X;      // (m, q)
    const float* Y;      // packed: panel by panel q rows of its width
    int64_t q;
};

#define UNROLL _Pragma("GCC unroll 16")

// Adds the update to the scaled sums of MR rows and writes them, `columns` of each.
template <int MR, int NV>
inline __attribute__((always_inline)) void write(floats (&f)[MR][NV], const Result& r, int64_t i,
                                                 int64_t j, int64_t columns, const float* Y) {
    for (int64_t l = 0; l < r.q; ++l) {
        floats y[NV];
        UNROLL for (int v = 0; v < NV; ++v) y[v] = load(Y + (l * NV + v) * LANES);
        UNROLL for (int x = 0; x < MR; ++x) {
            const floats left = all(r.X[(i + x) * r.q + l]);
            UNROLL for (int v = 0; v < NV; ++v) f[x][v] += left * y[v];
        }
    }
    const bool whole = columns == NV * LANES;
    UNROLL for (int x = 0; x < MR; ++x) {
        float* row = r.C + (i + x) * r.ld + j;
        float rest[NV * LANES];
        UNROLL for (int v = 0; v < NV; ++v) store((whole ? row : rest) + v * LANES, f[x][v]);
        if (!whole) std::memcpy(row, rest, static_cast<size_t>(columns) * 4);
    }
}

}  // namespace
