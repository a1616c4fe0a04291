"""Gene-DML is trained on spots of several sections, and predicts whole ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuromm.core import UsageError
from neuromm.models import GeneDML, GeneDMLConfig, predict_expression
from neuromm.simulate import make_tissue_sections
from neuromm.training import (
    ExpressionTask,
    TissueSpots,
    TrainingConfig,
    evaluate,
    fit,
)

CONFIG = GeneDMLConfig(
    n_features=16, n_genes=8, dim=16, neighbor_depth=1, neighbor_heads=2,
    neighbor_mlp=16, global_depth=1, global_heads=2, global_mlp=16, fusion_mlp=16,
    head_width=16, n_groups=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def sections():
    return make_tissue_sections(4, side=6, n_genes=8, n_features=16, rng=0)


def spots_of(sections):
    expression = [np.log1p(section.counts) for section in sections]
    return TissueSpots([section.features for section in sections], expression)


def trained(sections, config, folder=None):
    spots = spots_of(sections)
    torch.manual_seed(0)
    model = GeneDML(config)
    result = fit(
        model,
        spots,
        TrainingConfig(
            n_epochs=3, batch_size=36, learning_rate=3e-3, monitor="pcc",
            higher_is_better=True, validation_fraction=0.25,
        ),
        task=ExpressionTask(spots, config),
        groups=[sections[number].patient for number in spots.section],
        folder=folder,
    )  # fmt: skip
    return model, result


def test_a_patient_within_the_training_chooses_the_epoch(sections, tmp_path):
    model, result = trained(sections, CONFIG, tmp_path / "run")
    held = {int(s) for s in spots_of(sections).section[result.validation]}
    assert len(held) == 1
    assert len(result.validation) == 36
    assert result.best_score == max(line["validation_pcc"] for line in result.history)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    again, read = trained(sections, CONFIG, tmp_path / "run")
    assert read.history == result.history
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_section_is_predicted_as_it_is_scored(sections):
    """By batches of any size, and whatever else is in the batch."""
    torch.manual_seed(0)
    model = GeneDML(CONFIG)
    whole = predict_expression(model, sections[1].features)
    parts = predict_expression(model, sections[1].features, batch_size=7)
    # Sums of float32 in another order.
    np.testing.assert_allclose(parts.expression, whole.expression, atol=1e-5)
    np.testing.assert_allclose(parts.fused, whole.fused, atol=1e-5)
    assert model.training  # as it was
    spots = spots_of(sections)
    task = ExpressionTask(spots, CONFIG)
    scores = evaluate(model, spots, task=task, batch_size=50)
    found = [predict_expression(model, s.features).expression for s in sections]
    truth = np.concatenate([np.log1p(s.counts) for s in sections])
    # Sections are alike in size, so the mean over all is the mean over sections.
    mse = np.square(np.concatenate(found) - truth).mean()
    assert scores["mse"] == pytest.approx(mse, rel=1e-5)


def test_scoring_gives_the_model_nothing_that_was_measured(sections):
    spots = spots_of(sections)
    other = spots_of(sections)
    other.expression = torch.flip(other.expression, [0])
    torch.manual_seed(0)
    model = GeneDML(CONFIG).eval()
    batch = {n: torch.stack([spots[i][n] for i in range(50)]) for n in spots[0]}
    mixed = {n: torch.stack([other[i][n] for i in range(50)]) for n in other[0]}
    first = ExpressionTask(spots, CONFIG).measure(model, batch)
    second = ExpressionTask(other, CONFIG).measure(model, mixed)
    assert torch.equal(first["predicted"], second["predicted"])
    assert not torch.equal(first["observed"], second["observed"])


def test_tables_that_do_not_match_are_named(sections):
    features = [section.features for section in sections]
    tables = [section.counts for section in sections]
    with pytest.raises(UsageError, match="4 sections and 3 tables"):
        TissueSpots(features, tables[:3])
    with pytest.raises(UsageError, match=r"P02: expression must have shape \(36, 8\)"):
        TissueSpots(features, [tables[0], tables[1][:, :7], *tables[2:]])
    model = GeneDML(replace(CONFIG, n_features=8))
    with pytest.raises(UsageError, match=r"n_tokens, 8\)"):
        predict_expression(model, features[0])
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        predict_expression(model, features[0], batch_size=0)
