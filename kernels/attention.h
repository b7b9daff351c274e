// The arguments of one call of the operator Attention, and one part of its work.
//
// The new tokens of some rows are written into the rows' caches, then each of them looks at the
// positions of its row up to its own. docs/kernels.md has the layout and the arithmetic.
#pragma once

#include "batch.h"

enum {
    KEY_BLOCK = 16,      // positions whose keys lie side by side; graph_contract.py has it too
    LONGEST_HEAD = 512,  // elements of a head
};

typedef struct {
    int64_t heads, kv_heads, group;  // group: heads that share a key-value head
    int64_t window, interleaved;     // window: positions seen, the own one included; -1 is all
    float scale, softcap;            // softcap 0 is none
} Settings;

typedef struct {
    const Settings *settings;
    Batch batch;
    int64_t size, capacity;                // elements of a head; positions of the cache
    const float *query, *key, *value;      // [rows, tokens, heads or kv_heads, size]
    int64_t query_stride, key_stride;      // from one token to the next
    const float *cos, *sin;                // [positions, rotary_size / 2], or NULL
    const float *sinks;                    // [heads], or NULL
    int64_t rotary_size;                    // elements of a head that rotary embeddings turn
    int64_t is_half;                       // the cache holds float16, not float
    void *keys;                            // [rows, kv_heads, capacity / 16, size, 16]
    void *values;                          // [rows, kv_heads, capacity, size]
    float *output;                         // as query, without gaps
} Attention;

// Some new tokens of a row by the heads of one group: what is computed at once.
typedef struct {
    int64_t row, kv_head, first, count;
} Part;
