"""The flags of ``neuromm encode`` that name backbones, and the settings they make."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from neuromm.core.errors import UsageError
from neuromm_pipelines.command_line import add_flag

__all__ = ["BackboneSettings", "BackboneSpec", "add_backbones", "backbone_settings"]

_CONTEXT_WORDS = 20
_FILM_STEP_S = 0.5
_PREFIX = re.compile(r"(random|image|text|layers(?:-?\d+(?:,-?\d+)*)?|layer-?\d+):")
_NOT_IN_NAMES = set('/\\:*?"<>|')  # the space is part of a file's name


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """One backbone as the command line names it.

    Attributes
    ----------
    source : str
        Built-in name, or folder.
    random : bool
        The randomly initialised twin.
    tower : {"image", "text"} or None
        Tower of a model with two.
    layer : int or None
        Hidden state to embed with, as in `neuromm.features.load_backbone`.
    layers : tuple of int or None
        Hidden states of which each target takes one, chosen inside the training folds;
        all of them if empty.
    """

    source: str
    random: bool = False
    tower: Literal["image", "text"] | None = None
    layer: int | None = None
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSettings:
    """Feature spaces that are computed from the stimuli of the data set."""

    spaces: Mapping[str, BackboneSpec]
    text_column: str | None = None  # None: chosen by what the events hold
    context_words: int = _CONTEXT_WORDS
    film_step_s: float = _FILM_STEP_S

    def __post_init__(self) -> None:
        if not self.film_step_s > 0:
            raise UsageError(
                f"--film-step must be a time in s above 0, got {self.film_step_s:g}"
            )
        if self.context_words < 0:
            raise UsageError(
                f"--context-words must be 0 or more, got {self.context_words}"
            )


def add_backbones(group: argparse._ActionsContainer) -> None:
    """Flags from stimuli to features."""
    add_flag(
        group, "--backbone", nargs="+", metavar="NAME=BACKBONE",
        help="feature spaces computed from stimuli/: a built-in name or a local "
        "folder; before it, random: is the untrained twin, image: or text: one of two "
        "towers, layer8: the hidden state after block 8 (layer-1: the last), and "
        "layers: or layers4,8,12: all or some, of which each target takes the one that "
        "its training folds choose",
    )  # fmt: skip
    add_flag(
        group, "--text-column",
        help="column of events.tsv that holds the texts (default: word, text or "
        "caption, else the .txt files of stimuli/)",
    )  # fmt: skip
    add_flag(
        group, "--context-words", type=int, default=_CONTEXT_WORDS, metavar="N",
        help="previous words that a word of the column word is embedded with "
        "(default: %(default)s)",
    )  # fmt: skip
    add_flag(
        group, "--film-step", type=float, default=_FILM_STEP_S, metavar="S",
        help="time between the frames of a film that are averaged within each volume "
        "of fMRI, in s (default: %(default)s)",
    )  # fmt: skip


def backbone_settings(args: argparse.Namespace) -> BackboneSettings | None:
    """`BackboneSettings` of parsed flags; None without ``--backbone``.

    Raises
    ------
    UsageError
        If a value is no ``NAME=BACKBONE``, or a name is given twice.
    """
    if not args.backbone:
        if args.text_column is not None:
            raise UsageError("--text-column is for --backbone: give both")
        return None
    spaces: dict[str, BackboneSpec] = {}
    for value in args.backbone:
        name, _, spec = value.partition("=")
        if not name or not spec or _NOT_IN_NAMES & set(name):
            raise UsageError(
                f"--backbone takes NAME=BACKBONE, such as vision=efficientnet-lite0, "
                f"got {value!r}"
            )
        if name in spaces:
            raise UsageError(
                f"--backbone names {name!r} twice: give each space a name of its own"
            )
        spaces[name] = _spec(spec)
    return BackboneSettings(
        spaces=spaces,
        text_column=args.text_column,
        context_words=args.context_words,
        film_step_s=args.film_step,
    )


def _spec(text: str) -> BackboneSpec:
    """Read ``random:``, layers and a tower, in any order, before the source."""
    source, random = text, False
    tower: Literal["image", "text"] | None = None
    layer: int | None = None
    layers: tuple[int, ...] | None = None
    while match := _PREFIX.match(source):
        source = source[match.end() :]
        word = match[1]
        if word == "random":
            random = True
        elif word in ("image", "text"):
            tower = "image" if word == "image" else "text"
        elif word.startswith("layers"):
            numbers = word.removeprefix("layers")
            layers = tuple(int(one) for one in numbers.split(",") if one)
        else:
            layer = int(word.removeprefix("layer"))
    if layer is not None and layers is not None:
        raise UsageError(
            f"--backbone {text}: layer{layer}: is one layer and layers: chooses among "
            "several; give one of them"
        )
    if not source:
        raise UsageError(
            f"--backbone: no network follows {text!r}: expected a built-in name or a "
            "folder"
        )
    return BackboneSpec(
        source=source, random=random, tower=tower, layer=layer, layers=layers
    )
