"""Has llama.cpp quantise a folder's model in its own ways, with and without an importance matrix.

The folder is one of bench.permuted_model's, or any with source/ in it. llama.cpp's files go to
llama.cpp/ beside: f32.gguf and importance.gguf are kept, a quantised file is its user's to remove.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.folder_recipe import SOURCE, VOCABULARY
from bench.peers import llama_cpp
from bench.prepare import run_once
from handlers.cpus import available_cpus

TYPES = ("Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
WITHOUT_IMPORTANCE = ("Q8_0",)
"""Types whose rounding asks for no importance: the two files would be the same."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised file."""

    type: str
    importance: bool
    path: Path


def quantised_files(folder: Path, text: str) -> Iterator[Quantised]:
    """Yields one file of each kind. The importance matrix is that of `text`.

    Raises NotRunnable where a program cannot be had or fails.
    """
    out = folder / "llama.cpp"
    out.mkdir(exist_ok=True)
    llama_cpp.prepare_export()
    llama_cpp.build("llama-imatrix")
    whole = out / "f32.gguf"
    run_once(whole, *llama_cpp.convert(folder / SOURCE, whole, "f32", _vocabulary(folder)))
    importance = importance_of(whole, text, out)
    for type_ in TYPES:
        for given in (None, importance):
            if given is not None and type_ in WITHOUT_IMPORTANCE:
                continue
            path = out / f"{type_}{'' if given is None else '-importance'}.gguf"
            path.unlink(missing_ok=True)
            options = () if given is None else ("--imatrix", str(given))
            program = str(llama_cpp.binaries() / "llama-quantize")
            run_once(path, (program, *options, str(whole), str(path), type_, _threads()))
            yield Quantised(type_, given is not None, path)


def importance_of(whole: Path, text: str, out: Path) -> Path:
    """Measures the inputs of each matrix on `text`, unless that was done before."""
    words = out / "calibration.txt"
    made = out / "importance.gguf"
    if not words.is_file() or words.read_text(encoding="utf-8") != text:
        words.write_text(text, encoding="utf-8")
        made.unlink(missing_ok=True)
    program = str(llama_cpp.binaries() / "llama-imatrix")
    files = ("-m", str(whole), "-f", str(words), "-o", str(made))
    run_once(made, (program, *files, "--parse-special", "--no-ppl", "-t", _threads()))
    return made


def _vocabulary(folder: Path) -> Path | None:
    path = folder / VOCABULARY
    return path if path.is_file() else None


def _threads() -> str:
    return str(available_cpus())
