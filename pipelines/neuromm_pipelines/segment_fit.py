"""``neuromm segment fit``: train IVD-Net on labelled scans, and baselines beside it."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from neuromm.core.errors import DataError, UsageError
from neuromm.core.files import atomic_path
from neuromm_pipelines.segment_scans import (
    Scan,
    Values,
    open_scans,
    parsed_classes,
)

__all__ = ["Config", "run"]

logger = logging.getLogger(__name__)

_VALIDATION = 0.2
# Weights of the loss for rare classes, if none are given: not above this.
_HEAVIEST = 8.0
_TURN = 0.15  # rad, about 9 degrees to either side
_SHIFT = 0.06  # of the side of a slice


@dataclass(frozen=True, kw_only=True)
class Config:
    """What ``neuromm segment fit`` was asked to do."""

    data: Path
    model_dir: Path
    layout: str = "auto"
    modalities: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    participant_label: tuple[str, ...] | None = None
    labels: Path | None = None
    resample_to: str | None = None
    persons: Path | None = None
    width: int = 8
    dimension: Literal[2, 3] = 2
    fusion: Literal["hyperdense", "early", "late"] = "hyperdense"
    dropout: float = 0.0
    epochs: int = 60
    batch_size: int = 4
    learning_rate: float = 3e-3
    class_weights: tuple[float, ...] | None = None
    modality_dropout: float = 0.0
    flips: bool = False
    no_augmentation: bool = False
    folds: int | None = None
    fold: int = 0
    baseline: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"
    nthreads: int | None = None
    command_line: str = field(default="", compare=False)


def run(config: Config) -> int:
    """Train, write the model folder, and print what it scores.

    Returns
    -------
    exit_code : int

    Raises
    ------
    neuromm.core.NeurommError
        If data or settings are wrong.
    """
    import torch

    from neuromm_pipelines.devices import chosen_device
    from neuromm_pipelines.segment_slices import written_slices

    _check(config)
    _, cuda = chosen_device(config.device, "torch")
    if config.nthreads:
        torch.set_num_threads(config.nthreads)
    data = _data(config)
    model = _model(config, data).to(cuda or "cpu")
    work = config.model_dir / "work"
    slices = written_slices(
        data.training,
        data.modalities,
        data.classes,
        model.config,
        work,
        may_lack=config.modality_dropout > 0,
    )
    patients = [data.training[number].subject for number in slices.scan]
    task = _task(config, slices, len(data.classes) + 1)
    result = _trained(model, slices, patients, task, config, "training")
    model.save_pretrained(config.model_dir)
    held = {patients[row] for row in result.validation}
    _write_settings(config, data, slices, held)
    scored = "the last one, as one patient leaves none to choose by"
    if held:
        scored = (
            f"with Dice {result.best_score:.3f} on {len(held)} patients within the "
            "training"
        )
    print(f"neuromm segment fit: epoch {result.best_epoch} is kept, {scored}")
    if data.test:
        _compare(config, model, slices, patients, task, data)
    shutil.rmtree(work, ignore_errors=True)
    print(f"neuromm segment fit: wrote {config.model_dir}")
    return 0


@dataclass(frozen=True)
class _Data:
    """Scans of both parts, and what is read of them."""

    training: list[Scan]
    test: list[Scan]
    modalities: tuple[str, ...]
    classes: Mapping[str, Values]


def _data(config: Config) -> _Data:
    """Scans to train on and to test on, those of the test checked now."""
    from neuromm.io import mri
    from neuromm_pipelines.segment_slices import check_scan

    scans, modalities, layout = open_scans(
        config.data,
        layout=config.layout,
        modalities=config.modalities,
        participant_label=config.participant_label,
        labels=config.labels,
        resample_to=config.resample_to,
        persons=config.persons,
    )
    if layout == "ivdm3seg" and config.persons is None:
        logger.warning(
            "each set of %s counts as a person of its own, though IVDM3Seg has two "
            "scans of each person. Name them with --persons, or a split may have one "
            "person on both sides",
            config.data,
        )
    training, test = _parts(scans, config)
    for scan in test:  # rather now than after the training
        check_scan(scan, modalities, may_lack=config.modality_dropout > 0)
        mri.load_labels(scan.load())
    return _Data(training, test, modalities, parsed_classes(config.classes, layout))


def _model(config: Config, data: _Data) -> Any:
    """The network before its training, and a line about its size."""
    import torch

    from neuromm.models import IVDNet, IVDNetConfig

    torch.manual_seed(config.seed)
    model = IVDNet(
        IVDNetConfig(
            n_modalities=len(data.modalities),
            n_classes=len(data.classes) + 1,
            width=config.width,
            spatial_dims=config.dimension,
            fusion=config.fusion,
            dropout=config.dropout,
        )
    )
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"neuromm segment fit: {len(data.training)} scans of "
        f"{len({scan.subject for scan in data.training})} patients, "
        f"{', '.join(data.modalities)}; {n_parameters:,} parameters"
    )
    return model


def _check(config: Config) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "neuromm segment fit runs in one process. For several GPUs, give "
            "neuromm.training.fit an accelerator in a script of your own"
        )
    if config.dimension not in (2, 3):
        raise UsageError(f"--dimension takes 2 or 3, got {config.dimension}")
    if config.folds is not None and not 0 <= config.fold < config.folds:
        raise UsageError(
            f"--fold takes 0 to {config.folds - 1} of --folds {config.folds}, got "
            f"{config.fold}"
        )
    if config.folds is not None and config.folds < 2:
        raise UsageError(f"--folds takes 2 or more, got {config.folds}")
    if config.baseline and config.folds is None:
        raise UsageError(
            "--baseline compares on patients that no network has seen: add --folds 5"
        )


def _parts(scans: Sequence[Scan], config: Config) -> tuple[list[Scan], list[Scan]]:
    """Training and test scans; a patient is in one of them."""
    names = sorted({scan.subject for scan in scans})
    if config.folds is None:
        return list(scans), []
    if len(names) < config.folds + 1:
        raise UsageError(
            f"--folds {config.folds} needs more patients than {len(names)}"
        )
    order = np.random.default_rng([config.seed, 1]).permutation(len(names))
    held = {names[place] for place in order[config.fold :: config.folds]}
    training = [scan for scan in scans if scan.subject not in held]
    return training, [scan for scan in scans if scan.subject in held]


def _task(config: Config, slices: Any, n_classes: int) -> Any:
    from neuromm.training import SegmentationTask

    weights = config.class_weights
    if weights is None:
        counts = np.zeros(n_classes)
        for mask in slices.labels:
            counts += np.bincount(mask[mask >= 0].ravel(), minlength=n_classes)
        rarity = np.sqrt(counts[0] / np.maximum(counts, 1))
        weights = tuple(float(w) for w in np.clip(rarity, 1.0, _HEAVIEST))
    if len(weights) != n_classes:
        raise UsageError(
            f"--class-weights takes {n_classes} numbers, background first, got "
            f"{len(weights)}"
        )
    return SegmentationTask(n_classes=n_classes, class_weights=weights)


def _trained(
    model: Any,
    slices: Any,
    patients: Sequence[str],
    task: Any,
    config: Config,
    folder: str,
) -> Any:
    """Train one network, with a bar; a run that was stopped goes on."""
    from tqdm import tqdm

    from neuromm.training import TrainingConfig, fit

    training = TrainingConfig(
        n_epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule="cosine",
        validation_fraction=_VALIDATION if len(set(patients)) > 1 else 0.0,
        monitor="dice",
        higher_is_better=True,
        seed=config.seed,
    )
    with tqdm(total=1, unit="step", desc=folder, disable=None) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return fit(
            model,
            slices,
            training,
            task=task,
            groups=list(patients),
            augmentations=_augmentations(config, slices.labels.shape[1:]),
            folder=config.model_dir / folder,
            progress=told,
        )


def _augmentations(config: Config, sides: tuple[int, ...]) -> list[Any]:
    from neuromm.training import ModalityDropout, MonaiAugmentation

    found: list[Any] = []
    transforms = _transforms(config, sides)
    if transforms:
        from monai.transforms import Compose

        found.append(MonaiAugmentation(Compose(transforms)))
    if config.modality_dropout:
        found.append(ModalityDropout(config.modality_dropout))
    return found


def _transforms(config: Config, sides: tuple[int, ...]) -> list[Any]:
    """Random changes of samples of so many pixels along each side."""
    from monai.transforms import RandAffined, RandFlipd, RandScaleIntensityd

    keys = ["images", "labels"]
    found: list[Any] = []
    if not config.no_augmentation:
        # Within the sagittal plane; in 3-D the first axis runs across the slices.
        turns = (_TURN,) if len(sides) == 2 else (_TURN, 0.0, 0.0)
        shifts = [_SHIFT * side for side in sides]
        if len(sides) == 3:
            shifts[0] = 0.0
        found += [
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=turns,
                scale_range=0.12,
                translate_range=shifts,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandScaleIntensityd(["images"], factors=0.2, prob=0.5),
        ]
    if config.flips:
        last = (0, 1) if len(sides) == 2 else (1, 2)
        found += [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in last]
    return found


def _write_settings(config: Config, data: _Data, slices: Any, held: set[str]) -> None:
    from neuromm_pipelines.segment_settings import SegmentSettings

    across, up = np.median(slices.spacing_mm, axis=0)
    part = {scan.subject: "test" for scan in data.test}
    for scan in data.training:
        part[scan.subject] = "validation" if scan.subject in held else "training"
    SegmentSettings(
        modalities=data.modalities,
        classes={
            name: [list(pair) for pair in pairs] for name, pairs in data.classes.items()
        },
        may_lack=config.modality_dropout > 0,
        flips=config.flips,
        spacing_mm=(float(across), float(up)),
        patients=dict(sorted(part.items())),
        notice=_notice(config.data),
    ).write(config.model_dir)
    rows = [{"subject": name, "part": where} for name, where in sorted(part.items())]
    _write_table(config.model_dir / "split.tsv", pd.DataFrame(rows))


def _notice(data: Path) -> str:
    """What makers of data say of them in dataset_description.json, if simulated."""
    from neuromm.core.files import read_json

    path = data / "dataset_description.json"
    try:
        name = str(read_json(path).get("Name", "")) if path.is_file() else ""
    except DataError:
        return ""
    is_made = "simulat" in name.lower()
    return f"Trained on simulated scans ({name})." if is_made else ""


def _compare(
    config: Config,
    model: Any,
    slices: Any,
    patients: Sequence[str],
    task: Any,
    data: _Data,
) -> None:
    """Dice of the network and its baselines on the patients of the fold."""
    from neuromm_pipelines import segment_baselines

    networks: dict[str, Any] = {"IVD-Net": segment_baselines.of_network(model)}
    if "unet" in config.baseline:
        peer = segment_baselines.unet_like(model, config.seed)
        _trained(peer, slices, patients, task, config, "training-unet")
        networks["U-Net (MONAI)"] = segment_baselines.of_peer(peer)
    if "logistic" in config.baseline:
        networks["logistic regression"] = segment_baselines.logistic(
            slices, len(data.classes) + 1, config.seed
        )
    table = segment_baselines.compared(
        networks, data.test, data.modalities, data.classes, model
    )
    _write_table(config.model_dir / "comparison.tsv", table)
    n_patients = len({scan.subject for scan in data.test})
    print(f"neuromm segment fit: Dice on {n_patients} patients left out", flush=True)
    print(table.to_string(index=False, float_format="%.3f"), file=sys.stdout)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(
            temporary, sep="\t", index=False, na_rep="n/a", float_format="%.6g"
        )
