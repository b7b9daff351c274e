"""`python -m model_export RECIPE [--out DIR]`: exports one model.

RECIPE is a shipped recipe's name (`--list` shows them) or the path of a TOML file. Exit code 0:
the artefact is at DIR and has passed every gate. 1: one line says what is wrong, and DIR is as
it was. With `--dry-run` it says how large the artefact would be and what making it takes, and
writes nothing; exit code 1 then also means that this machine cannot hold the export. With `--plan`
it measures more and more bits for a decoder's matrices, and prints what they cost and keep.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from handlers.errors import KindlingError
from model_export.reporting import ExportError, console

INSTALL = (
    "An export needs torch (pip install torch --index-url https://download.pytorch.org/whl/cpu) "
    "and then the extra kindling[export], or kindling[export-transformers5] (docs/families.md)."
)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    options = _parser().parse_args(arguments)
    _prepare_process()
    try:
        if options.list:
            return _list()
        if options.dry_run:
            return _dry_run(options.recipe, options.out)
        if options.plan:
            return _plan(options.recipe, options.out)
        return _export(options.recipe, options.out)
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed. {INSTALL}", file=sys.stderr)
        return 1
    except (KindlingError, OSError) as error:
        # OSError: the disk is full, or DIR may not be written; its text names the file.
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        return 130


def _list() -> int:
    from model_export.sizing.listing import listing

    print(listing())
    return 0


def _dry_run(name: str, out: Path) -> int:
    from handlers.config import Settings
    from model_export.recipe_loader import check_transformers, load_recipe
    from model_export.sizing.dry_run import dry_run
    from model_export.sizing.limits import check_limits, limits_of

    recipe = load_recipe(name)
    check_transformers(recipe)
    report = console()
    prediction = dry_run(recipe, Settings.from_environ(), report)
    print(prediction.table)
    check_limits(prediction.cost, limits_of(out), report)
    return 0


def _plan(name: str, out: Path) -> int:
    from model_export.pipeline import measure_plans
    from model_export.recipe import DecoderRecipe
    from model_export.recipe_loader import check_transformers, load_recipe

    recipe = load_recipe(name)
    if not isinstance(recipe, DecoderRecipe):
        raise ExportError(
            f"--plan is for decoders, and the recipe {recipe.name} is an encoder's: export it with "
            f'weights = "int8" and with "int4", and compare.'
        )
    check_transformers(recipe)
    print(measure_plans(recipe, out, console()))
    return 0


def _export(name: str, out: Path) -> int:
    from model_export.pipeline import export
    from model_export.recipe_loader import check_transformers, load_recipe

    report = console()
    recipe = load_recipe(name)
    check_transformers(recipe)
    export(recipe, out, report)
    report(f"done: {out} ({_megabytes(out):.0f} MB)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_export",
        description="Exports a language model to ONNX, quantises it and proves that it still "
        "says the same things.",
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("recipe", nargs="?", help="a shipped recipe's name, or a TOML file")
    chosen.add_argument("--list", action="store_true", help="print the shipped recipes")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run",
        action="store_true",
        help="print the sizes, the memory and the machines that RECIPE would need, and what the "
        "export itself takes; it reads the model's configuration, no weights",
    )
    instead.add_argument(
        "--plan",
        action="store_true",
        help='print what weights = "auto" chooses from: bytes, drift and predicted speed of '
        "compact4 and of more and more bits; it takes as long as some exports and leaves nothing",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/model"),
        metavar="DIR",
        help="where the artefact goes; an older one there is replaced (default: %(default)s)",
    )
    return parser


def _prepare_process() -> None:
    """Sets variables that the libraries read while they are imported."""
    # torch's threads otherwise spin while they wait for each other, which on 2 CPUs that others
    # use too made the reference 15 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # DeBERTa's scripted functions would enter a trace as branches; plain, they are traced through.
    os.environ.setdefault("PYTORCH_JIT", "0")
    # The export's own lines say what matters; libraries are heard when something is wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars are for a terminal, not for a log
    # torch's TorchScript exporter is deprecated in favour of one that cannot emit our node.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
            signal.signal(number, _terminate)  # the default would leave the scratch directory


def _terminate(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _megabytes(directory: Path) -> float:
    return sum(path.stat().st_size for path in directory.iterdir()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
