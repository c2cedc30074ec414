"""Opacities that a format stores as a byte."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def byte_logits(values: np.ndarray) -> Tensor:
    """Logits of opacities 0 to 255 [N]; those of the ends stay finite and trainable."""
    # 255 stands for all opacities above 0.998: its middle.
    unit = torch.from_numpy(np.asarray(values, np.float32)) / 255
    return unit.clamp(0.25 / 255, 1 - 0.25 / 255).logit()
