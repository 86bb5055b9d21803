"""Averaged weights: the weights that the definition gives, and swapping that loses nothing."""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import Tensor, nn

from peftsearch.training.average import WeightAverage

ETA = 9


def walk(steps: int) -> tuple[WeightAverage, list[Tensor]]:
    """An average over a random walk, and every point it passed."""
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    average = WeightAverage({"p": parameter})
    points = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            parameter += torch.randn(4, generator=generator, dtype=torch.float64)
        average.update(step)
        points.append(parameter.detach().clone())
    return average, points


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_point_i_of_n_has_the_weight_of_polynomial_decay(steps: int) -> None:
    """Shamir and Zhang 2013, section 4: w_i ∝ (i+1)…(i+η−1), which is C(i+η−1, η) up to a factor
    after the beginning has been given the rest.
    """
    average, points = walk(steps)
    weights = [ETA / (i + ETA) for i in range(1, steps + 1)]
    expected = torch.zeros(4, dtype=torch.float64)  # the beginning is zero here
    for index, point in enumerate(points):
        after = 1.0
        for weight in weights[index + 1 :]:
            after *= 1 - weight
        closed = ETA / (index + 1 + ETA) * comb(index + 1 + ETA, ETA) / comb(steps + ETA, ETA)
        assert weights[index] * after == pytest.approx(closed)
        expected += closed * point
    assert (average.values["p"] - expected).abs().max() < 1e-12


def test_it_leans_on_the_last_steps() -> None:
    """Half of the weight lies on about the last thirteenth of the steps, whatever their number."""
    for steps in (100, 1000, 5000):
        closed = [
            ETA / (i + ETA) * comb(i + ETA, ETA) / comb(steps + ETA, ETA)
            for i in range(1, steps + 1)
        ]
        recent = sum(closed[-round(steps / 13) :])
        assert 0.45 < recent < 0.6


def test_the_averages_stand_in_the_parameters_place_and_go_back() -> None:
    average, points = walk(5)
    parameter = average._parameters["p"]
    mean = average.values["p"].clone()
    with average.swapped_in():
        assert torch.equal(parameter.detach(), mean)
    assert torch.equal(parameter.detach(), points[-1])
    assert torch.equal(average.values["p"], mean)


def test_an_error_while_they_stand_in_takes_them_back() -> None:
    average, points = walk(5)

    def fail() -> None:
        with average.swapped_in():
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert torch.equal(average._parameters["p"].detach(), points[-1])
