"""What a method does to a fit without a loss of its own: what is shown differs from what is moved, gradients are added.

The native step stays one call. What is shown is value + offset; the gradient passes straight through. Offsets and
gradients are worked out every so many steps and stand still between, so that they cost next to nothing: noise of the
steps of a codec, what is lost by rounding (straight-through estimation, Bengio et al. 2013), masks, smoothness, rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians


@dataclass(frozen=True)
class Push:
    """What is done to the steps from now on. Tables go by the name of a Gaussian tensor; what is missing is 0.

    Attributes:
        offsets: Added to what is rendered.
        grads: Added to the gradient of the mean photometric loss, for Gaussians that a photo shows.
        fixed: Names of tensors that do not move.
        memory: Tensors that the method wants to see again next time.
        masks: Factors on alpha, a leaf: after the step it holds its gradient. On the CPU the step then goes through
            autograd. [N]
        keep: Gaussians that stay; the others are removed at once, and the push with them. [N] bool
    """

    offsets: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    memory: dict[str, Tensor] = field(default_factory=dict)
    masks: Tensor | None = None
    keep: Tensor | None = None

    def shown(self, gaussians: Gaussians) -> Gaussians:
        """What is rendered where these are moved. Differentiable in them."""
        params = {name: value + self.offsets.get(name, 0) for name, value in gaussians.params().items()}
        return Gaussians(**params)

    def to(self, device: torch.device) -> Push:
        """The same on another device, with the gradient that masks hold."""

        def moved(table: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.to(device) for name, value in table.items()}

        masks, keep = self.masks, None if self.keep is None else self.keep.to(device)
        if masks is not None:
            grad = None if masks.grad is None else masks.grad.to(device)
            masks = masks.detach().to(device).requires_grad_()
            masks.grad = grad
        offsets, grads, memory = moved(self.offsets), moved(self.grads), moved(self.memory)
        return Push(offsets, grads, self.fixed, memory, masks, keep)


# Takes the Gaussians that are moved, the push so far, the number of steps done and the part of the run done. Gives the
# push so far where nothing is due, None where none is wanted yet. While there is one, the number and the order of the
# Gaussians stay as they are, unless some must go because they are not finite: then the push so far is None.
Influence = Callable[[Gaussians, Push | None, int, float], Push | None]


def one_after_another(first: Influence, second: Influence) -> Influence:
    """The first as long as it pushes, and the second whenever it does not; the two must not overlap."""

    def both(gaussians: Gaussians, push: Push | None, step: int, fraction: float) -> Push | None:
        # What the second has pushed is not shown to the first.
        pushed = first(gaussians, push if push is None or push.masks is not None else None, step, fraction)
        return pushed if pushed is not None else second(gaussians, push, step, fraction)

    return both
