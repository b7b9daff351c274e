// One table of functions for each kind of CPU.
//
// The same bits on every CPU with a fused multiply-add: what is not exact has one order everywhere.
// Without the instruction, on x86-64 before AVX2, fmaf stands in, which rounds twice in ziglang's C
// library and so differs once in some 2^29 times.
#pragma once

#include "affine.h"
#include "attention.h"
#include "convolution.h"
#include "linear_attention.h"

typedef struct {
    // One row of float activations, `columns` wide, as row number `row` of `rows`.
    void (*quantize)(const float *x, int64_t columns, const Rows *rows, int64_t row);
    // All rows by the outputs of one group: y [count, outputs].
    void (*multiply)(const Weights *weights, const Rows *rows, int64_t group, float *y);
    // Writes the keys and values of a row's new tokens [first : stop] into its cache.
    void (*store_kv)(const Attention *attention, int64_t row, int64_t first, int64_t stop);
    // Floats of scratch memory for a part of `count` tokens that ends before position `stop`.
    int64_t (*scratch)(const Attention *attention, int64_t count, int64_t stop);
    // The output of one part.
    void (*attend)(const Attention *attention, const Part *part, float *scratch);
    // Some channels, from `first` on, of a row that has new tokens: outputs and state.
    void (*convolve)(const Convolution *convolution, int64_t row, int64_t first);
    // One head's query or key, divided by the root of `epsilon` and its sum of squares.
    void (*normalise)(const float *x, int64_t size, float epsilon, float *y);
    // Some columns, from `first` on, of a head of a row that has new tokens: outputs and state.
    void (*linear_attention_scan)(const LinearAttention *attention, int64_t row, int64_t head,
                                  int64_t first);
} Kernels;

extern const Kernels portable_kernels;
#ifdef __x86_64__
extern const Kernels avx2_kernels, avx512_kernels;
#endif

// The best for this CPU, or the one of that name; NULL where the CPU cannot run it.
const Kernels *kernels_for_this_cpu(const char *name);
