// Vectors of L float32 numbers or L sums of integers, with the instructions of the processor.
//
// `load` widens weights: bfloat16, whose bits are the upper half of a float32's, to Floats; int8 to Shorts, the 2·L 16-bit
// integers that one `add_product` multiplies and adds in pairs to L sums of 32 bits.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>

// A sum that is complete here, in a register: GCC would regroup a sum of many integers and store the products meanwhile, which
// takes 1.7 times as long.
template <class Ints>
inline Ints in_register(Ints sum) {
    asm("" : "+v"(sum));
    return sum;
}
#endif

template <class Number>
inline Number read(const void* from) {
    Number number;
    memcpy(&number, from, sizeof number);
    return number;
}

inline float with_bits(const uint32_t bits) { return read<float>(&bits); }

#if defined(__AVX512BW__)

constexpr int L = 16;
typedef __m512 Floats;
typedef __m512i Ints;
typedef __m512i Shorts;

inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline Floats load(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read<__m256i>(p)), 16));
}
inline Floats load_half(const uint16_t* p) { return _mm512_cvtph_ps(read<__m256i>(p)); }
inline Shorts load(const int16_t* p) { return read<__m512i>(p); }
inline Shorts load(const int8_t* p) { return _mm512_cvtepi8_epi16(read<__m256i>(p)); }
inline Floats add_product(const Floats sum, const Floats a, const Floats b) { return _mm512_fmadd_ps(a, b, sum); }
#if defined(__AVX512VNNI__)
inline Ints add_product(const Ints sum, const Ints a, const Ints b) { return _mm512_dpwssd_epi32(sum, a, b); }
#else
inline Ints add_product(const Ints sum, const Ints a, const Ints b) {
    return in_register(_mm512_add_epi32(sum, _mm512_madd_epi16(a, b)));
}
#endif
inline float total(const Floats vector) { return _mm512_reduce_add_ps(vector); }
inline Floats repeat(const float number) { return _mm512_set1_ps(number); }
inline Shorts repeat_pair(const int16_t* p) { return _mm512_set1_epi32(read<int32_t>(p)); }
inline Shorts four_bits(const Shorts packed, const int shift) {
    return _mm512_and_si512(_mm512_srli_epi16(packed, shift), _mm512_set1_epi16(15));
}
inline Floats times(const Floats a, const Floats b) { return _mm512_mul_ps(a, b); }
inline Floats to_floats(const Ints vector) { return _mm512_cvtepi32_ps(vector); }

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

constexpr int L = 8;
typedef __m256 Floats;
typedef __m256i Ints;
typedef __m256i Shorts;

inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline Floats load(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(read<__m128i>(p)), 16));
}
inline Floats load_half(const uint16_t* p) { return _mm256_cvtph_ps(read<__m128i>(p)); }
inline Shorts load(const int16_t* p) { return read<__m256i>(p); }
inline Shorts load(const int8_t* p) { return _mm256_cvtepi8_epi16(read<__m128i>(p)); }
inline Floats add_product(const Floats sum, const Floats a, const Floats b) { return _mm256_fmadd_ps(a, b, sum); }
inline Ints add_product(const Ints sum, const Ints a, const Ints b) {
    return in_register(_mm256_add_epi32(sum, _mm256_madd_epi16(a, b)));
}
inline float total(const Floats vector) {
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps(vector, 1));
    sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
    return _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)));
}
inline Floats repeat(const float number) { return _mm256_set1_ps(number); }
inline Shorts repeat_pair(const int16_t* p) { return _mm256_set1_epi32(read<int32_t>(p)); }
inline Shorts four_bits(const Shorts packed, const int shift) {
    return _mm256_and_si256(_mm256_srli_epi16(packed, shift), _mm256_set1_epi16(15));
}
inline Floats times(const Floats a, const Floats b) { return _mm256_mul_ps(a, b); }
inline Floats to_floats(const Ints vector) { return _mm256_cvtepi32_ps(vector); }

#else  // any other: the compiler finds its instructions

constexpr int L = 8;
struct Floats { float at[L]; };
struct Ints { int32_t at[L]; };
struct Shorts { int16_t at[2 * L]; };

inline float half_to_float(const uint16_t bits) {  // float16: 1 bit of sign, 5 of exponent, 10 of fraction
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest >= 0x7c00) return with_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinite or nan
    return with_bits(sign | rest << 13) * 0x1p112f;  // the difference of the exponents' biases, exact for small numbers too
}

inline Floats load(const float* p) { return read<Floats>(p); }
inline Floats load(const uint16_t* p) {
    Floats wide;
    for (int i = 0; i < L; i++) wide.at[i] = with_bits(uint32_t(p[i]) << 16);
    return wide;
}
inline Floats load_half(const uint16_t* p) {
    Floats wide;
    for (int i = 0; i < L; i++) wide.at[i] = half_to_float(p[i]);
    return wide;
}
inline Shorts load(const int16_t* p) { return read<Shorts>(p); }
inline Shorts load(const int8_t* p) {
    Shorts wide;
    for (int i = 0; i < 2 * L; i++) wide.at[i] = p[i];
    return wide;
}
inline Floats add_product(Floats sum, const Floats& a, const Floats& b) {
    for (int i = 0; i < L; i++)
#ifdef __FP_FAST_FMAF
        sum.at[i] = __builtin_fmaf(a.at[i], b.at[i], sum.at[i]);
#else
        sum.at[i] += a.at[i] * b.at[i];
#endif
    return sum;
}
inline Ints add_product(Ints sum, const Shorts& a, const Shorts& b) {
    for (int i = 0; i < L; i++) sum.at[i] += a.at[2 * i] * b.at[2 * i] + a.at[2 * i + 1] * b.at[2 * i + 1];
    return sum;
}
inline float total(const Floats& vector) {
    float sum = 0;
    for (const float number : vector.at) sum += number;
    return sum;
}
inline Floats repeat(const float number) {
    Floats vector;
    for (float& each : vector.at) each = number;
    return vector;
}
inline Shorts repeat_pair(const int16_t* p) {
    Shorts vector;
    for (int i = 0; i < 2 * L; i++) vector.at[i] = p[i % 2];
    return vector;
}
inline Shorts four_bits(Shorts packed, const int shift) {
    for (int16_t& number : packed.at) number = uint16_t(number) >> shift & 15;
    return packed;
}
inline Floats times(Floats a, const Floats& b) {
    for (int i = 0; i < L; i++) a.at[i] *= b.at[i];
    return a;
}
inline Floats to_floats(const Ints& vector) {
    Floats wide;
    for (int i = 0; i < L; i++) wide.at[i] = vector.at[i];
    return wide;
}

#endif
