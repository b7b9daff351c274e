"""What an architecture needs before torch can trace it, with optimum or without.

optimum knows the architectures of transformers 4 and which of their operations must be patched
before a trace; it holds transformers below 4.58. The extra `export-transformers5` is without it:
transformers 5 sends its experts through an interface of their own, and needs no other patch than
ours. This file and newer.py are all that know of the difference. Called by the package; knows
nothing of graphs.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from transformers import PretrainedConfig, PreTrainedModel

from model_export.convert.experts import INTERFACE_EXISTS, routed_experts_of
from model_export.convert.gpt_neo import gpt_neo_attention_of
from model_export.convert.lengths import ROPES_BY_LENGTH
from model_export.convert.newer import pointing_to_transformers_5
from model_export.convert.operations import writable_operations
from model_export.convert.recurrent import recurs_by_functions
from model_export.errors import ExportError

_TASK = "text-generation-with-past"
_KEYS_AND_VALUES = {"attention", "full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose only state is keys and values."""
STATELESS = {"mlp", "moe"}
"""Kinds of layers that keep nothing."""
RECURRENT = {"conv", "hybrid", "linear_attention", "mamba", "recurrent"}
"""Kinds of layers with a state of fixed size."""
_EXPERTS_OF_ALL = {"Llama4TextExperts"}
"""Experts that take every token, weighted by their router, so that a trace freezes no choice."""


def check_architecture(model: PreTrainedModel) -> None:
    """Raises ExportError, naming the architecture, for what no trace could express."""
    config, name = model.config.get_text_config(), type(model).__name__
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ExportError(
            f"{name} ({model.config.model_type}) is not a decoder for text generation, so it "
            f"cannot be exported as one."
        )
    _refuse_layers(model, config)
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ExportError(
            f"{name} takes no position_ids: its positions are biases on the attention (ALiBi), in "
            f"a recurrent state or counted from one length for all rows, so it cannot be exported."
        )
    if _routes(model) and not INTERFACE_EXISTS and not _optimum_patches(model):
        with pointing_to_transformers_5(model):
            raise ExportError(
                f"{name} chooses experts by the values of its tokens, which a trace would freeze "
                f"with transformers 4, so it cannot be exported."
            )


def _refuse_layers(model: PreTrainedModel, config: PretrainedConfig) -> None:
    """Of kinds that are not known, or recurrent and not by functions that are ours for a trace.

    transformers 4 has `layers_block_type` in the configurations of RecurrentGemma and Jamba.
    """
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    others = set(kinds or ()) - _KEYS_AND_VALUES - STATELESS
    unknown = sorted(others - RECURRENT)
    if unknown:
        raise ExportError(
            f"{type(model).__name__} has layers of the kind {', '.join(unknown)}, which the export "
            f"does not know, so it cannot be exported."
        )
    if others and not recurs_by_functions(model):
        with pointing_to_transformers_5(model):
            raise ExportError(
                f"{type(model).__name__} has layers of the kind {', '.join(sorted(others))}, which "
                f"carry a state from token to token in the place of keys and values, so it cannot "
                f"be exported."
            )


@contextmanager
def traceable(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, torch can trace the model."""
    with (
        pointing_to_transformers_5(model),
        _optimum_patcher(model),
        routed_experts_of(model),
        gpt_neo_attention_of(model),
        writable_operations(),
        _constant_frequencies(model),
    ):
        yield


@contextmanager
def _constant_frequencies(model: PreTrainedModel) -> Iterator[None]:
    """Rotary embeddings without the update by length, which lengths.py holds to one outcome.

    transformers 5 chooses the frequencies in the graph and copies them into a buffer.
    """
    updated = [m for m in model.modules() if getattr(m, "rope_type", None) in ROPES_BY_LENGTH]
    kinds = [module.rope_type for module in updated]
    for module in updated:
        module.inv_freq.copy_(module.original_inv_freq)  # type: ignore[operator,arg-type]
        module.rope_type = "default"  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, kind in zip(updated, kinds, strict=True):
            module.rope_type = kind


def _routes(model: PreTrainedModel) -> bool:
    experts = [module.experts for module in model.modules() if hasattr(module, "experts")]
    return any(type(each).__name__ not in _EXPERTS_OF_ALL for each in experts)


def _optimum_patches(model: PreTrainedModel) -> bool:
    """Whether optimum has more than its general patches for the architecture."""
    if not _listed(model):
        return False
    from optimum.exporters.onnx.model_patcher import ModelPatcher

    return type(_optimum_patcher(model)) is not ModelPatcher


def _listed(model: PreTrainedModel) -> bool:
    if importlib.util.find_spec("optimum") is None:
        return False
    import optimum.exporters.onnx.model_configs  # noqa: F401  (registers the architectures)
    from optimum.exporters.tasks import TasksManager

    kinds = TasksManager.get_supported_model_type_for_task(_TASK, "onnx")
    return model.config.model_type in kinds


def _optimum_patcher(model: PreTrainedModel) -> AbstractContextManager[object]:
    if not _listed(model):
        return nullcontext()
    from optimum.exporters.tasks import TasksManager

    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=model.config.model_type, task=_TASK, library_name="transformers"
    )
    config = constructor(model.config, use_past=True, use_past_in_inputs=True)
    patcher: AbstractContextManager[object] = config.patch_model_for_export(model)
    return patcher
