"""LAMB: Adam's step, scaled for each tensor to the norm of its weights.

Source: You et al. 2020, arXiv 1904.00962, Algorithm 2, with φ(z) = z. STAR's released
code leaves out the bias correction and caps ‖x‖ at 10.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """Moves a tensor x with gradient g by −lr · ‖x‖ / ‖r + λx‖ · (r + λx).

    r = m̂ / (√v̂ + eps), m̂ and v̂ the moving averages of g and g², bias corrected, λ the
    weight decay. Where either norm is zero the ratio is 1, so that tensors that start
    at zero move.

    Args:
        params: tensors, or groups of them that may have their own lr, betas, eps and
            weight_decay.
        lr: length of a step, relative to the tensor's norm.
        betas: weights of the past in the averages of g and of g².
        eps: added to √v̂.
        weight_decay: λ.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step, after calling ``closure``, whose loss is returned, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._move(weights, group)
        return loss

    def _move(self, weights: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[weights], weights.grad
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(weights)
            state["square"] = torch.zeros_like(weights)
        state["step"] += 1
        past_mean, past_square = group["betas"]
        state["mean"].lerp_(gradient, 1 - past_mean)
        state["square"].lerp_(gradient.square(), 1 - past_square)
        mean = state["mean"] / (1 - past_mean ** state["step"])
        square = state["square"] / (1 - past_square ** state["step"])
        update = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * weights
        # No branch on a norm: it would make the host wait for the GPU.
        size, change = weights.norm(), update.norm()
        ratio = torch.where((size > 0) & (change > 0), size / change, 1)
        weights.addcmul_(update, ratio, value=-group["lr"])
