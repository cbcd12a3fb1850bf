"""Settings of the image prior and its sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from MedGSLib.prior.general_network import CHANNELS, CONTEXT, DEPTH
from MedGSLib.prior.profile import SliceProfile

PriorMethod = Literal["learned", "flow", "linear", "none"]

DEFAULT_FLOW_SHARE = 0.15
"""Part of the motion-compensated interpolation in the blend with the network; on the development set 0 to 0.25 differ by 0.1 dB at most,
but for very small stacks, which gain 0.1 dB by 0.15 and more."""


FAMILIAR_GAP_PX, FOREIGN_GAP_PX = 5.0, 10.0
"""Gaps between which the patient's own rows cease to teach the network better than synthetic anatomy does (development set)."""


@dataclass(frozen=True)
class PriorConfig:
    """How the slices between the acquired ones are predicted.

    :ivar method: ``learned`` (a network trained on this patient's own slices, blended with optical flow), ``flow``, ``linear`` or ``none``.
    :ivar channels: width of the network.
    :ivar depth: its convolutions.
    :ivar iterations: training steps of the network that is applied; fewer for small stacks and wide gaps
        where it starts from the general network.
    :ivar draft_iterations: training steps of the draft, a network without context that predicts the planes beside each slice.
    :ivar context: neighbouring planes that the network sees on each side; with 0 there is no draft.
    :ivar general: start from what the general network has learnt from synthetic anatomy, where it has this size.
    :ivar general_share: part of the general network, untouched by this patient, in the prediction, 0..1; None decides it by the size of
        the stack and the gap.
    :ivar learning_rate: largest rate of the schedule for the hidden convolutions.
    :ivar batch: patches per training step.
    :ivar flow_share: part of the optical flow in the blend, 0..1; None decides it by leaving acquired slices out.
    :ivar bf16: use bfloat16 where the machine multiplies in it natively.
    :ivar seed: of the initial weights and the patches.
    """

    method: PriorMethod = "learned"
    channels: int = CHANNELS
    depth: int = DEPTH
    iterations: int = 250
    draft_iterations: int = 0
    context: int = CONTEXT
    general: bool = True
    general_share: float | None = None
    learning_rate: float = 0.005
    batch: int = 16
    flow_share: float | None = None
    bf16: bool = True
    seed: int = 0


PRIOR_PRESETS: dict[str, PriorConfig] = {
    "fast": PriorConfig(iterations=60, flow_share=DEFAULT_FLOW_SHARE),
    "standard": PriorConfig(),
    "high": PriorConfig(iterations=1000),
}
"""Single-thread seconds of one core with native bfloat16, training only: about 5, 20 and 80."""


@dataclass(frozen=True)
class Sampling:
    """How the acquired slices sample the patient, and how densely they are to be filled in.

    :ivar factor: sub-slices per gap.
    :ivar gap_over_pixel: median slice gap over pixel size along (row axis, column axis).
    :ivar profile: along the stack.
    :ivar stack_ratio: :func:`~MedGSLib.prior.smoothness.structure_ratio` of the stack; None where rows are learnt as they are.
    """

    factor: int
    gap_over_pixel: tuple[float, float]
    profile: SliceProfile = SliceProfile()
    stack_ratio: float | None = None

    @property
    def gap_px(self) -> float:
        """The slice gap over the mean in-plane pixel size."""
        return math.sqrt(self.gap_over_pixel[0] * self.gap_over_pixel[1])

    @property
    def wideness(self) -> float:
        """From 0, where rows of the slices show what the gap hides, to 1, where the gap is too wide for that; 0 for averages."""
        if self.averaged:
            return 0.0
        beyond = math.log(self.gap_px / FAMILIAR_GAP_PX) / math.log(FOREIGN_GAP_PX / FAMILIAR_GAP_PX)
        return min(max(beyond, 0.0), 1.0)

    @property
    def averaged(self) -> bool:
        """Whether the slices are averages rather than points."""
        return self.profile.kind != "point"
