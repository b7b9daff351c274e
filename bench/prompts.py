"""Texts of exactly so many tokens, the same ones for every server.

They are made in a process of their own, `python -m bench.prompts COUNTS`, since the tokenizer's
library, once imported, would stay in memory when the page cache is emptied.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.servers import ROOT

TEXT = ROOT / "model_export" / "corpus" / "evaluation.txt"
MODEL = ROOT / "build" / "model"


class Prompts:
    """One server's queue of them. None comes twice, so that no server's prefix cache can help."""

    def __init__(self, texts: Mapping[int, Sequence[str]]) -> None:
        self._left = {length: iter(same) for length, same in texts.items()}

    def take(self, length: int) -> str:
        """The next one of `length` tokens."""
        try:
            return next(self._left[length])
        except (KeyError, StopIteration):
            raise RuntimeError(f"No prompt of {length} tokens is left: make more.") from None


def make_prompts(counts: Mapping[int, int], model: Path = MODEL) -> dict[int, list[str]]:
    """Makes that many texts of each length in tokens of the exported model."""
    command = [sys.executable, "-m", "bench.prompts", json.dumps(counts), str(model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"The prompts could not be made:\n{done.stderr}")
    return {int(length): texts for length, texts in json.loads(done.stdout).items()}


def texts_of(length: int, tokenizer_file: Path) -> Iterator[str]:
    """Parts of the shipped text, each from the next word on, and round again where it ends.

    All servers add the same special tokens around a bare text, so these are in the count.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    words = TEXT.read_text().split()
    for start in range(len(words)):
        rotated = itertools.islice(itertools.cycle(words), start, start + length)
        ids = tokenizer.encode(" ".join(rotated)).ids[:length]
        prompt: str = tokenizer.decode(ids)
        # A cut inside a word may encode in another way than it decoded: then the next start.
        if len(tokenizer.encode(prompt).ids) == length:
            yield prompt


def main() -> None:
    """Reads {length: count}, writes {length: texts}."""
    tokenizer_file = Path(sys.argv[2]) / "tokenizer.json"
    texts = {
        length: list(itertools.islice(texts_of(int(length), tokenizer_file), count))
        for length, count in json.loads(sys.argv[1]).items()
    }
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
