"""Flags of ``neuromm segment``."""

import argparse
from pathlib import Path

from neuromm_pipelines.command_line import (
    RESEARCH_USE,
    QuietAliases,
    add_device,
    add_flag,
)

__all__ = ["LAYOUTS", "build_parser"]

LAYOUTS = ("auto", "bids", "ivdm3seg", "spider", "files")
_LAYOUTS_TEXT = """\
what lies on disk (--layout, told by itself if it is left out):
  bids       sub-01/anat/sub-01_T2w.nii.gz …; labels in --labels DERIVATIVE
  ivdm3seg   01/01_fat.nii 01/01_inn.nii 01/01_opp.nii 01/01_wat.nii 01/01_Labels.nii
  spider     images/1_t1.mha images/1_t2.mha masks/1_t2.mha
  files      SUBJECT/NAME.nii.gz, .mha, or a folder SUBJECT/NAME of DICOM files, one a
             modality; SUBJECT/labels.nii.gz
"""


def build_parser() -> argparse.ArgumentParser:
    """Parser of the three jobs."""
    parser = argparse.ArgumentParser(
        prog="neuromm segment",
        description=f"Segment intervertebral discs with IVD-Net. {RESEARCH_USE}",
        formatter_class=QuietAliases,
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    for name, build, text in (
        ("fit", _fit, "train a network on labelled scans"),
        ("predict", _predict, "find the discs of scans"),
        ("evaluate", _evaluate, "compare what was found with a reference"),
    ):
        job = jobs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. {RESEARCH_USE}",
            epilog=_LAYOUTS_TEXT,
            formatter_class=QuietAliases,
        )
        build(job)
        _common(job)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    add_flag(data, "--layout", choices=LAYOUTS, default="auto", help="see below")
    add_flag(
        data,
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="subjects to take, without sub-; all if left out",
    )
    add_flag(
        data,
        "--labels",
        type=Path,
        metavar="DERIVATIVE",
        help="BIDS derivative data set with reference masks (layout bids)",
    )
    add_flag(
        data,
        "--resample-to",
        metavar="MODALITY",
        help="bring modalities on other grids to that of this one; an error without",
    )
    add_flag(
        data,
        "--persons",
        type=Path,
        metavar="TSV",
        help="columns set and subject: which sets of ivdm3seg are scans of one person",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0)
    add_flag(parser, "--debug", switch=True, help="show tracebacks of errors")


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    add_flag(
        parser,
        "--modalities",
        nargs="+",
        metavar="NAME",
        help="images of each scan, in this order (fat inn opp wat; t1 t2; T1w T2w)",
    )
    add_flag(
        parser,
        "--classes",
        nargs="+",
        metavar="NAME=VALUES",
        help="labels of each class: disc=201-225 vertebra=1-25 canal=100. One class is "
        "called disc. Left out: every label of ivdm3seg, bids and files is disc, and "
        "201 and above of spider",
    )
    network = parser.add_argument_group("network")
    add_flag(network, "--width", type=int, default=8, metavar="N", help="channels of "
             "the first level (8; 32 as published)")  # fmt: skip
    add_flag(network, "--dimension", type=int, default=2, metavar="2|3",
             help="slices, or whole volumes (2)")  # fmt: skip
    add_flag(network, "--fusion", choices=("hyperdense", "early", "late"),
             default="hyperdense", help="where modalities meet")  # fmt: skip
    add_flag(network, "--dropout", type=float, default=0.0, metavar="P",
             help="of maps; predict --uncertainty dropout needs it")  # fmt: skip
    training = parser.add_argument_group("training")
    add_flag(training, "--epochs", type=int, default=60, metavar="N", help="(60)")
    add_flag(training, "--batch-size", type=int, default=4, metavar="N", help="(4)")
    add_flag(training, "--learning-rate", type=float, default=3e-3, metavar="X",
             help="falls to 0 along a cosine (0.003)")  # fmt: skip
    add_flag(training, "--class-weights", nargs="+", type=float, metavar="X",
             help="of the loss, background first; by the share of each class if left "
             "out")  # fmt: skip
    add_flag(training, "--modality-dropout", type=float, default=0.0, metavar="P",
             help="leave modalities out in training, so that predict may do without "
             "(0)")  # fmt: skip
    add_flag(training, "--flips", switch=True, help="turn slices round in training; "
             "predict --uncertainty flips needs it")  # fmt: skip
    add_flag(training, "--no-augmentation", switch=True,
             help="no random turns, sizes, shifts and gains")  # fmt: skip
    add_flag(training, "--folds", type=int, metavar="K",
             help="leave the patients of one of K parts out, as a test")  # fmt: skip
    add_flag(training, "--fold", type=int, default=0, metavar="I",
             help="which part, from 0 on (0)")  # fmt: skip
    add_flag(training, "--baseline", nargs="+", choices=("unet", "logistic"),
             default=(), help="train these on the same patients and compare: a U-Net "
             "of as many parameters, a logistic regression of intensities (needs "
             "--folds)")  # fmt: skip
    add_flag(training, "--seed", type=int, default=0, metavar="N", help="(0)")
    add_device(training)


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    add_flag(parser, "--model", type=Path, metavar="MODEL_DIR",
             help="folder that fit wrote (needed)")  # fmt: skip
    add_flag(parser, "--uncertainty", choices=("none", "flips", "dropout"),
             default="none", help="mean and doubt of several looks at each slice; the "
             "network must have been trained with it")  # fmt: skip
    add_flag(parser, "--smallest-mm3", type=float, default=300.0, metavar="V",
             help="drop smaller pieces (300)")  # fmt: skip
    add_flag(parser, "--overwrite", switch=True, help="compute finished scans again")
    add_flag(parser, "--seed", type=int, default=0, metavar="N", help="(0)")
    add_device(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    add_flag(
        parser,
        "--split",
        type=Path,
        metavar="MODEL_DIR",
        help="keep to patients that this model has not seen: by its split.tsv",
    )
