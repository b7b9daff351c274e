// An operator on one row with a page that may not be touched right behind each piece of its memory,
// so that what reads or writes beyond one ends this program by a signal. test_memory.py.
//
// fenced KERNELS OPERATOR [NUMBERS]...
// prints the numbers of each case, whose meaning is below, before it computes with them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels.h"

enum { PAGE = 4096, NUMBERS = 8 };

// Numbers like 1.0 in every float and float16, right before the page.
static void *fenced(int64_t bytes) {
    const int64_t whole = round_up(bytes, PAGE);
    const int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
    char *memory = mmap(NULL, whole + PAGE, access, kind, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + whole, PAGE, PROT_NONE)) exit(2);
    memset(memory, 0x3c, whole);
    return memory + whole - bytes;
}

static float *floats(int64_t count) { return fenced(count * sizeof(float)); }

// One row of some new tokens behind those of before.
static Batch batch_of(int64_t past, int64_t tokens) {
    int32_t *last = fenced(sizeof *last), *valid = fenced(sizeof *valid);
    *last = (int32_t)(past + tokens - 1), *valid = (int32_t)tokens;
    return (Batch){1, tokens, last, valid};
}

static void attend_all(const Kernels *kernels, const Attention *a, int64_t tokens_per_part) {
    float *scratch = floats(kernels->scratch(a, tokens_per_part, a->batch.last[0] + 1));
    kernels->store_kv(a, 0, 0, a->batch.tokens);
    for (int64_t kv_head = 0; kv_head < a->settings->kv_heads; kv_head++)
        for (int64_t first = 0; first < a->batch.tokens; first += tokens_per_part) {
            const int64_t count = min(tokens_per_part, a->batch.tokens - first);
            kernels->attend(a, &(Part){0, kv_head, first, count}, scratch);
        }
}

// HEADS KV_HEADS SIZE WINDOW IS_HALF PAST TOKENS TOKENS_OF_A_PART
static void attention(const Kernels *kernels, const int64_t *n) {
    const int64_t heads = n[0], kv_heads = n[1], size = n[2], past = n[5], tokens = n[6];
    const Settings settings = {heads, kv_heads, heads / kv_heads, n[3], 0, 1, 0};
    Attention a = {.settings = &settings, .batch = batch_of(past, tokens), .size = size,
                   .is_half = n[4], .capacity = round_up(past + tokens, KEY_BLOCK)};
    const int64_t cache = kv_heads * a.capacity * size * (a.is_half ? 2 : 4);
    a.query_stride = heads * size, a.key_stride = kv_heads * size;
    a.query = floats(tokens * heads * size), a.output = floats(tokens * heads * size);
    a.key = floats(tokens * kv_heads * size), a.value = floats(tokens * kv_heads * size);
    a.keys = fenced(cache), a.values = fenced(cache);
    attend_all(kernels, &a, n[7]);
}

// CHANNELS WIDTH HAS_BIAS PAST TOKENS
static void convolution(const Kernels *kernels, const int64_t *n) {
    const int64_t channels = n[0], width = n[1], tokens = n[4];
    Convolution c = {.batch = batch_of(n[3], tokens), .channels = channels, .width = width};
    c.x = floats(tokens * channels), c.output = floats(tokens * channels);
    c.weight = floats(channels * width), c.bias = n[2] ? floats(channels) : NULL;
    c.state = floats((width - 1) * channels);
    for (int64_t first = 0; first < channels; first += CHANNELS) kernels->convolve(&c, 0, first);
}

// HEADS KEY_HEADS KEY_SIZE VALUE_SIZE HAS_DECAY HAS_BETA PAST TOKENS
static void linear(const Kernels *kernels, const int64_t *n) {
    const int64_t heads = n[0], key_heads = n[1], tokens = n[7];
    const LinearSettings settings = {heads, key_heads, heads / key_heads, 1, 1};
    LinearAttention a = {.settings = &settings, .batch = batch_of(n[6], tokens),
                         .key_size = n[2], .value_size = n[3]};
    float *query = floats(tokens * key_heads * a.key_size);
    a.query = query, a.key = floats(tokens * key_heads * a.key_size);
    a.value = floats(tokens * heads * a.value_size);
    a.output = floats(tokens * heads * a.value_size);
    a.decay = n[4] ? floats(tokens * heads) : NULL, a.beta = n[5] ? floats(tokens * heads) : NULL;
    a.state = floats(heads * a.key_size * a.value_size);
    for (int64_t head = 0; head < tokens * key_heads; head++)
        kernels->normalise(a.key + head * a.key_size, a.key_size, 1, query + head * a.key_size);
    for (int64_t head = 0; head < heads; head++)
        for (int64_t first = 0; first < a.value_size; first += COLUMNS)
            kernels->linear_attention_scan(&a, 0, head, first);
}

// BITS KIND_OF_SCALES BLOCK_SIZE INPUTS OUTPUTS ROWS
static void affine(const Kernels *kernels, const int64_t *n) {
    const int64_t bits = n[0], inputs = n[3], outputs = n[4], rows = n[5];
    const int64_t blocks = round_up(inputs, BLOCK) / BLOCK, groups = round_up(outputs, LANES) / LANES;
    const int64_t scales = round_up(inputs, n[2]) / n[2], figures = groups * scales * LANES * 2;
    const int has_offsets = n[1] == 1, is_compact = n[1] == 2;
    const Weights w = {.packed = fenced(groups * blocks * BLOCK * LANES / 8 * bits),
                       .scales = is_compact ? NULL : fenced(figures),
                       .offsets = has_offsets ? fenced(figures) : NULL,
                       .compact = is_compact ? fenced(figures) : NULL,
                       .row_scales = is_compact ? fenced(groups * LANES * 2) : NULL,
                       .bias = floats(outputs), .inputs = inputs, .outputs = outputs,
                       .groups = groups, .blocks = blocks, .scale_count = scales,
                       .blocks_per_scale = n[2] / BLOCK, .bits = bits};
    const Rows x = {fenced(rows * blocks * BLOCK), floats(rows * blocks), floats(rows * blocks),
                    fenced(rows * blocks * sizeof(int32_t)), rows, blocks};
    const float *from = floats(rows * inputs);
    float *y = floats(rows * outputs);
    for (int64_t row = 0; row < rows; row++) kernels->quantize(from + row * inputs, inputs, &x, row);
    for (int64_t group = 0; group < groups; group++) kernels->multiply(&w, &x, group, y);
}

static const struct {
    const char *name;
    int numbers;
    void (*compute)(const Kernels *kernels, const int64_t *numbers);
} operators[] = {{"affine", 6, affine}, {"attention", 8, attention}, {"convolution", 5, convolution},
                 {"linear", 8, linear}};

int main(int count, char **words) {
    const Kernels *kernels = kernels_for_this_cpu(words[1]);
    if (!kernels) return 3;
    setvbuf(stdout, NULL, _IONBF, 0);
    int chosen = 0;
    while (strcmp(operators[chosen].name, words[2])) chosen++;
    const int each = operators[chosen].numbers;
    for (words += 3, count -= 3; count >= each; words += each, count -= each) {
        int64_t numbers[NUMBERS];
        for (int i = 0; i < each; i++)
            printf("%s%c", words[i], i + 1 < each ? ' ' : '\n'), numbers[i] = atoll(words[i]);
        operators[chosen].compute(kernels, numbers);
    }
    return 0;
}
