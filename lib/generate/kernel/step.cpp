// One step of a decoder: a new token for each of B texts, from its id to the logits of the next one.
//
// The fast equivalent of `GPT` and of `Linear` (lib/model/) on a CPU; tests compare their numbers. All is float32 except
// the weights of the matrices, which may be bfloat16, int8 or int4. The result of a row depends on that row only, to the last
// bit: not on the other rows, nor on the number of threads.

#include "product.h"

// ── what Python describes (lib/generate/kernel/__init__.py has the same structures) ──

struct Norm {  // scale null: none; shift null: RMSNorm, else LayerNorm
    const float *scale, *shift;
    float eps;
};

struct Block {
    Norm norm1, q_norm, k_norm, norm2;
    Matrix qkv, out_proj, gate, expand, contract;  // gate: SwiGLU, without it GELU
};

struct Decoder {
    const float *tok_emb, *pos_emb;  // (V, C), null: the rows of an int8 out_head; and (context, C) or null: they are added
    float tok_scale;                 // factor of tok_emb
    const float *cos, *sin;          // of rotary positions, (context, D/2), or null
    const Block* blocks;
    Norm final_norm;
    Matrix out_head;
    long layers, C, H, G, D;  // heads of queries, of keys and values, their size
    long window, strided, summary_tokens;  // of the attention pattern (lib/model/sparse_attention.py); window 0: none
};

namespace {

// eˣ within 2 units of the last place: 2ⁿ times a polynomial on ±ln 2/2. Without a branch, so that L of them are computed at once.
inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);  // in this order nan stays nan
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // the nearest whole number
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    const float polynomial =
        1 + r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
    return polynomial * with_bits(uint32_t(int32_t(n) + 127) << 23);
}

inline float gelu(const float x) {  // 0.5x(1 + tanh u) = x/(1 + exp(-2u))
    return x / (1 + exponential(-2 * 0.797884561f * (x + 0.044715f * x * x * x)));
}

inline float silu(const float x) { return x / (1 + exponential(-x)); }

inline float dot(const float* a, const float* b, const long n) {
    float result = 0;
#pragma omp simd reduction(+ : result)
    for (long i = 0; i < n; i++) result += a[i] * b[i];
    return result;
}

void normalize(const Norm& norm, const float* x, float* y, const long n) {
    if (!norm.scale) {
        if (x != y) memcpy(y, x, n * sizeof(float));
        return;
    }
    float sum = 0, squares = 0;
    if (norm.shift) {
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < n; i++) sum += x[i];
    }
    const float mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / std::sqrt(squares / n + norm.eps);
    for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * norm.scale[i] + (norm.shift ? norm.shift[i] : 0);
}

void rotate(const Decoder& model, float* head, const long position) {
    const long half = model.D / 2;
    const float *cos = model.cos + position * half, *sin = model.sin + position * half;
    for (long i = 0; i < half; i++) {
        const float first = head[i], second = head[i + half];
        head[i] = first * cos[i] - second * sin[i];
        head[i + half] = second * cos[i] + first * sin[i];
    }
}

// The positions that a token at position t attends to, in order: `SparsePattern.seen`.
std::vector<long> seen(const Decoder& model, const long t) {
    const long w = model.window ? model.window : t + 1, c = model.summary_tokens;
    const long first = c ? t / w * w : std::max(0L, t + 1 - w);  // of the block, or of the window
    std::vector<long> positions;
    if (model.strided)
        for (long s = t % w; s < first; s += w) positions.push_back(s);
    for (long block = 0; c && block < first; block += w)
        for (long s = block + w - c; s < block + w; s++) positions.push_back(s);
    for (long s = first; s <= t; s++) positions.push_back(s);
    return positions;
}

// The output of one head: softmax(qKᵀ/√D)V over the rows of keys and values at `positions`.
void gather(const float* q, const float* keys, const float* values, const std::vector<long>& positions, const long D, float* y) {
    const long n = positions.size();
    std::vector<float> weights(n);
    const float scale = 1 / std::sqrt(float(D));
    float most = -INFINITY, sum = 0;
    for (long i = 0; i < n; i++) most = std::max(most, weights[i] = dot(q, keys + positions[i] * D, D) * scale);
    for (float& weight : weights) weight = exponential(weight - most);
    for (const float weight : weights) sum += weight;
    std::fill(y, y + D, 0.0f);
    for (long i = 0; i < n; i++) {
        const float weight = weights[i] / sum;
        for (long d = 0; d < D; d++) y[d] += weight * values[positions[i] * D + d];
    }
}

// The attention of B new tokens in a layer: qkv (B, (H + 2G)·D) -> y (B, H·D). Their keys and values are added to kept[b],
// (layers, 2, G, capacity, D).
void attend(const Decoder& model, const long layer, const long B, float* qkv, const long* positions, float* const* kept,
            const long* capacities, float* y) {
    const long H = model.H, G = model.G, D = model.D;
    const Block& block = model.blocks[layer];
    long looked_at = 0;
    std::vector<std::vector<long>> attended(B);
    for (long b = 0; b < B; b++) {
        const long position = positions[b], capacity = capacities[b];
        attended[b] = seen(model, position);
        looked_at += attended[b].size();
        for (long g = 0; g < G; g++) {
            float *k = qkv + (b * (H + 2 * G) + H + g) * D, *v = k + G * D;
            float* keys = kept[b] + (2 * layer * G + g) * capacity * D;
            normalize(block.k_norm, k, k, D);
            if (model.cos) rotate(model, k, position);
            memcpy(keys + position * D, k, D * sizeof(float));
            memcpy(keys + (G * capacity + position) * D, v, D * sizeof(float));
        }
    }
    // A multiplication takes longer here than in a matrix product, about as long as four.
    shared_out(B * H, 4 * 2 * H * D * looked_at, [&](const long i) {
        const long b = i / H, h = i % H, position = positions[b], capacity = capacities[b];
        const float* keys = kept[b] + (2 * layer * G + h / (H / G)) * capacity * D;
        float* q = qkv + (b * (H + 2 * G) + h) * D;
        normalize(block.q_norm, q, q, D);
        if (model.cos) rotate(model, q, position);
        gather(q, keys, keys + G * capacity * D, attended[b], D, y + (b * H + h) * D);
    });
}

}  // namespace

// ── what Python calls ──

// The rows of int8 and int4 matrices that are interleaved.
extern "C" const long lanes = L;

// x (M, K) -> y (M, N).
extern "C" void product(const Matrix* w, const float* x, float* y, const long M) { multiply(x, *w, y, M); }

// For each of B texts: a new token, the sum of its n-grams' rows (B, C) or null, its position, the text's cache and its
// capacity -> logits (B, V).
extern "C" void step(const Decoder* model, const long B, const long* ids, const float* ngrams, const long* positions,
                     float* const* kept, const long* capacities, float* logits) {
    const long C = model->C, H = model->H, G = model->G, D = model->D;
    std::vector<float> x(B * C), normed(B * C), qkv(B * (H + 2 * G) * D), heads(B * H * D), change(B * C), wide, gate;
    const auto norm = [&](const Norm& with) {
        for (long b = 0; b < B; b++) normalize(with, x.data() + b * C, normed.data() + b * C, C);
    };
    const auto add = [&] {
        for (long i = 0; i < B * C; i++) x[i] += change[i];
    };
    for (long b = 0; b < B; b++) {
        float* row = x.data() + b * C;
        if (model->tok_emb)
            memcpy(row, model->tok_emb + ids[b] * C, C * sizeof(float));
        else
            read_row(model->out_head, ids[b], row);
        for (long i = 0; i < C; i++)
            row[i] = model->tok_scale * row[i] + (model->pos_emb ? model->pos_emb[positions[b] * C + i] : 0) +
                     (ngrams ? ngrams[b * C + i] : 0);
    }
    for (long layer = 0; layer < model->layers; layer++) {
        const Block& block = model->blocks[layer];
        norm(block.norm1);
        multiply(normed.data(), block.qkv, qkv.data(), B);
        attend(*model, layer, B, qkv.data(), positions, kept, capacities, heads.data());
        multiply(heads.data(), block.out_proj, change.data(), B);
        add();
        norm(block.norm2);
        wide.resize(B * block.expand.N);
        multiply(normed.data(), block.expand, wide.data(), B);
        if (block.gate.weight) {
            gate.resize(wide.size());
            multiply(normed.data(), block.gate, gate.data(), B);
#pragma omp simd
            for (size_t i = 0; i < wide.size(); i++) wide[i] *= silu(gate[i]);
        } else {
#pragma omp simd
            for (size_t i = 0; i < wide.size(); i++) wide[i] = gelu(wide[i]);
        }
        multiply(wide.data(), block.contract, change.data(), B);
        add();
    }
    norm(model->final_norm);
    multiply(normed.data(), model->out_head, logits, B);
}
