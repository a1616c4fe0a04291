"""
Where do several subjects integrate vision and language?
========================================================

From responses of depth contacts to the table and the figures of a paper. The data are
simulated, so that the truth is known: contacts in the superior temporal gyrus follow
products of what is seen and what is said, which no linear combination of the two knows.
"""

# %%
# Seven patients
# --------------
#
# Each has 16 contacts in four regions. Responses are cut around the event (0 s) into
# seven bins of time; the signal peaks at 0.3 s.
import numpy as np
import pandas as pd

from neuromm.atlas import load_atlas
from neuromm.encoding import integration_sites
from neuromm.encoding.group_courses import score_courses
from neuromm.encoding.group_sites import group_effect, model_ranks, region_table
from neuromm.report.figures.site_maps import contact_sites
from neuromm.report.figures.site_models import rank_heat_map, twin_scatter
from neuromm.report.figures.site_regions import gain_distribution, region_bars
from neuromm.report.figures.site_times import site_time_courses
from neuromm.simulate import make_integration_dataset

PLACES = {
    "interactive": ("Superior temporal", "ctx-lh-superiortemporal"),
    "vision": ("Lateral occipital", "ctx-lh-lateraloccipital"),
    "language": ("Pars opercularis", "ctx-lh-parsopercularis"),
    "additive": ("Inferior parietal", "ctx-lh-inferiorparietal"),
}
times = np.arange(-0.3, 0.91, 0.2).round(1)
shape = np.exp(-(((times - 0.3) / 0.25) ** 2))
centres = load_atlas("desikan_killiany").centres().set_index("name")[["x", "y", "z"]]


def patient(seed):
    """Features, responses (event, contact, time), runs and contacts of one patient."""
    rng = np.random.default_rng(seed)
    data = make_integration_dataset(
        600, 16, n_features=8, n_products=8, r_max=(0.35, 0.6),
        fractions=dict.fromkeys(PLACES, 1.0), rng=seed,
    )  # fmt: skip
    signal = data.responses.to_numpy()
    noise = rng.standard_normal((*signal.shape, len(times)))
    responses = signal[:, :, None] * shape + np.sqrt(1 - shape**2) * noise
    kinds = data.truth["kind"].to_numpy()
    xyz = centres.loc[[PLACES[kind][1] for kind in kinds]].to_numpy()
    contacts = pd.DataFrame(xyz + rng.normal(0, 6, xyz.shape), columns=["x", "y", "z"])
    contacts["kind"] = kinds
    contacts["region"] = [PLACES[kind][0] for kind in kinds]
    features = {name: space.to_numpy() for name, space in data.features.items()}
    # A randomly initialised twin sees the same stimuli, and mixes them at random.
    seen = np.hstack([features["vision"], features["language"]])
    features["random twin"] = np.tanh(seen @ rng.standard_normal((16, 24)) / 4)
    return features, responses, data.responses["run"].to_numpy(), contacts


# %%
# Sites
# -----
#
# A site has to beat vision, language, their linear combinations, the random twin of the
# joint network, and chance. Its bins are averaged.
settings = {"controls": ("random twin",), "n_resamples": 300, "rng": 0}
tables, courses = {}, {}
for seed in range(7):
    features, responses, runs, contacts = patient(seed)
    sites = integration_sites(features, responses, groups=runs, times=times, **settings)
    tables[f"{seed + 1:02d}"] = pd.concat([sites.table, contacts], axis=1)
    # For the time course every bin is tested by itself.
    bins = integration_sites(
        features, responses.reshape(len(responses), -1), groups=runs, **settings
    ).table
    bins["target"] = np.repeat(sites.table["target"].to_numpy(), len(times))
    bins["time"] = np.tile(times, len(contacts))
    bins["region"] = np.repeat(contacts["region"].to_numpy(), len(times))
    courses[f"{seed + 1:02d}"] = bins

everything = pd.concat([t.assign(subject=name) for name, t in tables.items()])
print(everything.groupby("kind")["is_site"].mean())

# %%
# The table of regions
# --------------------
#
# Subjects are resampled, not contacts: those of one patient resemble each other.
regions = region_table(tables, courses=courses)
regions.round(3)

# %%
# Is the gain above 0 in other patients as well? Signs of whole subjects are flipped.
# With seven of them, p cannot fall below 1/128.
effects = group_effect(
    everything["gain"], everything["subject"], regions=everything["region"]
)
effects.round(4)

# %%
# Figures
# -------
#
# Each comes with its numbers (``.table``) and its caption, and ``.write(stem)`` makes
# a PNG, an SVG and a TSV.
contact_sites(everything)

# %%
contact_sites(everything, colour="gain", on="surface")

# %%
region_bars(regions)

# %%
gain_distribution(everything)

# %%
# Bands are intervals over resampled patients.
site_time_courses(score_courses(courses, by="region"), by="region")

# %%
# What training adds, and which model is best where.
twins = everything.assign(
    model="joint",
    trained=everything["score_joint"],
    random=everything["score_random twin"],
)
twin_scatter(twins[["model", "subject", "target", "trained", "random"]])

# %%
models = ["vision", "language", "linear", "random twin", "joint"]
scores = everything[[f"score_{name}" for name in models]].set_axis(models, axis=1)
rank_heat_map(model_ranks(scores, everything["region"], subjects=everything["subject"]))
