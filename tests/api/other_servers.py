"""The names of the fields that other servers' requests have, by server and path of ours.

Read from their sources at the commits in the links, and from their documentation.
"""

from __future__ import annotations

from typing import NamedTuple

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
GENERATE = "/generate"
EMBEDDINGS = "/v1/embeddings"
CLASSIFY = "/v1/classify"
RERANK = "/v1/rerank"
TOKENIZE = "/tokenize"


class Fields(NamedTuple):
    """The fields that one server takes on one path."""

    server: str
    path: str
    source: str
    names: str

    def __str__(self) -> str:
        return f"{self.server} {self.path}"


_VLLM = "https://github.com/vllm-project/vllm/blob/"
_SGLANG = "https://github.com/sgl-project/sglang/blob/004c82e07d876f6e4a0ad6e15325706b0f478f1a/"
_LLAMA = "https://github.com/ggml-org/llama.cpp/blob/0177c34227eb45eb4c72088b8573c3c8a97673e1/"
_OLLAMA = "https://github.com/ollama/ollama/blob/fb30760996871fa9460115c753afd2c60d4ab0f7/"
_TGI = "https://github.com/huggingface/text-generation-inference/blob/db931fcf42da018a3657580c64bf2720f167f9ab/"
_TEI = "https://github.com/huggingface/text-embeddings-inference/blob/0d124dc9773be6ac5a9a57d8439aba9bbbf33273/"

_VLLM_SAMPLING = """
    model frequency_penalty logit_bias logprobs max_tokens n presence_penalty response_format seed
    stop stream stream_options temperature top_p user use_beam_search top_k min_p repetition_penalty
    watermarking length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side
    prompt_logprobs logprob_token_ids allowed_token_ids bad_words echo add_special_tokens
    structured_outputs priority request_id session_id return_tokens_as_token_ids return_token_ids
    routed_experts_prompt_start return_token_offsets return_mm_kwargs cache_salt kv_transfer_params
    ec_transfer_params vllm_xargs repetition_detection thinking_token_budget stream_interval
    guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
    guided_whitespace_pattern logits_processors best_of early_stopping
"""
"""The last two lines: of older versions, https://docs.vllm.ai/en/v0.8.5/serving/openai_compatible_server.html."""

_SGLANG_SAMPLING = """
    model frequency_penalty logit_bias logprobs max_tokens n presence_penalty response_format seed
    stop stream stream_options temperature top_p user top_k min_p min_tokens regex ebnf
    repetition_penalty stop_token_ids stop_regex no_stop_trim ignore_eos skip_special_tokens
    lora_path session_id session_params custom_params custom_logit_processor images_config
    bootstrap_host bootstrap_port bootstrap_room routed_dp_rank disagg_prefill_dp_rank
    data_parallel_rank rid extra_key cache_salt ngram_corpus_id priority return_hidden_states
    return_routed_experts routed_experts_start_len return_cached_tokens_details return_token_ids
"""

_LLAMA_SAMPLING = """
    verbose timings_per_token stream stream_options cache_prompt return_tokens return_progress
    sse_ping_interval n_predict max_tokens n_indent n_keep n_discard n_cmpl n n_cache_reuse
    t_max_predict_ms response_fields top_k top_p min_p top_n_sigma xtc_probability xtc_threshold
    typical_p temperature dynatemp_range dynatemp_exponent repeat_last_n repeat_penalty
    frequency_penalty presence_penalty dry_multiplier dry_base dry_allowed_length
    dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target
    adaptive_decay seed n_probs logprobs min_keep backend_sampling post_sampling_probs lora
    json_schema grammar grammar_lazy chat_format reasoning_format generation_prompt parse_tool_calls
    chat_parser echo preserved_tokens grammar_triggers reasoning_control reasoning_budget_tokens
    reasoning_budget_start_tag reasoning_budget_end_tags reasoning_budget_end_tag
    reasoning_budget_message logit_bias ignore_eos stop samplers id_slot image_data
    thinking_budget_tokens max_completion_tokens
"""

_OLLAMA_OPTIONS = """
    model stream format keep_alive options think truncate shift logprobs top_logprobs
"""

_VLLM_POOLING = """
    model user truncate_prompt_tokens padding truncation_side request_id priority
    mm_processor_kwargs cache_salt add_special_tokens use_activation
"""

_ANTHROPIC = "https://github.com/anthropics/anthropic-sdk-python/blob/v2.14.0/src/anthropic/types/"

FIELDS = [
    Fields(
        "Anthropic",
        MESSAGES,
        _ANTHROPIC + "beta/message_create_params.py",
        """
        max_tokens messages model billing_policy cache_control compaction container
        context_management diagnostics fallback_credit_token fallbacks inference_geo mcp_servers
        metadata output_config output_format service_tier speed stop_sequences system thinking
        thread tool_choice tools betas user_profile_id workspace_id stream temperature top_p top_k
        """,
    ),
    Fields(
        "Anthropic",
        COUNT,
        _ANTHROPIC + "beta/message_count_tokens_params.py",
        """
        messages model billing_policy cache_control compaction context_management mcp_servers
        output_config output_format speed system thinking tool_choice tools betas user_profile_id
        workspace_id
        """,
    ),
    Fields(
        "Amazon Bedrock and Google Vertex AI",
        MESSAGES,
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html",
        """
        anthropic_version anthropic_beta max_tokens system messages temperature top_p top_k tools
        tool_choice stop_sequences thinking
        """,
    ),
    Fields(
        "vLLM",
        MESSAGES,
        _VLLM + "82df3f491008e46124f7afb5008c789dc7432515/vllm/entrypoints/anthropic/protocol.py",
        """
        model messages max_tokens metadata stop_sequences stream system temperature tool_choice
        tools top_k top_p
        """,
    ),
    Fields(
        "SGLang",
        MESSAGES,
        "https://github.com/sgl-project/sglang/blob/27522b3cee51352753f2a3a793b636d3510b080c/"
        "python/sglang/srt/entrypoints/anthropic/protocol.py",
        """
        model messages max_tokens metadata stop_sequences stream system temperature tool_choice
        tools top_k top_p
        """,
    ),
    Fields(
        "Ollama",
        MESSAGES,
        "https://github.com/ollama/ollama/blob/fe9298a5bdc84f9351238b50e8e1427ba9e9c9b3/"
        "anthropic/anthropic.go",
        """
        model max_tokens messages system stream temperature top_p top_k stop_sequences tools
        tool_choice thinking metadata
        """,
    ),
    Fields(
        "llama.cpp",
        MESSAGES,
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-chat.cpp",
        """
        messages system tools tool_choice stop_sequences max_tokens temperature top_p top_k stream
        chat_template_kwargs thinking metadata
        """,
    ),
    Fields(
        "vLLM",
        CHAT,
        _VLLM + "002032ee2b18e1f7bd924ec47b62504ba3866063/"
        "vllm/entrypoints/openai/chat_completion/protocol.py",
        _VLLM_SAMPLING
        + """
        messages top_logprobs max_completion_tokens tools tool_choice reasoning_effort
        include_reasoning parallel_tool_calls add_generation_prompt continue_final_message documents
        chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs return_prompt_text
        """,
    ),
    Fields(
        "vLLM",
        TEXT,
        _VLLM + "002032ee2b18e1f7bd924ec47b62504ba3866063/"
        "vllm/entrypoints/openai/completion/protocol.py",
        _VLLM_SAMPLING + "prompt suffix prompt_embeds",
    ),
    Fields(
        "vLLM",
        RESPONSES,
        _VLLM + "010a69cea9ac46d2953fa673c3b814f922d1b194/"
        "vllm/entrypoints/openai/responses/protocol.py",
        """
        background include input instructions max_output_tokens max_tool_calls metadata model
        logit_bias parallel_tool_calls previous_response_id prompt reasoning service_tier store
        stream temperature text tool_choice tools top_logprobs top_p top_k truncation user
        skip_special_tokens include_stop_str_in_output prompt_cache_key request_id
        mm_processor_kwargs priority cache_salt enable_response_messages previous_input_messages
        previous_response structured_outputs repetition_penalty seed stop ignore_eos vllm_xargs
        """,
    ),
    Fields(
        "vLLM",
        EMBEDDINGS,
        _VLLM
        + "020638a6b026e4d96f34e6e7ed12c3390fbf7416/vllm/entrypoints/pooling/base/protocol.py",
        _VLLM_POOLING
        + """
        input messages encoding_format embed_dtype endianness dimensions normalize task
        add_generation_prompt continue_final_message chat_template chat_template_kwargs
        media_io_kwargs
        """,
    ),
    Fields(
        "vLLM",
        CLASSIFY,
        _VLLM
        + "020638a6b026e4d96f34e6e7ed12c3390fbf7416/vllm/entrypoints/pooling/base/protocol.py",
        _VLLM_POOLING
        + """
        input messages activation softmax add_generation_prompt continue_final_message chat_template
        chat_template_kwargs media_io_kwargs
        """,
    ),
    Fields(
        "vLLM",
        RERANK,
        _VLLM + "004706d84ceba73d7efe0458e6f682c8691ff904/"
        "vllm/entrypoints/pooling/scoring/protocol.py",
        _VLLM_POOLING + "query documents top_n",
    ),
    Fields(
        "vLLM",
        TOKENIZE,
        _VLLM
        + "030ea52effcb05071543c8c42b8f0145e94cee43/vllm/entrypoints/serve/tokenize/protocol.py",
        """
        model prompt add_special_tokens return_token_strs messages add_generation_prompt
        continue_final_message chat_template chat_template_kwargs media_io_kwargs
        mm_processor_kwargs tools
        """,
    ),
    Fields(
        "SGLang",
        CHAT,
        _SGLANG + "python/sglang/srt/entrypoints/openai/protocol.py",
        _SGLANG_SAMPLING
        + """
        messages top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls
        return_prompt_token_ids return_meta_info reasoning_effort task continue_final_message
        separate_reasoning stream_reasoning chat_template_kwargs max_dynamic_patch min_dynamic_patch
        use_audio_in_video input_ids reasoning
        """,
    ),
    Fields(
        "SGLang",
        TEXT,
        _SGLANG + "python/sglang/srt/entrypoints/openai/protocol.py",
        _SGLANG_SAMPLING + "prompt best_of echo suffix json_schema custom_labels",
    ),
    Fields(
        "llama-server",
        CHAT,
        _LLAMA + "tools/server/server-schema.cpp",
        _LLAMA_SAMPLING
        + """
        messages tools tool_choice parallel_tool_calls response_format top_logprobs
        chat_template_kwargs add_generation_prompt continue_final_message
        """,
    ),
    Fields(
        "llama-server",
        TEXT,
        _LLAMA + "tools/server/server-schema.cpp",
        _LLAMA_SAMPLING + "prompt suffix multimodal_data",
    ),
    Fields(
        "llama-server",
        EMBEDDINGS,
        _LLAMA + "tools/server/README.md",
        "input content model encoding_format dimensions embd_normalize",
    ),
    Fields(
        "llama-server",
        RERANK,
        _LLAMA + "tools/server/README.md",
        "model query documents texts top_n return_text",
    ),
    Fields(
        "llama-server",
        TOKENIZE,
        _LLAMA + "tools/server/README.md",
        "content add_special parse_special with_pieces",
    ),
    Fields(
        "Ollama",
        CHAT,
        _OLLAMA + "api/types.go, openai/openai.go",
        _OLLAMA_OPTIONS
        + """
        messages tools stream_options max_tokens seed stop temperature frequency_penalty
        presence_penalty top_p response_format reasoning reasoning_effort
        """,
    ),
    Fields(
        "Ollama",
        GENERATE,
        _OLLAMA + "api/types.go",
        _OLLAMA_OPTIONS + "prompt suffix system template context raw images",
    ),
    Fields(
        "Ollama",
        EMBEDDINGS,
        _OLLAMA + "api/types.go",
        "model input keep_alive truncate dimensions options prompt encoding_format",
    ),
    Fields(
        "DeepSeek",
        CHAT,
        "https://api-docs.deepseek.com/api/create-chat-completion",
        """
        model messages thinking reasoning_effort max_tokens response_format stop stream
        stream_options temperature top_p tools tool_choice logprobs top_logprobs user_id
        frequency_penalty presence_penalty
        """,
    ),
    Fields(
        "TGI",
        CHAT,
        _TGI + "router/src/lib.rs",
        """
        model messages frequency_penalty logit_bias logprobs top_logprobs max_tokens n
        presence_penalty stop stream seed temperature top_p tools tool_prompt tool_choice
        response_format stream_options
        """,
    ),
    Fields(
        "TGI",
        GENERATE,
        _TGI + "router/src/lib.rs",
        """
        inputs parameters stream best_of temperature repetition_penalty frequency_penalty top_k
        top_p typical_p do_sample max_new_tokens return_full_text stop truncate watermark details
        decoder_input_details seed top_n_tokens grammar adapter_id
        """,
    ),
    Fields(
        "TEI",
        EMBEDDINGS,
        _TEI + "router/src/http/types.rs",
        """
        inputs input truncate truncation_direction prompt_name normalize dimensions model user
        encoding_format
        """,
    ),
    Fields(
        "TEI",
        CLASSIFY,
        _TEI + "router/src/http/types.rs",
        "inputs truncate truncation_direction raw_scores",
    ),
    Fields(
        "TEI",
        RERANK,
        _TEI + "router/src/http/types.rs",
        "query texts truncate truncation_direction raw_scores return_text",
    ),
    Fields(
        "LM Studio",
        CHAT,
        "https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
        """
        model top_p top_k messages temperature max_tokens stream stop presence_penalty
        frequency_penalty logit_bias repeat_penalty seed ttl draft_model tools response_format
        """,
    ),
    Fields(
        "Jina",
        EMBEDDINGS,
        "https://api.jina.ai/redoc",
        """
        model input embedding_type task dimensions normalized late_chunking truncate
        return_multivector
        """,
    ),
    Fields(
        "Jina",
        RERANK,
        "https://api.jina.ai/redoc",
        "model query documents top_n return_documents return_embeddings max_doc_length truncation",
    ),
    Fields(
        "Cohere",
        EMBEDDINGS,
        "https://docs.cohere.com/reference/embed",
        """
        model input_type texts images inputs max_tokens output_dimension embedding_types truncate
        priority
        """,
    ),
    Fields(
        "Cohere",
        RERANK,
        "https://docs.cohere.com/reference/rerank, https://docs.cohere.com/v1/reference/rerank",
        """
        model query documents top_n max_tokens_per_doc priority rank_fields return_documents
        max_chunks_per_doc
        """,
    ),
    Fields(
        "Voyage",
        EMBEDDINGS,
        "https://docs.voyageai.com/reference/embeddings-api",
        "input model input_type truncation output_dimension output_dtype encoding_format",
    ),
    Fields(
        "Voyage",
        RERANK,
        "https://docs.voyageai.com/reference/reranker-api",
        "query documents model top_k return_documents truncation",
    ),
    Fields(
        "NVIDIA NIM",
        EMBEDDINGS,
        "https://docs.nvidia.com/nim/nemo-retriever/text-embedding/1.7.0/reference.html",
        "input model input_type encoding_format truncate dimensions user modality embedding_type",
    ),
]
