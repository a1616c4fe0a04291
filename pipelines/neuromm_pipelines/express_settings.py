"""What a trained model of expression must be given: features, genes, their unit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuromm.core import DataError, InputMissingError
from neuromm.core.files import atomic_path, file_digest, read_json, write_json

__all__ = ["ExpressSettings", "FeatureSource", "read_settings", "weights_digest"]

_FILE, _NUMBERS = "express.json", "express.safetensors"


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """Where vectors of spots come from.

    Attributes
    ----------
    kind : {"slide", "patches", "stored", "obsm"}
        Patches cut from the slide, pictures of spots (HEST-1k), files of vectors, or a
        key of the AnnData.
    backbone : str
        A built-in name or a local folder; empty for ``stored`` and ``obsm``.
    place : str
        Folder, file or key of ``stored`` and ``obsm``.
    encoder : str
        Of several in that folder, or of files that do not say; empty if not named.
    patch_um : float
    patch_px : int
    n_tiles : int
        Of a side of the neighbourhood.
    patch_tokens : bool
    stains : tuple of 8 float
        Stains that every slide is shown in: vectors of haematoxylin and eosin, and
        their strongest concentrations; empty where slides are read as they are.
    """

    kind: Literal["slide", "patches", "stored", "obsm"]
    backbone: str = ""
    place: str = ""
    encoder: str = ""
    patch_um: float = 112.0
    patch_px: int = 224
    n_tiles: int = 5
    patch_tokens: bool = False
    stains: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExpressSettings:
    """Beside the weights of a model, in ``express.json`` and ``express.safetensors``.

    Attributes
    ----------
    model : {"GeneDML", "TRIPLEX"}
    source : FeatureSource
    encoder : str
        Name of the patch encoder.
    encoder_sha256 : str
        Of its weights; empty where files of vectors do not say.
    is_stand_in : bool
        No trained network made the vectors.
    genes : tuple of str
    library, target_sum, log_base
        See `neuromm.prepare.expression.expression`.
    panel : str
        How genes were chosen.
    smoothed : bool
        Training targets were.
    highly : tuple of str
        Genes that were predicted best on spots left out: those of PCC(H). Empty where
        nothing was left out.
    sections : mapping of str to str
        Training sections to their patients.
    notice : str
        What every reader of a result must know.
    feature_mean, feature_sd : arrays of shape (n_features,)
        Over the training spots; features are brought to 0 and 1 by them.
    gene_mean : array of shape (n_genes,)
        Of the training targets; the models predict what differs from it.
    """

    model: str
    source: FeatureSource
    encoder: str
    encoder_sha256: str
    is_stand_in: bool
    genes: tuple[str, ...]
    library: Literal["panel", "all"]
    target_sum: float
    log_base: Literal["e", "2", "10"]
    panel: str
    smoothed: bool
    sections: Mapping[str, str]
    notice: str
    feature_mean: NDArray[np.float64]
    feature_sd: NDArray[np.float64]
    gene_mean: NDArray[np.float64]
    highly: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write beside the weights; the text last, as it tells that all is there."""
        from safetensors.numpy import save_file

        content = asdict(self)
        arrays = {
            name: np.ascontiguousarray(content.pop(name))
            for name in ("feature_mean", "feature_sd", "gene_mean")
        }
        with atomic_path(folder / _NUMBERS) as temporary:
            save_file(arrays, str(temporary))
        content["numbers_sha256"] = file_digest(folder / _NUMBERS)
        return write_json(folder / _FILE, content)

    def told(self) -> dict[str, Any]:
        """What a result says of the model, without the numbers."""
        return {
            "model": self.model,
            "encoder": self.encoder,
            "is_stand_in": self.is_stand_in,
            "source": asdict(self.source),
            "log_base": self.log_base,
            "library": self.library,
            "target_sum": self.target_sum,
            "panel": list(self.genes),
            "panel_chosen_by": self.panel,
            "smoothed_training": self.smoothed,
            "trained_on": sorted(self.sections),
            "trained_patients": sorted(set(self.sections.values())),
            "notice": self.notice,
        }


def read_settings(folder: Path) -> ExpressSettings:
    """Settings of a folder that ``neuromm express fit`` wrote.

    Raises
    ------
    neuromm.core.InputMissingError
        If there is none.
    neuromm.core.DataError
        If a file is damaged.
    """
    from safetensors.numpy import load_file

    path = folder / _FILE
    if not path.is_file() or not (folder / _NUMBERS).is_file():
        raise InputMissingError(
            f"{path}: no such file. --model takes the folder that neuromm express fit "
            "wrote, when it has ended"
        )
    content = read_json(path)
    try:
        if content.pop("numbers_sha256") != file_digest(folder / _NUMBERS):
            raise ValueError(f"{_NUMBERS} is another run's")
        numbers = {
            name: np.asarray(values, dtype=np.float64)
            for name, values in load_file(folder / _NUMBERS).items()
        }
        settings = ExpressSettings(
            **content
            | numbers
            | {
                "source": FeatureSource(
                    **content["source"] | {"stains": tuple(content["source"]["stains"])}
                ),
                "genes": tuple(content["genes"]),
                "highly": tuple(content["highly"]),
            }
        )
        if settings.gene_mean.shape != (len(settings.genes),):
            raise ValueError("genes and their means differ in number")
    except DataError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"is damaged ({error}): train the model again", path) from error
    return settings


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in a folder that ``fit`` wrote."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputMissingError(
            f"{path}: no such file. --model takes the folder that neuromm express fit "
            "wrote, when it has ended"
        )
    return file_digest(path)
