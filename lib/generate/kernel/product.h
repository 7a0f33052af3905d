// y = x Wᵀ + bias for few rows of x, W in any format.

#pragma once

#include "blocks.h"
#include "rows.h"

inline void multiply(const float* x, const Matrix& w, float* y, const long M) {
    if (w.format == FLOAT32) RowProduct<float>{x, w, y, M}.all();
    if (w.format == BFLOAT16) RowProduct<uint16_t>{x, w, y, M}.all();
    if (w.format == INT8) BlockProduct<INT8>{BlockInputs(x, M, w.K), w, y}.all();
    if (w.format == INT4) BlockProduct<INT4>{BlockInputs(x, M, w.K), w, y}.all();
}
