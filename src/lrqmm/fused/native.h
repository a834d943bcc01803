// What the files of the compiled library call of each other.

#pragma once

#include <cstdint>

extern "C" {
void quantize_rows(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top, int mode,
                   int8_t* codes, int64_t ld_codes, int8_t* digits, int64_t ld_digits, float* scale,
                   int threads);
void quantize_groups(const float* x, int64_t rows, int64_t columns, int64_t ld_x, float top,
                     int mode, int64_t group, int8_t* codes, float* scale, int32_t* sums,
                     int threads);
void thin_codes(const float* X, int64_t n, int64_t w, const float* weight, int8_t* first,
                int64_t row_stride, int64_t column_stride, int8_t* second, float* scale,
                int threads);
void merge(const int32_t* sums, int64_t row_stride, int64_t column_stride, int64_t n, int64_t w,
           const float* f, const float* g, float* out, int threads);
int64_t packed_size(int64_t k, int64_t n);
void pack(const int8_t* B, int64_t row, int64_t column, int64_t k, int64_t n, int8_t* panels,
          int threads);
void multiply(const int8_t* A, int64_t ld_A, const int8_t* panels, int64_t m, int64_t k, int64_t n,
              int32_t* sums, float* C, int64_t ld, const float* s, const float* t, const float* X,
              const float* Y, int64_t q, int threads);
void multiply_thin(const int8_t* A, int64_t ld_A, const int8_t* B, int64_t row, int64_t column,
                   int64_t m, int64_t k, int64_t n, int32_t* sums, int threads);
}

// Threads for so many elements: one where waking others would take longer.
inline int team(int threads, int64_t elements) { return elements < (1 << 15) ? 1 : threads; }
