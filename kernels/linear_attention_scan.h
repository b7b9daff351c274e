// Updates some columns of one head's state, token after token, and computes their outputs.
//
// A lane is a column, and each sum over a key's elements is one chain of fused multiply-adds from the
// first element on. So bits do not depend on how columns are cut, nor on chunks: what a token finds
// in the state is the same whether it lay in memory or stayed here.
#pragma once

#include "exponential.h"
#include "linear_attention.h"

enum { PARTS = COLUMNS / WIDTH };

typedef struct {
    const LinearAttention *attention;
    int64_t row, head, first, count;  // columns [first : first + count] of the head
    float (*state)[COLUMNS];          // [key_size]: of these columns, zeros after them
} Columns;

// The number of a token's head where each token has `heads`.
TARGET INLINE int64_t number_of(const Columns *c, int64_t token, int64_t heads, int64_t head) {
    return (c->row * c->attention->batch.tokens + token) * heads + head;
}

// Where a token's query and key begin.
TARGET INLINE int64_t key_place(const Columns *c, int64_t token) {
    const LinearSettings *s = c->attention->settings;
    return number_of(c, token, s->key_heads, c->head / s->group) * c->attention->key_size;
}

// Where these columns begin in the state, at one of its rows.
TARGET INLINE float *state_row(const Columns *c, int64_t element) {
    const LinearAttention *a = c->attention;
    const int64_t head = c->row * a->settings->heads + c->head;
    return a->state + (head * a->key_size + element) * a->value_size + c->first;
}

// Reads the state. It is zeros for a row's first token, whatever lies in its memory.
TARGET INLINE void read_state(const Columns *c) {
    const int64_t lanes = past_of(&c->attention->batch, c->row) ? c->count : 0;
    for (int64_t i = 0; i < c->attention->key_size; i++)
        for (int part = 0; part < PARTS; part++)
            save(load_first(state_row(c, i) + part * WIDTH, lanes - part * WIDTH),
                 c->state[i] + part * WIDTH);
}

TARGET INLINE void write_state(const Columns *c) {
    for (int64_t i = 0; i < c->attention->key_size; i++)
        for (int part = 0; part < PARTS; part++)
            save_first(load(c->state[i] + part * WIDTH), state_row(c, i) + part * WIDTH,
                       c->count - part * WIDTH);
}

// Computes what the state holds for a key: their product.
TARGET INLINE void recall(const Columns *c, const float *key, vector *recalled) {
    for (int part = 0; part < PARTS; part++) recalled[part] = (vector){0};
    for (int64_t i = 0; i < c->attention->key_size; i++)
        for (int part = 0; part < PARTS; part++)
            recalled[part] = __builtin_elementwise_fma(
                broadcast(key[i]), load(c->state[i] + part * WIDTH), recalled[part]);
}

// One pass over the state for a token: it decays, what is added for the key is added, and it is
// multiplied by the query, and by the next token's key where there is one. `has_next` is a constant.
TARGET INLINE void pass(const Columns *c, int64_t token, float decay, const vector *added, vector *y,
                        vector *recalled, const int has_next) {
    const float *query = c->attention->query + key_place(c, token);
    const float *key = c->attention->key + key_place(c, token);
    const float *next = c->attention->key + key_place(c, token + has_next);
    for (int part = 0; part < PARTS; part++) y[part] = recalled[part] = (vector){0};
    for (int64_t i = 0; i < c->attention->key_size; i++)
        for (int part = 0; part < PARTS; part++) {
            const vector before = load(c->state[i] + part * WIDTH) * decay;
            const vector state = __builtin_elementwise_fma(broadcast(key[i]), added[part], before);
            save(state, c->state[i] + part * WIDTH);
            y[part] = __builtin_elementwise_fma(broadcast(query[i]), state, y[part]);
            if (has_next)
                recalled[part] = __builtin_elementwise_fma(broadcast(next[i]), state, recalled[part]);
        }
}

// One token. `recalled` is what the state holds for its key, and then for the next one's.
TARGET INLINE void linear_attention_step(const Columns *c, int64_t token, vector *recalled) {
    const LinearAttention *a = c->attention;
    const int64_t number = number_of(c, token, a->settings->heads, c->head);
    const int64_t place = number * a->value_size + c->first;
    const float decay = a->decay ? exponential(broadcast(a->decay[number]))[0] : 1;
    vector added[PARTS], y[PARTS];
    for (int part = 0; part < PARTS; part++) {
        added[part] = load_first(a->value + place + part * WIDTH, c->count - part * WIDTH);
        if (a->beta)
            added[part] = __builtin_elementwise_fma(broadcast(-decay), recalled[part], added[part]) *
                          a->beta[number];
    }
    if (a->beta && token + 1 < a->batch.valid[c->row])
        pass(c, token, decay, added, y, recalled, 1);
    else
        pass(c, token, decay, added, y, recalled, 0);
    for (int part = 0; part < PARTS; part++)
        save_first(y[part] * a->settings->scale, a->output + place + part * WIDTH,
                   c->count - part * WIDTH);
}

// Columns [first : first + COLUMNS] of a head of a row that has new tokens.
TARGET static void linear_attention_scan(const LinearAttention *a, int64_t row, int64_t head,
                                         int64_t first) {
    _Alignas(64) float state[LARGEST_STATE][COLUMNS];
    const Columns c = {a, row, head, first, min(COLUMNS, a->value_size - first), state};
    vector recalled[PARTS];
    read_state(&c);
    if (a->beta) recall(&c, a->key + key_place(&c, 0), recalled);
    for (int64_t token = 0; token < a->batch.valid[row]; token++)
        linear_attention_step(&c, token, recalled);
    write_state(&c);
}

// One head's query or key over its length: the sum of squares has `epsilon` added, and element i is
// in its lane i % 16.
TARGET static void normalise(const float *x, int64_t size, float epsilon, float *y) {
    vector sums[VECTORS] = {{0}};
    for (int64_t i = 0; i < size; i += 16)
        for (int v = 0; v < VECTORS; v++) {
            const vector part = load_first(x + i + v * WIDTH, size - i - v * WIDTH);
            sums[v] = __builtin_elementwise_fma(part, part, sums[v]);
        }
    const vector length = __builtin_elementwise_sqrt(broadcast(sum_of_lanes(sums) + epsilon));
    for (int64_t i = 0; i < size; i += WIDTH)
        save_first(load_first(x + i, size - i) / length, y + i, size - i);
}
