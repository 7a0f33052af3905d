// y = x Wᵀ + bias, W in blocks of 32 numbers along a row: integers times a scale, plus a minimum (lib/generate/blocks.py).
//
// L rows of W are interleaved, so that a vector holds one sum for each: no sum across a vector is needed. x becomes 16-bit
// integers, each block with its own scale; the integers of a block are multiplied and added exactly, in 32 bits.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "matrix.h"
#include "vectors.h"

constexpr long BLOCK = 32;
constexpr long L2_BYTES = 96 * 1024;  // of the L2 cache for x; 2·L rows of W stay in the L1 cache meanwhile

// x (M, K) in blocks, the last one of each row filled with zeros. Up to ROWS rows are multiplied at once: their blocks are
// neighbors, so that all addresses in a tile are one pointer and a constant.
struct BlockInputs {
    static constexpr long ROWS = 4;
    long M, blocks;
    std::vector<int16_t> numbers;     // (M·blocks, 32)
    std::vector<float> scales, sums;  // x ≈ number·scale; the sum of a block's x, which its minimum is multiplied by

    BlockInputs(const float* x, const long M, const long K)
        : M(M), blocks((K + BLOCK - 1) / BLOCK), numbers(M * blocks * BLOCK), scales(M * blocks), sums(M * blocks) {
        shared_out(M, 32 * M * K, [&](const long m) {
            const long first = m / ROWS * ROWS, rows = std::min(ROWS, M - first);
            for (long b = 0; b < blocks; b++) {
                float padded[BLOCK] = {};
                memcpy(padded, x + m * K + b * BLOCK, std::min(BLOCK, K - b * BLOCK) * sizeof(float));
                quantize(padded, first * blocks + b * rows + m - first);
            }
        });
    }

    void quantize(const float* x, const long block) {
        float largest = 0, odd = 0;  // odd: nan if a number is not finite; so is the row's result then
#pragma omp simd reduction(max : largest) reduction(+ : odd)
        for (long k = 0; k < BLOCK; k++) {
            largest = std::max(largest, std::abs(x[k]));
            odd += x[k] * 0.0f;
        }
        const float inverse = largest > 0 ? INT16_MAX / largest : 0;
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long k = 0; k < BLOCK; k++) {
            const float number = x[k] * inverse;
            const int32_t rounded = int32_t(number + std::copysign(0.5f, number));
            numbers[block * BLOCK + k] = int16_t(rounded);
            sum += rounded;
        }
        scales[block] = largest / INT16_MAX + odd;
        sums[block] = scales[block] * float(sum);
    }
};

template <Format FORMAT>
struct BlockProduct {
    const BlockInputs x;
    const Matrix& w;
    float* y;

    static constexpr long BLOCK_BYTES = L * BLOCK * (FORMAT == INT8 ? 8 : 4) / 8;

    // Columns k and k + 1 of a block.
    static inline Shorts pair(const uint8_t* weight, const long k) {
        if (FORMAT == INT8) return load(reinterpret_cast<const int8_t*>(weight + k * L));
        return four_bits(load(reinterpret_cast<const int16_t*>(weight + k / 8 * 4 * L)), k % 8 * 2);  // 8 columns in 16 bits each
    }

    // XS rows of x with the WS·L rows of W that begin at row n.
    template <int XS, int WS>
    void tile(const long m, const long n) const {
        const long stripe = x.blocks * L;  // scales of L rows
        const auto* weight = static_cast<const uint8_t*>(w.weight) + n / L * x.blocks * BLOCK_BYTES;
        const uint16_t* scale = static_cast<const uint16_t*>(w.scale) + n * x.blocks;
        const uint16_t* minimum = w.minimum ? static_cast<const uint16_t*>(w.minimum) + n * x.blocks : nullptr;
        const int16_t* numbers = x.numbers.data() + m * x.blocks * BLOCK;
        const float *x_scale = x.scales.data() + m * x.blocks, *x_sum = x.sums.data() + m * x.blocks;
        Floats totals[WS][XS] = {};
        for (long b = 0; b < x.blocks; b++) {
            Ints sums[WS][XS] = {};
#pragma GCC unroll 16
            for (long k = 0; k < BLOCK; k += 2) {
                Shorts pairs[WS];
                for (int j = 0; j < WS; j++) pairs[j] = pair(weight + j * x.blocks * BLOCK_BYTES, k);
                for (int i = 0; i < XS; i++) {
                    const Shorts repeated = repeat_pair(numbers + i * BLOCK + k);
                    for (int j = 0; j < WS; j++) sums[j][i] = add_product(sums[j][i], pairs[j], repeated);
                }
            }
            for (int j = 0; j < WS; j++) {
                const Floats scales = load_half(scale + j * stripe);
                const Floats minima = minimum ? load_half(minimum + j * stripe) : times(scales, repeat(-8));
                for (int i = 0; i < XS; i++) {
                    totals[j][i] = add_product(totals[j][i], to_floats(sums[j][i]), times(scales, repeat(x_scale[i])));
                    if (FORMAT == INT4) totals[j][i] = add_product(totals[j][i], minima, repeat(x_sum[i]));
                }
            }
            weight += BLOCK_BYTES;
            scale += L;
            if (minimum) minimum += L;
            numbers += XS * BLOCK;
            x_scale += XS;
            x_sum += XS;
        }
        for (int j = 0; j < WS; j++)
            for (int i = 0; i < XS; i++) store(totals[j][i], m + i, n + j * L);
    }

    // L results of row m, from column n.
    void store(const Floats& totals, const long m, const long n) const {
        float results[L];
        memcpy(results, &totals, sizeof results);
        for (long j = 0; j < std::min<long>(L, w.N - n); j++)
            y[m * w.N + n + j] = w.bias ? results[j] + w.bias[n + j] : results[j];
    }

    // All rows of W with the rows of x that fit into the L2 cache, then with the next ones.
    void all() const {
        const long chunk = std::max(1L, L2_BYTES / (x.blocks * BLOCK * long(sizeof(int16_t))) / x.ROWS) * x.ROWS;
        shared_ranges((w.N + L - 1) / L, x.M * w.N * w.K, [&](const long begin, const long end) {
            for (long m = 0; m < x.M; m += chunk) {
                const long last = std::min(m + chunk, x.M);
                long i = begin;
                if (x.M > 1)  // a single row reads W at the speed of memory, one row after another
                    for (; i + 2 <= end; i += 2) rows<2>(m, last, i * L);
                for (; i < end; i++) rows<1>(m, last, i * L);
            }
        });
    }

    template <int WS>
    void rows(long m, const long last, const long n) const {
        for (; m + 4 <= last; m += 4) tile<4, WS>(m, n);
        if (last - m == 3) tile<3, WS>(m, n);
        if (last - m == 2) tile<2, WS>(m, n);
        if (last - m == 1) tile<1, WS>(m, n);
    }
};

// Row n of an int8 matrix.
inline void read_row(const Matrix& w, const long n, float* row) {
    const long blocks = (w.K + BLOCK - 1) / BLOCK, first = n / L * blocks, lane = n % L;
    for (long k = 0; k < w.K; k++) {
        const long block = first + k / BLOCK;
        float scales[L];
        const Floats vector = load_half(static_cast<const uint16_t*>(w.scale) + block * L);
        memcpy(scales, &vector, sizeof scales);
        const long at = block * L * BLOCK + k % BLOCK / 2 * 2 * L + 2 * lane + k % 2;
        row[k] = static_cast<const int8_t*>(w.weight)[at] * scales[lane];
    }
}
