"""Small scenes and views around them, for tests of what makes scenes smaller."""

import torch

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.gaussians import Gaussians


def blob(n: int, sh_degree: int = 1, seed: int = 0) -> Gaussians:
    """A ball of Gaussians of mixed sizes whose colours vary smoothly in space."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(n, 3, generator=g) * 0.5
    n_rest = (sh_degree + 1) ** 2 - 1
    return Gaussians(
        means=means,
        quats=torch.randn(n, 4, generator=g),
        log_scales=torch.randn(n, 3, generator=g) * 0.5 - 2.5,
        opacity_logits=torch.randn(n, generator=g) + 1,
        sh0=means[:, None, :] + 0.1 * torch.randn(n, 1, 3, generator=g),
        shN=0.2 * torch.randn(n, n_rest, 3, generator=g),
    )


def views_around(n: int, size: int = 32) -> Cameras:
    """n square views from a circle around the origin."""
    angles = torch.arange(n) * (2 * torch.pi / n)
    eyes = torch.stack([3 * angles.cos(), torch.full((n,), -0.5), 3 * angles.sin()], dim=1)
    up, middle = torch.tensor([0.0, -1.0, 0.0]), torch.zeros(3)
    K = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    viewmats = torch.stack([look_at(eye, middle, up) for eye in eyes])
    return Cameras(viewmats, K.repeat(n, 1, 1), torch.full((n, 2), size))
