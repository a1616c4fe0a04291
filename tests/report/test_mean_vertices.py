"""What the group draws at a vertex: means of subjects, and sites of half of them."""

import numpy as np
import pandas as pd

from neuromm.report.group_site_pictures import mean_vertices


def rows(subject, scores, sites):
    """Three vertices of one subject; nan where it has no data."""
    return pd.DataFrame(
        {
            "subject": subject,
            "target": ["L-0", "L-1", "R-0"],
            "hemi": ["L", "L", "R"],
            "score_joint": scores,
            "score_linear": np.array(scores) / 2,
            "gain": np.array(scores) / 2,
            "is_site": sites,
        }
    )


def test_scores_are_means_and_a_site_is_one_in_half_of_the_subjects():
    table = pd.concat(
        [
            rows("01", [0.2, 0.4, np.nan], [True, True, False]),
            rows("02", [0.4, 0.2, 0.6], [True, False, True]),
            rows("03", [0.6, 0.0, np.nan], [False, False, False]),
        ]
    )
    means = mean_vertices(table).set_index("target")
    np.testing.assert_allclose(means["score_joint"], [0.4, 0.2, 0.6])
    np.testing.assert_allclose(means["gain"], [0.2, 0.1, 0.3])
    assert means["n_subjects"].tolist() == [3, 3, 1]
    # Two of three, one of three, and one of the one that has data there.
    assert means["is_site"].tolist() == [True, False, True]
