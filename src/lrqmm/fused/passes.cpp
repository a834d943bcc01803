// The passes over memory of the fused CPU path: quantise with a residual digit, and scale with a
// low-rank update. fused/passes_numba.py says the same in Python and is used where this is not built.
//
// Compiled with gemm.cpp for each level of processor; fused/native.py loads the one that fits.

#include "native.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 6, VECTORS = 4;  // ROWS x VECTORS sums stay in registers
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4, VECTORS = 2;
#else
constexpr int LANES = 4, ROWS = 4, VECTORS = 2;
#endif
constexpr int64_t WIDTH = LANES * VECTORS;    // columns of a block of the update
constexpr int64_t PANEL = 2 * ROWS;           // rows of the result that one thread streams through
constexpr int64_t STRIP = 1024;               // columns quantised together by quantize_columns
constexpr float SMALLEST_SCALE = 0x1p-126f;   // as in quantize.py

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));

float absolute_maximum(const float* x, int64_t n) {
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < n; ++j) largest = std::max(largest, std::fabs(x[j]));
    return largest;
}

// The least and the largest of x and zero.
void extremes(const float* x, int64_t n, float& least, float& largest) {
    float low = 0, high = 0;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t j = 0; j < n; ++j) {
        low = std::min(low, x[j]);
        high = std::max(high, x[j]);
    }
    least = low;
    largest = high;
}

// scale = largest / top, and what to multiply by. Truncation takes a hair more than 1 / scale, so
// that the element of largest magnitude reaches `top`.
void scale_of(float largest, float top, bool truncate, float& scale, float& inverse) {
    const float s = largest / top;
    const bool usable = s >= SMALLEST_SCALE;
    scale = usable ? s : 0;
    inverse = usable ? 1 / s * (truncate ? 1 + 0x1p-22f : 1) : 0;
}

// The same with the sign of the element of largest magnitude, whose code is -top - 1.
void signed_scale_of(float low, float high, float top, float& scale, float& inverse) {
    const float s = (high > -low ? high : low) / -(top + 1);
    const bool usable = std::fabs(s) >= SMALLEST_SCALE;
    scale = usable ? s : 0;
    inverse = usable ? 1 / s : 0;
}

// The same with a zero point: 2^b levels from the minimum to the maximum, a range that holds zero.
void affine_scale_of(float low, float high, float top, float& scale, float& inverse, float& zero) {
    const float s = (high - low) / (2 * top + 1);
    const bool usable = s >= SMALLEST_SCALE;
    scale = usable ? s : 0;
    inverse = usable ? 1 / s : 0;
    zero = usable ? __builtin_rintf(-low * inverse) - (top + 1) : 0;
}

// q = round(v) + zero, within -top - 1 and top, and round(254 (v - (q - zero))).
template <bool DIGITS>
inline void encode_affine(float v, float zero, float top, int8_t* code, int8_t* digit) {
    const float q = std::min(std::max(__builtin_rintf(v) + zero, -top - 1), top);
    *code = static_cast<int8_t>(static_cast<int32_t>(q));
    if (DIGITS)
        *digit = static_cast<int8_t>(__builtin_irintf((v - (q - zero)) * 254.f));
}

enum Mode { NEAREST, TRUNCATE, SIGNED };  // as fused/passes.py numbers them

// q = round(v) and round(254 (v - q)); or q = trunc(v) or min(round(v), top), and round(127 (v - q)).
template <Mode MODE, bool DIGITS>
inline void encode(float v, int32_t top, int8_t* code, int8_t* digit) {
    int32_t q = MODE == TRUNCATE ? static_cast<int32_t>(v) : __builtin_irintf(v);
    if (MODE == SIGNED) q = std::min(q, top);
    *code = static_cast<int8_t>(q);
    if (DIGITS) {
        const float rest = (v - static_cast<float>(q)) * (MODE == NEAREST ? 254.f : 127.f);
        *digit = static_cast<int8_t>(__builtin_irintf(rest));
    }
}

template <Mode MODE, bool DIGITS>
void encode_row(const float* x, const float* next, int64_t n, float inverse, int32_t top,
                int8_t* codes, int8_t* digits) {
    for (int64_t j0 = 0; j0 < n; j0 += 64) {
        const int64_t end = std::min(n, j0 + 64);
        for (int64_t j = j0; j < end; j += 16) __builtin_prefetch(next + j, 0, 2);
#pragma omp simd
        for (int64_t j = j0; j < end; ++j)
            encode<MODE, DIGITS>(x[j] * inverse, top, codes + j, digits + j);
    }
}

template <Mode MODE, bool DIGITS>
void encode_columns(const float* x, int64_t n, const float* inverse, int32_t top, int8_t* codes,
                    int8_t* digits) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j)
        encode<MODE, DIGITS>(x[j] * inverse[j], top, codes + j, digits + j);
}

// By mode, without digits and with them.
constexpr decltype(&encode_row<NEAREST, true>) ENCODE_ROW[3][2] = {
    {encode_row<NEAREST, false>, encode_row<NEAREST, true>},
    {encode_row<TRUNCATE, false>, encode_row<TRUNCATE, true>},
    {encode_row<SIGNED, false>, encode_row<SIGNED, true>}};
constexpr decltype(&encode_columns<NEAREST, true>) ENCODE_COLUMNS[3][2] = {
    {encode_columns<NEAREST, false>, encode_columns<NEAREST, true>},
    {encode_columns<TRUNCATE, false>, encode_columns<TRUNCATE, true>},
    {encode_columns<SIGNED, false>, encode_columns<SIGNED, true>}};

// Scaled accumulators plus the update of a ROWS x WIDTH block; Y is packed, q rows of WIDTH.
void update_block(const int32_t* sums, int64_t ld_sums, const float* s, const float* t,
                  const float* X, const float* Y, int64_t q, float* C, int64_t ld_C) {
    floats c[ROWS][VECTORS];
    for (int i = 0; i < ROWS; ++i)
        for (int v = 0; v < VECTORS; ++v) {
            const floats scale = s[i] * *reinterpret_cast<const floats*>(t + v * LANES);
            // not by `auto`, which would lose that these vectors may begin anywhere
            const ints sum = *reinterpret_cast<const ints*>(sums + i * ld_sums + v * LANES);
            c[i][v] = __builtin_convertvector(sum, floats) * scale;
        }
    for (int64_t l = 0; l < q; ++l)
        for (int v = 0; v < VECTORS; ++v) {
            const floats y = *reinterpret_cast<const floats*>(Y + l * WIDTH + v * LANES);
            for (int i = 0; i < ROWS; ++i) c[i][v] += X[i * q + l] * y;
        }
    for (int i = 0; i < ROWS; ++i)
        for (int v = 0; v < VECTORS; ++v)
            *reinterpret_cast<floats*>(C + i * ld_C + v * LANES) = c[i][v];
}

void update_rest(const int32_t* sums, int64_t ld_sums, const float* s, const float* t,
                 const float* X, const float* Y, int64_t q, float* C, int64_t ld_C, int64_t rows,
                 int64_t from, int64_t to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = from; j < to; ++j) {
            float c = s[i] * t[j] * static_cast<float>(sums[i * ld_sums + j]);
            for (int64_t l = 0; l < q; ++l) c += X[i * q + l] * Y[j * q + l];
            C[i * ld_C + j] = c;
        }
}

}  // namespace

extern "C" {

// The largest magnitude of x (rows, columns), NaN where there is one.
float largest(const float* x, int64_t rows, int64_t columns, int64_t ld_x, int threads) {
    uint32_t most = 0;  // magnitudes order as the integers of their bits do, NaN above infinity
#pragma omp parallel for num_threads(team(threads, rows* columns)) reduction(max : most)
    for (int64_t i = 0; i < rows; ++i) {
        const float* row = x + i * ld_x;
        uint32_t bits = 0;
#pragma omp simd reduction(max : bits)
        for (int64_t j = 0; j < columns; ++j) {
            uint32_t word;
            std::memcpy(&word, row + j, 4);
            bits = std::max(bits, word & 0x7fffffffu);
        }
        most = std::max(most, bits);
    }
    float value;
    std::memcpy(&value, &most, 4);
    return value;
}

// x (rows, columns) -> codes, digits (or null), one scale and one zero point per row, to nearest.
void quantize_rows_affine(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top,
                          int8_t* codes, int64_t ld_codes, int8_t* digits, int64_t ld_digits,
                          float* scale, float* zero, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
        const float* row = x + i * ld_x;
        float low, high, inverse;
        extremes(row, columns, low, high);
        affine_scale_of(low, high, top, scale[i], inverse, zero[i]);
        const float z = zero[i];
        int8_t* code = codes + i * ld_codes;
        int8_t* digit = digits + i * ld_digits;
        if (digits) {
#pragma omp simd
            for (int64_t j = 0; j < columns; ++j)
                encode_affine<true>(row[j] * inverse, z, top, code + j, digit + j);
        } else {
#pragma omp simd
            for (int64_t j = 0; j < columns; ++j)
                encode_affine<false>(row[j] * inverse, z, top, code + j, nullptr);
        }
    }
}

// x (rows, columns) -> codes (rows, groups * group), zeros beyond x, with one scale and the sum of
// the codes per group of columns, (rows, groups).
void quantize_groups(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top,
                     int mode, int64_t group, int8_t* codes, float* scale, int32_t* sums,
                     int threads) {
    const int64_t groups = (columns + group - 1) / group;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t g = 0; g < groups; ++g) {
            const float* from = x + i * ld_x + g * group;
            const int64_t n = std::min(group, columns - g * group);
            int8_t* code = codes + (i * groups + g) * group;
            float& s = scale[i * groups + g];
            float low, high, inverse;
            extremes(from, n, low, high);
            if (mode == SIGNED)
                signed_scale_of(low, high, top, s, inverse);
            else
                scale_of(std::max(-low, high), top, mode == TRUNCATE, s, inverse);
            ENCODE_ROW[mode][0](from, from, n, inverse, static_cast<int32_t>(top), code, nullptr);
            std::fill(code + n, code + group, static_cast<int8_t>(0));
            int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < group; ++j) sum += code[j];
            sums[i * groups + g] = sum;
        }
}

// x (rows, columns) -> codes, digits (or null) and one scale per row.
void quantize_rows(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top,
                   int mode, int8_t* codes, int64_t ld_codes, int8_t* digits,
                   int64_t ld_digits, float* scale, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; ++i) {
        const float* row = x + i * ld_x;
        const float* next = i + 1 < rows ? row + ld_x : row;
        float inverse;
        if (mode == SIGNED) {
            float low, high;
            extremes(row, columns, low, high);
            signed_scale_of(low, high, top, scale[i], inverse);
        } else {
            scale_of(absolute_maximum(row, columns), top, mode == TRUNCATE, scale[i], inverse);
        }
        ENCODE_ROW[mode][digits != nullptr](row, next, columns, inverse, static_cast<int32_t>(top),
                                            codes + i * ld_codes, digits + i * ld_digits);
    }
}

// x (rows, columns) -> codes, digits (or null) and one scale per column.
void quantize_columns(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top,
                      int mode, int8_t* codes, int64_t ld_codes, int8_t* digits,
                      int64_t ld_digits, float* scale, int threads) {
    const int64_t share = (columns + threads - 1) / threads;
    const int64_t width = std::max<int64_t>(64, std::min(STRIP, (share + 63) / 64 * 64));
    const auto run = ENCODE_COLUMNS[mode][digits != nullptr];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < columns; j += width) {
        const int64_t n = std::min(width, columns - j);
        float low[STRIP] = {0}, high[STRIP] = {0}, inverse[STRIP];
        for (int64_t i = 0; i < rows; ++i) {
            const float* row = x + i * ld_x + j;
            if (mode == SIGNED) {
#pragma omp simd
                for (int64_t l = 0; l < n; ++l) {
                    low[l] = std::min(low[l], row[l]);
                    high[l] = std::max(high[l], row[l]);
                }
            } else {
#pragma omp simd
                for (int64_t l = 0; l < n; ++l) high[l] = std::max(high[l], std::fabs(row[l]));
            }
        }
        for (int64_t l = 0; l < n; ++l) {
            if (mode == SIGNED)
                signed_scale_of(low[l], high[l], top, scale[j + l], inverse[l]);
            else
                scale_of(high[l], top, mode == TRUNCATE, scale[j + l], inverse[l]);
        }
        for (int64_t i = 0; i < rows; ++i)
            run(x + i * ld_x + j, n, inverse, static_cast<int32_t>(top), codes + i * ld_codes + j,
                digits ? digits + i * ld_digits + j : nullptr);
    }
}

// X (n, w) float, weighed by row (or not), in int8 a column: weight_i X_il = scale_l (first_li +
// second_li / 254) with first and second (w, n); `second` may be null.
void thin_codes(const float* X, int64_t n, int64_t w, const float* weight, int8_t* first,
                int64_t row_stride, int64_t column_stride, int8_t* second, float* scale,
                int threads) {
    std::vector<float> largest(static_cast<size_t>(w), 0.f), inverse(static_cast<size_t>(w));
    for (int64_t i = 0; i < n; ++i) {
        const float f = weight ? weight[i] : 1;
        for (int64_t l = 0; l < w; ++l)
            largest[l] = std::max(largest[l], std::fabs(f * X[i * w + l]));
    }
    for (int64_t l = 0; l < w; ++l) scale_of(largest[l], 127, false, scale[l], inverse[l]);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i0 = 0; i0 < n; i0 += 64)
        for (int64_t l = 0; l < w; ++l)
            for (int64_t i = i0; i < std::min(n, i0 + 64); ++i) {
                const float v = (weight ? weight[i] : 1) * X[i * w + l] * inverse[l];
                int8_t code, digit;
                encode<NEAREST, true>(v, 127, &code, &digit);
                first[l * row_stride + i * column_stride] = code;
                if (second) second[l * n + i] = digit;
            }
}

// Sums of two digits put together: out_il = f_i g_l (sums_il + sums_i(l+w) / 254), out (n, w).
void merge(const int32_t* sums, int64_t row_stride, int64_t column_stride, int64_t n, int64_t w,
           const float* f, const float* g, float* out, int threads) {
    const int64_t second = w * column_stride;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i0 = 0; i0 < n; i0 += 64)
        for (int64_t i = i0; i < std::min(n, i0 + 64); ++i)
            for (int64_t l = 0; l < w; ++l) {
                const int32_t* sum = sums + i * row_stride + l * column_stride;
                out[i * w + l] = (f ? f[i] : 1) * g[l] *
                                 (static_cast<float>(sum[0]) +
                                  static_cast<float>(sum[second]) * (1.f / 254));
            }
}

// C = s_i t_j sums_ij + (X Y^T)_ij with X (m, q) and Y (n, q), row-major; q = 0 for no update.
void scale_update(const int32_t* sums, int64_t ld_sums, int64_t m, int64_t n, const float* s,
                  const float* t, const float* X, const float* Y, int64_t q, float* C,
                  int64_t ld_C, int threads) {
    const int64_t blocks = n / WIDTH, whole = blocks * WIDTH;
    std::vector<float> packed(static_cast<size_t>(q * whole));  // [block][q][WIDTH]
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t j = 0; j < WIDTH; ++j)
                for (int64_t l = 0; l < q; ++l)
                    packed[(b * q + l) * WIDTH + j] = Y[(b * WIDTH + j) * q + l];
#pragma omp for schedule(static)
        for (int64_t p = 0; p < m; p += PANEL) {
            const int64_t end = std::min(m, p + PANEL);
            const int64_t full = p + (end - p) / ROWS * ROWS;
            for (int64_t b = 0; b < blocks; ++b)
                for (int64_t i = p; i < full; i += ROWS)
                    update_block(sums + i * ld_sums + b * WIDTH, ld_sums, s + i, t + b * WIDTH,
                                 X + i * q, packed.data() + b * q * WIDTH, q,
                                 C + i * ld_C + b * WIDTH, ld_C);
            update_rest(sums + p * ld_sums, ld_sums, s + p, t, X + p * q, Y, q, C + p * ld_C, ld_C,
                        full - p, whole, n);
            update_rest(sums + full * ld_sums, ld_sums, s + full, t, X + full * q, Y, q,
                        C + full * ld_C, ld_C, end - full, 0, n);
        }
    }
}
}
