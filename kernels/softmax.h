// The scores of one query become weights, and the sum of the weights.
//
// A lane adds up every sixteenth position, in order, and one tree adds the lanes: a query's bits do
// not depend on where its scores begin or end in memory.
#pragma once

#include "attention.h"
#include "exponential.h"

typedef struct {
    float *scores;  // of the positions from `base`, a multiple of 16, on; then weights
    int64_t base;
    int64_t start, stop;  // the positions that the query sees; scores beside them are not looked at
} Seen;

enum { VECTORS = SPAN / WIDTH };

// Which of WIDTH positions from `position` on are seen.
TARGET INLINE integers seen_lanes(const Seen *seen, int64_t position) {
    integers lanes = {0};
    for (int lane = 0; lane < WIDTH; lane++) lanes[lane] = lane;
    lanes += (int32_t)position;
    return (integers)(lanes >= (int32_t)seen->start) & (integers)(lanes < (int32_t)seen->stop);
}

// Scales the scores and returns the largest one that is seen.
TARGET INLINE float scale_scores(const Seen *seen, const Settings *settings) {
    const vector lowest = spread(-__builtin_inff());
    vector largest = lowest;
    for (int64_t place = seen->start / SPAN * SPAN; place < seen->stop; place += WIDTH) {
        vector score;
        float *at = seen->scores + place - seen->base;
        __builtin_memcpy(&score, at, sizeof score);
        score *= settings->scale;
        if (settings->softcap > 0) score = capped(score, settings->softcap);
        __builtin_memcpy(at, &score, sizeof score);
        const vector counted = choose(seen_lanes(seen, place), score, lowest);
        largest = choose((integers)(counted > largest), counted, largest);
    }
    float found = largest[0];
    for (int lane = 1; lane < WIDTH; lane++)
        found = largest[lane] > found ? largest[lane] : found;
    return found;
}

TARGET INLINE float sum_of_lanes(const vector *sums) {
    float lanes[SPAN];
    __builtin_memcpy(lanes, sums, sizeof lanes);
    for (int step = SPAN / 2; step > 0; step /= 2)
        for (int lane = 0; lane < step; lane++) lanes[lane] += lanes[lane + step];
    return lanes[0];
}

// The scores become exp(score - largest), those of unseen lanes 0. Returns their sum.
TARGET INLINE float exponentiate(const Seen *seen, float largest) {
    vector sums[VECTORS] = {{0}};
    for (int64_t span = seen->start / SPAN * SPAN; span < seen->stop; span += SPAN) {
        for (int v = 0; v < VECTORS; v++) {
            vector score;
            float *at = seen->scores + span + v * WIDTH - seen->base;
            __builtin_memcpy(&score, at, sizeof score);
            const integers counts = seen_lanes(seen, span + v * WIDTH);
            const vector weight = choose(counts, exponential(score - largest), (vector){0});
            __builtin_memcpy(at, &weight, sizeof weight);
            sums[v] += weight;
        }
    }
    return sum_of_lanes(sums);
}

// Scores to weights. Returns what one must multiply by, so that the weights, and the sink where
// there is one, add up to 1.
TARGET static float soften(const Seen *seen, const Settings *settings, const float *sink) {
    float largest = scale_scores(seen, settings);
    if (sink && *sink > largest) largest = *sink;
    float sum = exponentiate(seen, largest);
    if (sink) sum += exponential(spread(*sink - largest))[0];
    return 1 / sum;
}
