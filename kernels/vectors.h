// Vectors of the width that the including file defines, and the functions on them that all share.
//
// The file defines, for its kind of CPU: TARGET, the attribute of its functions, and WIDTH, the lanes
// of a vector: 16 or a divisor of it.
#pragma once

#include "affine.h"

typedef float vector __attribute__((vector_size(4 * WIDTH)));
typedef int32_t integers __attribute__((vector_size(4 * WIDTH)));
typedef _Float16 halves __attribute__((vector_size(2 * WIDTH)));
typedef uint8_t narrow __attribute__((vector_size(WIDTH)));

enum { VECTORS = 16 / WIDTH };  // that have 16 lanes together

TARGET INLINE vector broadcast(float value) { return value - (vector){0}; }

TARGET INLINE vector load(const float *from) {
    vector found;
    __builtin_memcpy(&found, from, sizeof found);
    return found;
}

TARGET INLINE void save(vector found, float *to) { __builtin_memcpy(to, &found, sizeof found); }

TARGET INLINE vector floats(const _Float16 *from) {
    halves found;
    __builtin_memcpy(&found, from, sizeof found);
    return __builtin_convertvector(found, vector);
}

TARGET INLINE vector floats_of_bytes(const uint8_t *from) {
    narrow found;
    __builtin_memcpy(&found, from, sizeof found);
    return __builtin_convertvector(found, vector);
}

// Loads the first `lanes` of a vector, which may be more than it has or none; zeros after them.
TARGET INLINE vector load_first(const float *from, int64_t lanes) {
    if (lanes >= WIDTH) return load(from);
    vector found = {0};
    if (lanes > 0) __builtin_memcpy(&found, from, lanes * sizeof(float));
    return found;
}

TARGET INLINE void save_first(vector found, float *to, int64_t lanes) {
    if (lanes >= WIDTH)
        save(found, to);
    else if (lanes > 0)
        __builtin_memcpy(to, &found, lanes * sizeof(float));
}

// The sum of 16 lanes, by a tree.
TARGET INLINE float sum_of_lanes(const vector *sums) {
    float lanes[16];
    __builtin_memcpy(lanes, sums, sizeof lanes);
    for (int step = 8; step > 0; step /= 2)
        for (int lane = 0; lane < step; lane++) lanes[lane] += lanes[lane + step];
    return lanes[0];
}
