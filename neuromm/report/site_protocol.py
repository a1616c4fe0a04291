"""What a map of sites by a published protocol says of itself."""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "follows_protocol",
    "protocol_claim",
    "protocol_column",
    "protocol_conditions",
    "protocol_counts",
    "protocol_paragraph",
    "protocol_warning",
]

_COLUMNS = {
    "gain": "Mean difference of the multimodal model and the stronger of the best "
    "unimodal one and the concatenation, over the bins that both predict, a difference "
    "of correlations",
    "ci_low": "Lower end of the interval of the gain over resampled bins",
    "ci_high": "Upper end of the interval of the gain over resampled bins",
    "competitor": "The stronger of the best unimodal model and the concatenation",
    "p": "The larger p of the two comparisons that decide",
    "q": "The larger of q_unimodal and q_concatenation",
    "is_site": "Whether q is at most Sites.q and the gain above 0",
    "by_default": "Whether the target would be a site, which it is not, if a "
    "comparison with a model that predicts too few bins counted as won",
}


def follows_protocol(settings: Mapping[str, Any]) -> bool:
    """Tell whether the settings of a map name a published protocol."""
    return bool(settings.get("protocol"))


def protocol_warning(settings: Mapping[str, Any], n_by_default: int) -> str:
    """What a reader has to know before quoting the map."""
    return (
        f"Made by the protocol {settings['protocol']}, to compare with published "
        "numbers. It is liberal: overlapping time bins count as replicates, which "
        "rejects 48 % at a nominal 5 %, and there is no gap between training and "
        f"held-out events. Wins by default, without a test: {n_by_default:,}; they are "
        "no sites. Claim sites by the default protocol."
    )


def protocol_claim(settings: Mapping[str, Any], noun: str) -> str:
    """The sentence that defines a site."""
    return (
        f"Protocol {settings['protocol']} (Subramaniam et al., 2024), which is "
        f"liberal: a {noun} counts as a site if the features of "
        f"{settings['multimodal']} predict it better than the best unimodal ones and "
        "than all unimodal ones side by side, each with q <= "
        f"{settings['q']:g} within its comparison. Models are compared in the time "
        "bins that both predict (lower end of the resampled validation score "
        f"above 0; {settings['min_bins']} bins or more)."
    )


def protocol_conditions(settings: Mapping[str, Any]) -> str:
    """What the numbers rest on."""
    return (
        f"Scores are of second halves of held-out folds, over {settings['n_events']:,} "
        f"events resampled {settings['n_resamples']:,} times, each time fitted anew. "
        "The p of a comparison comes from resampled time bins, which overlap."
    )


def protocol_counts(summary: Mapping[str, Any], noun: str) -> str:
    """Sentence on wins by default; empty where there are none."""
    count = summary.get("n_by_default") or 0
    if not count:
        return ""
    return f" Another {count:,} {noun}{'s' if count > 1 else ''} won by default."


def protocol_paragraph(settings: Mapping[str, Any], target: str) -> str:
    """A paragraph for the methods section."""
    unimodal = ", ".join(map(str, settings["unimodal"]))
    sentences = [
        "Sites of multimodal integration were found by the procedure of Subramaniam et "
        f"al. (2024), with the features of {settings['multimodal']} as the multimodal "
        f"and of {unimodal} as the unimodal ones",
        "Ridge regression was fitted in five contiguous folds; the first half of each "
        "held-out fold chose one of seven penalties (0.1 to 1e5) for each "
        f"{target} and time bin, the second half scored it by Pearson's correlation",
        f"Events were resampled {settings['n_resamples']} times, and all was fitted "
        "again on the same resamples for every model; a time bin was kept if the lower "
        "end of the 95 % interval of its validation score was above 0",
        f"A {target} with at least {settings['min_bins']} bins kept in both models was "
        "compared by its mean difference over these bins, with p from resampled bins, "
        "and the false discovery rate was held at "
        f"{settings['q']:g} within each comparison (Benjamini and Hochberg, 1995)",
        "Bins overlap and are no replicates, so that this test is liberal",
    ]
    return " ".join(f"{text}." for text in sentences)


def protocol_column(name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Description of a column; None for those that any map has."""
    multimodal = settings["multimodal"]
    if name in _COLUMNS:
        return {"Description": _COLUMNS[name]}
    for prefix, text in {
        "n_bins_": "Time bins that '{}' predicts: lower end of the resampled "
        "validation score above 0",
        "default_": f"The only one of '{multimodal}' and '{{}}' that predicts enough "
        "bins, which wins without a test",
        "q_": f"False discovery rate of '{multimodal}' above '{{}}' over the targets "
        "of this table",
        "score_": "Pearson's correlation of '{}' in second halves of held-out folds, "
        "mean over folds, resamples and the bins that it predicts; n/a where these are "
        "too few",
        "p_": f"One-sided p of '{multimodal}' above '{{}}', over resampled bins",
    }.items():
        if name.startswith(prefix):
            return {"Description": text.format(name.removeprefix(prefix))}
    return None
