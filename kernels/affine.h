// The arguments of the kernels of quantised weights: weights as they lie in the file, and rows of
// activations as they are multiplied.
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

#define INLINE static inline __attribute__((always_inline))
