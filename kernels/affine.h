// The arguments of the kernels of quantised weights: weights as they lie in the file, and rows of
// activations as they are multiplied.
//
// A weight is scale * q + offset; scale and offset are shared by a block of inputs of one output, and
// are float16 each, or compact: a byte each, and a float16 for all blocks of the output.
// 16 outputs lie side by side and make a group, so that each lane of a vector holds another output
// and nothing is ever summed across lanes. docs/kernels.md has the layout and the arithmetic.
#pragma once

#include <stdint.h>

enum {
    LANES = 16,  // outputs in a group
    BLOCK = 32,  // inputs whose activations share a scale
    QUAD = 4,    // inputs that lie side by side, as the dot product instructions want them
    PANEL = 8,   // rows of activations that lie side by side
};

typedef struct {
    const uint8_t *packed;    // [groups, blocks, 64 * bits]: value_in_block() says where a value is
    const _Float16 *scales;   // [groups, scales, 16]
    const _Float16 *offsets;  // the same, or NULL: then 4 bits are q - 8, and 5 and 6 do not exist
    const uint8_t *compact;   // [groups, scales, 2, 16] in place of both: scales, then zero points
    const _Float16 *row_scales;  // [groups, 16], of what is compact
    const float *bias;        // [outputs], or NULL
    int64_t inputs, outputs, groups, blocks, scale_count, blocks_per_scale, bits;
} Weights;

// Activations: panels of 8 rows, the last of which has what is left. In a panel a block of all its rows
// lies together, then the next block: so however many rows a tile has, it reads one stream.
typedef struct {
    int8_t *values;   // [panels, blocks, rows, 32], padded with zeros
    float *scales;    // [panels, blocks, rows]; NaN where the block has a NaN or an infinity
    float *totals;    // the same: scale * sum
    int32_t *sums;    // the same, of the values
    int64_t count, blocks;
} Rows;

#define INLINE static inline __attribute__((always_inline))

// The rows of the panel that `row` is in.
INLINE int64_t panel_rows(const Rows *rows, int64_t row) {
    const int64_t left = rows->count - row / PANEL * PANEL;
    return left < PANEL ? left : PANEL;
}

// Where a row's first block is; its next one is panel_rows() further.
INLINE int64_t first_place(const Rows *rows, int64_t row) {
    return row / PANEL * PANEL * rows->blocks + row % PANEL;
}

// What the compact scale of a block is multiplied by, of one output.
INLINE float compact_step(_Float16 row_scale) { return (float)row_scale * 0x1p-8f; }

// What a zero point is multiplied by, of a block with scale 1: its 256 steps are as wide as those of
// the values.
INLINE float compact_zero(int64_t bits) { return -0x1p-8f * (float)(1 << bits); }

// The value of an input of the output at `lane`, in a block of 16 outputs by 32 inputs as it lies in
// the file: 8 quads of [16 outputs, 4 inputs]. Below 8 bits, the low 4 of the quads 4 to 7 lie in the
// high halves of the bytes of the quads 0 to 3; the high 1 or 2 of each quad lie after all of them,
// those of quad 0 in the lowest bits of the first [16 outputs, 4 inputs].
INLINE int value_in_block(const uint8_t *block, int64_t lane, int64_t input, int64_t bits) {
    const int64_t quad = input / QUAD, place = lane * QUAD + input % QUAD, size = LANES * QUAD;
    if (bits == 8) return (int8_t)block[quad * size + place];
    const int low = block[quad % 4 * size + place] >> quad / 4 * 4 & 15;
    if (bits == 4) return low;
    const int64_t high_bits = bits - 4, bit = quad * high_bits;
    const int high = block[(4 + bit / 8) * size + place] >> bit % 8 & ((1 << high_bits) - 1);
    return high << 4 | low;
}
