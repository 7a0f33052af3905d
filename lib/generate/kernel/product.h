// y = x Wᵀ·scale + bias for few rows of x: every number of W is read from memory once.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

enum Format : long { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };  // _KERNEL_FORMAT in lib/generate/quantize.py

struct Matrix {  // y = x Wᵀ·scale + bias, W (N, K), scale and bias (N,) or null; weight null: no matrix
    const void* weight;
    const float *scale, *bias;
    long format, N, K;
};

// Do `work(0)` to `work(count - 1)`, by all threads if there are enough multiplications. (Not by OpenMP's `if`: GNU's ends
// the threads at each region without them, and starts new ones for the next.)
template <class Work>
void shared_out(const long count, const long multiplications, const Work& work) {
    if (multiplications < 550'000) {
        for (long i = 0; i < count; i++) work(i);
        return;
    }
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count; i++) work(i);
}

// Rows of x, (M, K), times rows of W, (N, K). X are float for float32 and bfloat16 weights; with int8 they are 16-bit
// integers, each row with its own scale, and their sums are exact.
template <class X, class Weight, class Sum, int STEP>
struct Product {
    const X* x;
    const float* x_scale;
    const Matrix& w;
    float* y;
    long M;

    const Weight* weights(const long n) const { return static_cast<const Weight*>(w.weight) + n * w.K; }

    // XS rows of x with WS rows of W: XS·WS sums at once, as many as there are registers for.
    template <int XS, int WS>
    void tile(const long m, const long n) const {
        Sum sums[WS][XS] = {};
        long k = 0;
        for (; k + STEP <= w.K; k += STEP)
            tile_step<XS, WS>(sums, x + m * w.K + k, w.K, weights(n) + k, w.K);
        if (k < w.K) {  // the rest, padded with zeros
            X xs[XS][STEP] = {};
            Weight ws[WS][STEP] = {};
            for (int i = 0; i < XS; i++) memcpy(xs[i], x + (m + i) * w.K + k, (w.K - k) * sizeof(X));
            for (int j = 0; j < WS; j++) memcpy(ws[j], weights(n + j) + k, (w.K - k) * sizeof(Weight));
            tile_step<XS, WS>(sums, xs[0], STEP, ws[0], STEP);
        }
        for (int j = 0; j < WS; j++)
            for (int i = 0; i < XS; i++) {
                float result = total(sums[j][i]);
                if (x_scale) result *= x_scale[m + i];
                if (w.scale) result *= w.scale[n + j];
                y[(m + i) * w.N + n + j] = w.bias ? result + w.bias[n + j] : result;
            }
    }

    template <int XS, int WS>
    static inline void tile_step(Sum (&sums)[WS][XS], const X* xs, const long x_row, const Weight* ws, const long w_row) {
        decltype(load(xs)) values[XS];
        for (int i = 0; i < XS; i++) values[i] = load(xs + i * x_row);
        for (int j = 0; j < WS; j++) {
            if (WS > 1) __builtin_prefetch(ws + (j + WS) * w_row);  // the next stripe, which follows this one
            const auto weight = load(ws + j * w_row);
            for (int i = 0; i < XS; i++) sums[j][i] = add_product(sums[j][i], weight, values[i]);
        }
    }

    // All rows of x with WS rows of W, which stay in the L1 cache meanwhile.
    template <int WS>
    void stripe(const long n) const {
        long m = 0;
        for (; m + 4 <= M; m += 4) tile<4, WS>(m, n);
        if (M - m == 3) tile<3, WS>(m, n);
        if (M - m == 2) tile<2, WS>(m, n);
        if (M - m == 1) tile<1, WS>(m, n);
    }

    // A single row reads W row after row, at the speed of memory; several rows use what they have read several times.
    void all() const {
        if (M == 1)
            in_stripes<1>();
        else
            in_stripes<L == 16 ? 4 : 2>();
    }

    template <int WS>
    void in_stripes() const {
        const long stripes = w.N / WS;
        shared_out(stripes, M * w.N * w.K, [&](const long i) { stripe<WS>(i * WS); });
        for (long n = stripes * WS; n < w.N; n++) stripe<1>(n);
    }
};

// x (M, K) as 16-bit integers with a scale for each row, small enough that a sum of K/L products fits into 32 bits.
inline void multiply_whole(const float* x, const Matrix& w, float* y, const long M) {
    const float most = std::min<float>(32767, float(L) / w.K * (INT32_MAX / 128));
    std::vector<int16_t> whole(M * w.K);
    std::vector<float> scales(M);
    for (long m = 0; m < M; m++) {
        const float* row = x + m * w.K;
        float largest = 0, odd = 0;  // odd: nan if a number is not finite; the row's result is nan too
#pragma omp simd reduction(max : largest) reduction(+ : odd)
        for (long k = 0; k < w.K; k++) {
            largest = std::max(largest, std::abs(row[k]));
            odd += row[k] * 0.0f;
        }
        scales[m] = largest / most + odd;
        const float inverse = largest > 0 ? most / largest : 0;
        for (long k = 0; k < w.K; k++) {
            const float number = row[k] * inverse;
            whole[m * w.K + k] = int16_t(number + std::copysign(0.5f, number));
        }
    }
    Product<int16_t, int8_t, Ints, 2 * L>{whole.data(), scales.data(), w, y, M}.all();
}

inline void multiply(const float* x, const Matrix& w, float* y, const long M) {
    if (w.format == FLOAT32) Product<float, float, Floats, L>{x, nullptr, w, y, M}.all();
    if (w.format == BFLOAT16) Product<float, uint16_t, Floats, L>{x, nullptr, w, y, M}.all();
    if (w.format == INT8) multiply_whole(x, w, y, M);
}
