"""The methods paragraph: what was done, in words, from the numbers of the design."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "GENERAL_REFERENCES",
    "methods_paragraphs",
    "methods_references",
    "methods_text",
]

_REFERENCES = {
    "naselaris": "Naselaris T, Kay KN, Nishimoto S, Gallant JL (2011) Encoding and "
    "decoding in fMRI. NeuroImage 56:400-410. doi:10.1016/j.neuroimage.2010.07.073",
    "hoerl": "Hoerl AE, Kennard RW (1970) Ridge regression: biased estimation for "
    "nonorthogonal problems. Technometrics 12:55-67. "
    "doi:10.1080/00401706.1970.10488634",
    "bh": "Benjamini Y, Hochberg Y (1995) Controlling the false discovery rate: a "
    "practical and powerful approach to multiple testing. J R Stat Soc B 57:289-300. "
    "doi:10.1111/j.2517-6161.1995.tb02031.x",
    "phipson": "Phipson B, Smyth GK (2010) Permutation p-values should never be zero. "
    "Stat Appl Genet Mol Biol 9:39. doi:10.2202/1544-6115.1585",
    "bids": "Gorgolewski KJ, et al. (2016) The brain imaging data structure. "
    "Sci Data 3:160044. doi:10.1038/sdata.2016.44",
    "scikit-learn": "Pedregosa F, et al. (2011) Scikit-learn: machine learning in "
    "Python. J Mach Learn Res 12:2825-2830",
    "nilearn": "Abraham A, et al. (2014) Machine learning for neuroimaging with "
    "scikit-learn. Front Neuroinform 8:14. doi:10.3389/fninf.2014.00014",
    "mne": "Gramfort A, et al. (2013) MEG and EEG data analysis with MNE-Python. "
    "Front Neurosci 7:267. doi:10.3389/fnins.2013.00267",
    "mne-bids": "Appelhoff S, et al. (2019) MNE-BIDS: organizing electrophysiological "
    "data into the BIDS format and facilitating their analysis. J Open Source Softw "
    "4:1896. doi:10.21105/joss.01896",
    "fmriprep": "Esteban O, et al. (2019) fMRIPrep: a robust preprocessing pipeline "
    "for functional MRI. Nat Methods 16:111-116. doi:10.1038/s41592-018-0235-4",
    "fsaverage": "Fischl B, Sereno MI, Tootell RBH, Dale AM (1999) High-resolution "
    "intersubject averaging and a coordinate system for the cortical surface. "
    "Hum Brain Mapp 8:272-284",
    "glover": "Glover GH (1999) Deconvolution of impulse response in event-related "
    "BOLD fMRI. NeuroImage 9:416-429. doi:10.1006/nimg.1998.0419",
    "friston": "Friston KJ, et al. (1998) Event-related fMRI: characterizing "
    "differential responses. NeuroImage 7:30-40. doi:10.1006/nimg.1997.0306",
    "li": "Li G, et al. (2018) Optimal referencing for stereo-electroencephalographic "
    "(SEEG) recordings. NeuroImage 183:327-335. "
    "doi:10.1016/j.neuroimage.2018.08.020",
}

GENERAL_REFERENCES = tuple(
    _REFERENCES[key] for key in ("naselaris", "hoerl", "bids", "scikit-learn")
)

_SCORES = {
    "r2": "the coefficient of determination",
    "correlation": "Pearson's correlation",
    "mse": "the mean squared error",
}
_TARGETS = {
    "func": "voxel or vertex",
    "eeg": "sensor and time window",
    "meg": "sensor and time window",
    "ieeg": "contact and time window",
}


def methods_text(design: Mapping[str, Any]) -> str:
    """Methods section as plain text (Markdown), with its references.

    Parameters
    ----------
    design : mapping
        The ``Encoding`` object of a score table's sidecar; `docs/outputs.md` lists its
        keys. Numbers come from it alone; a sentence whose key is missing is left out.

    Returns
    -------
    text : str
        Paragraphs, then a list of references.
    """
    paragraphs = "\n\n".join(methods_paragraphs(design))
    references = "\n".join(f"- {text}" for text in methods_references(design))
    return f"{paragraphs}\n\nReferences\n\n{references}\n"


def methods_paragraphs(design: Mapping[str, Any]) -> list[str]:
    """Paragraphs of `methods_text`: responses, features, model, statistics."""
    paragraphs = (
        _responses(design),
        _features(design),
        _model(design),
        _statistics(design),
    )
    return [text for text in paragraphs if text]


def methods_references(design: Mapping[str, Any]) -> list[str]:
    """What the methods of this design cite, in alphabetical order."""
    keys = ["naselaris", "hoerl", "bids", "scikit-learn"]
    if design.get("datatype") == "func":
        keys.append("nilearn")
        if "fmriprep" in str(design.get("pipeline", "")).lower():
            keys.append("fmriprep")
        if str(design.get("space", "")).startswith("fsaverage"):
            keys.append("fsaverage")
        hrf = {"spm": "friston", "glover": "glover"}.get(str(design.get("hrf")))
        keys += [hrf] if hrf else []
    elif design.get("datatype") in {"eeg", "meg", "ieeg"}:
        keys += ["mne", "mne-bids"]
        reference = _preprocessing(design).get("reference")
        if design["datatype"] == "ieeg" and reference in {"bipolar", "laplacian"}:
            keys.append("li")
    if design.get("n_permutations"):
        keys += ["bh", "phipson"]
    return sorted(_REFERENCES[key] for key in keys)


def _responses(design: Mapping[str, Any]) -> str:
    steps = _preprocessing(design)
    if design.get("datatype") == "func":
        return _sentences(
            _func_source(design),
            _phrase(steps.get("high_pass"), "Slow drifts below {} Hz were removed"),
            _phrase(_listed(steps.get("confounds")), "Confounds regressed out: {}"),
            _trimmed(steps.get("trim")),
            "Responses were z-scored within each run"
            if steps.get("standardize")
            else None,
        )
    return _sentences(
        _phrase(
            steps.get("reference"),
            "Recordings were re-referenced ({})",
            skip=("none", None),
        ),
        _phrase(
            _listed(steps.get("notch")),
            "Line noise was removed by notch filters at {} Hz",
        ),
        _phrase(_band(steps.get("band_pass")), "Signals were filtered ({})"),
        _phrase(
            _band(steps.get("high_gamma")),
            "High-gamma amplitude ({}) was taken from the analytic signal",
        ),
        _epochs(design),
    )


def _func_source(design: Mapping[str, Any]) -> str | None:
    pipeline, space = design.get("pipeline"), design.get("space")
    t_r = design.get("t_r")
    parts = [
        f"preprocessed by {pipeline}" if pipeline else "",
        f"in the space {space}" if space else "",
        f"with a repetition time of {_number(t_r)} s" if t_r else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"BOLD responses were analysed {told}" if told else None


def _epochs(design: Mapping[str, Any]) -> str | None:
    settings = design.get("epochs") or design
    tmin, tmax = settings.get("tmin"), settings.get("tmax")
    if tmin is None or tmax is None:
        return None
    text = f"Epochs from {_number(tmin)} to {_number(tmax)} s around each event"
    window, step = settings.get("window_ms"), settings.get("step_ms")
    if window:
        text += f" were averaged in windows of {_number(window)} ms"
        text += f" every {_number(step)} ms" if step else ""
    else:
        text += " were cut"
    baseline = settings.get("baseline")
    if baseline:
        start, stop = ("the start" if b is None else _number(b) for b in baseline)
        text += f", after subtraction of the mean from {start} to {stop} s"
    return text


def _features(design: Mapping[str, Any]) -> str:
    spaces = design.get("feature_spaces") or {}
    if not spaces:
        return ""
    told = []
    for name, space in spaces.items():
        n_features, model = space.get("n_features"), space.get("model")
        detail = [f"{n_features} features"] if n_features else []
        detail += [f"model {model}"] if model else []
        told.append(f"{name} ({', '.join(detail)})" if detail else str(name))
    noun = "feature space" if len(told) == 1 else "feature spaces"
    hrf, delays = design.get("hrf"), design.get("delays")
    return _sentences(
        f"Responses were predicted from {len(told)} {noun}: {'; '.join(told)}",
        f"Features were convolved with the {_hrf_name(hrf)} haemodynamic response"
        if hrf and hrf != "none"
        else None,
        f"Features were delayed within each run by {_listed(delays)} samples (finite "
        "impulse response)"
        if delays
        else None,
    )


def _model(design: Mapping[str, Any]) -> str:
    target = _TARGETS.get(str(design.get("datatype")), "target")
    alphas = design.get("alphas")
    scoring = _SCORES.get(str(design.get("scoring")), design.get("scoring"))
    n_samples = design.get("n_samples")
    runs = design.get("runs")
    n_runs = (
        len(runs) if isinstance(runs, Sequence) and not isinstance(runs, str) else 0
    )
    return _sentences(
        "Encoding models (Naselaris et al., 2011) were fitted by ridge regression "
        f"(Hoerl and Kennard, 1970) to each {target}",
        f"There were {n_samples} samples"
        + (f" in {n_runs} run{'s' if n_runs > 1 else ''}" if n_runs else "")
        if n_samples
        else None,
        _folds(design.get("folds")),
        f"The penalty was chosen for each {target} out of {len(alphas)} values from "
        f"{_number(min(alphas))} to {_number(max(alphas))}, within the training data"
        + (f", by {scoring}" if scoring else "")
        if alphas
        else None,
        "Prediction was scored by Pearson's correlation r and the coefficient of "
        "determination, over the held-out predictions of all folds",
    )


def _statistics(design: Mapping[str, Any]) -> str:
    n_permutations = design.get("n_permutations")
    if not n_permutations:
        return (
            "No permutation test was run: how high r rises by chance is not known from "
            "these results."
        )
    block = design.get("block")
    return _sentences(
        f"Chance was assessed with {n_permutations} permutations"
        + (f" of blocks of {block} samples" if block else "")
        + "; p = (1 + number of permutations at or above the observed score) / (1 + "
        "number of permutations) (Phipson and Smyth, 2010)",
        "The false discovery rate was controlled over the targets of each feature "
        "space (Benjamini and Hochberg, 1995)",
    )


def _folds(folds: Any) -> str | None:
    if not folds:
        return None
    if isinstance(folds, Mapping):
        number = folds.get("n_folds") or folds.get("n")
        kind = folds.get("kind") or folds.get("name") or folds.get("splitter")
        text = f"in {number} folds" if number else "in folds"
        text += f" ({kind})" if kind else ""
        return f"Models were tested on held-out data {text}"
    if isinstance(folds, str):
        return f"Models were tested on held-out data ({folds})"
    number = len(folds) if isinstance(folds, Sequence) else folds
    return f"Models were tested on held-out data in {number} folds"


def _trimmed(trim: Any) -> str | None:
    if not isinstance(trim, Sequence) or isinstance(trim, str) or not any(trim):
        return None
    first, last = trim
    return f"The first {first} and the last {last} volumes of each run were dropped"


def _preprocessing(design: Mapping[str, Any]) -> Mapping[str, Any]:
    steps = design.get("preprocessing")
    return steps if isinstance(steps, Mapping) else {}


def _hrf_name(hrf: Any) -> str:
    return {"spm": "canonical SPM", "glover": "Glover (1999)"}.get(str(hrf), str(hrf))


def _band(band: Any) -> str | None:
    if not isinstance(band, Sequence) or isinstance(band, str) or len(band) != 2:
        return str(band) if band else None
    low, high = band
    if low is None and high is None:
        return None
    if low is None:
        return f"below {_number(high)} Hz"
    if high is None:
        return f"above {_number(low)} Hz"
    return f"{_number(low)} to {_number(high)} Hz"


def _listed(values: Any) -> str | None:
    if values is None or values is False or values == []:
        return None
    if isinstance(values, str) or not isinstance(values, Sequence):
        return str(values)
    return ", ".join(_number(value) for value in values)


def _phrase(
    value: Any, form: str, skip: tuple[Any, ...] = (None, False, "")
) -> str | None:
    if value in skip or value is None:
        return None
    return form.format(_number(value))


def _sentences(*sentences: str | None) -> str:
    return " ".join(f"{text}." for text in sentences if text)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
