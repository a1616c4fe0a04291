"""One convention for temperatures: logits are cosines divided by it.

References
----------
Radford et al. (2021) Learning transferable visual models from natural language
supervision. ICML (learned as a logarithm; 1 / temperature at most 100).
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["Temperature"]


class Temperature(nn.Module):  # type: ignore[misc]
    """A temperature, fixed or learned as its logarithm.

    Parameters
    ----------
    value : float
        Logits are cosines divided by it.
    learnable : bool
        Makes ``log_temperature`` a parameter; otherwise it is a buffer.
    bounds : tuple of two floats
        A learned temperature is put back into this range before each use, as CLIP does
        after each step: past a bound it can still return.

    Raises
    ------
    ValueError
        If the value is not positive and finite, or is learned and out of bounds.
    """

    log_temperature: Tensor

    def __init__(
        self,
        value: float = 0.07,
        learnable: bool = False,
        bounds: tuple[float, float] = (0.01, 1.0),
    ) -> None:
        super().__init__()
        if not (0 < value < math.inf):
            raise ValueError(
                f"temperature must be one positive finite number, got {value}"
            )
        low, high = bounds
        if not 0 < low < high < math.inf or (learnable and not low <= value <= high):
            raise ValueError(
                f"a learned temperature must start within its bounds, got {value} "
                f"and {bounds}"
            )
        self.bounds = bounds
        self.learnable = learnable
        log_value = torch.tensor(math.log(value), dtype=torch.float64)
        if learnable:
            self.log_temperature = nn.Parameter(log_value.float())
        else:
            # In float64: a fixed temperature is exactly that of the function.
            self.register_buffer("log_temperature", log_value)

    def forward(self) -> Tensor:
        """Temperature of shape (), through which gradients flow if it is learned."""
        if self.learnable:
            low, high = self.bounds
            with torch.no_grad():
                self.log_temperature.clamp_(math.log(low), math.log(high))
        return self.log_temperature.exp()

    def extra_repr(self) -> str:
        """Value and whether it is learned, for print."""
        value = math.exp(float(self.log_temperature))
        return f"temperature={value:.4g}, learnable={self.learnable}"
