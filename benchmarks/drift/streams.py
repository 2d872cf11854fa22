"""The simulated traffic on which drift rules are compared, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.types import Counts, Floats

Rng = np.random.Generator

SHARES: Floats = np.array([0.4, 0.3, 0.2, 0.1])

PART = 20_000
"""Items that are drawn at once."""

Traffic = Callable[[Rng, int, int], Counts]
"""From a generator, the number of streams and the number of the window: counts of shape (S, K)."""


def moved(total_variation: float) -> Floats:
    """Moves a share of the traffic from the first class to the second."""
    shares: Floats = SHARES + np.array([-total_variation, total_variation, 0.0, 0.0])
    return shares


def independent(shares: Floats, items: int) -> Traffic:
    """Draws independent items."""
    return lambda rng, streams, _: rng.multinomial(items, shares, size=streams)


def overdispersed(concentration: float, items: int) -> Traffic:
    """Draws windows with shares of their own, Dirichlet around the long run's."""
    return lambda rng, streams, _: rng.multinomial(items, rng.dirichlet(concentration * SHARES, size=streams))


def cycle(amplitude: float, items: int) -> Traffic:
    """Draws windows whose shares follow a sine of 24 windows between the first two classes."""

    def traffic(rng: Rng, streams: int, window: int) -> Counts:
        return rng.multinomial(items, moved(amplitude * math.sin(2.0 * math.pi * window / 24.0)), size=streams)

    return traffic


class Autoregressive:
    """Traffic whose log shares follow an AR(.8) of standard deviation .05."""

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
    """Traffic in runs of one class, of geometric length; a run goes on from one window to the next."""

    def __init__(self, mean_run: int, items: int) -> None:
        self.mean_run, self.items = mean_run, items
        self.last: NDArray[np.intp] | None = None
        """The class of the last item of each stream."""

    @property
    def design_effect(self) -> float:
        """Of very many items."""
        return 2.0 * self.mean_run - 1.0

    def __call__(self, rng: Rng, streams: int, _window: int) -> Counts:
        """The next window."""
        return self.of(rng, streams, self.items)

    def of(self, rng: Rng, streams: int, items: int, shares: Floats = SHARES) -> Counts:
        """The next window, of another size, or with other shares of the runs that begin in it."""
        counts: Counts = np.zeros((streams, shares.size), dtype=np.int64)
        for start in range(0, items, PART):
            counts += self._part(rng, streams, min(items - start, PART), shares)
        return counts

    def _part(self, rng: Rng, streams: int, items: int, shares: Floats) -> Counts:
        mean = items / self.mean_run
        runs = int(mean + 7.0 * math.sqrt(mean)) + 20
        lengths = rng.geometric(1.0 / self.mean_run, (streams, runs))
        labels = np.searchsorted(np.cumsum(shares)[:-1], rng.random((streams, runs)), side="right")
        if self.last is not None:
            # Geometric lengths have no memory: the one that goes on has as many items left as a new one, less one.
            lengths[:, 0] -= 1
            labels[:, 0] = self.last
        ends = np.minimum(np.cumsum(lengths, -1), items)
        self.last = labels[np.arange(streams), (ends >= items).argmax(-1)]
        inside = np.diff(ends, prepend=0, axis=-1)
        return np.stack([np.where(labels == k, inside, 0).sum(-1) for k in range(shares.size)], axis=-1)


def confidence(mean: float) -> Floats:
    """Shares of ten equal bins of a confidence ~ Beta(a, 1) with this mean."""
    a = mean / (1.0 - mean)
    shares: Floats = np.diff(np.linspace(0.0, 1.0, 11) ** a)
    return shares
