"""Builds and labels the two images. Run by `make images`; needs Docker with BuildKit.

    python3 scripts/images.py RECIPE TAG [options of `docker build`]

A Dockerfile cannot make a label of what one of its stages wrote. So the export is built first, its
manifest is taken out, and the builds of the images then find the export in the cache. With
`--build-arg MODEL=outside` nothing is exported and no label names a model. DOCKER names the program
where it is not `docker`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCKER = os.environ.get("DOCKER") or "docker"
IMAGES = {"lambda": "kindling-lambda", "cloudrun": "kindling-cloudrun"}
# Lambda refuses an image index, which is what buildx makes in order to attach a provenance.
ENVIRON = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

OUTSIDE = {"MODEL=outside", "--build-arg=MODEL=outside"}

# A label of the bases that tests/images/stand_in_base makes.
STAND_IN = "kindling.stand-in"

# What made a layer, as `docker history` words it -> what it holds.
LAYERS = {
    "compileall -f": "standard library, compiled",
    "COPY /deps": "dependencies",
    "COPY /model": "model",
    "COPY /code": "code",
}


def main(recipe: str, tag: str, options: list[str]) -> None:
    """Builds both, and prints what they weigh. A tag keeps one recipe's beside another's."""
    path = ROOT / "model_export" / "recipes" / f"{recipe}.toml"
    if not path.is_file():
        sys.exit(
            f"An image is built from what the repository holds: put the recipe into "
            f"model_export/recipes/ and give its name, without .toml, instead of {recipe!r}."
        )
    options = ["--build-arg", f"RECIPE={recipe}", *exporter(path.read_text()), *options]
    outside = not OUTSIDE.isdisjoint(options)
    labels = labels_of(None if outside else export_manifest(options))
    for cloud, image in IMAGES.items():
        pairs = labels | {"org.opencontainers.image.title": image}
        named = [part for pair in pairs.items() for part in ("--label", "=".join(pair))]
        build(cloud, [*options, *named, "--tag", f"{image}:{tag}"])
    for image in (f"{name}:{tag}" for name in IMAGES.values()):
        print(image, *(f"{size / 1e6:8.1f} MB  {what}" for what, size in layers(image)), sep="\n")
        if inspect(image)["Labels"].get(STAND_IN):
            print("Its base is a stand-in that was made here: for tests, not for a registry.")


def exporter(recipe: str) -> list[str]:
    """The options that choose the export's packages, by a recipe's text.

    By a pattern, since a Python without tomllib can build images too. Should it miss the key, the
    export says so.
    """
    needs_5 = re.search(r"^transformers *= *5\b", recipe, re.MULTILINE)
    return ["--build-arg", "TRANSFORMERS=5"] if needs_5 else []


def export_manifest(options: list[str]) -> bytes:
    """manifest.json of the exported model."""
    with tempfile.TemporaryDirectory() as directory:
        build("lambda", [*options, "--target", "manifest", "--output", directory])
        return (Path(directory) / "manifest.json").read_bytes()


def labels_of(manifest: bytes | None) -> dict[str, str]:
    """The labels of an image with the manifest's model, or with none.

    OCI's own names where it has one: https://specs.opencontainers.org/image-spec/annotations/.
    """
    labels = {
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.revision": revision(),
    }
    if manifest is not None:
        labels |= model_labels(manifest)
    return {name: value for name, value in labels.items() if value}


def model_labels(manifest: bytes) -> dict[str, str]:
    """The labels that manifest.json gives; the licences of the models in it join ours."""
    described = json.loads(manifest)
    model, draft = described["model"], described.get("draft")
    licences = ["Apache-2.0", model["licence"]]
    labels = {
        "kindling.model.id": model["id"],
        "kindling.model.revision": model["revision"],
        "kindling.model.licence": model["licence"],
        "kindling.precision": described["precision"],
        "kindling.manifest.sha256": hashlib.sha256(manifest).hexdigest(),
    }
    if draft is not None:
        origin = draft["origin"] or model
        licences.append(origin["licence"])
        labels |= {
            "kindling.draft.id": origin["id"],
            "kindling.draft.revision": origin["revision"],
            "kindling.draft.licence": origin["licence"],
        }
    return {"org.opencontainers.image.licenses": " AND ".join(dict.fromkeys(licences)), **labels}


def version() -> str:
    """Kindling's. By a pattern, as hatchling reads it: scripts have no package in reach."""
    text = (ROOT / "handlers" / "__init__.py").read_text(encoding="utf-8")
    found: list[str] = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return found[0]


def revision() -> str:
    """The commit, "-dirty" with changes on top of it; empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def build(cloud: str, options: list[str]) -> None:
    """One `docker build`; ends the program when it fails, since Docker has said why."""
    # Not ".": Docker 20.10 keeps what it was sent by the context's name, and took an unchanged
    # folder for a changed one after it had been sent another repository by the same name.
    command = [DOCKER, "build", "--file", f"Dockerfile.{cloud}", *options, str(ROOT)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=ENVIRON, check=False)
    except FileNotFoundError:
        sys.exit(f"There is no {DOCKER}: install Docker, or name its program in DOCKER.")
    if done.returncode != 0:
        sys.exit(done.returncode)


def inspect(image: str) -> dict[str, Any]:
    """The image's configuration: its entry point, user, labels."""
    config: dict[str, Any] = json.loads(_output("inspect", image))[0]["Config"]
    return config


def layers(image: str) -> list[tuple[str, int]]:
    """The image from the bottom up: what each part holds, and its uncompressed bytes."""
    form = "{{.Size}}\t{{.CreatedBy}}"
    sizes = {"base": 0} | dict.fromkeys(LAYERS.values(), 0)
    for line in _output(
        "history", "--human=false", "--no-trunc", "--format", form, image
    ).splitlines():
        size, _, command_line = line.partition("\t")
        sizes[_holding(command_line)] += int(size)
    return list(sizes.items())


def _output(*arguments: str) -> str:
    command = [DOCKER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _holding(command_line: str) -> str:
    return next((what for mark, what in LAYERS.items() if mark in command_line), "base")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
