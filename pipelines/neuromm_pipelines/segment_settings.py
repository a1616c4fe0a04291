"""What a trained network must be told with: modalities, classes, looks, patients."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import read_json, write_json

__all__ = ["SegmentSettings", "read_settings"]

_FILE = "segment.json"


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """Beside the weights of a network, in ``segment.json``.

    Attributes
    ----------
    modalities : tuple of str
        In the order of the network's paths.
    classes : mapping of str to list of [low, high]
        Labels of each class in the training masks, background left out.
    may_lack : bool
        Modalities were left out in training.
    flips : bool
        Slices were turned round in training.
    spacing_mm : tuple of float
        Median voxel of the training scans, to the front and up.
    patients : mapping of str to str
        ``training``, ``validation`` or ``test``.
    notice : str
        What every reader of a result must know, such as that scans were simulated.
    """

    modalities: tuple[str, ...]
    classes: Mapping[str, Any]
    may_lack: bool
    flips: bool
    spacing_mm: tuple[float, float]
    patients: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""

    @property
    def disc(self) -> int:
        """Class of the discs."""
        return list(self.classes).index("disc") + 1

    def write(self, folder: Path) -> Path:
        """Write beside the weights."""
        return write_json(folder / _FILE, asdict(self))


def read_settings(folder: Path) -> SegmentSettings:
    """Settings of a folder that ``neuromm segment fit`` wrote.

    Raises
    ------
    neuromm.core.InputMissingError
        If there is none.
    neuromm.core.DataError
        If the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        raise InputMissingError(
            f"{path}: no such file. --model takes the folder that neuromm segment fit "
            "wrote, when it has ended"
        )
    content = read_json(path)
    try:
        across, up = map(float, content["spacing_mm"])
        settings = SegmentSettings(
            modalities=tuple(content["modalities"]),
            classes=dict(content["classes"]),
            may_lack=bool(content["may_lack"]),
            flips=bool(content["flips"]),
            spacing_mm=(across, up),
            patients=dict(content["patients"]),
            notice=str(content["notice"]),
        )
        if "disc" not in settings.classes:
            raise ValueError("no class disc")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"is damaged ({error}): train the network again", path
        ) from error
    return settings
