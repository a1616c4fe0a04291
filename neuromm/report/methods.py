"""The methods paragraph: what was done, in words, from the numbers of the design."""

from collections.abc import Mapping, Sequence
from typing import Any

from neuromm.report.site_methods import sites_paragraph

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
    "subramaniam": "Subramaniam V, Conwell C, Wang C, Kreiman G, Katz B, Cases I, "
    "Barbu A (2024) Revealing vision-language integration in the brain with multimodal "
    "networks. ICML",
    "berger": "Berger RL, Hsu JC (1996) Bioequivalence trials, intersection-union "
    "tests and equivalence confidence sets. Stat Sci 11:283-319. "
    "doi:10.1214/ss/1032280304",
    "politis": "Politis DN, Romano JP (1992) A circular block-resampling procedure for "
    "stationary data. In: LePage R, Billard L (eds) Exploring the Limits of Bootstrap. "
    "Wiley, pp 263-270",
    "efron": "Efron B, Stein C (1981) The jackknife estimate of variance. Ann Stat "
    "9:586-596. doi:10.1214/aos/1176345462",
    "bates": "Bates S, Hastie T, Tibshirani R (2024) Cross-validation: what does it "
    "estimate and how well does it do it? J Am Stat Assoc 119:1434-1445. "
    "doi:10.1080/01621459.2023.2197686",
    "by": "Benjamini Y, Yekutieli D (2001) The control of the false discovery rate in "
    "multiple testing under dependency. Ann Stat 29:1165-1188. "
    "doi:10.1214/aos/1013699998",
    "fsaverage": "Fischl B, Sereno MI, Tootell RBH, Dale AM (1999) High-resolution "
    "intersubject averaging and a coordinate system for the cortical surface. "
    "Human Brain Mapping 8:272-284",
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
    """Paragraphs of `methods_text`: data, features, model, statistics, sites, tools."""
    paragraphs = (
        _responses(design),
        _features(design),
        _model(design),
        _statistics(design),
        sites_paragraph(design),
        _software(design),
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
        keys += ["li"] if _local_reference(design) else []
    if design.get("n_permutations"):
        keys += ["bh", "phipson"]
    sites = design.get("sites")
    if sites:
        keys += ["subramaniam", "berger", "politis", "efron", "bates"]
        keys.append("by" if sites.get("correction") == "by" else "bh")
    return sorted(_REFERENCES[key] for key in dict.fromkeys(keys))


def _responses(design: Mapping[str, Any]) -> str:
    if design.get("datatype") == "func":
        return _sentences(
            _bold_source(design),
            _phrase(design.get("high_pass_hz"), "Slow drifts below {} Hz were removed"),
            _phrase(_listed(design.get("confounds")), "Confounds regressed out: {}"),
            _trimmed(design.get("trim_volumes")),
            _phrase(design.get("standardized"), "Responses were standardised ({})"),
        )
    return _sentences(
        _sampling(design),
        _referencing(design),
        _phrase(
            _listed(design.get("notch_hz")),
            "Line noise was removed by notch filters at {} Hz and its harmonics",
        ),
        _phrase(
            _band(design.get("l_freq_hz"), design.get("h_freq_hz")),
            "Signals were filtered to keep frequencies {}",
        ),
        _phrase(
            _band(*(design.get("high_gamma_hz") or (None, None))),
            "High-gamma amplitude ({}) was taken from the analytic signal",
        ),
        _epochs(design),
    )


def _bold_source(design: Mapping[str, Any]) -> str | None:
    pipeline, space = design.get("pipeline"), design.get("space")
    t_r = design.get("t_r_s")
    if pipeline and "fmriprep" in str(pipeline).lower():
        pipeline = f"{pipeline} (Esteban et al., 2019)"
    if str(space).startswith("fsaverage"):
        space = f"{space} (Fischl et al., 1999)"
    parts = [
        f"preprocessed by {pipeline}" if pipeline else "",
        f"space {space}" if space else "",
        f"repetition time {_number(t_r)} s" if t_r else "",
    ]
    told = "; ".join(part for part in parts if part)
    return f"BOLD responses were analysed: {told}" if told else None


def _sampling(design: Mapping[str, Any]) -> str | None:
    n_channels, sfreq = design.get("n_channels"), design.get("sfreq_hz")
    if not n_channels:
        return None
    rate = f", sampled at {_number(sfreq)} Hz" if sfreq else ""
    return f"{n_channels} channels were analysed{rate}"


def _referencing(design: Mapping[str, Any]) -> str | None:
    reference = design.get("reference")
    if not reference or reference == "none":
        return None
    scheme = {
        "average": "to the average of all channels",
        "bipolar": "to the next contact of the shaft (bipolar)",
        "laplacian": "to the mean of the neighbours on the shaft (Laplacian)",
    }.get(str(reference), f"({reference})")
    cited = " (Li et al., 2018)" if _local_reference(design) else ""
    return f"Signals were re-referenced {scheme}{cited}"


def _local_reference(design: Mapping[str, Any]) -> bool:
    local = design.get("reference") in {"bipolar", "laplacian"}
    return local and design.get("datatype") == "ieeg"


def _epochs(design: Mapping[str, Any]) -> str | None:
    tmin, tmax = design.get("tmin_s"), design.get("tmax_s")
    if tmin is None or tmax is None:
        return None
    text = f"Epochs from {_number(tmin)} to {_number(tmax)} s around each event"
    window, step = design.get("window_ms"), design.get("step_ms")
    if window:
        text += f" were averaged in windows of {_number(window)} ms"
        text += f" every {_number(step)} ms" if step else ""
    else:
        text += " were cut"
    baseline = design.get("baseline_s")
    if baseline:
        start, stop = baseline
        text += (
            f", after subtraction of the mean from {_number(start)} to "
            f"{_number(stop)} s"
        )
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
        # A network is told with its layer and weights, and a stand-in as what it is.
        kind, layer = space.get("kind"), space.get("layer")
        detail += [str(kind)] if kind else []
        detail += [f"layer: {layer}"] if layer else []
        weights = str(space.get("weights_sha256") or "")
        if weights and kind != "stand-in":
            detail.append(f"SHA-256 of the weights: {weights[:12]}…")
        told.append(f"{name} ({', '.join(detail)})" if detail else str(name))
    noun = "feature space" if len(told) == 1 else "feature spaces"
    hrf = design.get("hrf")
    delays = design.get("delays_volumes") if hrf == "fir" else None
    return _sentences(
        f"Responses were predicted from {len(told)} {noun}: {'; '.join(told)}",
        f"Features were convolved with the {_hrf_name(hrf)}"
        if hrf and hrf not in {"none", "fir"}
        else None,
        f"Features were delayed within each run by {_listed(delays)} volumes (finite "
        "impulse response)"
        if delays
        else None,
        "Features were z-scored by mean and standard deviation of the training data"
        if design.get("standardize")
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
        _folds(design),
        f"The penalty was chosen for each {target} out of {len(alphas)} values from "
        f"{_number(min(alphas))} to {_number(max(alphas))}, within the training data"
        + (f", by {scoring}" if scoring else "")
        if alphas
        else None,
        _layers(design, target, scoring),
        "Prediction was scored by Pearson's correlation r and the coefficient of "
        "determination, over the held-out predictions of all folds",
    )


def _layers(design: Mapping[str, Any], target: str, scoring: Any) -> str | None:
    """How the layer of a space was chosen, where there were several."""
    told = [
        f"{name} out of {len(str(space['candidates']).split())}"
        for name, space in (design.get("feature_spaces") or {}).items()
        if space.get("candidates")
    ]
    if not told:
        return None
    return (
        f"The layer of the network was chosen for each {target} as well, within the "
        f"training data of each fold (of {', of '.join(told)})"
        + (f", by {scoring} of the inner folds" if scoring else "")
        + "; the held-out fold took no part in it"
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
        f"Chance was assessed with {n_permutations} permutations of the responses "
        "against the predictions within runs"
        + (f", in blocks of {block} samples" if block else "")
        + "; p = (1 + number of permutations at or above the observed score) / (1 + "
        "number of permutations) (Phipson and Smyth, 2010)",
        "The false discovery rate was controlled over the targets of each feature "
        "space (Benjamini and Hochberg, 1995)",
    )


def _software(design: Mapping[str, Any]) -> str:
    used = ["scikit-learn (Pedregosa et al., 2011)"]
    if design.get("datatype") == "func":
        used.append("nilearn (Abraham et al., 2014)")
    elif design.get("datatype") in {"eeg", "meg", "ieeg"}:
        used += [
            "MNE-Python (Gramfort et al., 2013)",
            "MNE-BIDS (Appelhoff et al., 2019)",
        ]
    return (
        f"Data were organised after BIDS (Gorgolewski et al., 2016). The analysis used "
        f"neuromm, which builds on {', '.join(used[:-1])}"
        f"{' and ' if used[:-1] else ''}{used[-1]}."
    )


def _folds(design: Mapping[str, Any]) -> str | None:
    number, kind = design.get("n_folds"), design.get("cv")
    if kind:
        return f"Models were tested on held-out data ({kind})"
    return f"Models were tested on held-out data in {number} folds" if number else None


def _trimmed(trim: Any) -> str | None:
    if not isinstance(trim, Sequence) or isinstance(trim, str) or not any(trim):
        return None
    first, last = trim
    return f"The first {first} and the last {last} volumes of each run were dropped"


def _hrf_name(hrf: Any) -> str:
    return {
        "spm": "canonical haemodynamic response of SPM (Friston et al., 1998)",
        "glover": "haemodynamic response of Glover (1999)",
    }.get(str(hrf), f"haemodynamic response '{hrf}'")


def _band(low: Any, high: Any) -> str | None:
    if low is None and high is None:
        return None
    if low is None:
        return f"below {_number(high)} Hz"
    if high is None:
        return f"above {_number(low)} Hz"
    return f"{_number(low)} to {_number(high)} Hz"


def _listed(values: Any) -> str | None:
    if not values:
        return None
    if isinstance(values, str) or not isinstance(values, Sequence):
        return _number(values)
    return ", ".join(_number(value) for value in values)


def _phrase(value: Any, form: str) -> str | None:
    return form.format(_number(value)) if value else None


def _sentences(*sentences: str | None) -> str:
    return " ".join(f"{text}." for text in sentences if text)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
