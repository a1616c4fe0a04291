"""Backbones from folders of `transformers`: text, vision, and both towers of CLIP.

A folder is read as it lies there: no hub, no code of its own, no weights but
safetensors. The random twin has the same configuration, tokeniser and image settings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from neuromm.core import DataError, InputMissingError, UsageError
from neuromm.core.files import read_json
from neuromm.features.backbones import Backbone, Modality

__all__ = ["load_transformer"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")


def load_transformer(
    folder: Path,
    *,
    name: str,
    seed: int | None = None,
    modality: Modality | None = None,
    layer: int | None = None,
    pooling: Literal["mean", "first", "last"] | None = None,
    max_tokens: int | None = None,
    batch_size: int = 32,
    device: str = "cpu",
) -> Backbone:
    """Load the model of a folder.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and safetensors; a tokeniser for text,
        ``preprocessor_config.json`` for images.
    name : str
    seed : int, optional
        Random weights of this seed instead of the trained ones.
    modality, layer, pooling, max_tokens, batch_size, device
        See `load_backbone`.

    Raises
    ------
    InputMissingError
        If a file of the folder is missing.
    DataError
        If the folder holds weights in another format than safetensors, or they do not
        fit its configuration.
    UsageError
        If the model takes neither images nor text, or needs code of its own.
    """
    from neuromm.features.dual_encoder import DualEncoder
    from neuromm.features.image_transformer import ImageTransformer
    from neuromm.features.text_transformer import TextTransformer

    # Weights in half precision are computed with in single precision.
    model = _model(folder, seed).float().to(device).eval()
    found = _modality(model, folder)
    about: dict[str, Any] = {
        "name": name,
        "kind": "trained" if seed is None else "random twin",
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
    }
    if found == "joint":
        towers = DualEncoder(
            model,
            tokenizer=_tokenizer(folder),
            preparation=_preparation(folder),
            max_tokens=max_tokens,
            **about,
        )
        return towers.tower(modality or "joint", layer=layer, pooling=pooling)
    if modality not in (None, found):
        raise UsageError(f"{folder} holds a model of {found}, not of {modality}")
    if found == "text":
        return TextTransformer(
            model,
            tokenizer=_tokenizer(folder),
            max_tokens=max_tokens or _max_tokens(folder),
            layer=layer,
            pooling=pooling or _sentence_pooling(folder) or "mean",
            **about,
        )
    if max_tokens is not None:
        raise UsageError(f"{folder} holds a model of images: max_tokens is of text")
    return ImageTransformer(
        model, preparation=_preparation(folder), layer=layer, pooling=pooling, **about
    )


def _model(folder: Path, seed: int | None) -> Any:
    from neuromm._optional import require

    transformers = require("transformers", extra="hf")
    settings = read_json(folder / "config.json")
    if "auto_map" in settings:
        raise UsageError(
            f"{folder}/config.json asks for code of its own (auto_map), which is not "
            "run. Compute the features with the model's own tools and pass them as a "
            "table (--features)."
        )
    # local_files_only as well as an existing folder: nothing is fetched.
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet(transformers):
            if seed is not None:
                config = transformers.AutoConfig.from_pretrained(folder, **safe)
                return _without_new_pooler(
                    _random_model(transformers, config, seed), folder
                )
            _check_weights(folder)
            model, report = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **safe
            )
    except (InputMissingError, DataError, MemoryError):
        raise
    except Exception as error:  # damage raises errors of many packages
        message = f"is no model that transformers loads ({error})"
        raise DataError(message, folder) from error
    _check_complete(report, model, folder)
    return _without_new_pooler(model, folder)


def _random_model(transformers: Any, config: Any, seed: int) -> Any:
    import torch

    # The seed of the twin leaves that of the caller's programme alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModel.from_config(config, trust_remote_code=False)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice to train the model, for the time of loading."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if others:
        raise DataError(
            f"holds {others[0]} and no safetensors: other formats are not loaded, "
            "since a pickle can run any code. Convert the weights once where you "
            "trust them: save_pretrained(folder, safe_serialization=True).",
            folder,
        )
    raise InputMissingError(f"{folder} has no *.safetensors: the weights are missing")


def _check_complete(report: dict[str, Any], model: Any, folder: Path) -> None:
    """Refuse weights that would leave a part of the network random."""
    lacking = sorted(
        key for key in report.get("missing_keys", ()) if "pooler" not in key.split(".")
    )
    mismatched = [str(key) for key in report.get("mismatched_keys", ())]
    if not lacking and not mismatched:
        return
    wrong = [*lacking, *mismatched]
    raise DataError(
        f"the weights do not fit {type(model).__name__}: {len(wrong)} tensors are "
        f"missing or of another shape, the first is {wrong[0]}. Does config.json "
        "belong to these weights?",
        folder,
    )


def _without_new_pooler(model: Any, folder: Path) -> Any:
    """Drop a pooler that transformers adds to weights without one.

    It would be random in the trained network. Its twin drops it as well, so that both
    have the same layers.
    """
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    names: list[str] = []
    for file in files:
        with safe_open(file, framework="numpy") as weights:
            names += weights.keys()
    trained = any("pooler" in name.split(".") for name in names)
    if files and not trained and getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _modality(model: Any, folder: Path) -> Modality:
    if hasattr(model, "get_image_features") and hasattr(model, "get_text_features"):
        return "joint"
    takes = getattr(model, "main_input_name", "")
    if hasattr(model.config, "vision_config"):
        raise UsageError(
            f"{folder} holds {type(model).__name__}, which fuses image and text in a "
            "way of its own; models with two towers (CLIP, SigLIP) are read. Compute "
            "its features with its own tools and pass them as a table (--features)."
        )
    if takes == "input_ids":
        return "text"
    if takes == "pixel_values":
        return "image"
    raise UsageError(
        f"{folder} holds {type(model).__name__}, which takes {takes or 'other input'}; "
        "expected a model of text or images"
    )


def _tokenizer(folder: Path) -> Any:
    from neuromm._optional import require

    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InputMissingError(
            f"{folder} has no tokenizer.json: the words cannot be turned into tokens. "
            "Copy the tokeniser from where the weights came from."
        )
    transformers = require("transformers", extra="hf")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # as above
        raise DataError(f"its tokeniser does not load ({error})", folder) from error
    if not tokenizer.is_fast:
        raise UsageError(
            f"{folder}: the tokeniser {type(tokenizer).__name__} does not say which "
            "characters a token stands for; expected one with a tokenizer.json"
        )
    return tokenizer


def _preparation(folder: Path) -> Any:
    from neuromm.features.image_pixels import read_preparation

    return read_preparation(folder)


def _max_tokens(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return None
    length = read_json(path).get("max_seq_length")
    return int(length) if length else None


def _sentence_pooling(folder: Path) -> Literal["mean", "first", "last"] | None:
    """Pooling that a folder of sentence-transformers asks for."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    settings = read_json(path)
    modes: dict[str, Literal["mean", "first", "last"]] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "first",
        "pooling_mode_lasttoken": "last",
    }
    wanted = [key for key, value in settings.items() if value is True and "mode" in key]
    if len(wanted) == 1 and wanted[0] in modes:
        return modes[wanted[0]]
    raise UsageError(
        f"{path} asks for {', '.join(wanted) or 'no pooling'}: name one of mean, first "
        "or last yourself"
    )
