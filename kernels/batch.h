// The rows of one call: each has its own number of new tokens, after those of earlier calls.
#pragma once

#include <stdint.h>

typedef struct {
    int64_t rows, tokens;         // tokens of a row, padding too
    const int32_t *last, *valid;  // [rows]: the last new token's position; new tokens
} Batch;

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t count, int64_t by) { return (count + by - 1) / by; }
static inline int64_t round_up(int64_t count, int64_t step) { return ceil_div(count, step) * step; }

// The position of a row's first new token.
static inline int64_t past_of(const Batch *batch, int64_t row) {
    return (int64_t)batch->last[row] + 1 - batch->valid[row];
}
