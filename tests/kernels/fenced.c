// Attention of one row with a page that may not be touched right behind each piece of its memory, so
// that what reads or writes beyond one ends this program by a signal. test_attention_memory.py.
//
// fenced KERNELS [HEADS KV_HEADS SIZE WINDOW IS_HALF PAST TOKENS TOKENS_OF_A_PART]...
// prints each eight numbers before it computes with them.
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

static void attend_all(const Kernels *kernels, const Attention *a, int64_t tokens_per_part) {
    float *scratch = floats(kernels->scratch(a, tokens_per_part, a->batch.last[0] + 1));
    kernels->remember(a, 0, 0, a->batch.tokens);
    for (int64_t kv_head = 0; kv_head < a->settings->kv_heads; kv_head++)
        for (int64_t first = 0; first < a->batch.tokens; first += tokens_per_part) {
            const int64_t count = least(tokens_per_part, a->batch.tokens - first);
            kernels->attend(a, &(Part){0, kv_head, first, count}, scratch);
        }
}

static void compute(const Kernels *kernels, const int64_t *n) {
    const int64_t heads = n[0], kv_heads = n[1], size = n[2], past = n[5], tokens = n[6];
    const Settings settings = {heads, kv_heads, heads / kv_heads, n[3], 0, 1, 0};
    const int32_t last = (int32_t)(past + tokens - 1), valid = (int32_t)tokens;
    Attention a = {.settings = &settings, .batch = {1, tokens, &last, &valid}, .size = size,
                   .is_half = n[4], .capacity = round_up(past + tokens, SPAN)};
    const int64_t cache = kv_heads * a.capacity * size * (a.is_half ? 2 : 4);
    a.query_stride = heads * size, a.key_stride = kv_heads * size;
    a.query = floats(tokens * heads * size), a.output = floats(tokens * heads * size);
    a.key = floats(tokens * kv_heads * size), a.value = floats(tokens * kv_heads * size);
    a.keys = fenced(cache), a.values = fenced(cache);
    attend_all(kernels, &a, n[7]);
}

int main(int count, char **words) {
    const Kernels *kernels = kernels_for_this_cpu(words[1]);
    if (!kernels) return 3;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (words += 2, count -= 2; count >= NUMBERS; words += NUMBERS, count -= NUMBERS) {
        int64_t numbers[NUMBERS];
        for (int i = 0; i < NUMBERS; i++)
            printf("%s%c", words[i], i + 1 < NUMBERS ? ' ' : '\n'), numbers[i] = atoll(words[i]);
        compute(kernels, numbers);
    }
    return 0;
}
