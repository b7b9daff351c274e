// Reads what a node of LinearAttention is given, and refuses what its kernels could not hold.
#include "linear_attention_inputs.h"

static OrtStatus *refuse(const char *what) { return refuse_call("LinearAttention", what); }

OrtStatus *read_linear_settings(const OrtKernelInfo *info, LinearSettings *s) {
    TRY(ort->KernelInfoGetAttribute_int64(info, "num_heads", &s->heads));
    TRY(ort->KernelInfoGetAttribute_int64(info, "key_heads", &s->key_heads));
    TRY(ort->KernelInfoGetAttribute_float(info, "scale", &s->scale));
    TRY(ort->KernelInfoGetAttribute_float(info, "norm_epsilon", &s->norm_epsilon));
    if (s->heads < 1 || s->key_heads < 1 || s->heads % s->key_heads)
        return refuse("num_heads must be a multiple of key_heads");
    if (!(s->norm_epsilon >= 0)) return refuse("norm_epsilon must be positive, or 0 for no norm");
    s->group = s->heads / s->key_heads;
    return NULL;
}

static OrtStatus *check_state(const Tensor *t, const LinearSettings *s, LinearAttention *a) {
    const Tensor *state = &t[PAST_STATE];
    if (state->rank != 4 || state->sizes[0] != a->batch.rows || state->sizes[1] != s->heads)
        return refuse("past_state is not [rows, num_heads, key_size, value_size]");
    a->key_size = state->sizes[2], a->value_size = state->sizes[3];
    if (a->key_size < 1 || a->key_size > LARGEST_STATE || a->value_size < 1 ||
        a->value_size > LARGEST_STATE)
        return refuse("key_size and value_size are not from 1 to 512");
    return NULL;
}

static OrtStatus *check_tokens(const Tensor *t, const LinearSettings *s, LinearAttention *a) {
    const int64_t rows = a->batch.rows, tokens = a->batch.tokens;
    const int64_t keys[] = {rows, tokens, s->key_heads * a->key_size};
    const int64_t values[] = {rows, tokens, s->heads * a->value_size};
    const int64_t heads[] = {rows, tokens, s->heads};
    if (!has_shape(&t[QUERY], 3, keys) || !has_shape(&t[KEY], 3, keys))
        return refuse("query and key are not [rows, tokens, key_heads * key_size]");
    if (!has_shape(&t[VALUE], 3, values))
        return refuse("value is not [rows, tokens, num_heads * value_size]");
    if (t[DECAY].rank && !has_shape(&t[DECAY], 3, heads))
        return refuse("decay is not [rows, tokens, num_heads]");
    if (t[BETA].rank && !has_shape(&t[BETA], 3, heads))
        return refuse("beta is not [rows, tokens, num_heads]");
    a->query = t[QUERY].data, a->key = t[KEY].data, a->value = t[VALUE].data;
    a->decay = t[DECAY].data, a->beta = t[BETA].data;
    return NULL;
}

OrtStatus *read_linear_attention(const LinearSettings *settings, OrtKernelContext *context,
                                 LinearAttention *a) {
    Tensor t[INPUTS];
    *a = (LinearAttention){.settings = settings};
    TRY(read_inputs(context, INPUTS, t));
    if (t[VALUE].rank != 3) return refuse("value is not [rows, tokens, num_heads * value_size]");
    a->batch.rows = t[VALUE].sizes[0], a->batch.tokens = t[VALUE].sizes[1];
    TRY(check_state(t, settings, a));
    TRY(check_tokens(t, settings, a));
    TRY(read_lengths("LinearAttention", &t[SEQLENS_K], &t[QUERY_SEQLENS], &a->batch));
    TRY(get_output(context, 0, &t[VALUE], (void **)&a->output));
    TRY(get_output(context, 1, &t[PAST_STATE], (void **)&a->state));
    if (a->state == t[PAST_STATE].data) return NULL;
    return refuse("present_state must be bound to past_state's memory");
}
