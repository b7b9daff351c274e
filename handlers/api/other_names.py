"""What to send instead of a refused field that other servers have under another name.

decoding.py writes it into the error. Only names whose wish can be had here stand in this table.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN_FIELDS = "send its members as fields of their own"

_OF_A_PAIR = "send truncate_prompt_tokens, which counts query and document together"

_NOTHING_STORED = (
    "nothing is stored here, so send the whole conversation as input; clients do so where their "
    "store is false"
)

INSTEAD: Mapping[str, str] = {
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
    "think": "send enable_thinking",
    # DeepSeek
    "thinking": "send enable_thinking",
    # OpenAI's other endpoints
    "max_completion_tokens": "send max_tokens",
    "max_output_tokens": "send max_tokens",
    "messages": "send a text as prompt or input",
    "previous_response_id": _NOTHING_STORED,
    "conversation": _NOTHING_STORED,
    "functions": "send tools",
    "function_call": "send tool_choice",
    # Cohere, Jina and Voyage
    "output_dimension": "send dimensions",
    "output_dtype": "send encoding_format",
    "embedding_type": "send encoding_format",
    "embedding_types": "send encoding_format",
    "max_tokens_per_doc": _OF_A_PAIR,
    "max_doc_length": _OF_A_PAIR,
    "raw_scores": "send use_activation to /v1/classify",
    "activation": "send use_activation",
    "softmax": "send use_activation",
    "images": "a text model is served",
    "content": "send input",
}
