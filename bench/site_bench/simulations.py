"""One replicate of each simulation, with the truth that it is held against.

The views of a signal are exchangeable: all are the signal under independent noise of
the same size, so that models of two views have equal expected scores, whatever is
fitted. Features and noise follow an AR(1) process of variance 1 within runs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from neuromm.encoding import integration_sites
from neuromm.simulate import make_integration_dataset

N_RUNS = 4
DISGUISES = (
    "rotation",
    "rotation and random columns",
    "rotation of reweighted spaces",
)


@dataclass(frozen=True, kw_only=True)
class Design:
    """Sizes of a simulation.

    Attributes
    ----------
    n_events, n_features, n_targets : int
    r : float
        Correlation of the noise-free signal with the response.
    noise_ar, feature_ar : float
        Autocorrelation at a lag of one event.
    """

    n_events: int = 1000
    n_features: int = 20
    n_targets: int = 20
    r: float = 0.3
    noise_ar: float = 0.5
    feature_ar: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views of a signal, and responses to it.

    Attributes
    ----------
    views : list of arrays of shape (n_events, n_features)
    responses : array of shape (n_events, n_targets)
    groups : array of shape (n_events,)
    """

    views: list
    responses: np.ndarray
    groups: np.ndarray


def autoregressive(rng, n_events, n_series, ar):
    """AR(1) series of variance 1, from their stationary state in every run."""
    series = rng.standard_normal((n_events, n_series)) * np.sqrt(1 - ar**2)
    for rows in np.array_split(np.arange(n_events), N_RUNS):
        start = ar * rng.standard_normal((1, n_series))
        series[rows] = lfilter([1.0], [1.0, -ar], series[rows], axis=0, zi=start)[0]
    return series


def make_views(design, n_views, seed, rng):
    """Draw views and responses; the weights of targets depend on ``seed`` alone."""
    n, p = design.n_events, design.n_features
    weights = np.random.default_rng(seed).standard_normal((p, design.n_targets))
    weights /= np.linalg.norm(weights, axis=0)
    signal = autoregressive(rng, n, p, design.feature_ar)
    noise = autoregressive(rng, n, design.n_targets, design.noise_ar)
    return Views(
        views=[
            signal + autoregressive(rng, n, p, design.feature_ar)
            for _ in range(n_views)
        ],
        responses=design.r * signal @ weights + np.sqrt(1 - design.r**2) * noise,
        groups=np.repeat(np.arange(N_RUNS), -(-n // N_RUNS))[:n],
    )


def planted(n_events, r_max, noise_ar, rng, n_targets=50, **settings):
    """Targets of five kinds; their table, with the planted ``kind``."""
    data = make_integration_dataset(
        n_events, n_targets, r_max=r_max, autocorrelation=noise_ar, rng=rng, **settings
    )
    sites = integration_sites(data.features, data.responses, n_resamples=300, rng=rng)
    return sites.table


def false_share(table):
    """Share of the sites that are none, 0 without a site."""
    called = table["is_site"].to_numpy()
    return (table["kind"].to_numpy()[called] != "interactive").sum() / max(
        called.sum(), 1
    )


def covered(replicates):
    """Whether each interval holds the true gain, (n_replicates, n_sites).

    The true gain is the difference of expected scores from the competitor whose
    expected score is highest; expected scores are means over the replicates, which
    have the same weights of targets.
    """
    score = np.mean([one["score"].transpose("site", "model") for one in replicates], 0)
    names = list(replicates[0]["model"].to_numpy())
    joint = names.index("joint")
    others = [k for k, name in enumerate(names) if name not in ("joint", "linear")]
    true = score[:, joint] - score[:, others].max(axis=1)
    return np.array(
        [
            (one["ci_low"].to_numpy() <= true) & (true <= one["ci_high"].to_numpy())
            for one in replicates
        ]
    )


def comparison_p(replicates, name="vision"):
    """P of one comparison, (n_replicates, n_sites)."""
    return np.array(
        [one["p_comparison"].sel(comparison=name).to_numpy() for one in replicates]
    )


def rate(hits):
    """Mean of what is true of the sites of replicates, and its standard error.

    Sites of a replicate share features: replicates are what is independent.
    """
    each = np.asarray(hits, dtype=float).reshape(len(hits), -1).mean(axis=1)
    return each.mean(), each.std(ddof=1) / np.sqrt(len(each))


def disguised(disguise, design, rng):
    """Targets of the four simple kinds, and a joint space of nothing but both."""
    data = make_integration_dataset(
        design.n_events,
        design.n_targets,
        n_features=design.n_features,
        r_max=design.r,
        autocorrelation=design.noise_ar,
        fractions=dict.fromkeys(("none", "vision", "language", "additive"), 1.0),
        rng=rng,
    )
    features = {name: x.to_numpy() for name, x in data.features.items()}
    weight = 5.0 if "reweighted" in disguise else 1.0
    both = np.hstack([weight * features["vision"], features["language"]])
    features["joint"] = both @ rotation(rng, both.shape[1])
    if "columns" in disguise:
        columns = rng.standard_normal((len(both), design.n_features))
        features["joint"] = np.hstack([features["joint"], columns])
    return integration_sites(
        features,
        data.responses.to_numpy(),
        groups=data.responses["run"].to_numpy(),
        n_resamples=300,
        rng=rng,
    ).table.assign(kind=data.truth["kind"].to_numpy())


def rotation(rng, size):
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def equal_views(design, seed, rng, over_time="mean", n_times=None):
    """A multimodal space that is another view of what the vision space holds.

    With ``n_times``, targets are bins of contacts whose noise is a moving mean of 8.
    """
    data = make_views(design, 2, seed, rng)
    y = data.responses
    if n_times:
        y = y[:, :, None] + moving_mean(
            rng.standard_normal((*y.shape, n_times + 7)), 8
        ) * np.sqrt(8)
    return integration_sites(
        {
            "vision": data.views[0],
            "language": rng.standard_normal((design.n_events, 3)),
            "joint": data.views[1],
        },
        y,
        groups=data.groups,
        n_resamples=400,
        over_time=over_time,
        rng=rng,
    ).evidence


def advantage(design, seed, rng):
    """Responses to vision, language and their products, half of it to the products."""
    n, p = design.n_events, design.n_features
    fixed = np.random.default_rng(seed)
    weights = fixed.standard_normal((3 * p, design.n_targets)) / np.sqrt(p)
    weights *= np.sqrt([[0.25], [0.25], [0.5]]).repeat(p, axis=0)
    vision, language = (autoregressive(rng, n, p, design.feature_ar) for _ in range(2))
    everything = np.hstack([vision, language, vision * language])
    noise = autoregressive(rng, n, design.n_targets, design.noise_ar)
    return integration_sites(
        {"vision": vision, "language": language, "joint": everything},
        design.r * everything @ weights + np.sqrt(1 - design.r**2) * noise,
        groups=np.repeat(np.arange(N_RUNS), -(-n // N_RUNS))[:n],
        n_resamples=400,
        rng=rng,
    ).evidence


def best_of_six(design, seed, rng):
    """P of the best of six views against a seventh: chosen afterwards, and nested."""
    data = make_views(design, 7, seed, rng)
    reference, *networks = data.views
    settings = {"groups": data.groups, "n_resamples": 300, "rng": rng}
    features = {
        "vision": reference,
        "language": rng.standard_normal((design.n_events, 3)),
    }
    named = {f"network{number}": view for number, view in enumerate(networks)}
    # The p of "the seventh is better than this one" is 1 - p of the reverse.
    reverse = integration_sites(
        {
            "joint": reference,
            "vision": features["language"],
            "language": rng.standard_normal((design.n_events, 3)),
            **named,
        },
        data.responses,
        controls=tuple(named),
        **settings,
    ).evidence
    naive = 1 - reverse["p_comparison"].sel(comparison=list(named)).max("comparison")
    nested = integration_sites(
        features | {"joint": named}, data.responses, **settings
    ).evidence
    return naive.to_numpy(), nested["p_comparison"].sel(comparison="vision").to_numpy()


def aligned_projection(design, seed, rng):
    """A joint space that is linear in both, but points where responses do.

    Returns the share of sites without a control, and with the linear part of the
    joint space as one.
    """
    n, p = design.n_events, design.n_features
    vision, language = rng.standard_normal((2, n, p))
    both = np.hstack([vision, language])
    weights = np.random.default_rng(seed).standard_normal((2 * p, design.n_targets))
    weights /= np.linalg.norm(weights, axis=0)
    noise = autoregressive(rng, n, design.n_targets, design.noise_ar)
    joint = both @ weights
    shares = []
    for controls in ((), ("linear-part",)):
        sites = integration_sites(
            {"vision": vision, "language": language, "joint": joint},
            design.r * joint + np.sqrt(1 - design.r**2) * noise,
            groups=np.repeat(np.arange(N_RUNS), -(-n // N_RUNS))[:n],
            controls=controls,
            n_resamples=300,
            rng=rng,
        )
        shares.append(sites.is_site.mean())
    return shares


def moving_mean(values, width):
    """Mean of ``width`` neighbours along the last axis."""
    total = np.cumsum(values, axis=-1)
    total[..., width:] -= total[..., :-width].copy()
    return total[..., width - 1 :] / width


def bins_and_events(rng, n_events=1000, n_bins=161, n_draws=400):
    """Two-sided p of two equal models: bins resampled, and blocks of events.

    A contact of 161 bins of 200 ms every 25 ms, two models that are right about
    nothing; the statistic is the difference of their correlations, averaged over bins.
    """
    response = moving_mean(rng.standard_normal((n_events, n_bins + 7)), 8)
    models = rng.standard_normal((2, n_events))
    response = (response - response.mean(axis=0)) / response.std(axis=0)
    models -= models.mean(axis=1, keepdims=True)
    models /= models.std(axis=1, keepdims=True)
    products = (models[0] - models[1])[:, None] * response
    by_bin = products.mean(axis=0)
    picked = rng.integers(n_bins, size=(n_draws, n_bins))
    by_event = products.mean(axis=1).reshape(-1, 10).mean(axis=1)
    blocks = rng.integers(len(by_event), size=(n_draws, len(by_event)))
    observed = products.mean()
    return [
        two_sided(observed, one[drawn].mean(axis=1))
        for one, drawn in ((by_bin, picked), (by_event, blocks))
    ]


def two_sided(observed, drawn):
    """Share of resamples on the far side of 0, doubled."""
    return min(1.0, 2 * np.mean(np.sign(observed) * drawn <= 0))
