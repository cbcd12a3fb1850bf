"""Adam over the parameters of the Gaussians, whose rows may be added, removed and stored while it runs."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from MedGSLib.gaussians import FoldedGaussians
from MedGSLib.training.config import TrainingConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class GaussianOptimizer:
    """One Adam group for each parameter of the Gaussians, with the decay of learning rates that the configuration says.

    :param trainable: names of the parameters that move; the others stay as they are.
    :param frozen_heads: this many first head values stay as they are too.
    """

    def __init__(self, gaussians: FoldedGaussians, config: TrainingConfig, trainable: frozenset[str], frozen_heads: int = 0) -> None:
        self.gaussians = gaussians
        self._config = config
        self._frozen_heads = frozen_heads
        self._rates = {name: rate for name, rate in asdict(config.learning_rates).items() if name in trainable}
        if config.decay_center_only:
            height_width = gaussians.center.detach().amax().item() + 1.0
            self._rates = {name: rate * (height_width if name in ("center", "drift") else 1.0) for name, rate in self._rates.items()}
        self._adam = self._new_adam()

    def _new_adam(self) -> torch.optim.Adam:
        for name, parameter in self.gaussians.named_parameters():
            parameter.requires_grad_(name in self._rates)
        groups = [
            {"params": [parameter], "lr": self._rates[name], "name": name}
            for name, parameter in self.gaussians.named_parameters()
            if name in self._rates and parameter.numel()
        ]
        return torch.optim.Adam(groups, betas=self._config.betas, eps=1e-15, fused=True)

    def set_progress(self, done: float) -> None:
        """Set the learning rates for the part ``done`` (0..1) of the fit."""
        factor = self._config.final_learning_rate**done
        for group in self._adam.param_groups:
            decays = not self._config.decay_center_only or group["name"] == "center"
            group["lr"] = self._rates[group["name"]] * (factor if decays else 1.0)

    def step(self, loss: Tensor) -> None:
        """Back-propagate and move the parameters once."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        if self._frozen_heads and self.gaussians.values.grad is not None:
            self.gaussians.values.grad[:, : self._frozen_heads] = 0.0
        self._adam.step()

    def moments(self) -> dict[str, Tensor]:
        """The state of Adam as flat named tensors, for a checkpoint."""
        stored: dict[str, Tensor] = {}
        for group in self._adam.param_groups:
            state = self._adam.state[group["params"][0]]
            for moment in (*MOMENTS, "step"):
                if moment in state:
                    stored[f"{group['name']}.{moment}"] = state[moment].detach().clone()
        return stored

    def load_moments(self, stored: dict[str, Tensor]) -> None:
        """Continue from what :meth:`moments` gave."""
        for group in self._adam.param_groups:
            prefix = group["name"] + "."
            parameter = group["params"][0]
            state = {key[len(prefix) :]: value.clone() for key, value in stored.items() if key.startswith(prefix)}
            if state:
                self._adam.state[parameter] = state

    def follow(self, gaussians: FoldedGaussians, keep: Tensor, added: int) -> None:
        """Go on with a new set of Gaussians: the kept ones carry their moments, the ``added`` ones at the end start at zero.

        :param keep: int64 indices of the old rows that stay, in their new order.
        """
        old = self.moments()
        self.gaussians = gaussians
        self._adam = self._new_adam()
        moved = {
            key: value if key.endswith(".step") else torch.cat([value[keep], value.new_zeros((added, *value.shape[1:]))])
            for key, value in old.items()
        }
        self.load_moments(moved)

    def forget(self, name: str) -> None:
        """Reset Adam's moments of one parameter, after its values were overwritten."""
        for group in self._adam.param_groups:
            if group["name"] == name:
                for moment in MOMENTS:
                    if moment in self._adam.state[group["params"][0]]:
                        self._adam.state[group["params"][0]][moment].zero_()
