// The rows of one call: each has its own number of new tokens, behind what it has seen before.
#pragma once

#include <stdint.h>

typedef struct {
    int64_t rows, tokens;         // tokens of a row, padding too
    const int32_t *last, *valid;  // [rows]: the last new token's position; new tokens
} Batch;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t shares(int64_t count, int64_t share) { return (count + share - 1) / share; }
static inline int64_t round_up(int64_t count, int64_t step) { return shares(count, step) * step; }

// The position of a row's first new token.
static inline int64_t past_of(const Batch *batch, int64_t row) {
    return (int64_t)batch->last[row] + 1 - batch->valid[row];
}
