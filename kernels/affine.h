// What the operators and the kernels exchange: weights as they lie in the file, rows of activations
// as they are multiplied, and one table of functions for each kind of CPU.
//
// A weight is scale * q + offset; scale and offset are shared by a block of inputs of one output.
// 16 outputs lie side by side and make a group, so that each lane of a vector holds another output
// and nothing is ever summed across lanes. docs/kernels.md has the layout and the arithmetic.
#pragma once

#include <stdint.h>

enum {
    LANES = 16,  // outputs in a group
    BLOCK = 32,  // inputs whose activations share a scale
    QUAD = 4,    // inputs that lie side by side, as the dot product instructions want them
};

typedef struct {
    const uint8_t *packed;    // [groups, blocks, 8 quads, 16 outputs, 4 inputs], 4 or 8 bits each
    const _Float16 *scales;   // [groups, scales, 16]
    const _Float16 *offsets;  // the same, or NULL: then 4 bits are q - 8
    const float *bias;        // [outputs], or NULL
    int64_t inputs, outputs, groups, blocks, scale_count, blocks_per_scale, bits;
} Weights;

typedef struct {
    int8_t *values;   // [count, blocks, 32], padded with zeros
    float *scales;    // [count, blocks]; NaN where the block has a NaN or an infinity
    float *totals;    // [count, blocks]: scale * sum
    int32_t *sums;    // [count, blocks] of the values
    int64_t count, blocks;
} Rows;

// The same bits on every CPU with a fused multiply-add: the sums in a block are integers, and exact;
// what follows, one multiplication and one or two fused multiply-adds a block in the order of the
// blocks, rounds alike. Without the instruction, on x86-64 before AVX2, fmaf stands in, which rounds
// twice in ziglang's C library and so differs once in some 2^29 times.
// No result depends on another row, so neither the number of rows nor of threads changes a bit.
typedef struct {
    // One row of float activations, `columns` wide, as row number `row` of `rows`.
    void (*quantize)(const float *x, int64_t columns, const Rows *rows, int64_t row);
    // All rows by the outputs of one group: y [count, outputs].
    void (*multiply)(const Weights *weights, const Rows *rows, int64_t group, float *y);
} Kernels;

extern const Kernels portable_kernels;
#ifdef __x86_64__
extern const Kernels avx2_kernels, avx512_kernels;
#endif

// The best for this CPU, or the one of that name; NULL where the CPU cannot run it.
const Kernels *kernels_for_this_cpu(const char *name);

#define INLINE static inline __attribute__((always_inline))
