"""The fused path on CUDA, in CuPy: CUDA C passes around `gemmEx`; the thin steps are in `thin.py`.

cuBLAS has no room for an epilogue of ours, so the accumulator makes one more trip through memory.
It takes int8 operands contiguous along k with sizes that are multiples of 4: others are copied.
Where the host waits for the device, and what streams may share: as in `fused/cuda.py`.

Never run on a GPU: its CUDA C compiles for compute capability 8.0 and 9.0, no more is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cupy
import numpy as np
from cupy_backends.cuda.libs import cublas

from lrqmm._checks import Array
from lrqmm.fused import thin
from lrqmm.fused.algorithm import UNIT, Coded
from lrqmm.fused.thin import Buffers, merge, one_digit, orthonormal, take, two_digits
from lrqmm.products.backends.cupy import CUDA_R_8I, CUDA_R_32I
from lrqmm.products.phases import phase

__all__ = [
    "int_product", "merge", "multiply", "one_digit", "orthonormal", "quantize", "signs",
    "thin_product", "two_digits",
]  # fmt: skip

PASSES = "CUDA C"
"""What the passes are written in."""

SOURCE = r"""
const float SMALLEST_SCALE = 1.17549435e-38f;  // 2^-126

// max|x| / top, 0 where it would be subnormal, and its reciprocal or 0; both rounded correctly
__device__ void scale_of(float largest, int top, float* scale, float* inverse)
{
    float s = __fdiv_rn(largest, (float)top);
    bool usable = s >= SMALLEST_SCALE;
    *scale = usable ? s : 0.0f;
    *inverse = usable ? __frcp_rn(s) : 0.0f;
}

// code q of x, and the digit of x / scale - q; truncation pins the largest elements at the top
__device__ void encode(float x, float largest, float inverse, int top, int truncate,
                       signed char* code, signed char* digit)
{
    float v = __fmul_rn(x, inverse), q;
    if (truncate) {
        bool pinned = fabsf(x) == largest && inverse > 0.0f;
        q = pinned ? copysignf((float)top, x) : truncf(v);
        *digit = (signed char)rintf(127.0f * (v - q));
    } else {
        q = rintf(v);
        *digit = (signed char)rintf(254.0f * (v - q));
    }
    *code = (signed char)q;
}

// a block a row, 256 threads: the maximum, then the codes, for which the row is still in the cache
extern "C" __global__ void quantize_rows(
    const float* x, signed char* codes, signed char* digits, float* scales,
    long long k, long long stride_row, long long stride_k, int top, int truncate)
{
    __shared__ float part[256];
    const float* row = x + blockIdx.x * stride_row;
    float largest = 0.0f;
    for (long long j = threadIdx.x; j < k; j += 256)
        largest = fmaxf(largest, fabsf(row[j * stride_k]));
    part[threadIdx.x] = largest;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] = fmaxf(part[threadIdx.x], part[threadIdx.x + half]);
        __syncthreads();
    }
    largest = part[0];
    float scale, inverse;
    scale_of(largest, top, &scale, &inverse);
    if (threadIdx.x == 0)
        scales[blockIdx.x] = scale;
    for (long long j = threadIdx.x; j < k; j += 256) {
        signed char code, digit;
        encode(row[j * stride_k], largest, inverse, top, truncate, &code, &digit);
        codes[blockIdx.x * k + j] = code;
        if (digits)
            digits[blockIdx.x * k + j] = digit;
    }
}

// 32 x 8 threads, a tile of 32 rows and 128 columns: read along the rows' axis, written along k
extern "C" __global__ void quantize_tiles(
    const float* x, const float* largest, signed char* codes, signed char* digits, float* scales,
    long long rows, long long k, long long stride_row, long long stride_k, int top, int truncate)
{
    __shared__ signed char code[32][132], digit[32][132];  // 33 words a row: no bank conflicts
    long long first_row = blockIdx.x * 32LL, first_column = blockIdx.y * 128LL;
    long long i = first_row + threadIdx.x;
    if (i < rows) {
        float scale, inverse;
        scale_of(largest[i], top, &scale, &inverse);
        if (blockIdx.y == 0 && threadIdx.y == 0)
            scales[i] = scale;
        for (int c = threadIdx.y; c < 128 && first_column + c < k; c += 8)
            encode(x[i * stride_row + (first_column + c) * stride_k], largest[i], inverse, top,
                   truncate, &code[threadIdx.x][c], &digit[threadIdx.x][c]);
    }
    __syncthreads();
    for (int r = threadIdx.y; r < 32 && first_row + r < rows; r += 8)
        for (int c = threadIdx.x; c < 128 && first_column + c < k; c += 32) {
            long long target = (first_row + r) * k + first_column + c;
            codes[target] = code[r][c];
            if (digits)
                digits[target] = digit[r][c];
        }
}

// C = s_i t_j sums_ij + (X Y^T)_ij, X (m, q) and Y (n, q) row-major; sums may lie where C does;
// 16 x 16 threads, a tile of 64 x 64, sixteen terms of the update at a time
extern "C" __global__ void scale_update(
    const int* sums, float* C, const float* s, const float* t, const float* X, const float* Y,
    long long m, long long n, long long q, long long stride_sums)
{
    __shared__ float xs[16][64], ys[16][64];
    long long first_row = blockIdx.y * 64LL, first_column = blockIdx.x * 64LL;
    int thread = threadIdx.y * 16 + threadIdx.x;
    float update[4][4] = {};
    for (long long start = 0; start < q; start += 16) {
        for (int e = thread; e < 16 * 64; e += 256) {
            long long p = start + e / 64, i = first_row + e % 64, j = first_column + e % 64;
            xs[e / 64][e % 64] = p < q && i < m ? X[i * q + p] : 0.0f;
            ys[e / 64][e % 64] = p < q && j < n ? Y[j * q + p] : 0.0f;
        }
        __syncthreads();
        for (int p = 0; p < 16; ++p)
            for (int r = 0; r < 4; ++r)
                for (int c = 0; c < 4; ++c)
                    update[r][c] += xs[p][threadIdx.y + 16 * r] * ys[p][threadIdx.x + 16 * c];
        __syncthreads();
    }
    for (int r = 0; r < 4; ++r)
        for (int c = 0; c < 4; ++c) {
            long long i = first_row + threadIdx.y + 16 * r, j = first_column + threadIdx.x + 16 * c;
            if (i < m && j < n)
                C[i * n + j] = s[i] * t[j] * (float)sums[i * stride_sums + j] + update[r][c];
        }
}
"""

_KERNELS = cupy.RawModule(code=SOURCE)  # compiled when a kernel is first asked for

_largest = cupy.ReductionKernel(
    "float32 x", "float32 y", "fabsf(x)", "fmaxf(a, b)", "y = a", "0", "lrqmm_largest"
)


def quantize(
    X: Array,
    bits: int,
    rounding: str,
    *,
    rank: int,
    residual: bool,
    space: Buffers | None = None,
) -> Coded:
    """X (rows, k) float32 as int8 codes, with room for `rank` thin rows and digits of its residual.

    Formulas as in `triton_quantize.quantize`. X is read twice, a contiguous row the second time
    from the cache.
    """
    with phase("quantize"):
        rows, k = X.shape
        room = take(space, "codes", (rows + rank, k), X)
        digits = take(space, "digits", (rows, k), X) if residual else None
        scale = cupy.empty(rows, dtype=cupy.float32)
        strides = [stride // 4 for stride in X.strides]  # in elements
        levels = (2 ** (bits - 1) - 1, int(rounding == "truncate"))
        results = (room, digits, scale)
        if strides[1] <= strides[0]:
            _launch("quantize_rows", (rows,), (256,), X, *results, k, *strides, levels)
        else:
            grid, largest = (-(-rows // 32), -(-k // 128)), _largest(X, axis=1)
            arguments = (X, largest, *results, rows, k, *strides, levels)
            _launch("quantize_tiles", grid, (32, 8), *arguments)
        return Coded(room, digits, scale, UNIT[rounding])


def int_product(a: Array, b: Array) -> Array:
    """a (m, k) int8, b (n, k) int8 -> a bᵀ (m, n) int32, exact; rows may lie more than n apart."""
    m, n = a.shape[0], b.shape[0]
    if 0 in (m, n):  # no thin rows
        return cupy.empty((m, n), dtype=cupy.int32)
    a, b = _padded(a), _padded(b)
    sums = cupy.empty((a.shape[0], b.shape[0]), dtype=cupy.int32)
    _gemm(a, b, sums)
    return sums[:m, :n]


def thin_product(T: Array, R: Array) -> Array:
    """T (w, rows) int8, R (rows, k) int8 -> T R (w, k) int32, exact; R is transposed first.

    cuBLAS takes int8 operands contiguous along the sum only.
    """
    return int_product(T, R.T)


def _padded(x: Array) -> Array:
    """x as cuBLAS takes it: C-contiguous, both sizes multiples of 4 and at least 4."""
    rows, k = (max(-(-size // 4) * 4, 4) for size in x.shape)
    if x.shape == (rows, k) and x.flags.c_contiguous:
        return x
    padded = cupy.zeros((rows, k), dtype=cupy.int8)
    padded[: x.shape[0], : x.shape[1]] = x
    return padded


def _gemm(a: Array, b: Array, C: Array) -> None:
    """C = a bᵀ for padded a (m, k) and b (n, k) int8, C (m, n) int32."""
    (m, k), n = a.shape, b.shape[0]
    one, zero = np.array(1, np.int32), np.array(0, np.int32)
    # cuBLAS is column-major: it sees aᵀ and bᵀ (k x m, k x n), and computes Cᵀ = b aᵀ (n x m)
    cublas.gemmEx(
        cupy.cuda.device.get_cublas_handle(),
        cublas.CUBLAS_OP_T,
        cublas.CUBLAS_OP_N,
        n,
        m,
        k,
        one.ctypes.data,
        b.data.ptr,
        CUDA_R_8I,
        k,
        a.data.ptr,
        CUDA_R_8I,
        k,
        zero.ctypes.data,
        C.data.ptr,
        CUDA_R_32I,
        n,
        cublas.CUBLAS_COMPUTE_32I,
        cublas.CUBLAS_GEMM_DEFAULT,
    )


def signs(rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> Array:
    """Ωᵀ (width, rows) int8, on the current device."""
    return _signs(cupy.cuda.runtime.getDevice(), rows, width, sketch, seed)


@lru_cache(maxsize=16)
def _signs(device: int, rows: int, width: int, sketch: str, seed: tuple[int, ...]) -> Array:
    """One a device, which is the current one."""
    return cupy.asarray(thin.signs(rows, width, sketch, seed))


Update = Callable[[Any, Any, Any], tuple[Array, Array]]


def multiply(left: Coded, right: Coded, update: Update, out: Array | None, space: Buffers) -> Array:
    """C = diag(s) q pᵀ diag(t) + X Yᵀ, (m, n) float32, with `update` giving X and Y.

    The int32 sums lie where C will, or in the work space where m or n is no multiple of 4.
    Errors: 2^-22 of |s_i t_j (q pᵀ)_ij|, and (r + 1) 2^-24 of (|X| |Y|ᵀ)_ij, r columns of X.
    """
    with phase("correct"):
        qw = int_product(left.codes, right.thin)
        pv = int_product(right.codes, left.thin)
        vw = int_product(left.thin, right.thin)
    # int32 times float32 is float64 in CuPy
    X, Y = (cupy.ascontiguousarray(factor, cupy.float32) for factor in update(qw, pv, vw))
    m, n = left.rows, right.rows
    with phase("product"):
        a, b = _padded(left.codes), _padded(right.codes)
        C = cupy.empty((m, n), dtype=cupy.float32) if out is None else out
        if (a.shape[0], b.shape[0]) == (m, n):
            sums = C.view(cupy.int32)
        else:
            sums = take(space, "sums", (a.shape[0], 4 * b.shape[0]), C).view(cupy.int32)
        _gemm(a, b, sums)
    with phase("correct" if X.shape[1] else "product"):
        grid = (-(-n // 64), -(-m // 64))
        given = (sums, C, left.scale, right.scale, X, Y, m, n, X.shape[1], sums.shape[1])
        _launch("scale_update", grid, (16, 16), *given)
    return C


def _launch(name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
    """Arrays as pointers, None as a null pointer, integers as 64 bits, those in a tuple as 32."""
    given: list[Any] = []
    for argument in arguments:
        if argument is None:
            given.append(np.intp(0))
        elif isinstance(argument, int):
            given.append(np.int64(argument))
        elif isinstance(argument, tuple):
            given.extend(np.int32(value) for value in argument)
        else:
            given.append(argument)
    _KERNELS.get_function(name)(grid, block, tuple(given))
