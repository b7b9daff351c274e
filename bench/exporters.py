"""The ways to make an artefact of a model's folder: ours, llama.cpp's, onnxruntime-genai's.

Each reads <folder>/source and writes into <folder>/<its own name>.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.peers import genai, llama_cpp
from bench.prepare import NotRunnable
from bench.servers import ROOT, python
from bench.watched import Command
from handlers.cpus import available_cpus

Commands = Mapping[str, Command]
"""Programs that run one after the other, by the name of the stage that each is."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A program, or several, that make an artefact."""

    name: str
    commands: Callable[[Path], Commands]
    """Takes the model's folder."""
    artefact: str
    """The result's path below the exporter's own folder."""
    prepare: Callable[[], None] = lambda: None
    """Raises NotRunnable where the programs cannot be had."""
    reports: bool = False
    """Its only program prints lines with the time of each stage, as our export does."""

    def result(self, folder: Path) -> Path:
        """The file or the directory that it makes."""
        return folder / self.name / self.artefact


def export_command(recipe: str, out: Path, tree: Path = ROOT) -> Command:
    """The export of a recipe by its name or path, as a revision's working tree has it."""
    return Command(python("-m", "model_export", recipe, "--out", str(out)), tree)


def kindling(name: str = "kindling", tree: Path = ROOT, recipe: str | None = None) -> Exporter:
    """Our export with all gates: of the folder, or of a shipped recipe's own source."""

    def commands(folder: Path) -> Commands:
        source = recipe or str(folder / "recipe.toml")
        return {"export": export_command(source, folder / name / "model", tree)}

    return Exporter(name, commands, "model", reports=True)


def _llama_cpp(folder: Path) -> Commands:
    out = folder / "llama.cpp"
    bf16, q4_1 = str(out / "bf16.gguf"), str(out / "q4_1.gguf")
    words, environ = llama_cpp.convert(folder / "source", out / "bf16.gguf", "bf16")
    quantize = (str(llama_cpp.binaries() / "llama-quantize"), bf16, q4_1, "Q4_1")
    return {
        "convert": Command(words, environ=environ),
        "quantize": Command((*quantize, str(available_cpus()))),
    }


def _genai(folder: Path) -> Commands:
    out = folder / "genai"
    words = genai.builder(folder / "source", out / "model")
    command = Command((*words, "-c", str(out / "cache")), environ={"HF_HUB_OFFLINE": "1"})
    return {"build": command}


def _prepare_genai() -> None:
    if importlib.util.find_spec("onnxruntime_genai") is None:
        raise NotRunnable("onnxruntime-genai is not installed")


LLAMA_CPP = Exporter("llama.cpp", _llama_cpp, "q4_1.gguf", llama_cpp.prepare_export)
GENAI = Exporter("genai", _genai, "model", _prepare_genai)
