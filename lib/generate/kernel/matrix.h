// A matrix as Python describes it, and how threads share work.

#pragma once

#include <omp.h>

enum Format : long { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };  // KERNEL_FORMATS in lib/generate/linear.py

struct Matrix {  // y = x Wᵀ + bias, W (N, K), bias (N,) or null; weight null: no matrix
    const void* weight;
    const void *scale, *minimum;  // float16, of the blocks of int8 and int4 (blocks.h)
    const float* bias;
    long format, N, K;
};

// Do `work(begin, end)` for ranges that together are 0 to `count`, one for each thread if there are enough multiplications. (Not
// by OpenMP's `if`: GNU's ends the threads at each region without them, and starts new ones for the next.)
template <class Work>
void shared_ranges(const long count, const long multiplications, const Work& work) {
    if (multiplications < 550'000) {
        work(0, count);
        return;
    }
#pragma omp parallel
    {
        const long threads = omp_get_num_threads(), thread = omp_get_thread_num();
        work(count * thread / threads, count * (thread + 1) / threads);
    }
}

// Do `work(0)` to `work(count - 1)`.
template <class Work>
void shared_out(const long count, const long multiplications, const Work& work) {
    shared_ranges(count, multiplications, [&](const long begin, const long end) {
        for (long i = begin; i < end; i++) work(i);
    });
}
