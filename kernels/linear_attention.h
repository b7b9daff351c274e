// The arguments of one call of the operator LinearAttention.
//
// A head's state is a matrix [key_size, value_size], to which each token adds the product of its key
// and its value, and which its query then reads. docs/kernels.md has the arithmetic.
#pragma once

#include "batch.h"

enum {
    COLUMNS = 32,         // of a head's state that are computed together: 16 kB at key_size 128
    LARGEST_STATE = 512,  // key_size and value_size
};

typedef struct {
    int64_t heads, key_heads, group;  // group: heads that share a key head
    float scale, norm_epsilon;        // 0: queries and keys are not normalised
} LinearSettings;

typedef struct {
    const LinearSettings *settings;
    Batch batch;
    int64_t key_size, value_size;
    const float *query, *key;   // [rows, tokens, key_heads, key_size]
    const float *value;         // [rows, tokens, heads, value_size]
    const float *decay, *beta;  // [rows, tokens, heads], or NULL
    float *state;               // [rows, heads, key_size, value_size]
    float *output;              // as value
} LinearAttention;
