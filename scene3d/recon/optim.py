"""Adam over Gaussians whose number changes: values and moments are kept in step, rows move together.

All tensors are changed in place by `step`; `rearrange` makes new ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.gaussians import SH_COUNTS, Gaussians
from scene3d.ops.adam import adam_step_

ADAM_EPS = 1e-15  # Screen-space gradients of a mean loss are tiny: the usual 1e-8 would hide them.


@dataclass
class AdamState:
    """Values under optimisation by name, with Adam's moments. Every tensor has N rows.

    Attributes:
        values: Tensors of the Gaussians, in the order of their fields.
        exp_avg: Running means of the gradients.
        exp_avg_sq: Running means of their squares.
        n_steps: Steps done.
    """

    values: dict[str, Tensor]
    exp_avg: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
    n_steps: int = 0

    @classmethod
    def start(cls, gaussians: Gaussians, sh_degree: int) -> AdamState:
        """Begin with copies of `gaussians`, their SH cut or filled with zeros to `sh_degree`."""
        fitted = with_sh_degree(gaussians, sh_degree)
        values = {
            name: value.detach().float().clone(memory_format=torch.contiguous_format)
            for name, value in fitted.params().items()
        }
        zeros = {name: torch.zeros_like(value) for name, value in values.items()}
        state = cls(values, zeros, {name: torch.zeros_like(value) for name, value in values.items()})
        return state.requiring_grad()

    def __len__(self) -> int:
        return self.values["means"].shape[0]

    @property
    def device(self) -> torch.device:
        return self.values["means"].device

    def to(self, device: torch.device) -> AdamState:
        """The same on another device."""
        values, exp_avg, exp_avg_sq = (
            {name: value.detach().to(device) for name, value in table.items()}
            for table in (self.values, self.exp_avg, self.exp_avg_sq)
        )
        return AdamState(values, exp_avg, exp_avg_sq, self.n_steps).requiring_grad()

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics in use."""
        return SH_COUNTS.index(self.values["shN"].shape[1] + 1)

    def forget_gradients(self) -> None:
        """Drop the gradients of all values."""
        for value in self.values.values():
            value.grad = None

    def requiring_grad(self) -> AdamState:
        for value in self.values.values():
            value.requires_grad_(True)
        return self

    def gaussians(self) -> Gaussians:
        """The values as Gaussians, not copied."""
        return Gaussians(**self.values)

    def step(self, lrs: dict[str, float], betas: tuple[float, float], visible: Tensor) -> None:
        """One step of Adam on the rows where `visible` [N] uint8 is not 0; gradients are dropped afterwards."""
        self.n_steps += 1
        grads = {name: value.grad for name, value in self.values.items()}
        names = [name for name, grad in grads.items() if grad is not None and grad.numel() > 0]
        adam_step_(
            [self.values[name].detach() for name in names],
            [grads[name] for name in names],
            [self.exp_avg[name] for name in names],
            [self.exp_avg_sq[name] for name in names],
            [lrs[name] for name in names],
            self.n_steps,
            visible,
            betas,
            ADAM_EPS,
        )
        self.forget_gradients()

    def rearrange(self, index: Tensor, is_fresh: Tensor) -> None:
        """Make row i a copy of row index[i]; moments of fresh rows are zero. index [M] long, is_fresh [M] bool."""
        for name, value in self.values.items():
            self.values[name] = value.detach()[index]
            for moments in (self.exp_avg, self.exp_avg_sq):
                moments[name] = moments[name][index]
                moments[name][is_fresh] = 0.0
        self.requiring_grad()

    def forget(self, rows: Tensor, names: tuple[str, ...] | None = None) -> None:
        """Set moments of `rows` (index or mask) to zero, of all values or of those named."""
        for name in names or tuple(self.values):
            self.exp_avg[name][rows] = 0.0
            self.exp_avg_sq[name][rows] = 0.0

    def raise_sh_degree(self, degree: int) -> None:
        """Append zero coefficients up to `degree`: unused ones cost no time before."""
        missing = SH_COUNTS[degree] - 1 - self.values["shN"].shape[1]
        if missing <= 0:
            return
        for table in (self.values, self.exp_avg, self.exp_avg_sq):
            value = table["shN"].detach()
            table["shN"] = torch.cat([value, value.new_zeros(len(value), missing, 3)], dim=1)
        self.requiring_grad()

    def drop_nonfinite(self) -> Tensor:
        """Remove Gaussians that hold a NaN or Inf. Returns the mask of those kept, [N before] bool."""
        keep = self.gaussians().detach().is_finite()
        if not bool(keep.all()):
            index = keep.nonzero()[:, 0]
            self.rearrange(index, torch.zeros(len(index), dtype=torch.bool))
        return keep


def with_sh_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """The same Gaussians with spherical harmonics cut, or filled with zeros, to `degree`."""
    n_coefficients = SH_COUNTS[degree] - 1
    shN = gaussians.shN[:, :n_coefficients]
    missing = n_coefficients - shN.shape[1]
    params = gaussians.params()
    params["shN"] = torch.cat([shN, shN.new_zeros(len(shN), missing, 3)], dim=1)
    return Gaussians(**params)
