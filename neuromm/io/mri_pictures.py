"""Slices of a scan as PNG pictures: grey values without a place in the body."""

from pathlib import Path
from typing import Any

import numpy as np

from neuromm.core import DataError
from neuromm.io.content import require_content

__all__ = ["EXTENSIONS", "read_picture"]

EXTENSIONS = (".png",)
_MOST_PIXELS = 2**26  # a slice is smaller; a picture that claims more is a bomb


def read_picture(path: str | Path) -> Any:
    """Read a grey picture of one slice.

    Parameters
    ----------
    path : path-like
        A ``.png`` of 8 or 16 bits. One in colour whose channels are all the same, and
        that is nowhere transparent, counts as grey.

    Returns
    -------
    image : nibabel.Nifti1Image
        Of shape (n_rows, n_columns, 1), unsigned. Its ``affine`` is None and its unit
        unknown: a picture does not say how large a pixel is.

    Raises
    ------
    InputMissingError
        If there is no such file.
    DataError
        If it is damaged, or in colour.
    """
    import nibabel
    from PIL import Image

    path = require_content(path)
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise DataError(f"has {picture.size} pixels, too many", path)
            values = np.asarray(picture)
            mode = picture.mode
    except DataError:
        raise
    except Exception as error:  # Pillow lets through whatever damage leads to
        raise DataError(f"is no picture that can be read ({error})", path) from error
    if mode in ("LA", "RGBA"):
        if not (values[..., -1] == 255).all():
            raise DataError("is partly transparent: expected a grey picture", path)
        values = values[..., :-1]
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise DataError("is in colour: expected a grey picture", path)
        values = values[..., 0]
    if mode == "P" or values.dtype.kind not in "iu":
        raise DataError(f"expected a grey picture, got the mode {mode}", path)
    kind = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    return nibabel.Nifti1Image(values.astype(kind)[..., None], None)
