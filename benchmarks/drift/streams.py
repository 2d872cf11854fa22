"""The traffic that rules are tried on: who the items are, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]
Rng = np.random.Generator

SHARES: Shares = np.array([0.4, 0.3, 0.2, 0.1])

Traffic = Callable[[Rng, int, int], Counts]
"""From a generator, the number of streams and the number of the window: counts of shape (S, K)."""


def moved(total_variation: float) -> Shares:
    """So much of the traffic moved from the first class to the second."""
    shares: Shares = SHARES + np.array([-total_variation, total_variation, 0.0, 0.0])
    return shares


def independent(shares: Shares, items: int) -> Traffic:
    """Items that have nothing to do with each other."""
    return lambda rng, streams, _: rng.multinomial(items, shares, size=streams)


def overdispersed(concentration: float, items: int) -> Traffic:
    """Each window has shares of its own, Dirichlet around the long run's."""
    return lambda rng, streams, _: rng.multinomial(items, rng.dirichlet(concentration * SHARES, size=streams))


def cycle(amplitude: float, items: int) -> Traffic:
    """A sine of 24 windows between the first two classes."""

    def traffic(rng: Rng, streams: int, window: int) -> Counts:
        return rng.multinomial(items, moved(amplitude * math.sin(2.0 * math.pi * window / 24.0)), size=streams)

    return traffic


class Autoregressive:
    """Log shares that follow an AR(.8) of standard deviation .05."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.state: NDArray[np.float64] | None = None

    def __call__(self, rng: Rng, streams: int, _window: int) -> Counts:
        """The next window."""
        noise = rng.normal(0.0, 0.05, (streams, SHARES.size))
        self.state = noise if self.state is None else 0.8 * self.state + 0.6 * noise
        shares = SHARES * np.exp(self.state)
        return rng.multinomial(self.items, shares / shares.sum(-1, keepdims=True))


class Sticky:
    """Items in runs of one class, of geometric length."""

    def __init__(self, mean_run: int, items: int) -> None:
        self.mean_run, self.items = mean_run, items

    def __call__(self, rng: Rng, streams: int, _window: int) -> Counts:
        """The next window; a run that is cut at its end does not go on in the next."""
        return self.of(rng, streams, self.items)

    def of(self, rng: Rng, streams: int, items: int) -> Counts:
        """Windows of another size."""
        runs = int(items / self.mean_run * 1.5) + 60
        lengths = rng.geometric(1.0 / self.mean_run, (streams, runs))
        ends = np.minimum(np.cumsum(lengths, -1), items)
        inside = np.diff(ends, prepend=0, axis=-1)
        labels = rng.choice(SHARES.size, p=SHARES, size=(streams, runs))
        counts: Counts = np.stack([np.where(labels == k, inside, 0).sum(-1) for k in range(SHARES.size)], axis=-1)
        return counts


def confidence(mean: float) -> Shares:
    """Shares of ten equal bins of a confidence ~ Beta(a, 1) with this mean."""
    a = mean / (1.0 - mean)
    shares: Shares = np.diff(np.linspace(0.0, 1.0, 11) ** a)
    return shares
