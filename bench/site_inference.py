"""Simulate integration_sites, and hold its rates of error to what it states.

Run: python bench/site_inference.py [--write-docs] [--only networks]

Without arguments the short form: few replicates, a table, and a failure where a rate is
further from its level than three standard errors. --write-docs takes more replicates,
draws the figures of docs/_static/inference and writes the table of docs/inference.md;
with --only networks, the rows of the choice among networks alone.
One thread is enough; seeds are fixed, so that the same version gives the same numbers.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from site_bench import simulations
from site_bench.simulations import Design, rate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "inference.md"
FIGURES = ROOT / "docs" / "_static" / "inference"
START, END = "<!-- simulated: written by bench/site_inference.py -->", "<!-- end -->"

VIEW = "joint: another view of vision"
SIMPLE = ("none", "vision", "language", "additive")
EQUAL = {
    "20 features, noise AR 0.5": Design(),
    "40 features, all AR 0.5": Design(n_features=40, feature_ar=0.5),
    "2000 events, white": Design(n_events=2000, n_features=10, noise_ar=0.0),
}


@dataclass(frozen=True)
class Row:
    """What is simulated, its level, and what came out.

    Attributes
    ----------
    name : str
    level : float
    found, error : float
        A rate and its standard error over replicates.
    two_sided : bool
        Whether less than the level is wrong too.
    """

    name: str
    level: float
    found: float
    error: float
    two_sided: bool = False

    @property
    def holds(self):
        allowed = 3 * max(self.error, 0.002)
        above = self.found - self.level
        return abs(above) <= allowed if self.two_sided else above <= allowed


def seeds(number, n_replicates):
    return [np.random.default_rng([number, one]) for one in range(n_replicates)]


def simple_kinds(n_replicates):
    """False discoveries, and the rates of each simple kind and disguise."""
    tables = [
        simulations.planted(1000, (0.1, 0.5), ar, rng, n_features=10, n_products=10)
        for number, ar in enumerate((0.0, 0.5, 0.8))
        for rng in seeds(20 + number, n_replicates)
    ]
    shares = rate([[simulations.false_share(one)] for one in tables])
    rows = [Row("share of false ones among sites", 0.05, *shares)]
    drawn = {kind: kind_rates(tables, kind) for kind in SIMPLE}
    for number, disguise in enumerate(simulations.DISGUISES):
        hidden = [
            simulations.disguised(disguise, Design(n_features=10), rng)
            for rng in seeds(30 + number, n_replicates)
        ]
        drawn[f"joint: {disguise}"] = kind_rates(hidden)
    rows += [
        Row(f"{name}: called a site", 0.05, *one["site"]) for name, one in drawn.items()
    ]
    return rows, drawn


def kind_rates(tables, kind=None):
    chosen = [one if kind is None else one[one["kind"] == kind] for one in tables]
    return {
        "site": rate([one["is_site"].to_numpy() for one in chosen]),
        "p": rate([one["p"].to_numpy() <= 0.05 for one in chosen]),
    }


def equal_models(n_replicates):
    """P and coverage of two models that are equal, and coverage of a true gain."""
    rows, samples, covered, views = [], {}, {}, []
    for number, (name, design) in enumerate(EQUAL.items()):
        replicates = [
            simulations.equal_views(design, 0, rng)
            for rng in seeds(40 + number, n_replicates)
        ]
        views += replicates
        p = simulations.comparison_p(replicates)
        samples[name] = p.ravel()
        rows.append(Row(f"equal models, {name}: p ≤ 0.05", 0.05, *rate(p <= 0.05)))
        covered[f"equal, {name}"] = rate(simulations.covered(replicates))
    replicates = [
        simulations.advantage(Design(), 0, rng) for rng in seeds(50, n_replicates)
    ]
    covered["half of the signal in products"] = rate(simulations.covered(replicates))
    rows += [
        Row(f"interval holds the gain: {name}", 0.95, *one, two_sided=True)
        for name, one in covered.items()
    ]
    another = {
        "site": rate([one["is_site"].to_numpy() for one in views]),
        "p": rate([one["p"].to_numpy() <= 0.05 for one in views]),
    }
    rows.append(Row(f"{VIEW}: called a site", 0.05, *another["site"]))
    return rows, samples, covered, another


def networks(n_replicates):
    p = np.array(
        [
            simulations.best_of_six(Design(n_targets=10), 0, rng)
            for rng in seeds(60, n_replicates)
        ]
    )
    naive, nested = (rate(p[:, number] <= 0.05) for number in range(2))
    return [
        Row("best of six equal networks, chosen afterwards", 0.19, *naive, True),
        Row("best of six equal networks, chosen inside", 0.05, *nested),
    ]


def n_networks(long):
    """Replicates: the rate is near its level, and takes many to be told from it."""
    return 160 if long else 6


def resampled_bins(n_replicates):
    p = np.array([simulations.bins_and_events(rng) for rng in seeds(70, n_replicates)])
    by_bin, by_event = (rate(p[:, number] <= 0.05) for number in range(2))
    rows = [
        Row("161 overlapping bins resampled", 0.48, *by_bin, True),
        Row("blocks of events resampled", 0.05, *by_event),
    ]
    return rows, p


def power(n_replicates, sizes):
    settings = {"fractions": {"interactive": 0.4, "none": 0.6}}
    found = {}
    for r, n in sizes:
        tables = [
            simulations.planted(n, r, 0.5, rng, **settings)
            for rng in seeds(80, n_replicates)
        ]
        sites = [one["is_site"][one["kind"] == "interactive"] for one in tables]
        found[r, n] = float(np.mean(sites))
    return found


def table(rows, found):
    lines = ["| Simulated | Level | Found |", "|---|---|---|"]
    lines += [line(row) for row in rows]
    lines += [
        f"| planted sites found, r = {r:g}, {n} events | | {100 * share:.0f} % |"
        for (r, n), share in sorted(found.items())
    ]
    return "\n".join(lines)


def line(row):
    return (
        f"| {row.name} | {100 * row.level:.0f} % | "
        f"{100 * row.found:.1f} ± {100 * row.error:.1f} % |"
    )


def write_rows(rows):
    """Put rows in the place of those of the same name in the table of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines(keepends=True)
    for row in rows:
        (place,) = (
            n for n, old in enumerate(lines) if old.startswith(f"| {row.name} |")
        )
        lines[place] = line(row) + "\n"
    PAGE.write_text("".join(lines), encoding="utf-8")


def write_docs(text, drawn, samples, covered, p, found):
    from site_bench import figures

    FIGURES.mkdir(parents=True, exist_ok=True)
    figures.rates(drawn, FIGURES / "false_positives.svg")
    figures.null_p(samples, FIGURES / "null_p.svg")
    figures.coverage(covered, FIGURES / "coverage.svg")
    figures.bins(p, FIGURES / "bins.svg")
    figures.power(found, FIGURES / "power.svg")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="site_inference.py", description=__doc__)
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--only", choices=["networks"])
    args = parser.parse_args(argv)
    long = args.write_docs
    if args.only == "networks":
        rows = networks(n_networks(long))
        print("\n".join(map(line, rows)))
        if long:
            write_rows(rows)
        return told([row.name for row in rows if not row.holds])
    rows, drawn = simple_kinds(16 if long else 3)
    more, samples, covered, drawn[VIEW] = equal_models(40 if long else 8)
    several = networks(n_networks(long))
    by_bin, p = resampled_bins(1000 if long else 200)
    sizes = [(0.15, 1000), (0.15, 4000)]
    if long:
        sizes = [(r, n) for r in (0.05, 0.1, 0.15, 0.2, 0.3) for n in (1000, 4000)]
    found = power(3 if long else 1, sizes)
    rows += more + several + by_bin
    text = table(rows, found)
    print(text)
    if long:
        write_docs(text, drawn, samples, covered, p, found)
    wrong = [row.name for row in rows if not row.holds]
    if found[0.15, 4000] < 0.8:
        wrong.append("power")
    return told(wrong)


def told(wrong):
    """Say what does not hold; give the exit code."""
    for name in wrong:
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
