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

// `bits` and `kind` are constants wherever these are called.
enum { SYMMETRIC, AFFINE, COMPACT };

// Where the scales and offsets of a block lie, of which the next block's are 16 or, if compact, 32
// further.
typedef struct {
    const _Float16 *scales, *offsets;
    const uint8_t *compact;
} Figures;

// Adds one block's dot products to the totals of `rows` rows, the first of which has it at `place`.
// `step` is what compact scales are multiplied by.
TARGET INLINE void add_block(const Rows *x, int64_t place, const integers *dots,
                             const Figures *figures, vector step, int rows, const int bits,
                             const int kind, vector *total) {
    const vector scale =
        kind == COMPACT ? floats_of_bytes(figures->compact) * step : floats(figures->scales);
    for (int r = 0; r < rows; r++)
        total[r] = __builtin_elementwise_fma(__builtin_convertvector(dots[r], vector),
                                             scale * x->scales[place + r * x->blocks], total[r]);
    if (kind == SYMMETRIC) return;
    const vector offset =
        kind == COMPACT
            ? floats_of_bytes(figures->compact + LANES) * compact_zero(bits) * scale
            : floats(figures->offsets);
    for (int r = 0; r < rows; r++)
        total[r] = __builtin_elementwise_fma((vector){0} + x->totals[place + r * x->blocks], offset,
                                             total[r]);
}

// The loops over rows are unrolled.
TARGET INLINE void tile(const Weights *w, const Rows *x, int64_t group, int64_t first_lane,
                        int64_t row, float *y, const int rows, const int bits, const int kind) {
    const int64_t blocks = w->blocks, stride = blocks * BLOCK, lanes = group * w->scale_count * LANES;
    const int32_t zero = bits == 8 ? ZERO_8 : kind == SYMMETRIC ? 8 : 0;
    const uint8_t *packed = w->packed + group * blocks * (BLOCK * LANES / 8 * bits) + first_lane * QUAD;
    Figures figures = {0};
    vector step = {0};
    if (kind == COMPACT) {
        figures.compact = w->compact + 2 * lanes + first_lane;
        step = floats(w->row_scales + group * LANES + first_lane) * compact_step(1);
    } else {
        figures.scales = w->scales + lanes + first_lane;
        if (kind == AFFINE) figures.offsets = w->offsets + lanes + first_lane;
    }
    const int8_t *values = x->values + row * stride;
    int64_t place = row * blocks, left = w->blocks_per_scale;
    vector total[ROWS];
    for (int r = 0; r < rows; r++) total[r] = (vector){0};
    for (int64_t block = 0; block < blocks; block++, place++) {
        integers dots[ROWS];
        for (int r = 0; r < rows; r++)
            dots[r] = (integers){0} - zero * x->sums[place + r * blocks];
        dot(packed, values, stride, rows, bits, dots);
        // As far ahead as the values.
        if (kind == COMPACT && rows < ROWS) __builtin_prefetch(figures.compact + AHEAD / 8);
        add_block(x, place, dots, &figures, step, rows, bits, kind, total);
        packed += BLOCK * LANES / 8 * bits;
        values += BLOCK;
        if (--left == 0) {
            left = w->blocks_per_scale;
            if (kind == COMPACT)
                figures.compact += 2 * LANES;
            else
                figures.scales += LANES;
            if (kind == AFFINE) figures.offsets += LANES;
        }
    }
    const int64_t output = group * LANES + first_lane;
    for (int r = 0; r < rows; r++) store(total[r], w, output, y + (row + r) * w->outputs + output);
}

TARGET INLINE void tiles(const Weights *w, const Rows *x, int64_t group, float *y, const int bits,
                         const int kind) {
    for (int lane = 0; lane < LANES; lane += WIDTH) {
        int64_t row = 0;
        for (; row + ROWS <= x->count; row += ROWS)
            tile(w, x, group, lane, row, y, ROWS, bits, kind);
        for (; ROWS > 4 && row + 4 <= x->count; row += 4)
            tile(w, x, group, lane, row, y, 4, bits, kind);
        for (; row + 2 <= x->count; row += 2) tile(w, x, group, lane, row, y, 2, bits, kind);
        if (row < x->count) tile(w, x, group, lane, row, y, 1, bits, kind);
    }
}

TARGET static void multiply_compact(const Weights *w, const Rows *x, int64_t group, float *y) {
    if (w->bits == 4)
        tiles(w, x, group, y, 4, COMPACT);
    else if (w->bits == 5)
        tiles(w, x, group, y, 5, COMPACT);
    else
        tiles(w, x, group, y, 6, COMPACT);
}

TARGET static void multiply(const Weights *w, const Rows *x, int64_t group, float *y) {
    if (w->compact)
        multiply_compact(w, x, group, y);
    else if (w->bits == 4 && w->offsets)
        tiles(w, x, group, y, 4, AFFINE);
    else if (w->bits == 4)
        tiles(w, x, group, y, 4, SYMMETRIC);
    else if (w->bits == 5)
        tiles(w, x, group, y, 5, AFFINE);
    else if (w->bits == 6)
        tiles(w, x, group, y, 6, AFFINE);
    else if (w->offsets)
        tiles(w, x, group, y, 8, AFFINE);
    else
        tiles(w, x, group, y, 8, SYMMETRIC);
}

TARGET static void quantize(const float *x, int64_t columns, const Rows *rows, int64_t row) {
    quantize_row(x, columns, rows, row);
}
