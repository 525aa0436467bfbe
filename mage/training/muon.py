"""Muon: weight matrices move by their orthogonalised momentum, everything else by AdamW (Jordan et al. 2024).

The update of a matrix is the nearest matrix with equal singular values, so that rare directions learn as fast as
common ones. In our short runs it reaches AdamW's loss in three fifths of the steps. It is scaled to the size of
AdamW's updates (Liu et al. 2025, arXiv 2502.16982), so that learning rate and weight decay keep their meaning.

Letters: b matrices, m n their sides.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mage.training.sharding import local, shard_like, whole

NEWTON_SCHULZ = (
    (8.2373, -23.1577, 16.6806),
    (4.0824, -2.8930, 0.5253),
    (3.9263, -2.8547, 0.5318),
    (3.2982, -2.4245, 0.4865),
    (2.2970, -1.6366, 0.4003),
)
"""Coefficients of x, x^3 and x^5 in each iteration (Amsel et al. 2025, arXiv 2505.16932)."""


class Muon(torch.optim.AdamW):
    """AdamW, except for groups with a key `parts`: their weights, split into so many matrices, are updated by Muon."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        """groups: parameter groups, as for AdamW. momentum: of the matrices. dtype: see `orthogonalized`."""
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.momentum, self.dtype = momentum, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of AdamW and of Muon."""
        assert closure is None, "the training loop computes gradients itself"
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if "parts" not in group]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if "parts" in group:
                self._step_matrices(group)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """Matrices of one shape are orthogonalised together."""
        shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shapes.setdefault(parameter.shape, []).append(parameter)
        for parameters in shapes.values():
            # A matrix that is cut among processes is put together: its singular values belong to all of its rows.
            updates = torch.stack([whole(self._momentum(parameter)) for parameter in parameters])
            matrices = updates.reshape(len(parameters) * group["parts"], len(parameters[0]) // group["parts"], -1)
            scale = 0.2 * math.sqrt(max(matrices.shape[1:]))
            steps = orthogonalized(matrices, self.dtype).view_as(updates)
            own = [local(shard_like(step, parameter)) for step, parameter in zip(steps, parameters, strict=True)]
            weights = [local(parameter) for parameter in parameters]
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, own, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov momentum: the running mean of the gradients, one step ahead."""
        state = self.state[parameter]
        if not state:
            # AdamW's names, so that AdamW can restore this state, too.
            state["step"], state["exp_avg"] = torch.zeros(()), torch.zeros_like(parameter)
        assert parameter.grad is not None
        momentum: Tensor = state["exp_avg"].lerp_(parameter.grad, 1 - self.momentum)
        return torch.lerp(parameter.grad, momentum, self.momentum)


def orthogonalized(matrices: Float[Tensor, "b m n"], dtype: torch.dtype | None = None) -> Float[Tensor, "b m n"]:
    """The nearest matrices whose singular values are all about 1, by Newton-Schulz iterations.

    dtype: of the iterations; None: that of the matrices.
    """
    x = matrices.to(dtype or matrices.dtype)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / (
        1.02 * torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7
    )  # the factor leaves a margin for rounding
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


def muon_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of linear layers and convolutions as matrices (query, key and value apart); the rest is for AdamW.

    AdamW's vectors (biases, norms) get no weight decay.
    """
    matrices: list[Tensor] = []
    three: list[Tensor] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.requires_grad:
            (three if name.endswith("qkv") else matrices).append(layer.weight)
    taken = {id(weight) for weight in matrices + three}
    rest = [parameter for parameter in module.parameters() if parameter.requires_grad and id(parameter) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay, "parts": 1},
        {"params": three, "weight_decay": weight_decay, "parts": 3},
        {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
