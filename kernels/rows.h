// Quantizes activations to int8: each block of 32 by its largest absolute value, to the nearest even.
//
// Included by each kind of CPU's file, whose compiler makes vectors of these loops.
#pragma once

#include "affine.h"

// Below this a block counts as zero: 127 / largest would come near the largest float.
#define TINY 1e-30f

// What rounds a float to an integer and leaves it in the low bits: 1.5 * 2 ** 23.
#define ROUNDER 12582912.0f

INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE void quantize_block(const float *x, const Rows *rows, int64_t place) {
    uint32_t largest_bits = 0;  // ordered as the absolute values are; infinity and NaN come last
    for (int i = 0; i < BLOCK; i++) {
        const uint32_t bits = bits_of(x[i]) & 0x7fffffff;
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float largest;
    __builtin_memcpy(&largest, &largest_bits, sizeof largest);
    const int finite = largest_bits < 0x7f800000, empty = largest < TINY;
    int8_t *values = rows->values + place * BLOCK;
    int32_t sum = 0;
    if (finite && !empty) {
        const float inverse = 127 / largest;
        for (int i = 0; i < BLOCK; i++) {
            const int8_t value = (int8_t)bits_of(x[i] * inverse + ROUNDER);
            values[i] = value;
            sum += value;
        }
    } else {
        __builtin_memset(values, 0, BLOCK);
    }
    const float scale = !finite ? __builtin_nanf("") : empty ? 0 : largest / 127;
    rows->scales[place] = scale;
    rows->totals[place] = scale * (float)sum;
    rows->sums[place] = sum;
}

INLINE void quantize_row(const float *x, int64_t columns, const Rows *rows, int64_t row) {
    const int64_t whole = columns / BLOCK, rest = columns % BLOCK;
    const int64_t apart = panel_rows(rows, row), place = first_place(rows, row);
    for (int64_t block = 0; block < whole; block++)
        quantize_block(x + block * BLOCK, rows, place + block * apart);
    if (rest) {
        float padded[BLOCK] = {0};
        __builtin_memcpy(padded, x + whole * BLOCK, rest * sizeof(float));
        quantize_block(padded, rows, place + whole * apart);
    }
}
