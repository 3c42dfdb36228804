"""Many ranks in one process: what they send, what they compute, and how they fail."""

import copy
import time

import pytest
import torch

from nanogpt.config import ModelConfig
from nanogpt.device import resolve
from nanogpt.learn.collectives import (
    all_gather,
    all_reduce,
    copied,
    gathered,
    reduce_scatter,
    summed,
)
from nanogpt.learn.machines import (
    average_gradients,
    bubble,
    parallel_mlp,
    pipeline_order,
    pipeline_times,
)
from nanogpt.learn.ranks import Deadlock, LeftOver, RankError, run_ranks
from nanogpt.model.gpt import GPT
from nanogpt.model.layers import MLP
from nanogpt.text.batches import Batch, padded_batch
from nanogpt.training.loop import accumulate_gradients
from nanogpt.training.objective.next_token import NextToken


def right(rank):
    """The next rank of the ring."""
    return (rank.number + 1) % rank.size


def left(rank):
    """The rank before it."""
    return (rank.number - 1) % rank.size


def test_a_message_arrives_as_it_was_sent_and_is_counted():
    def function(rank):
        mine = torch.full((3,), float(rank.number))
        rank.send(mine, right(rank))
        mine += 100
        return rank.receive(left(rank))

    ran = run_ranks(4, function)
    assert [int(x[0]) for x in ran.results] == [3, 0, 1, 2]
    assert ran.messages == [1] * 4
    assert ran.sent == [12] * 4


def test_messages_of_one_rank_keep_their_order():
    def function(rank):
        if rank.number == 0:
            for n in range(5):
                rank.send(torch.tensor(n), 1)
            return None
        return [int(rank.receive(0)) for _ in range(5)]

    assert run_ranks(2, function).results[1] == [0, 1, 2, 3, 4]


def test_ranks_that_wait_for_each_other_are_named_at_once():
    def function(rank):
        x = rank.receive(left(rank))
        rank.send(x, right(rank))

    began = time.monotonic()
    with pytest.raises(Deadlock, match="rank 0 waits for rank 2, rank 1 waits for rank 0"):
        run_ranks(3, function)
    with pytest.raises(Deadlock, match="rank 2 waits for rank 0, which has ended"):
        run_ranks(4, lambda rank: rank.receive(0) if rank.number == 2 else None)
    assert time.monotonic() - began < 3


def test_an_error_of_one_rank_stops_all_and_names_it():
    def function(rank):
        if rank.number == 2:
            raise ValueError("no such token")
        return rank.receive(2)

    with pytest.raises(RankError, match="rank 2: ValueError: no such token") as caught:
        run_ranks(4, function)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_rank_in_an_endless_loop_is_named_and_no_longer_waited_for():
    ends = []

    def function(rank):
        while rank.number == 1 and not ends:
            time.sleep(0.01)

    with pytest.raises(RankError, match=r"rank 1 was not finished after 0\.2 seconds"):
        run_ranks(3, function, seconds=0.2)
    ends.append(True)


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (lambda r: r.number or r.send(torch.ones(1), 1), LeftOver, "rank 1 never receives"),
        (lambda r: r.send(torch.ones(1), r.size), RankError, "IndexError: there is no rank 2"),
        (lambda r: r.receive(-1), RankError, "IndexError: there is no rank -1"),
        (lambda r: r.send(3.0, 0), RankError, "TypeError: a message is a tensor.*float"),
    ],
)
def test_what_no_network_would_forgive_is_an_error(function, kind, said):
    with pytest.raises(kind, match=said):
        run_ranks(2, function)


def test_ranks_record_gradients_only_where_their_caller_does():
    weight = torch.ones(1, requires_grad=True)
    with torch.no_grad():
        ran = run_ranks(2, lambda rank: (2 * weight).requires_grad)
    assert ran.results == [False, False]
    assert run_ranks(2, lambda rank: (2 * weight).requires_grad).results == [True, True]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 7)])
def test_all_reduce_gives_everybody_the_sum(n, shape):
    torch.manual_seed(0)
    xs = torch.randn(n, *shape)
    for found in run_ranks(n, lambda rank: all_reduce(xs[rank.number], rank)).results:
        torch.testing.assert_close(found, xs.sum(0))


@pytest.mark.parametrize("n", [2, 4, 5])
def test_a_ring_sends_what_theory_says(n):
    """Bytes of each rank, with n divisible: see docstrings of the three functions."""
    x = torch.randn(n * 6)
    size = x.numel() * 4
    sent = {
        "all-reduce": run_ranks(n, lambda rank: all_reduce(x, rank)).sent,
        "reduce-scatter": run_ranks(n, lambda r: reduce_scatter(x.tensor_split(n), r)).sent,
        "all-gather": run_ranks(n, lambda r: all_gather(x.tensor_split(n)[r.number], r)).sent,
    }
    assert sent == {
        "all-reduce": [2 * size * (n - 1) // n] * n,
        "reduce-scatter": [size * (n - 1) // n] * n,
        "all-gather": [size * (n - 1) // n] * n,
    }


def test_reduce_scatter_gives_each_its_sum_and_all_gather_all_pieces_in_order():
    pieces = torch.arange(32.0).view(4, 4, 2)  # of rank i for rank j
    found = run_ranks(4, lambda rank: reduce_scatter(list(pieces[rank.number]), rank)).results
    assert torch.equal(torch.stack(found), pieces.sum(0))
    for all_of_them in run_ranks(4, lambda rank: all_gather(pieces[0, rank.number], rank)).results:
        assert torch.equal(torch.stack(all_of_them), pieces[0])


def test_gradients_through_collectives_are_those_of_one_process():
    """Each rank multiplies the same x, or the joined pieces, by a factor of its own."""
    factors = torch.randn(4, 6)

    def shared(rank):
        x = torch.ones(6, requires_grad=True)
        y = summed(copied(x, rank) * factors[rank.number], rank)
        (y * torch.arange(6.0)).sum().backward()
        return y.detach(), x.grad

    for y, grad in run_ranks(4, shared).results:
        torch.testing.assert_close(y, factors.sum(0))
        torch.testing.assert_close(grad, factors.sum(0) * torch.arange(6.0))

    def joined(rank):
        piece = torch.ones(6).tensor_split(4)[rank.number].clone().requires_grad_()
        (gathered(piece, rank) * factors[rank.number]).sum().backward()
        return piece.grad

    torch.testing.assert_close(torch.cat(run_ranks(4, joined).results), factors.sum(0))


def test_averaged_gradients_are_those_of_all_batches_at_once():
    """With batches of one to seven real targets, on a model of the package."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=17, context_length=8, n_layer=1, n_head=2, n_embd=8))
    texts = [[3, 5], [1, 2, 3, 4, 5, 6, 7, 8], [9, 9, 1]]
    batches = [Batch(*padded_batch([text])) for text in texts]
    compute = resolve("cpu", "float32")

    def gradients(copy_of, batches):
        copy_of.zero_grad()
        accumulate_gradients(NextToken(copy_of), batches, compute)
        return [p.grad for p in copy_of.parameters()]

    expected = [g.clone() for g in gradients(model, batches)]

    def on_rank(rank):
        batch = batches[rank.number]
        mine = gradients(copy.deepcopy(model), [batch])  # of the mean over its own targets
        return average_gradients(mine, batch.real_targets, rank)

    ran = run_ranks(3, on_rank)
    for found in ran.results:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)  # 1e-7 was seen
    assert ran.messages == [4] * 3  # one ring for all tensors


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_divided_mlp_is_the_packages(n):
    torch.manual_seed(0)
    mlp = MLP(ModelConfig(n_embd=8, n_head=2, kernels="plain"))
    torch.nn.init.normal_(mlp.c_fc.bias)
    torch.nn.init.normal_(mlp.c_proj.bias)
    weights = [mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight, mlp.c_proj.bias]
    x = torch.randn(2, 3, 8)
    ran = run_ranks(n, lambda rank: parallel_mlp(x, *weights, rank))
    for found in ran.results:
        torch.testing.assert_close(found, mlp(x))
    assert ran.sent == [2 * (n - 1) * x.numel() * 4 // n] * n


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 1), (4, 4), (4, 16), (8, 3), (3, 7)])
def test_a_pipeline_does_everything_in_order_and_its_bubble_is_as_theory_says(schedule, n, m):
    jobs = pipeline_times(n, m, schedule)
    ends = {(rank, job.back, job.microbatch): job.end for rank in range(n) for job in jobs[rank]}
    assert len(ends) == 2 * n * m == sum(map(len, jobs))
    for rank in range(n):
        assert all(a.end <= b.start for a, b in zip(jobs[rank], jobs[rank][1:], strict=False))
        for job in jobs[rank]:
            if not job.back and rank:
                assert job.start >= ends[rank - 1, False, job.microbatch]
            if job.back:
                assert job.start >= ends[rank, False, job.microbatch]
                assert rank == n - 1 or job.start >= ends[rank + 1, True, job.microbatch]
    assert bubble(jobs) == pytest.approx((n - 1) / (m + n - 1))


def most_on_their_way(order):
    """How many microbatches have gone forward and not yet back, at most."""
    now = most = 0
    for back, _ in order:
        now += -1 if back else 1
        most = max(most, now)
    return most


def test_1f1b_keeps_fewer_microbatches_than_gpipe():
    assert most_on_their_way(pipeline_order(0, 4, 16, "gpipe")) == 16
    kept = [most_on_their_way(pipeline_order(rank, 4, 16, "1f1b")) for rank in range(4)]
    assert kept == [4, 3, 2, 1]
