"""Builds a source's model with stand-ins for its large weights, so that it takes little memory.

transformers' own from_pretrained places the weights: it is given them as lazy tensors, by the
names of the files, and renames, joins, splits and ties them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.models.auto import auto_factory

from model_export.fetch.checkpoint import CheckpointTensor, open_checkpoint
from model_export.fetch.lazy import LazyTensor, read
from model_export.fetch.locate import Located
from model_export.fetch.packed_weights import unpacked
from model_export.fetch.packing import Packing, packing_of
from model_export.fetch.stand_ins import stand_in
from model_export.grouped_weights import GroupedWeight
from model_export.reporting import ExportError, Report

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_REAL = 65_536
"""Values: smaller parameters, as norms and biases, are read at once."""
_PLACED: dict[str, Any] = {
    "dtype": torch.float32,
    "local_files_only": True,
    "trust_remote_code": False,
    "attn_implementation": "eager",  # transformers' SDPA leaves out Gemma 2's soft cap
    "output_loading_info": True,
}


def load_skeleton(
    located: Located, auto_class: str, report: Report
) -> tuple[PreTrainedModel, Iterable[str]]:
    """Returns the model in evaluation mode, and the names of weights that the files lack.

    Raises ExportError for files that cannot be read, and what transformers raises.
    """
    auto = getattr(transformers, auto_class)
    if located.gguf_file is not None:
        model, info = _of_gguf(located, located.gguf_file, auto, report)
    else:
        config = _config(located)
        state = {name: _tensor(tensor) for name, tensor in _open(located, config).items()}
        model, info = _placed_in(auto, config, state)
        _read_generation_config(model, located)
    put_stand_ins(model)
    return model.eval(), info["missing_keys"]


def _of_gguf(located: Located, name: str, auto: Any, report: Report) -> Any:
    from model_export.fetch.gguf_weights import is_loaded_whole, open_gguf

    path = located.directory / name
    if is_loaded_whole(path):
        report(f"load all weights of {name} into memory: transformers places them at once")
        return auto.from_pretrained(located.directory, gguf_file=name, **_PLACED)
    config = _config(located)
    with torch.device("meta"):
        outline = auto.from_config(config, trust_remote_code=False)
    state = {name: LazyTensor(weight) for name, weight in open_gguf(path, outline).items()}
    return _placed_in(auto, config, state)


def _placed_in(auto: Any, config: PretrainedConfig, state: Mapping[str, torch.Tensor]) -> Any:
    """Makes the model and what transformers says of its loading.

    The class is found as the auto class finds it, which itself wants a folder.
    """
    mapping = auto._model_mapping
    if type(config) not in mapping:
        return auto.from_config(config, trust_remote_code=False)  # says why not
    kind = auto_factory._get_model_class(config, mapping)
    if kind.config_class == config.sub_configs.get("text_config"):
        config = config.get_text_config()
    return kind.from_pretrained(None, config=config, state_dict=dict(state), **_PLACED)


def _config(located: Located) -> PretrainedConfig:
    config: PretrainedConfig = transformers.AutoConfig.from_pretrained(
        located.directory,
        gguf_file=located.gguf_file,
        local_files_only=True,
        trust_remote_code=False,
    )
    return config


def _open(
    located: Located, config: PretrainedConfig
) -> Mapping[str, CheckpointTensor | GroupedWeight]:
    """Opens the folder's files, and makes a plain configuration of one of packed weights."""
    packing = packing_of(config.to_dict())
    try:
        tensors = open_checkpoint(located.directory)
        if not isinstance(packing, Packing):
            return tensors
        del config.quantization_config
        return unpacked(tensors, packing)
    except ExportError as error:
        raise ExportError(f"{located.description}: {error}") from error


def _tensor(tensor: CheckpointTensor | GroupedWeight) -> torch.Tensor:
    """Returns integers as they are: they are small buffers, as positions."""
    if isinstance(tensor, GroupedWeight) or tensor.is_float:
        return LazyTensor(tensor)
    return torch.from_numpy(tensor.stored())


def _read_generation_config(model: PreTrainedModel, located: Located) -> None:
    """Reads what from_pretrained reads of a folder, but not beside a state_dict."""
    if not model.can_generate():
        return
    options: dict[str, Any] = {"local_files_only": True}
    kind = transformers.GenerationConfig
    try:
        model.generation_config = kind.from_pretrained(located.directory, **options)
    except OSError:  # there is none, and transformers 5 keeps none of config.json's values
        if hasattr(model, "adjust_generation_fn"):
            options |= {"config_file_name": "config.json", "_from_model_config": True}
            model.generation_config = kind.from_pretrained(located.directory, **options)


def put_stand_ins(model: torch.nn.Module) -> None:
    """Puts stand-ins, and values where there are few, in place of the lazy tensors."""
    placed: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if not isinstance(parameter, LazyTensor):
                continue
            if id(parameter) not in placed:
                placed[id(parameter)] = _placed(parameter)
            setattr(module, name, placed[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            if isinstance(buffer, LazyTensor):
                setattr(module, name, read(buffer.weight).clone())


def _placed(tensor: LazyTensor) -> torch.nn.Parameter:
    if tensor.numel() > _REAL or isinstance(tensor.weight, GroupedWeight):  # which keeps its blocks
        return stand_in(tensor.weight)
    return torch.nn.Parameter(read(tensor.weight).clone(), requires_grad=False)
