"""A tiny random language model that ranks by saying yes or no, and its recipe."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from handlers.artifact.manifest import PairPrompt
from tests.support.tiny_folder import save_tiny_folder

YES, NO = "y", "n"
PROMPT = PairPrompt(
    template="<|im_start|>system\nJudge: {instruction}<|im_end|>\n<|im_start|>user\n"
    "Query: {query}\nDocument: {document}<|im_end|>\n<|im_start|>assistant\n\n",
    instruction="Find what answers.",
)
TABLE = f"""
[export.judge]
yes = "{YES}"
no = "{NO}"
instruction = "{PROMPT.instruction}"
template = '''
{PROMPT.template}'''
"""


def save_judge_folder(directory: Path, family: str = "qwen3") -> Path:
    """Saves a random causal language model with a byte-level tokenizer, without a chat template."""
    return save_tiny_folder(directory, family, chat_template=None)


def prompt_of(query: str, document: str, instruction: str | None = None) -> str:
    """Renders PROMPT. The texts must have no placeholders."""
    text = PROMPT.template.replace("{instruction}", instruction or str(PROMPT.instruction))
    return text.replace("{query}", query).replace("{document}", document)


def share_of_yes(folder: Path, prompts: list[str]) -> list[float]:
    """Asks transformers for the share of yes among yes and no, as Qwen3-Reranker's page does."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer.convert_tokens_to_ids([NO, YES])
    shares = []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1, words]
        shares.append(float(torch.softmax(logits, dim=0)[1]))
    return shares
