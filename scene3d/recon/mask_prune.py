"""Pruning by probabilistic masks while a scene is fitted: MaskGaussian (Liu et al. 2025).

Every Gaussian has a probability of being there; in every step it is drawn whether it is. Those that are not still get
the gradient of what showing them would change, so that nothing is lost by bad luck; the squared share of those that are
there is part of the loss. In the end the improbable ones go.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push

# Logits begin where hardly one is missing and need some hundred steps of one sign to fall below a half.
FIRST_LOGIT, RATE = 3.0, 0.05
BETA1, BETA2, EPS = 0.9, 0.999, 1e-15


@dataclass(frozen=True)
class MaskSettings:
    """When and how strongly.

    Attributes:
        weight: Of the squared share of Gaussians that are there, beside the photometric loss.
        start: Fraction of the run at which masks begin; the number of Gaussians stays from there on.
        stop: Fraction at which improbable ones are removed and masks end.
    """

    weight: float = 0.02
    start: float = 0.5
    stop: float = 0.7


class MaskPruning:
    """The influence on one fit; holds nothing that changes.

    Args:
        settings: When and how strongly.
        seed: Of what is drawn.
    """

    def __init__(self, settings: MaskSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def influence(self, gaussians: Gaussians, push: Push | None, step: int, fraction: float) -> Push | None:
        """As a fit takes it."""
        if fraction < self.settings.start or (push is None and fraction >= self.settings.stop):
            return None
        if push is None:
            logits = torch.full((len(gaussians),), FIRST_LOGIT, device=gaussians.device)
            memory = {"logits": logits, "avg": torch.zeros_like(logits), "square": torch.zeros_like(logits)}
            return self._drawn(memory | {"n_steps": torch.zeros(())}, step)
        memory = self._moved(push)
        if fraction >= self.settings.stop:
            return Push(keep=memory["logits"] > 0)
        return self._drawn(memory, step)

    def _drawn(self, memory: dict[str, Tensor], step: int) -> Push:
        """Who is there in this step, by the Gumbel trick: m + g > 0 with the probability sigmoid(m)."""
        generator = torch.Generator().manual_seed(self.seed + 104_729 * step)
        u = torch.rand(memory["logits"].shape, generator=generator).clamp(1e-6, 1 - 1e-6)
        u = u.to(memory["logits"].device)
        noisy = memory["logits"] + u.log() - (-u).log1p()
        return Push(masks=(noisy > 0).float().requires_grad_(), memory=memory | {"soft": noisy.sigmoid()})

    def _moved(self, push: Push) -> dict[str, Tensor]:
        """Logits after a step of Adam along the gradient that the last step has left."""
        assert push.masks is not None
        memory, masks, soft = push.memory, push.masks.detach(), push.memory["soft"]
        v_masks = torch.zeros_like(masks) if push.masks.grad is None else push.masks.grad
        v_masks = v_masks + 2 * self.settings.weight * masks.mean() / max(len(masks), 1)
        # Straight through the draw: the derivative is that of the sigmoid.
        grad = v_masks * soft * (1 - soft)
        n_steps = memory["n_steps"] + 1
        avg = BETA1 * memory["avg"] + (1 - BETA1) * grad
        square = BETA2 * memory["square"] + (1 - BETA2) * grad.square()
        scaled = (avg / (1 - BETA1**n_steps)) / ((square / (1 - BETA2**n_steps)).sqrt() + EPS)
        return {"logits": memory["logits"] - RATE * scaled, "avg": avg, "square": square, "n_steps": n_steps}
