// Computes one part of attention: scores, weights, and the sums of weighted values.
//
// Keys and values are taken in chunks that stay in the core's cache for all rows of the part; float16
// is made float once for them. A row is one head of one token, and rows lie in the order of tokens.
#pragma once

#include "cache.h"
#include "product.h"
#include "softmax.h"

enum {
    CHUNK = 64,            // positions
    AHEAD_OF_VALUES = 32,  // positions that are prefetched ahead
};

typedef struct {
    const Attention *attention;
    const Part *part;
    int64_t rows;          // of this part
    int64_t wide;          // elements of a head, rounded up to 16
    int64_t past;          // the position of the row's first new token
    int64_t base, stop;    // the positions that the part sees; base is a multiple of 16
    int64_t stride;        // from one row of scores to the next
    int64_t step;          // positions in a chunk: few rows take all at once, as they lie
    int64_t cache;         // elements of the cache before this row's and head's
    float *queries;        // [rows, size]
    float *sums;           // [rows, wide]: of weighted values
    float *scores;         // [rows, stride]
    float *chunk;          // keys or values as floats
    float *inverse_sums;   // [rows]: of the weights
} Work;

static int64_t padded(int64_t count) { return round_up(count, KEY_BLOCK); }

static int64_t row_stride(int64_t positions) { return padded(positions) + KEY_BLOCK; }

static int64_t scratch(const Attention *a, int64_t count, int64_t stop) {
    const int64_t rows = count * a->settings->group, wide = padded(a->size);
    if (a->settings->window > 0) stop = min(stop, a->settings->window + count + KEY_BLOCK);
    return rows * (a->size + wide + row_stride(stop) + 1) + CHUNK * wide;
}

// The first position that a row sees, and the one after the last.
static int64_t start_of(const Work *w, int64_t row) {
    const int64_t window = w->attention->settings->window;
    const int64_t position = w->past + w->part->first + row / w->attention->settings->group;
    return window < 0 ? 0 : max(0, position + 1 - window);
}

static int64_t stop_of(const Work *w, int64_t row) {
    return w->past + w->part->first + row / w->attention->settings->group + 1;
}

static Work lay_out(const Attention *a, const Part *part, float *memory) {
    Work w = {.attention = a, .part = part};
    w.rows = part->count * a->settings->group;
    w.wide = padded(a->size);
    w.past = past_of(&a->batch, part->row);
    w.base = start_of(&w, 0) / KEY_BLOCK * KEY_BLOCK;
    w.stop = stop_of(&w, w.rows - 1);
    w.stride = row_stride(w.stop - w.base);
    w.cache = (part->row * a->settings->kv_heads + part->kv_head) * a->capacity * a->size;
    w.step = w.rows <= TILE_ROWS && w.wide == a->size ? padded(w.stop) : CHUNK;
    w.chunk = memory;
    w.sums = w.chunk + CHUNK * w.wide;
    w.scores = w.sums + w.rows * w.wide;
    w.queries = w.scores + w.rows * w.stride;
    w.inverse_sums = w.queries + w.rows * a->size;
    return w;
}

// Where a row's head begins, in elements, when a token takes `stride`.
static int64_t place_of(const Work *w, int64_t row, int64_t stride) {
    const int64_t group = w->attention->settings->group;
    const int64_t token = w->part->row * w->attention->batch.tokens + w->part->first + row / group;
    return token * stride + (w->part->kv_head * group + row % group) * w->attention->size;
}

TARGET INLINE void read_queries(const Work *w) {
    const Attention *a = w->attention;
    for (int64_t row = 0; row < w->rows; row++)
        apply_rope(a, stop_of(w, row) - 1, a->query + place_of(w, row, a->query_stride),
             w->queries + row * a->size);
}

// `count` elements of the cache as floats, and zeros up to a multiple of 16.
TARGET INLINE void widen(const void *from, int64_t count, int is_half, float *to) {
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        const vector found = is_half ? lanes_of(from, i, 1) : lanes_of(from, i, 0);
        __builtin_memcpy(to + i, &found, sizeof found);
    }
    for (; i < count; i++) to[i] = is_half ? ((const _Float16 *)from)[i] : ((const float *)from)[i];
    for (; i % KEY_BLOCK; i++) to[i] = 0;
}

// The address of an element of this row's and head's cache.
static const void *element(const Work *w, const void *cache, int64_t place) {
    return (const char *)cache + (w->cache + place) * (w->attention->is_half ? 2 : 4);
}

TARGET INLINE void score_chunk(const Work *w, int64_t first, int64_t stop) {
    const int64_t size = w->attention->size, block = KEY_BLOCK * size;
    const void *keys = element(w, w->attention->keys, first * size);
    const int half = w->attention->is_half && w->rows <= TILE_ROWS;
    if (w->attention->is_half && !half) {
        widen(keys, padded(stop - first) * size, 1, w->chunk);
        keys = w->chunk;
    }
    for (int64_t row = 0; row < w->rows; row += TILE_ROWS) {
        const int64_t rows = min(TILE_ROWS, w->rows - row);
        const int64_t from = max(first, start_of(w, row) / KEY_BLOCK * KEY_BLOCK);
        const int64_t to = min(stop, stop_of(w, row + rows - 1));
        if (from >= to) continue;
        const Product p = {
            .left = w->queries + row * size, .left_stride = size,
            .right = (const char *)keys + (from - first) * size * (half ? 2 : 4),
            .step = KEY_BLOCK, .unit = block, .steps = size,
            .units = (to - from + KEY_BLOCK - 1) / KEY_BLOCK,
            .result = w->scores + row * w->stride + from - w->base, .result_stride = w->stride,
            .scale = w->attention->settings->scale,
            .ahead = CHUNK * size, .end = (to - from) * size,
        };
        product(&p, rows, half, 1);
    }
}

// Values from position `first` on, as they lie in the cache or widened to floats.
typedef struct {
    const void *values;
    int64_t first, step;
    int half;
} Values;

// Adds the values at [from : to] to the sums of some rows, all of which see them.
TARGET INLINE void add_values(const Work *w, const Values *v, int64_t row, int64_t rows,
                              int64_t from, int64_t to) {
    const Product p = {
        .left = w->scores + row * w->stride + from - w->base, .left_stride = w->stride,
        .right = (const char *)v->values + (from - v->first) * v->step * (v->half ? 2 : 4),
        .step = v->step, .unit = 16, .steps = to - from, .units = w->wide / 16,
        .result = w->sums + row * w->wide, .result_stride = w->wide,
        .ahead = AHEAD_OF_VALUES * v->step, .end = (to - from) * v->step,
    };
    product(&p, rows, v->half, 0);
}

// Adds the values to the sums of a tile of rows. The rows that see a position lie side by side: each
// stretch that the same rows see is one product.
TARGET INLINE void value_tile(const Work *w, const Values *v, int64_t row, int64_t rows,
                              int64_t stop) {
    const int64_t last = row + rows, end = min(stop, stop_of(w, last - 1));
    int64_t first = row, after = row;
    for (int64_t from = max(v->first, start_of(w, row)), to; from < end; from = to) {
        while (stop_of(w, first) <= from) first++;
        while (after < last && start_of(w, after) <= from) after++;
        to = min(end, stop_of(w, first));
        if (after < last) to = min(to, start_of(w, after));
        add_values(w, v, first, after - first, from, to);
    }
}

TARGET INLINE void widen_values(const Work *w, int64_t first, int64_t stop) {
    const Attention *a = w->attention;
    const int64_t runs = a->size == w->wide ? 1 : stop - first;
    const int64_t length = (stop - first) / runs * a->size;
    for (int64_t run = 0; run < runs; run++)
        widen(element(w, a->values, first * a->size + run * length), length, a->is_half,
              w->chunk + run * w->wide);
}

TARGET INLINE void value_chunk(const Work *w, int64_t first, int64_t stop) {
    const int64_t size = w->attention->size;
    const int whole = size == w->wide && (!w->attention->is_half || w->rows <= TILE_ROWS);
    Values v = {.values = w->chunk, .first = first, .step = w->wide};
    if (whole) {
        v.values = element(w, w->attention->values, first * size);
        v.half = w->attention->is_half;
    } else {
        widen_values(w, first, stop);
    }
    for (int64_t row = 0; row < w->rows; row += TILE_ROWS)
        value_tile(w, &v, row, min(TILE_ROWS, w->rows - row), stop);
}

// Makes the scores of a row weights. Returns what its sum of weighted values is multiplied by.
TARGET INLINE float softmax_row(const Work *w, int64_t row) {
    const Attention *a = w->attention;
    const int64_t head = w->part->kv_head * a->settings->group + row % a->settings->group;
    const Seen seen = {.scores = w->scores + row * w->stride, .base = w->base,
                       .start = start_of(w, row), .stop = stop_of(w, row)};
    return softmax(&seen, a->settings->softcap, a->sinks ? a->sinks + head : 0);
}

TARGET static void attend(const Attention *a, const Part *part, float *memory) {
    const Work w = lay_out(a, part, memory);
    read_queries(&w);
    for (int64_t chunk = w.base; chunk < w.stop; chunk += w.step)
        score_chunk(&w, chunk, min(chunk + w.step, w.stop));
    for (int64_t row = 0; row < w.rows; row++) w.inverse_sums[row] = softmax_row(&w, row);
    __builtin_memset(w.sums, 0, w.rows * w.wide * sizeof(float));
    for (int64_t chunk = w.base; chunk < w.stop; chunk += w.step)
        value_chunk(&w, chunk, min(chunk + w.step, w.stop));
    for (int64_t row = 0; row < w.rows; row++) {
        float *y = a->output + place_of(&w, row, a->settings->heads * a->size);
        for (int64_t d = 0; d < a->size; d++) y[d] = w.sums[row * w.wide + d] * w.inverse_sums[row];
    }
}
