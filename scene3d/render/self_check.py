"""Before "auto" gives a process to the CUDA kernels, they have to agree with the CPU about a tiny scene.

Compilers, drivers and GPUs are more than anybody can try: whoever gets a scene from a GPU should not have to wonder.
Images, the photometric loss and all gradients of 80 Gaussians are compared, once in a process.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras, look_at
from scene3d.core.errors import BackendUnavailable
from scene3d.core.gaussians import Gaussians
from scene3d.ops import cuda_call
from scene3d.render import cpu, cuda, reference
from scene3d.render.loss import l1_ssim
from scene3d.render.types import RasterSettings, Render

N_GAUSSIANS = 80
WIDTH, HEIGHT, FOCAL = 72, 48, 60.0
SETTINGS = RasterSettings(background=(0.2, 0.4, 0.6), with_depth=True, with_normals=True)
# Rounding may move a contribution of 1/255 over its threshold in few pixels, and with it some of a gradient. A kernel
# that is wrong is wrong by far more.
PIXEL_ERROR, SHARE_OF_PIXELS = 2e-3, 0.01
GRADIENT_ERROR = 1e-2


def check_cuda() -> None:
    """Try the CUDA kernels, the first time in this process.

    Raises:
        BackendUnavailable: they do not run, or do not agree with the CPU.
    """
    problem = problem_of(cuda_call.module)
    if problem is not None:
        raise BackendUnavailable("cuda", problem, "Use --backend cpu (or SCENE3D_BACKEND=cpu), and please report it")


@functools.cache
def problem_of(module: Any) -> str | None:
    """What is wrong with a build of the kernels on this machine, None where nothing is."""
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller does
        return _problem_of(module)


def _problem_of(module: Any) -> str | None:
    scene, camera = tiny_scene()
    try:
        moved = _leaves(scene.to(module.DEVICE_TYPE))
        found = _tensors(moved, cuda.rasterize_with(module, moved, camera, SETTINGS))
    except RuntimeError as error:  # no kernel for this GPU, driver too old
        return f"it does not run here: {error}"
    still = _leaves(scene)
    render = cpu.rasterize_arrays if cpu.why_unavailable() is None else reference.rasterize_arrays
    expected = _tensors(still, render(still, camera, SETTINGS))
    wrong = [name for name in expected if not _agrees(name, found[name], expected[name])]
    if not wrong:
        return None
    return f"a test picture differs from that of the CPU ({', '.join(wrong)})"


def tiny_scene() -> tuple[Gaussians, Cameras]:
    """Gaussians of every size and opacity around the origin, and one camera."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    n = N_GAUSSIANS
    scene = Gaussians(
        0.5 * normal(n, 3),
        normal(n, 4),
        0.6 * normal(n, 3) - 2.2,
        1.5 * normal(n),
        normal(n, 1, 3),
        0.3 * normal(n, 15, 3),
    )
    viewmat = look_at(torch.tensor([1.0, 2.0, -3.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]))
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return scene, Cameras(viewmat[None], K[None], torch.tensor([[WIDTH, HEIGHT]]))


def _leaves(scene: Gaussians) -> Gaussians:
    return scene.map(lambda value: value.detach().clone().requires_grad_())


def _tensors(leaves: Gaussians, render: Render) -> dict[str, Tensor]:
    """Images, then gradients of a fixed loss by the leaves, on the CPU."""
    assert render.depth is not None
    assert render.normals is not None
    photo = torch.full_like(render.rgb[0], 0.5)
    loss = l1_ssim(render.rgb[0], photo) + 0.1 * render.depth.mean() + 0.1 * render.normals[..., 2].mean()
    loss.backward()
    images = {"rgb": render.rgb, "alpha": render.alpha, "depth": render.depth, "normals": render.normals}
    gradients = {f"gradient of {name}": value.grad for name, value in leaves.params().items()}
    tensors = {**images, "loss": loss, **gradients}
    return {name: value.detach().cpu().double() for name, value in tensors.items() if value is not None}


def _agrees(name: str, found: Tensor, expected: Tensor) -> bool:
    if not bool(found.isfinite().all()):
        return False
    if name.startswith("gradient"):
        return bool((found - expected).norm() <= GRADIENT_ERROR * expected.norm())
    return bool(((found - expected).abs() > PIXEL_ERROR).double().mean() <= SHARE_OF_PIXELS)
