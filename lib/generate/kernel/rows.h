// y = x Wᵀ + bias for few rows of x, W row by row in float32 or bfloat16: every number of W is read from memory once.

#pragma once

#include "matrix.h"
#include "vectors.h"

// Rows of x, (M, K), times rows of W, (N, K), whose numbers are float (float32) or uint16_t (bfloat16).
template <class Weight>
struct RowProduct {
    const float* x;
    const Matrix& w;
    float* y;
    long M;

    const Weight* weights(const long n) const { return static_cast<const Weight*>(w.weight) + n * w.K; }

    // XS rows of x with WS rows of W: XS·WS sums at once, as many as there are registers for.
    template <int XS, int WS>
    void tile(const long m, const long n) const {
        Floats sums[WS][XS] = {};
        long k = 0;
        for (; k + L <= w.K; k += L)
            tile_step<XS, WS>(sums, x + m * w.K + k, w.K, weights(n) + k, w.K);
        if (k < w.K) {  // the rest, padded with zeros
            float xs[XS][L] = {};
            Weight ws[WS][L] = {};
            for (int i = 0; i < XS; i++) memcpy(xs[i], x + (m + i) * w.K + k, (w.K - k) * sizeof(float));
            for (int j = 0; j < WS; j++) memcpy(ws[j], weights(n + j) + k, (w.K - k) * sizeof(Weight));
            tile_step<XS, WS>(sums, xs[0], L, ws[0], L);
        }
        for (int j = 0; j < WS; j++)
            for (int i = 0; i < XS; i++) {
                const float result = total(sums[j][i]);
                y[(m + i) * w.N + n + j] = w.bias ? result + w.bias[n + j] : result;
            }
    }

    template <int XS, int WS>
    static inline void tile_step(Floats (&sums)[WS][XS], const float* xs, const long x_row, const Weight* ws, const long w_row) {
        Floats values[XS];
        for (int i = 0; i < XS; i++) values[i] = load(xs + i * x_row);
        for (int j = 0; j < WS; j++) {
            if (WS > 1) __builtin_prefetch(ws + (j + WS) * w_row);  // the next stripe, which follows this one
            const Floats weight = load(ws + j * w_row);
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
