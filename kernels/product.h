// A few rows of floats by a panel that lies in the cache: both products of attention.
//
// Each element of the result is one chain of fused multiply-adds in the order of the panel's steps,
// whatever lies beside it, so the tiling changes no bit.
#pragma once

#include "tile.h"

// Rows that are multiplied at once, at most. The file that includes it says by how many units of 16
// lanes: TILE_UNITS. The sums of a whole tile then fill most of the CPU's registers.
enum { TILE_ROWS = 6 };

// Few rows take more units, so that enough sums are under way at a time.
#define UNITS_OF(rows) min(4, TILE_UNITS * ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1))

typedef struct {
    const float *left;  // [rows, steps], `left_stride` apart
    const void *right;  // [steps, units, 16], float or float16
    float *result;      // [rows, units * 16], `result_stride` apart
    int64_t left_stride, result_stride;
    int64_t step, unit;  // elements from one step, and from 16 lanes, to the next
    int64_t steps, units;
    int64_t ahead, end;  // elements from what is read to what is prefetched; of all that is read
    float scale;         // of a fresh result
} Product;

// `rows`, `units`, `half` and `fresh` are constants wherever these are called. `fresh` results begin
// at zero and are scaled in the end; others begin with what they are.

TARGET INLINE vector lanes_of(const void *right, int64_t place, const int half) {
    if (half) return floats((const _Float16 *)right + place);
    vector found;
    __builtin_memcpy(&found, (const float *)right + place, sizeof found);
    return found;
}

TARGET INLINE void product_tile(const Product *product, int64_t first, const int rows,
                                const int units, const int half, const int fresh) {
    const Product p = *product;  // so that it is known to stay as it is
    const int vectors = units * VECTORS;
    const char *right = (const char *)p.right + first * p.unit * (half ? 2 : 4);
    float *result = p.result + first * 16;
    vector total[TILE_ROWS][4 * VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            total[r][v] = fresh ? (vector){0} : lanes_of(result + r * p.result_stride, v * WIDTH, 0);
    for (int64_t k = 0; k < p.steps; k++) {
        const int64_t there = k * p.step + p.ahead;
        const int64_t ahead = there < p.end - first * p.unit ? p.ahead : 0;
        vector lanes[4 * VECTORS];
        for (int v = 0; v < vectors; v++) {
            const int64_t place = k * p.step + v / VECTORS * p.unit + v % VECTORS * WIDTH;
            lanes[v] = lanes_of(right, place, half);
            if (rows < TILE_ROWS) __builtin_prefetch(right + (place + ahead) * (half ? 2 : 4));
        }
        for (int r = 0; r < rows; r++) {
            const vector left = p.left[r * p.left_stride + k] - (vector){0};
            for (int v = 0; v < vectors; v++)
                total[r][v] = __builtin_elementwise_fma(left, lanes[v], total[r][v]);
        }
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++)
#pragma clang loop unroll(full)
        for (int v = 0; v < vectors; v++) {
            const vector sum = fresh ? total[r][v] * p.scale : total[r][v];
            __builtin_memcpy(result + r * p.result_stride + v * WIDTH, &sum, sizeof sum);
        }
}

TARGET INLINE void product_units(const Product *p, const int rows, const int half, const int fresh) {
    int64_t unit = 0;
    for (; unit + UNITS_OF(rows) <= p->units; unit += UNITS_OF(rows))
        product_tile(p, unit, rows, UNITS_OF(rows), half, fresh);
    for (; unit < p->units; unit++) product_tile(p, unit, rows, 1, half, fresh);
}

TARGET INLINE void product_rows(const Product *p, int64_t rows, const int half, const int fresh) {
    switch (rows) {
    case 1: return product_units(p, 1, half, fresh);
    case 2: return product_units(p, 2, half, fresh);
    case 3: return product_units(p, 3, half, fresh);
    case 4: return product_units(p, 4, half, fresh);
    case 5: return product_units(p, 5, half, fresh);
    case 6: return product_units(p, 6, half, fresh);
    }
}

TARGET static void product(const Product *p, int64_t rows, int64_t half, int64_t fresh) {
    if (half && fresh)
        product_rows(p, rows, 1, 1);
    else if (half)
        product_rows(p, rows, 1, 0);
    else if (fresh)
        product_rows(p, rows, 0, 1);
    else
        product_rows(p, rows, 0, 0);
}
