"""The tensors of a GGUF file, a range of rows at a time, are what transformers makes of all."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from model_export.fetch import gguf_weights, skeleton
from model_export.fetch.gguf_weights import GgufTensor
from model_export.fetch.load import DECODER
from model_export.fetch.locate import Located
from model_export.fetch.safetensors_file import WeightFile
from model_export.fetch.skeleton import load_skeleton
from model_export.fetch.stand_ins import fill, weight_of
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_models import tiny_model

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(7, 64), (3, 2, 64), (64,)])
def test_rows_of_a_tensor_are_dequantised_alone(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(7).standard_normal(shape, np.float32)
    blocks = gguf.quantize(values, kind)
    (tmp_path / "file").write_bytes(bytes(5) + blocks.tobytes())
    tensor = GgufTensor(WeightFile(tmp_path / "file"), kind, shape, 5)
    whole = gguf.dequantize(blocks, kind)
    for start, stop in ((0, None), (1, 3), (2, 2)):
        assert np.array_equal(tensor.read(start, stop), whole[start:stop])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_a_quantised_file_gives_what_transformers_makes_of_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skeleton, "_REAL", 0)
    path = write_tiny_gguf(tmp_path / "tiny.gguf", quantised=gguf.GGMLQuantizationType[kind])
    expected = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    )
    located = Located(tmp_path, path.name, (), "gguf:tiny.gguf", "0")
    model, missing = load_skeleton(located, DECODER.auto_class, lambda _: None)
    assert not list(missing)
    assert all(weight_of(parameter) is not None for parameter in model.parameters())
    fill(model)
    found = model.state_dict()
    assert list(found) == list(expected.state_dict())
    assert all(torch.equal(found[name], one) for name, one in expected.state_dict().items())


def test_experts_are_loaded_whole_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_weights, "_EXPERTS", "ffn_up")  # stands for theirs
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    lines: list[str] = []
    located = Located(tmp_path, path.name, (), "gguf:tiny.gguf", "0")
    model, _ = load_skeleton(located, DECODER.auto_class, lines.append)
    assert lines == ["load all weights of tiny.gguf into memory: transformers places them at once"]
    expected = tiny_model("llama").state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in model.state_dict().items())
