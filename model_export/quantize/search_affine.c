// The search of importance_search.py, made a library of its own by `python -m kernels`.
//
// A lane of a vector holds a block, and nothing is ever summed across lanes: 16 blocks are searched
// at once, each in the same steps whichever lie beside it. Products and sums are rounded one by one
// (-ffp-contract=off), so every CPU finds the same bits.
#include <stdint.h>
#include <string.h>

#include "cpu.h"

enum {
    LANES = 16,
    LARGEST = 256,  // weights of a block; importance_search.py lets no larger one through
};

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Flags __attribute__((vector_size(4 * LANES)));
typedef _Float16 Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

// What is searched, and where to: _Job of importance_search.py. The first column of shares is how
// much the weights of the first block count, and of every block that is `period` after such a one.
// Where scales are given, `offsets` is what the search for zero points begins with.
typedef struct {
    int64_t count, size, period;
    int64_t largest;             // value: 15, 31 or 63
    const float *cut;            // [count, size]
    const float *shares;         // [size, period + 15]: the first 15 columns once more at the end
    uint8_t *values;             // [count, size]
    _Float16 *scales, *offsets;  // [count]
    const float *given;          // [count]: scales to find zero points for
    uint8_t *zero_points;        // [count], in 256ths of as many steps as there are values
} Job;

// Sixteen blocks, value after value, and the best fit of their fractions so far.
typedef struct {
    int64_t size;
    float top;                  // the largest value
    Floats x[LARGEST];          // the weights
    Floats shares[LARGEST];     // how much each counts; a block's sum is 1
    Floats fractions[LARGEST];  // 0 is a block's smallest weight, 1 its largest
    Floats weighted[LARGEST];   // share * (fraction - mean)
    Floats q[LARGEST];          // the values that are tried
    Floats low, range;
    Floats mean, variance;               // of the fractions
    Floats explained, scale, mean_of_q;  // of the best fit
} Blocks;

// Parts that are cut off a block's range below and above before its values are rounded: of 16 values,
// and as many steps of more.
//
// Out of a grid of 100 that cut off less than half a step, so that nothing is rounded out of the
// range: each adds the most to those before it. They leave 0.5 % more error than the best of all 100.
static const double CUTS[][2] = {
    {0.01, 0.01}, {-0.02, 0.03}, {0.03, -0.01},  {0.0, -0.06},
    {0.0, 0.02},  {0.02, 0.0},   {-0.06, -0.06}, {-0.06, -0.01},
};
static const float TINY = 1e-6f;
// The mean square, in ranges, below which a block of 16 values may lie on a grid: some hundredths of
// a step.
static const float EXACT = 1e-6f;

#define INLINE static inline __attribute__((always_inline))

INLINE Floats broadcast(float value) { return value - (Floats){0}; }

INLINE Floats choose(Flags where, Floats yes, Floats no) {
    return (Floats)((where & (Flags)yes) | (~where & (Flags)no));
}

INLINE Floats smaller(Floats a, Floats b) { return choose(a < b, a, b); }

INLINE Floats larger(Floats a, Floats b) { return choose(a > b, a, b); }

// Rounds what is from -1 to 2^22 to whole numbers, halves to even ones: that much larger, a float
// has no digits after the point.
INLINE Floats rounded(Floats value) { return (value + 0x1.8p23f) - 0x1.8p23f; }

// What to divide by: infinity in the place of 0, for a block of one value.
INLINE Floats divisor(Floats value) {
    return choose(value == 0, broadcast(__builtin_inff()), value);
}

INLINE Halves to_halves(Floats value) { return __builtin_convertvector(value, Halves); }

INLINE Floats to_floats(Halves value) { return __builtin_convertvector(value, Floats); }

INLINE Words to_words(Floats value) { return __builtin_convertvector(value, Words); }

// Reads `some` blocks from `start` on side by side, and the last again up to the sixteenth.
INLINE void read_blocks(Blocks *blocks, const Job *job, int64_t start, int64_t some) {
    const int64_t size = job->size, stride = job->period + LANES - 1;
    const float *shares = job->shares + start % job->period;
    for (int64_t lane = 0; lane < LANES; lane++) {
        const float *block = job->cut + (start + (lane < some ? lane : some - 1)) * size;
        for (int64_t k = 0; k < size; k++) blocks->x[k][lane] = block[k];
    }
    for (int64_t k = 0; k < size; k++)
        memcpy(&blocks->shares[k], shares + k * stride, sizeof(Floats));
}

// Finds ranges and fractions, and the mean and variance that a fit explains.
INLINE void prepare(Blocks *blocks) {
    const int64_t size = blocks->size;
    Floats low = blocks->x[0], high = low, mean = {0}, variance = {0};
    for (int64_t k = 1; k < size; k++) {
        low = smaller(blocks->x[k], low);
        high = larger(blocks->x[k], high);
    }
    low += 0.0f;  // -0 becomes 0
    blocks->low = low;
    blocks->range = (high + 0.0f) - low;
    const Floats by = divisor(blocks->range);
    for (int64_t k = 0; k < size; k++) {
        blocks->fractions[k] = (blocks->x[k] - low) / by;
        mean += blocks->shares[k] * blocks->fractions[k];
    }
    for (int64_t k = 0; k < size; k++) {
        const Floats apart = blocks->fractions[k] - mean;
        blocks->weighted[k] = blocks->shares[k] * apart;
        variance += blocks->weighted[k] * apart;
    }
    blocks->mean = mean, blocks->variance = variance;
    blocks->explained = blocks->scale = blocks->mean_of_q = (Floats){0};
}

// Fits scale and offset to q by least squares, and keeps them where they are the best so far.
INLINE void improve(Blocks *blocks) {
    Floats mean = {0}, square = {0}, covariance = {0};
    for (int64_t k = 0; k < blocks->size; k++) {
        const Floats product = blocks->shares[k] * blocks->q[k];
        mean += product;
        square += product * blocks->q[k];
        covariance += blocks->weighted[k] * blocks->q[k];
    }
    const Floats scale = covariance / larger(square - mean * mean, broadcast(TINY));
    const Floats explained = scale * covariance;
    const Flags better = explained > blocks->explained;
    blocks->explained = choose(better, explained, blocks->explained);
    blocks->scale = choose(better, scale, blocks->scale);
    blocks->mean_of_q = choose(better, mean, blocks->mean_of_q);
}

// The offset that belongs to the scale.
INLINE Floats offset_of(const Blocks *blocks) {
    return blocks->mean - blocks->scale * blocks->mean_of_q;
}

// The nearest whole number from 0 to `top`.
INLINE Floats nearest_of(Floats value, float top) {
    return rounded(smaller(larger(value, broadcast(0)), broadcast(top)));
}

// The value that is nearest to x.
INLINE Floats nearest(const Blocks *blocks, Floats x, Floats by, Floats offset) {
    return nearest_of((x - offset) / by, blocks->top);
}

// Rounds the fractions by each of the ranges, and keeps the best fit.
INLINE void try_ranges(Blocks *blocks) {
    for (size_t cut = 0; cut < sizeof CUTS / sizeof *CUTS; cut++) {
        const double as_many = 15.0 / blocks->top;
        const double below = CUTS[cut][0] * as_many, above = CUTS[cut][1] * as_many;
        const float steps = blocks->top / (float)(1 - below - above);
        const float first = (float)below * steps;
        for (int64_t k = 0; k < blocks->size; k++)
            blocks->q[k] = rounded(blocks->fractions[k] * steps - first);
        improve(blocks);
    }
}

// Rounds the fractions by the best fit, and fits once more.
INLINE void refit(Blocks *blocks) {
    const Floats by = divisor(blocks->scale), offset = offset_of(blocks);
    for (int64_t k = 0; k < blocks->size; k++)
        blocks->q[k] = nearest(blocks, blocks->fractions[k], by, offset);
    improve(blocks);
}

// The weighted error of the blocks with this scale and offset.
INLINE Floats error_of(const Blocks *blocks, Halves scales, Halves offsets) {
    const Floats scale = to_floats(scales), offset = to_floats(offsets), by = divisor(scale);
    Floats sum = {0};
    for (int64_t k = 0; k < blocks->size; k++) {
        const Floats x = blocks->x[k], apart = nearest(blocks, x, by, offset) * scale + offset - x;
        sum += apart * apart * blocks->shares[k];
    }
    return sum;
}

// Takes the ends of the range where they are as good: a block on a grid stays exactly as it is.
INLINE void take_ends(const Blocks *blocks, Halves *scales, Halves *offsets) {
    const float step = 15 / blocks->top;
    const Flags near = blocks->variance - blocks->explained < EXACT * step * step;
    int any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= near[lane];
    if (!any) return;
    const Halves plain = to_halves(blocks->range / blocks->top), low = to_halves(blocks->low);
    const Floats found = error_of(blocks, *scales, *offsets);
    const Flags better = near & (error_of(blocks, plain, low) <= found);
    *scales = to_halves(choose(better, to_floats(plain), to_floats(*scales)));
    *offsets = to_halves(choose(better, to_floats(low), to_floats(*offsets)));
}

// Writes the values that are nearest, of each block four bytes at a time.
INLINE void write_values(const Blocks *blocks, Floats scale, Floats offset, int64_t count,
                         uint8_t *values) {
    const Floats by = divisor(scale);
    for (int64_t k = 0; k < blocks->size; k += 4) {
        Words four = {0};
        for (int part = 0; part < 4; part++)
            four |= to_words(nearest(blocks, blocks->x[k + part], by, offset)) << 8 * part;
        for (int64_t lane = 0; lane < count; lane++) {
            const uint32_t word = four[lane];
            memcpy(values + lane * blocks->size + k, &word, sizeof word);
        }
    }
}

INLINE void search_all(const Job *job) {
    Blocks blocks;
    blocks.size = job->size, blocks.top = job->largest;
    for (int64_t start = 0; start < job->count; start += LANES) {
        const int64_t some = job->count - start < LANES ? job->count - start : LANES;
        read_blocks(&blocks, job, start, some);
        prepare(&blocks);
        try_ranges(&blocks);
        refit(&blocks);
        Halves scale = to_halves(blocks.scale * blocks.range);
        Halves offset = to_halves(offset_of(&blocks) * blocks.range + blocks.low);
        take_ends(&blocks, &scale, &offset);
        write_values(&blocks, to_floats(scale), to_floats(offset), some,
                     job->values + start * job->size);
        memcpy(job->scales + start, &scale, some * sizeof *job->scales);
        memcpy(job->offsets + start, &offset, some * sizeof *job->offsets);
    }
}

// The offset that fits best with this scale, for the values that are nearest with `offset`.
INLINE Floats refitted_offset(const Blocks *blocks, Floats scale, Floats offset) {
    const Floats by = divisor(scale);
    Floats mean = {0}, mean_of_q = {0};
    for (int64_t k = 0; k < blocks->size; k++) {
        mean += blocks->shares[k] * blocks->x[k];
        mean_of_q += blocks->shares[k] * nearest(blocks, blocks->x[k], by, offset);
    }
    return mean - scale * mean_of_q;
}

INLINE void fit_all(const Job *job) {
    Blocks blocks;
    blocks.size = job->size, blocks.top = job->largest;
    for (int64_t start = 0; start < job->count; start += LANES) {
        const int64_t some = job->count - start < LANES ? job->count - start : LANES;
        read_blocks(&blocks, job, start, some);
        Floats scale = {0};
        Halves begin = {0};
        memcpy(&scale, job->given + start, some * sizeof *job->given);
        memcpy(&begin, job->offsets + start, some * sizeof *job->offsets);
        Floats offset = to_floats(begin);
        for (int time = 0; time < 2; time++) offset = refitted_offset(&blocks, scale, offset);
        const Floats unit = scale * ((blocks.top + 1) / 256);
        const Floats zero = nearest_of(-offset / divisor(unit), 255);
        write_values(&blocks, scale, -(zero * unit), some, job->values + start * job->size);
        const Words zeros = to_words(zero);
        for (int64_t lane = 0; lane < some; lane++) job->zero_points[start + lane] = zeros[lane];
    }
}

// The code for any CPU, whose bits the tests compare with those of the other.
void search_affine_portable(const Job *job) { search_all(job); }

void fit_zero_points_portable(const Job *job) { fit_all(job); }

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,f16c")))

AVX2 static void search_affine_avx2(const Job *job) { search_all(job); }

AVX2 static void fit_zero_points_avx2(const Job *job) { fit_all(job); }

void search_affine(const Job *job) {
    const Cpu cpu = read_cpu();
    if (has_avx2(&cpu))
        search_affine_avx2(job);
    else
        search_affine_portable(job);
}

// Finds the zero points and values of blocks whose scales are given.
void fit_zero_points(const Job *job) {
    const Cpu cpu = read_cpu();
    if (has_avx2(&cpu))
        fit_zero_points_avx2(job);
    else
        fit_zero_points_portable(job);
}
#else
void search_affine(const Job *job) { search_affine_portable(job); }

void fit_zero_points(const Job *job) { fit_zero_points_portable(job); }
#endif
