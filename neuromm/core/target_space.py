"""How the columns of a response matrix go back to the brain."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["TargetSpace"]


@runtime_checkable
class TargetSpace(Protocol):
    """Where each target lies, and how values return to the native object.

    Implemented by `neuromm.prepare.VoxelSpace`, `SurfaceSpace`, `SensorSpace` and
    `ContactSpace`.

    Attributes
    ----------
    n_targets : int
        Number of columns.
    coordinate_frame : str or None
        Name of the frame of ``coords()``: a BIDS or template name such as
        ``"MNI152NLin2009cAsym"``; None where positions are unknown.
    """

    n_targets: int
    coordinate_frame: str | None

    def coords(self) -> pd.DataFrame:
        """One row a target, in the order of the columns.

        Returns
        -------
        coords : DataFrame
            ``target`` (str, unique name), ``x``, ``y``, ``z`` (float, mm; nan where
            the position is unknown), and where they apply ``hemi`` ("L" or "R") and
            ``time`` (s from the event).
        """
        ...

    def to_native(self, values: NDArray[np.floating]) -> Any:
        """Put one value a target back: an image, an Evoked, a table.

        Parameters
        ----------
        values : array of shape (n_targets,)
            nan is kept where the native object can hold it.
        """
        ...
