// A few rows by some outputs of a group: the loop over the blocks, for any width of vectors.
//
// The file that includes it defines, for its kind of CPU, beside TARGET and WIDTH: ROWS, the most rows
// that share the unpacked weights; FEW, the most rows of which a tile takes all outputs of a group;
// ZERO_8, what its dot product has added to an int8 weight; and `dot`, which adds the dot products of
// one block.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "vectors.h"

enum {
    LINE = LANES * QUAD,  // bytes of a quad of all outputs, a line of the cache
    // The core's own prefetcher stops at the end of a page: weights are prefetched this many bytes ahead.
    AHEAD = 2048,
};

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

// Adds to dots[row * vectors + i], for each of `rows` rows and the outputs of each of `vectors`
// vectors, its product with the block at `packed`. The rows' int8 values lie side by side.
TARGET INLINE void dot(const uint8_t *packed, const int8_t *values, int rows, int vectors, int bits,
                       integers *dots);

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
// `step` is what compact scales are multiplied by. All are of one vector; the next row's are `apart`.
TARGET INLINE void add_block(const Rows *x, int64_t place, const integers *dots,
                             const Figures *figures, int64_t lane, vector step, int rows, int apart,
                             const int bits, const int kind, vector *total) {
    const vector scale = kind == COMPACT ? floats_of_bytes(figures->compact + lane) * step
                                         : floats(figures->scales + lane);
    for (int r = 0; r < rows; r++)
        total[r * apart] = __builtin_elementwise_fma(
            __builtin_convertvector(dots[r * apart], vector), scale * x->scales[place + r],
            total[r * apart]);
    if (kind == SYMMETRIC) return;
    const vector offset =
        kind == COMPACT
            ? floats_of_bytes(figures->compact + LANES + lane) * compact_zero(bits) * scale
            : floats(figures->offsets + lane);
    for (int r = 0; r < rows; r++)
        total[r * apart] = __builtin_elementwise_fma(
            (vector){0} + x->totals[place + r], offset, total[r * apart]);
}

// What a tile prefetches of each block: `lines` from `from` on, or all of the one that is AHEAD.
typedef struct {
    const uint8_t *from;
    int lines;
} Ahead;

// Of the only pass over a group: NULL. Where a group takes more, its weights come from the cache from
// the second on. So that memory is not idle then, the first two ask for half the next group each.
TARGET INLINE Ahead ahead_of(const Weights *w, const Rows *x, int64_t group, int64_t pass,
                             const int bits) {
    if (x->count <= FEW) return (Ahead){0};
    const int64_t size = w->blocks * (bits * LINE);
    const int half = (bits + 1) / 2;
    return (Ahead){w->packed + (group + 1) * size + pass * half * w->blocks * LINE,
                   pass == 0 ? half : pass == 1 ? bits - half : 0};
}

TARGET INLINE void prefetch(Ahead *ahead, const uint8_t *packed, const Figures *figures,
                            const int bits, const int kind) {
    if (!ahead->from) {
#pragma clang loop unroll(full)
        for (int line = 0; line < bits; line++) __builtin_prefetch(packed + line * LINE + AHEAD);
        if (kind == COMPACT) __builtin_prefetch(figures->compact + AHEAD / 8);
        return;
    }
    // To the second level, which holds two groups.
    for (int line = 0; line < ahead->lines; line++)
        __builtin_prefetch(ahead->from + line * LINE, 0, 2);
    ahead->from += ahead->lines * LINE;
}

// Some rows by `vectors` vectors of the outputs of a group. The loops over rows and vectors are
// unrolled.
TARGET INLINE void tile(const Weights *w, const Rows *x, int64_t group, int64_t first_lane,
                        int64_t row, float *y, Ahead ahead, const int rows, const int vectors,
                        const int bits, const int kind) {
    const int64_t blocks = w->blocks, apart = panel_rows(x, row), lanes = group * w->scale_count * LANES;
    const int32_t zero = bits == 8 ? ZERO_8 : kind == SYMMETRIC ? 8 : 0;
    const uint8_t *packed = w->packed + group * blocks * (bits * LINE) + first_lane * QUAD;
    Figures figures = {0};
    vector step[VECTORS] = {0};
    if (kind == COMPACT) {
        figures.compact = w->compact + 2 * lanes + first_lane;
        for (int i = 0; i < vectors; i++)
            step[i] = floats(w->row_scales + group * LANES + first_lane + i * WIDTH) * compact_step(1);
    } else {
        figures.scales = w->scales + lanes + first_lane;
        if (kind == AFFINE) figures.offsets = w->offsets + lanes + first_lane;
    }
    int64_t place = first_place(x, row), left = w->blocks_per_scale;
    vector total[ROWS];
    for (int i = 0; i < rows * vectors; i++) total[i] = (vector){0};
    for (int64_t block = 0; block < blocks; block++, place += apart) {
        integers dots[ROWS];
        for (int i = 0; i < rows * vectors; i++)
            dots[i] = (integers){0} - zero * x->sums[place + i / vectors];
        prefetch(&ahead, packed, &figures, bits, kind);
        dot(packed, x->values + place * BLOCK, rows, vectors, bits, dots);
        for (int i = 0; i < vectors; i++)
            add_block(x, place, dots + i, &figures, i * WIDTH, step[i], rows, vectors, bits, kind,
                      total + i);
        packed += bits * LINE;
        if (--left == 0) {
            left = w->blocks_per_scale;
            if (kind == COMPACT)
                figures.compact += 2 * LANES;
            else
                figures.scales += LANES;
            if (kind == AFFINE) figures.offsets += LANES;
        }
    }
    for (int i = 0; i < rows * vectors; i++) {
        const int64_t output = group * LANES + first_lane + i % vectors * WIDTH;
        store(total[i], w, output, y + (row + i / vectors) * w->outputs + output);
    }
}

// All rows, in tiles whose number of rows is a constant. Up to 7 that are too many for one are halved.
TARGET INLINE void tiles(const Weights *w, const Rows *x, int64_t group, float *y, const int bits,
                         const int kind) {
#define CASE(n)                                                                            \
    case n:                                                                                \
        if (n <= FEW) tile(w, x, group, 0, row, y, ahead, n, VECTORS, bits, kind);         \
        break;
    int64_t rows, pass = 0;
    for (int64_t row = 0; row < x->count; row += rows) {
        const int64_t left = x->count - row;
        rows = left >= ROWS ? ROWS : left > FEW ? (left + 1) / 2 : left;
        if (rows > FEW) {
            for (int lane = 0; lane < LANES; lane += WIDTH) {
                const Ahead ahead = ahead_of(w, x, group, pass++, bits);
                tile(w, x, group, lane, row, y, ahead, ROWS, 1, bits, kind);
            }
            continue;
        }
        const Ahead ahead = ahead_of(w, x, group, pass++, bits);
        switch (rows) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
        }
    }
#undef CASE
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
