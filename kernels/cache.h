// Stores new keys and values in the cache, the keys with rotary embeddings applied.
//
// Included by each kind of CPU's file. A key's elements lie 16 apart, since its neighbours in
// position lie between them: a lane of a vector is a position, and scores are never summed across.
#pragma once

#include "attention.h"
#include "tile.h"

// Rotates pairs of a head's first `rotary_size` elements by its position; the others stay.
TARGET INLINE void apply_rope(const Attention *a, int64_t position, const float *x, float *y) {
    const int64_t half = a->rotary_size / 2;
    const float *cos = a->cos + position * half, *sin = a->sin + position * half;
    if (a->settings->interleaved) {
        for (int64_t i = 0; i < half; i++) {
            y[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i];
            y[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * sin[i];
        }
    } else {
        for (int64_t i = 0; i < half; i++) {
            y[i] = x[i] * cos[i] - x[half + i] * sin[i];
            y[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
        }
    }
    __builtin_memcpy(y + 2 * half, x + 2 * half, (a->size - 2 * half) * sizeof(float));
}

TARGET INLINE void put(const Attention *a, void *to, int64_t place, int64_t step, const float *x) {
    if (a->is_half)
        for (int64_t d = 0; d < a->size; d++) ((_Float16 *)to)[place + d * step] = (_Float16)x[d];
    else
        for (int64_t d = 0; d < a->size; d++) ((float *)to)[place + d * step] = x[d];
}

TARGET static void store_kv(const Attention *a, int64_t row, int64_t first, int64_t stop) {
    float rotated[LONGEST_HEAD];
    for (int64_t token = first; token < stop; token++) {
        const int64_t position = past_of(&a->batch, row) + token;
        for (int64_t head = 0; head < a->settings->kv_heads; head++) {
            const int64_t from = (row * a->batch.tokens + token) * a->key_stride + head * a->size;
            const int64_t cache = (row * a->settings->kv_heads + head) * a->capacity * a->size;
            const int64_t place =
                cache + position / KEY_BLOCK * KEY_BLOCK * a->size + position % KEY_BLOCK;
            apply_rope(a, position, a->key + from, rotated);
            put(a, a->keys, place, KEY_BLOCK, rotated);
            put(a, a->values, cache + position * a->size, 1, a->value + from);
        }
    }
}
