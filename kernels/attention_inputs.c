// Reads what a node of Attention is given, and refuses what its kernels could not hold.
#include "attention_inputs.h"

#include "calls.h"

static OrtStatus *refuse(const char *what) { return refuse_call("Attention", what); }

OrtStatus *read_settings(const OrtKernelInfo *info, Settings *s) {
    TRY(ort->KernelInfoGetAttribute_int64(info, "num_heads", &s->heads));
    TRY(ort->KernelInfoGetAttribute_int64(info, "kv_num_heads", &s->kv_heads));
    TRY(ort->KernelInfoGetAttribute_float(info, "scale", &s->scale));
    TRY(ort->KernelInfoGetAttribute_float(info, "softcap", &s->softcap));
    TRY(ort->KernelInfoGetAttribute_int64(info, "window", &s->window));
    TRY(ort->KernelInfoGetAttribute_int64(info, "rotary_interleaved", &s->interleaved));
    if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads)
        return refuse("num_heads must be a multiple of kv_num_heads");
    if (s->window != -1 && (s->window < 1 || s->window > INT32_MAX))
        return refuse("window must be positive, or -1 for none");
    if (!(s->softcap >= 0)) return refuse("softcap must be positive, or 0 for none");
    s->group = s->heads / s->kv_heads;
    return NULL;
}

static OrtStatus *check_caches(const Tensor *t, const Settings *s, Attention *a) {
    const Tensor *keys = &t[PAST_KEY], *values = &t[PAST_VALUE];
    if (values->rank != 4) return refuse("past_value is not [rows, kv_num_heads, capacity, head_size]");
    a->capacity = values->sizes[2];
    a->size = values->sizes[3];
    if (a->capacity % KEY_BLOCK) return refuse("the cache's capacity is not a multiple of 16");
    if (a->size < 1 || a->size > LONGEST_HEAD) return refuse("head_size is not from 1 to 512");
    if (!has_shape(values, 4, (int64_t[]){a->batch.rows, s->kv_heads, a->capacity, a->size}))
        return refuse("past_value is not [rows, kv_num_heads, capacity, head_size]");
    const int64_t blocks = a->capacity / KEY_BLOCK;
    if (!has_shape(keys, 5, (int64_t[]){a->batch.rows, s->kv_heads, blocks, a->size, KEY_BLOCK}))
        return refuse("past_key is not [rows, kv_num_heads, capacity / 16, head_size, 16]");
    return NULL;
}

static OrtStatus *check_new(const Tensor *t, const Settings *s, Attention *a) {
    const int64_t queries = s->heads * a->size, keys = s->kv_heads * a->size;
    const int packed = !t[KEY].rank && !t[VALUE].rank;
    const int64_t shape[] = {a->batch.rows, a->batch.tokens, keys};
    a->query_stride = queries + (packed ? 2 * keys : 0);
    a->key_stride = packed ? a->query_stride : keys;
    if (t[QUERY].sizes[2] != a->query_stride)
        return refuse("query is not as wide as its heads, or as query, key and value together");
    if (!packed && (!has_shape(&t[KEY], 3, shape) || !has_shape(&t[VALUE], 3, shape)))
        return refuse("key and value are not [rows, tokens, kv_num_heads * head_size]");
    a->query = t[QUERY].data;
    a->key = packed ? a->query + queries : t[KEY].data;
    a->value = packed ? a->query + queries + keys : t[VALUE].data;
    return NULL;
}

static OrtStatus *check_tables(const Tensor *t, const Settings *s, Attention *a) {
    const Tensor *cos = &t[COS], *sin = &t[SIN], *sinks = &t[SINKS];
    if (cos->rank || sin->rank) {
        if (cos->rank != 2 || !has_shape(sin, 2, cos->sizes))
            return refuse("cos and sin are not both [positions, turned elements / 2]");
        if (2 * cos->sizes[1] > a->size) return refuse("cos and sin turn more than a head has");
        a->cos = cos->data, a->sin = sin->data, a->rotary_size = 2 * cos->sizes[1];
    }
    if (sinks->rank && !has_shape(sinks, 1, &s->heads)) return refuse("sinks is not [num_heads]");
    if (sinks->rank) a->sinks = sinks->data;
    return NULL;
}

static OrtStatus *check_lengths(const Tensor *t, Attention *a) {
    TRY(read_lengths("Attention", &t[SEQLENS_K], &t[QUERY_SEQLENS], &a->batch));
    for (int64_t row = 0; row < a->batch.rows; row++) {
        if (a->batch.valid[row] == 0) continue;
        if (a->batch.last[row] >= a->capacity) return refuse("a row's tokens do not fit the cache");
        if (a->rotary_size && a->batch.last[row] >= t[COS].sizes[0])
            return refuse("a row is longer than cos and sin have positions");
    }
    return NULL;
}

static OrtStatus *get_outputs(OrtKernelContext *context, const Tensor *t, Attention *a) {
    const int64_t width = a->settings->heads * a->size;
    const Tensor output = {.sizes = {a->batch.rows, a->batch.tokens, width}, .rank = 3};
    TRY(get_output(context, 0, &output, (void **)&a->output));
    TRY(get_output(context, 1, &t[PAST_KEY], &a->keys));
    TRY(get_output(context, 2, &t[PAST_VALUE], &a->values));
    if (a->keys == t[PAST_KEY].data && a->values == t[PAST_VALUE].data) return NULL;
    return refuse("present_key and present_value must be bound to past_key's and past_value's memory");
}

OrtStatus *read_attention(const Node *node, OrtKernelContext *context, Attention *a) {
    const Settings *settings = &node->settings;
    Tensor t[INPUTS];
    *a = (Attention){.settings = settings, .is_half = node->is_half};
    TRY(read_inputs(context, INPUTS, t));
    if (t[QUERY].rank != 3) return refuse("query is not [rows, tokens, width]");
    a->batch.rows = t[QUERY].sizes[0], a->batch.tokens = t[QUERY].sizes[1];
    TRY(check_caches(t, settings, a));
    TRY(check_new(t, settings, a));
    TRY(check_tables(t, settings, a));
    TRY(check_lengths(t, a));
    return get_outputs(context, t, a);
}
