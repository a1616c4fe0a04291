"""Two processes with a part of the batch each against one with the whole."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from neuromm.losses import Mixing, gather_rows, mixco
from tests.losses.loss_cases import CASES, gradients, planted_rows

SPLITS = ((0, 5), (5, 12))  # ranks need not have the same number of rows


def _options(name):
    """Ways to call a loss, and rows of the batch for each option that has such."""
    case, options = CASES[name], {"plain": {}}
    if case.takes("labels"):
        options["labels"] = {"labels": torch.arange(12) % 7}
    if case.takes("mask"):
        options["mask"] = {"mask": (torch.arange(12) != 3) & (torch.arange(12) != 8)}
    if case.takes("mask") and name != "InstanceGroup":
        # The first rank has no sample that counts.
        options["empty rank"] = {"mask": torch.arange(12) >= SPLITS[0][1]}
    if name in ("InfoNCE", "SigLIP"):
        mask = torch.ones((12, 2), dtype=torch.bool)
        mask[3, 0] = mask[8, 1] = False
        options["labels and mask"] = {"labels": torch.arange(12) % 7, "mask": mask}
    if name in ("MultiLevelContrastive", "AnchoredContrastive", "GramVolume"):
        mask = torch.ones((12, 2), dtype=torch.bool)
        mask[:6, 1] = mask[2, 0] = False  # the first rank has no second modality
        options["modalities"] = {"mask": mask}
    return options


RUNS = [(name, how) for name in sorted(CASES) for how in _options(name)]


def _mixing(n_samples):
    weight = torch.linspace(0.2, 1, n_samples, dtype=torch.float64)
    return Mixing(torch.arange(n_samples).roll(1), weight)


def _whole_mixing():
    """As the ranks mix, each its own samples."""
    parts = [_mixing(stop - start) for start, stop in SPLITS]
    partner = torch.cat(
        [part.partner + start for part, (start, _) in zip(parts, SPLITS, strict=True)]
    )
    return Mixing(partner, torch.cat([part.weight for part in parts]))


def _found(name, rows, options):
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    loss = CASES[name].loss(rows, temperature=tau, **options)
    return [loss.detach(), *gradients(loss, [tau, *rows])]


def _rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    own = slice(*SPLITS[rank])
    found = {}
    for name, how in RUNS:
        rows = [x.detach()[own].clone().requires_grad_(True) for x in planted_rows(12)]
        options = {key: value[own] for key, value in _options(name)[how].items()}
        found[f"{name} {how}"] = _found(name, rows, options | {"gather": True})
    rows = planted_rows(12)[0].detach()[own]
    found["group"] = gather_rows(rows, dist.new_group([0, 1]))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(("name", "how"), RUNS)
def test_the_average_over_ranks_is_the_gradient_of_one_process(ranks, name, how):
    rows = planted_rows(12)
    if name == "MixCo":
        tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        whole = mixco(*rows[:2], _whole_mixing(), tau, **_options(name)[how])
        loss, of_tau, *of_rows = [whole.detach(), *gradients(whole, [tau, *rows])]
    else:
        loss, of_tau, *of_rows = _found(name, rows, _options(name)[how])
    parts = [rank[f"{name} {how}"] for rank in ranks]
    for part in parts:
        torch.testing.assert_close(part[0], loss)
    torch.testing.assert_close((parts[0][1] + parts[1][1]) / 2, of_tau)
    for index, expected in enumerate(of_rows):
        found = torch.cat([part[2 + index] for part in parts]) / 2
        torch.testing.assert_close(found, expected)


def test_a_group_of_ranks_is_gathered_in_their_order(ranks):
    for rank in ranks:
        assert torch.equal(rank["group"], planted_rows(12)[0])
