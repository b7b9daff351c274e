"""The layers of a sentence-transformers model after its transformer, as modules to trace.

Pooling makes one vector of a text's hidden states, Dense and Normalize change it, Truncate keeps
its beginning. A Head is their chain. The formulas are those of
https://github.com/UKPLab/sentence-transformers (modules/pooling.py and its neighbours); padding
counts for nothing in any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

ACTIVATIONS = ("GELU", "Identity", "ReLU", "Sigmoid", "SiLU", "Tanh")
"""Names in torch.nn that a Dense module may have."""


class Pooling(torch.nn.Module):
    """Pools [batch, sequence, hidden] by a mask of its tokens to [batch, modes * hidden].

    By one of recipe.POOLING_MODES, or by several, which stand side by side, in their order.
    """

    def __init__(self, modes: Sequence[str]) -> None:
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes a `mask` int64 [batch, sequence]: 1 for a token, 0 for padding on the right."""
        valid = mask.unsqueeze(-1).to(hidden.dtype)
        return torch.cat([_pool(mode, hidden, valid) for mode in self.modes], dim=-1)


def _pool(mode: str, hidden: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Pools [batch, sequence, hidden] to [batch, hidden]; `valid` [batch, sequence, 1]."""
    match mode:
        case "cls":
            return hidden[:, 0]
        case "max":
            # As a pool, whose shape ONNX Runtime infers, where it does not a ReduceMax's.
            kept = hidden.masked_fill(valid == 0, -1e9).transpose(1, 2)
            return torch.nn.functional.adaptive_max_pool1d(kept, 1).squeeze(2)
        case "mean":
            return (hidden * valid).sum(dim=1) / valid.sum(dim=1)
        case "mean_sqrt_len":
            return (hidden * valid).sum(dim=1) / valid.sum(dim=1).sqrt()
        case "weighted_mean":  # by position: 1 for the first token, 2 for the second
            weights = valid.cumsum(dim=1) * valid
            return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        case _:  # last_token
            last = (valid.cumsum(dim=1) == valid.sum(dim=1, keepdim=True)).to(hidden.dtype) * valid
            return (hidden * last).sum(dim=1)


class Dense(torch.nn.Module):
    """A linear layer and an activation of ACTIVATIONS: [batch, inputs] -> [batch, outputs]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.linear = torch.nn.Linear(inputs, outputs, bias=bias is not None)
        self.linear.weight = torch.nn.Parameter(weight.float())
        if bias is not None:
            self.linear.bias = torch.nn.Parameter(bias.float())
        self.activation = getattr(torch.nn, activation)()

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Returns [batch, outputs]."""
        result: torch.Tensor = self.activation(self.linear(embedding))
        return result


class Normalize(torch.nn.Module):
    """Scales each row to length 1."""

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Returns the same shape; a row of zeros stays one."""
        length = (embedding * embedding).sum(dim=-1, keepdim=True).sqrt()
        return embedding / length.clamp(min=1e-12)


class Truncate(torch.nn.Module):
    """Keeps the first `dimensions` of each row, without another normalisation."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Returns [batch, at most dimensions]."""
        return embedding[:, : self.dimensions]


class LogitDifference(torch.nn.Module):
    """The logit of one token less that of another, out of a language model's output projection.

    A product and its sum rather than a linear layer of one output, which would be quantised.
    """

    def __init__(self, projection: torch.nn.Linear, yes: int, no: int | None) -> None:
        super().__init__()
        weight, bias = projection.weight.detach().float(), projection.bias
        self.row = torch.nn.Parameter(weight[yes] - (0 if no is None else weight[no]))
        self.bias = 0.0
        if bias is not None:
            self.bias = float(bias[yes]) - (0.0 if no is None else float(bias[no]))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Takes hidden states [..., hidden]. Returns [..., 1]."""
        return (hidden * self.row).sum(dim=-1, keepdim=True) + self.bias


class Head(torch.nn.Module):
    """Pooling, and the modules that follow it."""

    def __init__(self, pooling: Pooling, others: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.pooling = pooling
        self.others = torch.nn.Sequential(*others)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes hidden states and mask as Pooling does. Returns [batch, dimensions]."""
        embedding: torch.Tensor = self.others(self.pooling(hidden, mask))
        return embedding
