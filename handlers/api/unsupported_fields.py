"""The fields of OpenAI and of other servers that this server does not support.

A field that would change the answer is refused by its name, and the error says what to send in its
place; the others are ignored. A field that only one endpoint refuses stands in that endpoint's
file. docs/api.md lists them all, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

UnsupportedFields = dict[str, tuple[str, ...]]
"""The fields that an endpoint refuses, each with the JSON values that have no effect and pass.

An empty value has no effect whatever the field: EMPTY_VALUES.
"""

EMPTY_VALUES = ("null", '""', "[]", "{}")

NOTHING_STORED = "nothing is stored here"
"""The reason in every error about what an earlier request left behind."""

COMMON: UnsupportedFields = {
    # vLLM
    "bad_words": (),
    "allowed_token_ids": (),
    "use_beam_search": ("false",),
    "prompt_logprobs": (),
    "logprob_token_ids": (),
    "include_stop_str_in_output": ("false",),
    "skip_special_tokens": ("true",),
    "truncate_prompt_tokens": (),
    "return_tokens_as_token_ids": ("false",),
    "return_token_ids": ("false",),
    "return_token_offsets": ("false",),
    "return_prompt_text": ("false",),
    "prompt_embeds": (),
    "repetition_detection": (),
    "watermarking": ("false",),
    "vllm_xargs": (),
    "guided_whitespace_pattern": (),
    "logits_processors": (),
    # llama-server
    "n_predict": ("-1",),
    "n_probs": ("0",),
    "n_cmpl": ("1",),
    "n_indent": ("0",),
    "t_max_predict_ms": ("-1", "0"),
    "samplers": ('"edskypmxt"', '"edkypmxt"'),
    "repeat_penalty": ("1",),
    "repeat_last_n": ("-1", "64"),
    "typical_p": ("1",),
    "mirostat": ("0",),
    "dry_multiplier": ("0",),
    "xtc_probability": ("0",),
    "dynatemp_range": ("0",),
    "top_n_sigma": ("-1", "0"),
    "adaptive_target": ("-1",),
    "min_keep": ("0", "1"),
    "post_sampling_probs": ("false",),
    "return_tokens": ("false",),
    "response_fields": (),
    "image_data": (),
    "multimodal_data": (),
    "lora": (),
    "grammar_lazy": ("false",),
    "generation_prompt": (),
    # SGLang
    "regex": (),
    "ebnf": (),
    "structural_tag": (),
    "stop_regex": (),
    "no_stop_trim": ("false",),
    "custom_params": (),
    "custom_logit_processor": (),
    "lora_path": (),
    "session_params": (),
    "input_ids": (),
    "return_hidden_states": ("false",),
    "return_prompt_token_ids": ("false",),
    "return_meta_info": ("false",),
    "return_routed_experts": ("false",),
    # TGI
    "inputs": (),
    "parameters": (),
    "max_new_tokens": (),
    "do_sample": (),
    "truncate": ("false",),
    "watermark": ("false",),
    "details": ("false",),
    "decoder_input_details": ("false",),
    "top_n_tokens": ("0",),
    "return_full_text": ("false",),
    "adapter_id": (),
    "tool_prompt": (),
    # Text Generation WebUI, Cohere and others that name them so
    "typ_p": ("1",),
    "tfs_z": ("1",),
    "num_ctx": (),
    "mirostat_mode": ("0",),
    "no_repeat_ngram_size": ("0",),
    "min_new_tokens": ("0",),
    "stop_sequences": (),
    # Ollama
    "options": (),
    "num_predict": ("-1",),
    "format": (),
    "system": (),
    "template": (),
    "raw": ("false",),
    "images": (),
    "context": (),
}
"""The fields that every generating endpoint refuses, since each would change the answer."""

CHAT_ONLY: UnsupportedFields = {
    "messages": (),
    "tools": (),
    "tool_choice": ('"none"', '"auto"'),
    "functions": (),
    "function_call": ('"none"', '"auto"'),
    "top_logprobs": ("0",),
    "max_completion_tokens": (),
}
"""The fields that only a chat has: refused where a text is completed."""

THINKING: UnsupportedFields = {
    "chat_template_kwargs": (),
    "enable_thinking": (),
    "thinking": (),
    "think": (),
    "thinking_budget": ("-1",),
    "thinking_token_budget": ("-1",),
    "thinking_budget_tokens": ("-1",),
    "reasoning_budget_tokens": ("-1",),
    "include_reasoning": ("true",),
    "reasoning_format": ('"none"', '"auto"'),
}
"""The fields about thoughts: refused where a text is completed, which has none."""

IGNORED = (
    # OpenAI
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "verbosity",
    # vLLM and SGLang
    "priority",
    "request_id",
    "session_id",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "stream_interval",
    "guided_decoding_backend",
    "return_mm_kwargs",
    "rid",
    "extra_key",
    "custom_labels",
    "routed_dp_rank",
    "disagg_prefill_dp_rank",
    "data_parallel_rank",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "ngram_corpus_id",
    "return_cached_tokens_details",
    "stream_reasoning",
    # llama-server
    "cache_prompt",
    "id_slot",
    "n_cache_reuse",
    "n_keep",
    "n_discard",
    "timings_per_token",
    "return_progress",
    "sse_ping_interval",
    "verbose",
    "backend_sampling",
    "parse_tool_calls",
    # Ollama and LM Studio
    "keep_alive",
    "shift",
    "ttl",
    "draft_model",
    # DeepSeek
    "user_id",
)
"""The fields that are known and ignored: none changes what the answer may say."""

IGNORED_DETAILS = (
    "length_penalty",
    "early_stopping",
    "spaces_between_special_tokens",
    "truncation_side",
    "routed_experts_prompt_start",
    "routed_experts_start_len",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "images_config",
    "max_dynamic_patch",
    "min_dynamic_patch",
    "use_audio_in_video",
    "dynatemp_exponent",
    "xtc_threshold",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "mirostat_tau",
    "mirostat_eta",
    "adaptive_decay",
    "chat_format",
    "chat_parser",
    "preserved_tokens",
    "grammar_triggers",
    "reasoning_control",
    "reasoning_budget_start_tag",
    "reasoning_budget_end_tag",
    "reasoning_budget_end_tags",
    "reasoning_budget_message",
)
"""The fields that are ignored because each only adds to one that is refused."""

_OWN_FIELDS = "send its members as fields of their own"

_COUNT_THE_PAIR = "send truncate_prompt_tokens, which counts query and document together"

_WHOLE_INPUT = (
    f"{NOTHING_STORED}, so send the whole conversation as input; clients do so where their store "
    "is false"
)

ADVICE: Mapping[str, str] = {
    # llama-server
    "n_predict": "send max_tokens",
    "n_probs": "send logprobs",
    "n_cmpl": "send n",
    "repeat_penalty": "send repetition_penalty",
    "t_max_predict_ms": "send max_tokens",
    "embd_normalize": "leave it out, vectors are scaled as the model was trained",
    # vLLM
    "chat_template": "POST what it would give to /v1/completions",
    "allowed_token_ids": "send logit_bias, or structured_outputs.choice for whole answers",
    "truncate_prompt_tokens": "send a shorter prompt, POST /tokenize counts its tokens",
    "prompt_logprobs": "POST /v1/completions with echo and logprobs has them",
    "return_token_ids": "POST the text to /tokenize",
    "return_prompt_text": "POST the same body to /v1/chat/completions/render",
    # SGLang
    "regex": "send structured_outputs.regex",
    "ebnf": "send structured_outputs.grammar",
    "structural_tag": "send tools, or response_format for the form of the whole answer",
    "min_new_tokens": "send min_tokens",
    "stop_sequences": "send stop",
    "num_ctx": "leave it out, KINDLING_CONTEXT_LENGTH sets the context",
    # TGI and TEI
    "inputs": "send input, or prompt where a text is generated",
    "parameters": _OWN_FIELDS,
    "max_new_tokens": "send max_tokens",
    "do_sample": "send temperature, 0 for no sampling",
    "details": "send logprobs",
    "decoder_input_details": "POST /v1/completions with echo and logprobs has them",
    "top_n_tokens": "send top_logprobs in a chat, or logprobs to /v1/completions",
    "return_full_text": "POST /v1/completions with echo has it",
    "texts": "send documents, or input for vectors",
    "return_text": "send return_documents",
    # Ollama
    "options": f"{_OWN_FIELDS}, num_predict as max_tokens",
    "num_predict": "send max_tokens",
    "format": "send response_format",
    "system": "send it as a message of the role system to /v1/chat/completions",
    "raw": "POST /v1/completions applies no template",
    # OpenAI's other endpoints
    "max_completion_tokens": "send max_tokens",
    "max_output_tokens": "send max_tokens",
    "messages": "send a text as prompt or input",
    "previous_response_id": _WHOLE_INPUT,
    "conversation": _WHOLE_INPUT,
    # Anthropic
    "mcp_servers": "connect to them in the client, and send their tools as tools",
    "thread": f"{NOTHING_STORED}, so send the whole conversation as messages",
    "compaction": "ask for a summary in a message",
    "container": "no tool runs here",
    "functions": "send tools",
    "function_call": "send tool_choice",
    # Cohere, Jina and Voyage
    "output_dimension": "send dimensions",
    "output_dtype": "send encoding_format",
    "embedding_type": "send encoding_format",
    "embedding_types": "send encoding_format",
    "max_tokens_per_doc": _COUNT_THE_PAIR,
    "max_doc_length": _COUNT_THE_PAIR,
    "raw_scores": "send use_activation to /v1/classify",
    "activation": "send use_activation",
    "softmax": "send use_activation",
    "images": "a text model is served",
    "content": "send input",
}
"""What to send in place of a refused field, where this server has the same under another name."""
