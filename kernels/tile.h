// A few rows by some outputs of a group: the loop over the blocks, for any width of vectors.
//
// The file that includes it defines, for its kind of CPU, beside TARGET and WIDTH: ROWS, how many
// rows share the unpacked weights; ZERO_8, what its dot product has added to an int8 weight; and
// `dot`, which adds the dot products of one block.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "vectors.h"

// The core's own prefetcher stops at the end of a page: weights are prefetched this many bytes ahead.
#define AHEAD 2048

typedef uint8_t bytes __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t shorts __attribute__((vector_size(4 * WIDTH)));

TARGET INLINE bytes load_bytes(const uint8_t *from) {
    bytes found;
    __builtin_memcpy(&found, from, sizeof found);
    return found;
}

// Unpacks a quad of a block's values of 4, 5 or 6 bits, which value_in_block() describes. `quad` has to
// be a constant where there are more than 4, so that the shifts are. Shifting shorts takes an
// instruction less than shifting bytes; what comes from a neighbour is masked.
TARGET INLINE bytes unpack(const uint8_t *packed, const int quad, const int bits) {
    const bytes both = load_bytes(packed + quad % 4 * LANES * QUAD);
    const bytes low = (quad < 4 ? both : (bytes)((shorts)both >> 4)) & 15;
    if (bits == 4) return low;
    const int high_bits = bits - 4, bit = quad * high_bits;
    const shorts high = (shorts)load_bytes(packed + (4 + bit / 8) * LANES * QUAD);
    const int left = 4 - bit % 8;
    const shorts moved = left > 0 ? high << left : high >> -left;
    return ((bytes)moved & (uint8_t)(((1 << high_bits) - 1) << 4)) | low;
}

// Adds to dots[row], for each of `rows` rows, its product with the block at `packed`. The rows' int8
// values lie `stride` apart.
TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int64_t stride, int rows,
                       int bits, integers *dots);

TARGET INLINE void store(vector total, const Weights *w, int64_t output, float *y) {
    if (w->bias) {
        for (int lane = 0; lane < WIDTH && output + lane < w->outputs; lane++)
            total[lane] += w->bias[output + lane];
    }
    save_first(total, y, w->outputs - output);
}

// `bits` and `affine` are constants wherever these two are called.

// Adds one block's dot products to the totals of `rows` rows, the first of which has it at `place`.
TARGET INLINE void add_block(const Rows *x, int64_t place, const integers *dots,
                             const _Float16 *scales, const _Float16 *offsets, int rows,
                             const int affine, vector *total) {
    const vector scale = floats(scales);
    for (int r = 0; r < rows; r++)
        total[r] = __builtin_elementwise_fma(__builtin_convertvector(dots[r], vector),
                                             scale * x->scales[place + r * x->blocks], total[r]);
    if (!affine) return;
    const vector offset = floats(offsets);
    for (int r = 0; r < rows; r++)
        total[r] = __builtin_elementwise_fma((vector){0} + x->totals[place + r * x->blocks], offset,
                                             total[r]);
}

// The loops over rows are unrolled.
TARGET INLINE void tile(const Weights *w, const Rows *x, int64_t group, int64_t first_lane,
                        int64_t row, float *y, const int rows, const int bits, const int affine) {
    const int64_t blocks = w->blocks, stride = blocks * BLOCK, lanes = group * w->scale_count * LANES;
    const int32_t zero = bits == 8 ? ZERO_8 : affine ? 0 : 8;
    const uint8_t *packed = w->packed + group * blocks * (BLOCK * LANES / 8 * bits) + first_lane * QUAD;
    const _Float16 *scales = w->scales + lanes + first_lane;
    const _Float16 *offsets = affine ? w->offsets + lanes + first_lane : 0;
    const int8_t *values = x->values + row * stride;
    int64_t place = row * blocks, left = w->blocks_per_scale;
    vector total[ROWS];
    for (int r = 0; r < rows; r++) total[r] = (vector){0};
    for (int64_t block = 0; block < blocks; block++, place++) {
        integers dots[ROWS];
        for (int r = 0; r < rows; r++)
            dots[r] = (integers){0} - zero * x->sums[place + r * blocks];
        dot(packed, values, stride, rows, bits, dots);
        add_block(x, place, dots, scales, offsets, rows, affine, total);
        packed += BLOCK * LANES / 8 * bits;
        values += BLOCK;
        if (--left == 0) {
            left = w->blocks_per_scale;
            scales += LANES;
            if (affine) offsets += LANES;
        }
    }
    const int64_t output = group * LANES + first_lane;
    for (int r = 0; r < rows; r++) store(total[r], w, output, y + (row + r) * w->outputs + output);
}

TARGET INLINE void tiles(const Weights *w, const Rows *x, int64_t group, float *y, const int bits,
                         const int affine) {
    for (int lane = 0; lane < LANES; lane += WIDTH) {
        int64_t row = 0;
        for (; row + ROWS <= x->count; row += ROWS)
            tile(w, x, group, lane, row, y, ROWS, bits, affine);
        for (; ROWS > 4 && row + 4 <= x->count; row += 4)
            tile(w, x, group, lane, row, y, 4, bits, affine);
        for (; row + 2 <= x->count; row += 2) tile(w, x, group, lane, row, y, 2, bits, affine);
        if (row < x->count) tile(w, x, group, lane, row, y, 1, bits, affine);
    }
}

TARGET static void multiply(const Weights *w, const Rows *x, int64_t group, float *y) {
    if (w->bits == 4 && w->offsets)
        tiles(w, x, group, y, 4, 1);
    else if (w->bits == 4)
        tiles(w, x, group, y, 4, 0);
    else if (w->bits == 5)
        tiles(w, x, group, y, 5, 1);
    else if (w->bits == 6)
        tiles(w, x, group, y, 6, 1);
    else if (w->offsets)
        tiles(w, x, group, y, 8, 1);
    else
        tiles(w, x, group, y, 8, 0);
}

TARGET static void quantize(const float *x, int64_t columns, const Rows *rows, int64_t row) {
    quantize_row(x, columns, rows, row);
}
