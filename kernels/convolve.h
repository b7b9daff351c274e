// Computes a short causal convolution of some channels of one row.
//
// A lane is a channel. Each output is one chain of fused multiply-adds, from the oldest input to the
// newest, so its bits depend on its own inputs alone, wherever they lie.
#pragma once

#include "convolution.h"
#include "vectors.h"

typedef struct {
    const Convolution *convolution;
    int64_t row, first, count;          // channels [first : first + count]
    float taps[WIDEST_TAPS][CHANNELS];  // of these channels, zeros after them
    float bias[CHANNELS];
} Channels;

static const float before[CHANNELS];  // what lies before the first token

// The inputs at a place: first those of the state, then the row's new ones.
TARGET INLINE const float *inputs_at(const Channels *c, int64_t place) {
    const Convolution *v = c->convolution;
    const int64_t seen = v->width - 1;
    if (place >= seen)
        return v->x + (c->row * v->batch.tokens + place - seen) * v->channels + c->first;
    if (past_of(&v->batch, c->row) == 0) return before;
    return v->state + (c->row * seen + place) * v->channels + c->first;
}

TARGET INLINE void read_taps(Channels *c) {
    const Convolution *v = c->convolution;
    for (int64_t channel = 0; channel < CHANNELS; channel++) {
        const float *weight = v->weight + (c->first + channel) * v->width;
        for (int64_t tap = 0; tap < v->width; tap++)
            c->taps[tap][channel] = channel < c->count ? weight[tap] : 0;
        c->bias[channel] = channel < c->count && v->bias ? v->bias[c->first + channel] : 0;
    }
}

TARGET INLINE void convolve_token(const Channels *c, int64_t token, const int64_t width) {
    const Convolution *v = c->convolution;
    float *y = v->output + (c->row * v->batch.tokens + token) * v->channels + c->first;
    const float *inputs[WIDEST_TAPS];
    for (int64_t tap = 0; tap < width; tap++) inputs[tap] = inputs_at(c, token + tap);
    for (int64_t lane = 0; lane < c->count; lane += WIDTH) {
        vector sum = load(c->bias + lane);
        for (int64_t tap = 0; tap < width; tap++) {
            const vector x = load_first(inputs[tap] + lane, c->count - lane);
            sum = __builtin_elementwise_fma(load(c->taps[tap] + lane), x, sum);
        }
        save_first(sum, y + lane, c->count - lane);
    }
}

// A place is written after it was last read: the state moves towards its beginning.
TARGET INLINE void keep_inputs(const Channels *c) {
    const Convolution *v = c->convolution;
    const int64_t seen = v->width - 1, valid = v->batch.valid[c->row];
    for (int64_t place = 0; place < seen; place++)
        __builtin_memcpy(v->state + (c->row * seen + place) * v->channels + c->first,
                         inputs_at(c, valid + place), c->count * sizeof(float));
}

// Channels [first : first + CHANNELS] of a row that has new tokens.
TARGET static void convolve(const Convolution *v, int64_t row, int64_t first) {
    Channels c = {.convolution = v, .row = row, .first = first};
    c.count = min(CHANNELS, v->channels - first);
    read_taps(&c);
    for (int64_t token = 0; token < v->batch.valid[row]; token++)
        convolve_token(&c, token, v->width);
    keep_inputs(&c);
}
