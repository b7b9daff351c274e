// Softmax over the scores of one query.
//
// A lane adds up every sixteenth position, in order, and one tree adds the lanes: a query's bits do
// not depend on where its scores begin or end in memory.
#pragma once

#include "attention.h"
#include "exponential.h"

typedef struct {
    float *scores;  // of the positions from `base`, a multiple of 16, on; then weights
    int64_t base;
    int64_t start, stop;  // the positions that the query sees; scores outside them are ignored
} Seen;

TARGET INLINE void softcap_scores(const Seen *seen, float cap) {
    for (int64_t place = 0; place < seen->stop - seen->base; place += WIDTH) {
        const vector score = softcap(load(seen->scores + place), cap);
        __builtin_memcpy(seen->scores + place, &score, sizeof score);
    }
}

// Gives positions that the query does not see the weight exp(-infinity), which is 0.
TARGET INLINE void hide_unseen(const Seen *seen) {
    const int64_t first = seen->start / KEY_BLOCK * KEY_BLOCK, end = round_up(seen->stop, KEY_BLOCK);
    for (int64_t place = first; place < seen->start; place++)
        seen->scores[place - seen->base] = -__builtin_inff();
    for (int64_t place = seen->stop; place < end; place++)
        seen->scores[place - seen->base] = -__builtin_inff();
}

TARGET INLINE vector larger(vector a, vector b) { return choose((integers)(a > b), a, b); }

// The largest of some positions' scores, by four chains of comparisons.
TARGET INLINE float largest_score(const Seen *seen) {
    vector largest[4];
    const int64_t first = seen->start / KEY_BLOCK * KEY_BLOCK - seen->base;
    const int64_t count = seen->stop - seen->base - first;
    const float *scores = seen->scores + first;
    for (int chain = 0; chain < 4; chain++) largest[chain] = broadcast(-__builtin_inff());
    int64_t place = 0;
    for (; place + 4 * WIDTH <= count; place += 4 * WIDTH)
        for (int chain = 0; chain < 4; chain++)
            largest[chain] = larger(load(scores + place + chain * WIDTH), largest[chain]);
    for (; place < count; place += WIDTH) largest[0] = larger(load(scores + place), largest[0]);
    float lanes[WIDTH];
    largest[0] = larger(larger(largest[0], largest[1]), larger(largest[2], largest[3]));
    __builtin_memcpy(lanes, largest, sizeof lanes);
    for (int step = WIDTH / 2; step > 0; step /= 2)
        for (int lane = 0; lane < step; lane++)
            lanes[lane] = lanes[lane] > lanes[lane + step] ? lanes[lane] : lanes[lane + step];
    return lanes[0];
}

// Makes each score exp(score - largest). Returns their sum.
TARGET INLINE float exponentiate(const Seen *seen, float largest) {
    vector sums[VECTORS] = {{0}};
    const int64_t first = seen->start / KEY_BLOCK * KEY_BLOCK;
    for (int64_t block = first; block < seen->stop; block += KEY_BLOCK) {
        for (int v = 0; v < VECTORS; v++) {
            float *at = seen->scores + block + v * WIDTH - seen->base;
            const vector weight = exponential(load(at) - largest);
            __builtin_memcpy(at, &weight, sizeof weight);
            sums[v] += weight;
        }
    }
    return sum_of_lanes(sums);
}

// Makes the scores weights. Returns the factor by which the weights, and the sink where there is
// one, add up to 1.
TARGET static float softmax(const Seen *seen, float cap, const float *sink) {
    if (cap > 0) softcap_scores(seen, cap);
    hide_unseen(seen);
    float largest = largest_score(seen);
    if (sink && *sink > largest) largest = *sink;
    float sum = exponentiate(seen, largest);
    if (sink) sum += exponential(broadcast(*sink - largest))[0];
    return 1 / sum;
}
