"""Two processes with half a batch each against one with the whole."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from neuromm.losses import InfoNCE, gather_rows, info_nce, soft_contrastive

SPLITS = ((0, 5), (5, 12))  # ranks need not have the same number of rows


def _batch():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn((2, 12, 6), generator=generator, dtype=torch.float64)
    mask = torch.ones((12, 2), dtype=torch.bool)
    mask[3, 0] = mask[8, 1] = False
    return a, b, torch.arange(12) % 7, mask


def _case(name, a, b, labels, mask, tau, gather):
    if name == "plain":
        return info_nce(a, b, tau, gather=gather)
    if name == "one direction":
        return info_nce(a, b, tau, direction="a_to_b", gather=gather)
    if name == "labels and mask":
        return info_nce(a, b, tau, labels, mask, gather=gather)
    if name == "empty rank":
        present = mask[:, 0] & (labels.new_tensor(len(a)) != SPLITS[0][1])
        return info_nce(a, b, tau, labels, present, gather=gather)
    if gather:
        a, b = gather_rows(a), gather_rows(b)
    return soft_contrastive(a, b, tau)


CASES = ("plain", "one direction", "labels and mask", "soft targets", "empty rank")


def _rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    found = {}
    for name in CASES:
        rows = slice(*SPLITS[rank])
        a, b, labels, mask = (x[rows] for x in _batch())
        a, b = a.clone().requires_grad_(True), b.clone().requires_grad_(True)
        tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        loss = _case(name, a, b, labels, mask, tau, gather=True)
        loss.backward()
        found[name] = (loss.detach(), a.grad, b.grad, tau.grad)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_the_average_over_ranks_is_the_gradient_of_one_process(ranks, name):
    a, b, labels, mask = _batch()
    if name == "empty rank":  # the first rank has no sample that counts
        mask[:5] = False
    tau = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    a.requires_grad_(True)
    b.requires_grad_(True)
    loss = _case(name, a, b, labels, mask, tau, gather=False)
    grads = torch.autograd.grad(loss, (a, b, tau))
    for rank in ranks:
        torch.testing.assert_close(rank[name][0], loss.detach())
    for index in (1, 2):
        whole = torch.cat([rank[name][index] for rank in ranks]) / 2
        torch.testing.assert_close(whole, grads[index - 1])
    of_tau = (ranks[0][name][3] + ranks[1][name][3]) / 2
    torch.testing.assert_close(of_tau, grads[2])


def test_gathering_without_processes_is_refused():
    a, b, _, _ = _batch()
    with pytest.raises(RuntimeError, match="process group"):
        InfoNCE(gather=True)(a, b)
