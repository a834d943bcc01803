// A whole product in one call: quantise the left operand, find the low-rank parts, multiply with the
// correction. fused/algorithm.py has the same steps for any device, one by one, and names them.

#include "native.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

namespace {

// An int8 matrix, element (i, l) at data[i * row + l * column], one of the two 1.
struct Matrix {
    int8_t* data;
    int64_t row, column;
    bool by_rows() const { return column == 1; }
};

}  // namespace

extern "C" {

// An operand (rows x k) as `coded.py` describes it; the right one also packed.
struct Operand {
    int64_t rows, k, rank;
    Matrix codes, digits, thin;  // (rows, k), (rows, k), (rank, k)
    float* scale;                // (rows)
    float* basis;                // (rows, rank)
    float* thin_scale;           // (rank)
    const int8_t* panels;
};

// What is asked for: A (m, k) times the right operand, into C.
struct Job {
    const float* A;
    int64_t ld_A, m;
    float* C;
    int64_t ld_C;
    int8_t *codes, *digits;  // work space of A's size
    int64_t rank_a, rank_b;  // of what is found here; B's own rank is none then
    const int8_t* signs;     // (rank_a, k), or product-aware:
    const float *omega_a, *omega_b;  // (n, rank_a) and (m, rank_b)
    double* seconds;         // by phase, or null
    float top, unit;         // 2^(bits - 1) - 1; what a digit counts in scales
    int32_t mode, aware, full, iterations, threads;
};
}

namespace {

enum Phase { QUANTIZE, SKETCH, FACTORIZE, PRODUCT, CORRECT };

// Seconds by phase, where somebody asks.
class Clock {
  public:
    explicit Clock(double* seconds) : seconds_(seconds), last_(now()) {}
    void charge(Phase phase) {
        if (!seconds_) return;
        const double time = now();
        seconds_[phase] += time - last_;
        last_ = time;
    }

  private:
    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    }
    double* seconds_;
    double last_;
};

typedef std::vector<float> Floats;

size_t size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }

// Sums of int8 products, element (i, l) at data[i * row + l * column].
struct Sums {
    std::vector<int32_t> data;
    int64_t row, column;
};

// A (m, k) with rows in memory times B (k, n), of which the smaller one is packed.
std::vector<int32_t> product(const int8_t* A, int64_t ld_A, Matrix B, int64_t m, int64_t k,
                             int64_t n, int threads) {
    std::vector<int32_t> sums(size(m, n));
    threads = team(threads, m * k + k * n);
    if (n > m) {
        multiply_thin(A, ld_A, B.data, B.row, B.column, m, k, n, sums.data(), threads);
        return sums;
    }
    std::vector<int8_t> panels(static_cast<size_t>(packed_size(k, n)));
    pack(B.data, B.row, B.column, k, n, panels.data(), 1);
    multiply(A, ld_A, panels.data(), m, k, n, sums.data(), nullptr, n, nullptr, nullptr, nullptr,
             nullptr, 0, threads);
    return sums;
}

// M (rows, k) times T^T, T (w, k) contiguous: sums (rows, w).
Sums times_thin(Matrix M, int64_t rows, int64_t k, const int8_t* T, int64_t w, int threads) {
    int8_t* t = const_cast<int8_t*>(T);
    if (M.by_rows()) return {product(M.data, M.row, {t, 1, k}, rows, k, w, threads), w, 1};
    return {product(t, k, {M.data, M.column, 1}, w, k, rows, threads), 1, rows};
}

// T M as its transpose: T (w, rows) contiguous times M (rows, k), sums (k, w).
Sums thin_times(const int8_t* T, Matrix M, int64_t rows, int64_t k, int64_t w, int threads) {
    int8_t* t = const_cast<int8_t*>(T);
    if (M.by_rows()) return {product(t, rows, M, w, rows, k, threads), 1, k};
    return {product(M.data, M.column, {t, 1, rows}, k, rows, w, threads), w, 1};
}

// Thin X (n, w) in two digits (2 w, n): weight_i X_il = scale_l (first_li + second_li / 254).
struct Digits {
    std::vector<int8_t> data;
    Floats scale;
    Digits(const Floats& X, int64_t n, int64_t w, const float* weight, int threads)
        : data(size(2 * w, n)), scale(static_cast<size_t>(w)) {
        thin_codes(X.data(), n, w, weight, data.data(), n, 1, data.data() + w * n, scale.data(),
                   team(threads, n * w));
    }
};

void add_merged(const Sums& sums, int64_t n, int64_t w, const float* f, const Floats& scale,
                float unit, Floats& out, int threads) {
    Floats g(scale), part(out.empty() ? 0 : size(n, w));
    for (float& x : g) x *= unit;
    const bool first = out.empty();
    if (first) out.resize(size(n, w));
    merge(sums.data.data(), sums.row, sums.column, n, w, f, g.data(),
          first ? out.data() : part.data(), team(threads, n * w));
    for (size_t i = 0; i < part.size(); ++i) out[i] += part[i];
}

// M^T diag(s) Q with M a sum of parts unit_p part_p: (k, w).
struct Part {
    Matrix digits;
    float unit;
};

Floats from_left(const std::vector<Part>& parts, const float* s, int64_t rows, int64_t k,
                 const Floats& Q, int64_t w, int threads) {
    const Digits thin(Q, rows, w, s, threads);
    Floats out;
    for (const Part& part : parts)
        add_merged(thin_times(thin.data.data(), part.digits, rows, k, 2 * w, threads), k, w,
                   nullptr, thin.scale, part.unit, out, threads);
    return out;
}

// diag(s) M Z: (rows, w).
Floats from_right(const std::vector<Part>& parts, const float* s, int64_t rows, int64_t k,
                  const Floats& Z, int64_t w, int threads) {
    const Digits thin(Z, k, w, nullptr, threads);
    Floats out;
    for (const Part& part : parts)
        add_merged(times_thin(part.digits, rows, k, thin.data.data(), 2 * w, threads), rows, w, s,
                   thin.scale, part.unit, out, threads);
    return out;
}

// Orthonormal basis of the columns of Y (n, w) in its place: Cholesky QR in float64. False where the
// condition number is beyond about 1e5 (cpu.py: Householder's QR is for those).
bool orthonormal(Floats& Y, int64_t n, int64_t w, int threads) {
    constexpr int64_t ROWS = 256;  // summed together, so that no sum depends on the threads
    const int64_t blocks = (n + ROWS - 1) / ROWS;
    std::vector<double> partial(size(blocks, w * w)), L(size(w, w)), inverse(size(w, w));
    threads = team(threads, n * w * w);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        double* gram = partial.data() + b * w * w;
        for (int64_t i = b * ROWS; i < std::min(n, (b + 1) * ROWS); ++i) {
            const float* y = Y.data() + i * w;
            for (int64_t x = 0; x < w; ++x) {
                const double left = y[x];
#pragma omp simd
                for (int64_t z = 0; z <= x; ++z) gram[x * w + z] += left * y[z];
            }
        }
    }
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t x = 0; x < w * w; ++x) L[x] += partial[b * w * w + x];
    double least = HUGE_VAL, largest = 0;
    for (int64_t x = 0; x < w; ++x) {
        for (int64_t z = 0; z <= x; ++z) {
            double sum = L[x * w + z];
            for (int64_t l = 0; l < z; ++l) sum -= L[x * w + l] * L[z * w + l];
            L[x * w + z] = x == z ? std::sqrt(sum) : sum / L[z * w + z];
        }
        if (!(L[x * w + x] > 0)) return false;
        least = std::min(least, L[x * w + x]);
        largest = std::max(largest, L[x * w + x]);
    }
    if (least < 1e-5 * largest) return false;
    for (int64_t x = 0; x < w; ++x)  // rows of L^-1
        for (int64_t z = 0; z <= x; ++z) {
            double sum = x == z;
            for (int64_t l = z; l < x; ++l) sum -= L[x * w + l] * inverse[l * w + z];
            inverse[x * w + z] = sum / L[x * w + x];
        }
    std::vector<double> turned(size(w, w));  // L^-T, so that the inner loop runs along memory
    for (int64_t x = 0; x < w; ++x)
        for (int64_t z = 0; z <= x; ++z) turned[z * w + x] = inverse[x * w + z];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
        std::vector<double> q(static_cast<size_t>(w));
        for (int64_t i = b * ROWS; i < std::min(n, (b + 1) * ROWS); ++i) {
            float* y = Y.data() + i * w;
            std::fill(q.begin(), q.end(), 0.);
            for (int64_t z = 0; z < w; ++z) {
                const double left = y[z];
#pragma omp simd
                for (int64_t x = z; x < w; ++x) q[x] += left * turned[z * w + x];
            }
            for (int64_t x = 0; x < w; ++x) y[x] = static_cast<float>(q[x]);
        }
    }
    return true;
}

// Q of the paper's method: the range of R (R^T R)^q Omega, Omega^T = signs (w, k).
bool residual_basis(const Operand& X, const int8_t* signs, const Job& job, Floats& Q, Clock& clock) {
    const int64_t w = X.rank;
    const Sums sums = times_thin(X.digits, X.rows, X.k, signs, w, job.threads);
    Q.resize(size(X.rows, w));
    for (int64_t i = 0; i < X.rows; ++i)
        for (int64_t l = 0; l < w; ++l)
            Q[i * w + l] =
                X.scale[i] * static_cast<float>(sums.data[i * sums.row + l * sums.column]);
    clock.charge(SKETCH);
    const std::vector<Part> residual{{X.digits, job.unit}};
    for (int32_t step = 0; step <= job.iterations; ++step) {
        if (step) {
            Floats Z = from_left(residual, X.scale, X.rows, X.k, Q, w, job.threads);
            clock.charge(SKETCH);
            if (!orthonormal(Z, X.k, w, job.threads)) return false;
            clock.charge(FACTORIZE);
            Q = from_right(residual, X.scale, X.rows, X.k, Z, w, job.threads);
            clock.charge(SKETCH);
        }
        if (!orthonormal(Q, X.rows, w, job.threads)) return false;
        clock.charge(FACTORIZE);
    }
    return true;
}

// Q of the product-aware method: the range of M (M^T M)^q Omega with M = R Y^T, Y the other operand.
bool product_basis(const Operand& X, const Operand& other, bool exact, const float* omega,
                   const Job& job, Floats& Q, Clock& clock) {
    const int64_t w = X.rank, k = X.k;
    const std::vector<Part> residual{{X.digits, job.unit}};
    std::vector<Part> parts{{other.codes, 1.f}};
    if (exact) parts.push_back({other.digits, job.unit});
    const int threads = job.threads;
    Floats V(omega, omega + other.rows * w);
    for (int32_t step = 0; step <= job.iterations; ++step) {
        if (step) {
            const Floats Z = from_left(residual, X.scale, X.rows, k, Q, w, threads);
            V = from_right(parts, other.scale, other.rows, k, Z, w, threads);
            clock.charge(SKETCH);
            if (!orthonormal(V, other.rows, w, threads)) return false;
            clock.charge(FACTORIZE);
        }
        const Floats Z = from_left(parts, other.scale, other.rows, k, V, w, threads);
        Q = from_right(residual, X.scale, X.rows, k, Z, w, threads);
        clock.charge(SKETCH);
        if (!orthonormal(Q, X.rows, w, threads)) return false;
        clock.charge(FACTORIZE);
    }
    return true;
}

// The low-rank part of an operand that is found in this call.
struct LowRank {
    Floats basis, scale;
    std::vector<int8_t> thin;
};

// v and a of L = Q diag(a) v, the residual's part in the range of Q.
void project(Operand& X, const Floats& Q, const Job& job) {
    const Floats V = from_left({{X.digits, job.unit}}, X.scale, X.rows, X.k, Q, X.rank, job.threads);
    thin_codes(V.data(), X.k, X.rank, nullptr, X.thin.data, X.thin.row, X.thin.column, nullptr,
               X.thin_scale, team(job.threads, X.k * X.rank));
}

// L in memory of its own.
void compensate(Operand& X, LowRank& found, Floats& Q, const Job& job) {
    found.basis.swap(Q);
    found.scale.resize(static_cast<size_t>(X.rank));
    found.thin.resize(size(X.rank, X.k));
    X.basis = found.basis.data();
    X.thin_scale = found.scale.data();
    X.thin = {found.thin.data(), X.k, 1};
    project(X, found.basis, job);
}

// C = diag(s) q p^T diag(t) + (A~ + L_A) L_B + L_A B~, the product L_A L_B where terms are full.
void finish(const Operand& left, const Operand& right, const Job& job, Clock& clock) {
    const int64_t m = left.rows, n = right.rows, k = left.k, ra = left.rank, rb = right.rank;
    const int64_t q = ra + rb;
    Floats X(size(m, q)), Y(size(n, q));
    if (rb) {
        std::vector<int8_t> w(size(rb, k));
        for (int64_t l = 0; l < rb; ++l)
            for (int64_t i = 0; i < k; ++i)
                w[l * k + i] = right.thin.data[l * right.thin.row + i * right.thin.column];
        const Matrix turned{w.data(), 1, k};
        const auto qw = product(left.codes.data, left.codes.row, turned, m, k, rb, job.threads);
        Floats inner(size(ra, rb));  // diag(a) v w^T
        if (ra && job.full) {
            const auto vw = product(left.thin.data, left.thin.row, turned, ra, k, rb, job.threads);
            for (int64_t x = 0; x < ra; ++x)
                for (int64_t l = 0; l < rb; ++l)
                    inner[x * rb + l] = left.thin_scale[x] * static_cast<float>(vw[x * rb + l]);
        }
#pragma omp parallel for num_threads(team(job.threads, m* rb * (ra + 1))) schedule(static)
        for (int64_t i = 0; i < m; ++i) {
            float* x = X.data() + i * q;
            for (int64_t l = 0; l < rb; ++l)
                x[l] = left.scale[i] * static_cast<float>(qw[i * rb + l]);
            for (int64_t y = 0; y < ra; ++y)
                for (int64_t l = 0; l < rb; ++l)
                    x[l] += left.basis[i * ra + y] * inner[y * rb + l];
            for (int64_t l = 0; l < rb; ++l) x[l] *= right.thin_scale[l];
        }
        for (int64_t j = 0; j < n; ++j)
            std::copy(right.basis + j * rb, right.basis + (j + 1) * rb, Y.data() + j * q);
    }
    if (ra) {
        std::vector<int32_t> vp(size(ra, n));
        multiply(left.thin.data, left.thin.row, right.panels, ra, k, n, vp.data(), nullptr, n,
                 nullptr, nullptr, nullptr, nullptr, 0, team(job.threads, k * n));
        for (int64_t i = 0; i < m; ++i)
            std::copy(left.basis + i * ra, left.basis + (i + 1) * ra, X.data() + i * q + rb);
        for (int64_t j = 0; j < n; ++j)
            for (int64_t l = 0; l < ra; ++l)
                Y[j * q + rb + l] =
                    right.scale[j] * left.thin_scale[l] * static_cast<float>(vp[l * n + j]);
    }
    clock.charge(CORRECT);
    multiply(left.codes.data, left.codes.row, right.panels, m, k, n, nullptr, job.C, job.ld_C,
             left.scale, right.scale, X.data(), Y.data(), q, team(job.threads, m * k + k * n));
    clock.charge(PRODUCT);
}

}  // namespace

extern "C" {

// The low-rank part of a residual, into the memory that the operand has for it: 0 where it is
// written, 1 where its basis is too ill-conditioned for Cholesky QR. Of the job: signs, iterations,
// unit, threads, seconds.
int residual_part(const Job* asked, Operand* X) {
    Clock clock(asked->seconds);
    Floats Q;
    if (!residual_basis(*X, asked->signs, *asked, Q, clock)) return 1;
    std::copy(Q.begin(), Q.end(), X->basis);
    project(*X, Q, *asked);
    clock.charge(SKETCH);
    return 0;
}

// 0 where C is written, 1 where a basis is too ill-conditioned for Cholesky QR.
int whole_product(const Job* asked, const Operand* prepared) {
    const Job& job = *asked;
    Operand right = *prepared;
    const int64_t m = job.m, k = right.k;
    Floats scale(static_cast<size_t>(m)), Q;
    Operand left{m, k, job.rank_a, {job.codes, k, 1}, {job.digits, k, 1}, {}, scale.data()};
    LowRank part_a, part_b;
    Clock clock(job.seconds);
    quantize_rows(job.A, m, k, job.ld_A, job.top, job.mode, job.codes, k, job.digits, k,
                  scale.data(), team(job.threads, m * k));
    clock.charge(QUANTIZE);
    if (left.rank) {
        if (job.aware ? !product_basis(left, right, true, job.omega_a, job, Q, clock)
                      : !residual_basis(left, job.signs, job, Q, clock))
            return 1;
        compensate(left, part_a, Q, job);
        clock.charge(SKETCH);
    }
    if (job.rank_b) {
        right.rank = job.rank_b;
        if (!product_basis(right, left, false, job.omega_b, job, Q, clock)) return 1;
        compensate(right, part_b, Q, job);
        clock.charge(SKETCH);
    }
    finish(left, right, job, clock);
    return 0;
}
}
