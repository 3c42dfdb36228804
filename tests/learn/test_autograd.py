"""Autograd by hand: its gradients are torch's, and a network learns with them."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.learn.autograd import Network, Value, in_order

NUMBERS = st.floats(0.1, 2.0).flatmap(lambda x: st.sampled_from([x, -x]))


def computed(a, b, c):
    """Every operation, and numbers that are used more than once."""
    d = a * b + c * 2 - b / a
    e = (d.tanh() + (-d)) ** 2 + d
    return (e * e + 1.0).log() + (0.3 * e).tanh().exp() + 3 * (a - d) + a


@settings(deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_gradients_equal_those_of_torch(a, b, c):
    ours = [Value(x) for x in (a, b, c)]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b, c)]
    result, expected = computed(*ours), computed(*theirs)
    result.backward()
    expected.backward()
    assert result.data == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad == pytest.approx(other.grad.item(), rel=1e-6, abs=1e-6)


def test_gradients_add_up_until_they_are_zeroed():
    x = Value(3.0)
    loss = x * x * x
    loss.backward()
    loss.backward()
    assert x.grad == 2 * 27
    x.grad = 0.0
    (x * x).backward()
    assert x.grad == 6.0


def test_a_long_computation_does_not_exceed_pythons_limit():
    x = Value(1.0)
    total = x
    for _ in range(5000):
        total = total + x
    total.backward()
    assert x.grad == 5001
    assert in_order(total)[-1] is total


def test_a_network_equals_torchs_and_learns_to_tell_two_equal_signs():
    network = Network(2, 8, 1)
    points = [(x, y) for x in (-1.0, 1.0) for y in (-1.0, 1.0)]

    def loss():
        errors = [(network(point)[0] - point[0] * point[1]) ** 2 for point in points]
        return sum(errors, start=Value(0.0))

    first = loss()
    first.backward()
    layers = [
        torch.tensor(
            [[w.data for w in unit] for unit in layer], dtype=torch.float64
        ).requires_grad_()
        for layer in network.layers
    ]
    x = torch.tensor(points, dtype=torch.float64)
    for layer in layers:
        x = (x.tanh() if layer is layers[1] else x) @ layer[:, :-1].T + layer[:, -1]
    expected = ((x[:, 0] - torch.tensor([1.0, -1.0, -1.0, 1.0])) ** 2).sum()
    expected.backward()
    assert first.data == pytest.approx(expected.item(), abs=1e-6)
    for layer, other in zip(network.layers, layers, strict=True):
        for unit, row in zip(layer, other.grad.tolist(), strict=True):
            assert [w.grad for w in unit] == pytest.approx(row, abs=1e-6)
    for _ in range(200):
        error = loss()
        for weight in network.parameters():
            weight.grad = 0.0
        error.backward()
        for weight in network.parameters():
            weight.data -= 0.05 * weight.grad
    assert loss().data < 0.01 < first.data


def test_the_order_is_that_of_the_computation():
    random.seed(0)
    values = [Value(random.random())]
    for _ in range(50):
        values.append(random.choice(values) * random.choice(values) + random.choice(values))
    order = in_order(values[-1])
    place = {id(value): n for n, value in enumerate(order)}
    for value in order:
        assert all(place[id(source)] < place[id(value)] for source, _ in value.inputs)
