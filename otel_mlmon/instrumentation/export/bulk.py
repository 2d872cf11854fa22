"""Many values into one histogram at once: 0.01 µs a value, where `Histogram.record` takes 7 to 16 µs.

Values are sorted first, 6 ns each; then a few dozen bounds are looked up among them, not each value among the bounds.

The SDK has no public way, so its own aggregation objects are found and added to: the host's views, readers, temporality
and cardinality limits hold. The smallest and largest values go in by the SDK's own hand, which sets the extremes, the
exemplar and the scale of an exponential histogram; all others then have a bucket that exists.

`record` refuses negative values, which features and regressions have; the aggregations hold them well.

Whether this release of the SDK is laid out as it is read here is proven at start, against `record` (`bulk_self_test`).
Known layouts: opentelemetry-sdk 1.39 (aggregations by the set of attributes) and 1.45 (by a hash of them).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Final

import numpy as np
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, SimpleFixedSizeExemplarReservoir

from otel_mlmon.instrumentation.export.context import NOWHERE
from otel_mlmon.types import Floats

Attributes = Mapping[str, str]
Exemplar = tuple[float, object] | None

EXPLICIT: Final = "_ExplicitBucketHistogramAggregation"
EXPONENTIAL: Final = "_ExponentialBucketHistogramAggregation"
DROP: Final = "_DropAggregation"


def is_sdk(instrument: object) -> bool:
    """Whether an instrument is the SDK's own and records into aggregations that we can find."""
    return hasattr(instrument, "_measurement_consumer")


def record_all(instrument: Histogram, values: Floats, attributes: Attributes, exemplar: Exemplar = None) -> int:
    """The public way, one value after the other; how many were left out, being negative, which `record` refuses."""
    context = _context(exemplar)
    telling = exemplar[0] if exemplar else None
    kept = values[values >= 0]
    for value in kept.tolist():
        instrument.record(value, dict(attributes), context if value == telling else NOWHERE)
    return int(values.size - kept.size)


def inject(instrument: Any, values: Floats, attributes: Attributes, exemplar: Exemplar = None) -> int:
    """Add finite `values`, shape (n,), to every aggregation that `instrument.record` would reach; none is left out."""
    is_enabled = getattr(instrument, "_is_enabled", None)
    if not values.size or (is_enabled is not None and not is_enabled()):
        return 0
    seeds, rest = _split(np.sort(values))
    accept = instrument._measurement_consumer._sdk_config.exemplar_filter.should_sample
    now_ns = time.time_ns()
    measurements = []
    for seed in seeds:
        context = _context(exemplar) if exemplar and seed == exemplar[0] else NOWHERE
        measurement = private("measurement", "Measurement")(seed, now_ns, instrument, context, dict(attributes))
        measurements.append((measurement, accept(seed, now_ns, dict(attributes), context)))
    for _, match in matches(instrument):
        _into(match, measurements, rest, attributes)
    return 0


def offer(instrument: Any, value: float, attributes: Attributes, context: Context, at_ns: int) -> None:
    """Show a value that the aggregations hold to their exemplar reservoirs, as part of the span in `context`.

    The SDK's exemplar filter decides. An aggregation of these attributes that does not exist gets nothing: its values
    have gone to a collection of differences, or to the overflow of the cardinality limit.

    Args:
        instrument: A histogram or a counter of the SDK's.
        value: Of one call.
        attributes: Those it was recorded with.
        context: Of the span of that call.
        at_ns: Unix time of the value.
    """
    measurement = private("measurement", "Measurement")(value, at_ns, instrument, context, dict(attributes))
    accept = instrument._measurement_consumer._sdk_config.exemplar_filter.should_sample
    if not accept(value, at_ns, measurement.attributes, context):
        return
    for _, match in matches(instrument):
        with match._lock:
            found = match._attributes_aggregation.get(_key(match, attributes)[0])
            if found is not None:
                _tell(found, measurement)


def has_exemplars_off(instrument: Any) -> bool:
    """Whether the SDK's exemplar filter takes nothing."""
    return isinstance(instrument._measurement_consumer._sdk_config.exemplar_filter, AlwaysOffExemplarFilter)


def matches(instrument: Any) -> Iterator[tuple[Any, Any]]:
    """Every reader of an instrument of the SDK's, with each way by which the views bring the values to it."""
    for reader, storage in list(instrument._measurement_consumer._reader_storages.items()):
        for match in storage._get_or_init_view_instrument_match(instrument):
            yield reader, match


@functools.cache
def private(module: str, name: str) -> Any:
    """A part of the SDK's own; raises ImportError or AttributeError in a release that has it elsewhere."""
    return getattr(importlib.import_module(f"opentelemetry.sdk.metrics._internal.{module}"), name)


def _key(match: Any, attributes: Attributes) -> tuple[Any, dict[str, str]]:
    """By what an aggregation is found, and its attributes: those that the view keeps."""
    keys = match._view._attribute_keys
    kept = {name: value for name, value in attributes.items() if keys is None or name in keys}
    is_hashed = hasattr(match, "_get_or_create_aggregation")
    key = private("_view_instrument_match", "_hash_attributes")(kept) if is_hashed else frozenset(kept.items())
    return key, kept


def _context(exemplar: Exemplar) -> Context:
    return exemplar[1] if exemplar and exemplar[1] and isinstance(exemplar[1], Context) else NOWHERE


def _split(values: Floats) -> tuple[list[float], Floats]:
    """Of ascending values, the extremes of the positive and of the negative ones and a zero, and all the others."""
    below, upto = np.searchsorted(values, 0.0, side="left"), np.searchsorted(values, 0.0, side="right")
    sides = ((0, below), (below, min(below + 1, upto)), (upto, values.size))
    chosen = sorted({int(end) for first, after in sides if first < after for end in (first, after - 1)})
    return values[chosen].tolist(), np.delete(values, chosen)


def _into(match: Any, measurements: list[tuple[Any, bool]], rest: Floats, attributes: Attributes) -> None:
    key, kept = _key(match, attributes)
    create = getattr(match, "_get_or_create_aggregation", None)
    if create is None and key not in match._attributes_aggregation:
        match.consume_measurement(*measurements[0])
        measurements = measurements[1:]
    # Under the lock of the collection: a delta reader throws its aggregations away there, and a cumulative one must not
    # meet values of a new sign before `_prepare`.
    with match._lock:
        found = match._attributes_aggregation[key] if create is None else create(key, kept)
        _fill(found, measurements, rest)
        if type(found).__name__ == EXPONENTIAL:
            _prepare(found)


def _fill(aggregation: Any, measurements: list[tuple[Any, bool]], rest: Floats) -> None:
    for measurement, is_exemplar in measurements:
        aggregation.aggregate(measurement, should_sample_exemplar=False)
        if is_exemplar:
            _tell(aggregation, measurement)
    kind = type(aggregation).__name__
    if not rest.size or kind == DROP:
        return
    with aggregation._lock if kind in {EXPLICIT, EXPONENTIAL} else nullcontext():
        if kind == EXPLICIT:
            _fill_explicit(aggregation, rest)
        elif kind == EXPONENTIAL:
            _fill_exponential(aggregation, rest)
        else:  # a view of the host's that makes a sum or a last value of it
            for value in rest.tolist():
                aggregation.aggregate(_with_value(measurements[0][0], value), should_sample_exemplar=False)


def _tell(aggregation: Any, measurement: Any) -> None:
    """Give a measurement to the exemplar reservoir: of a counter or an exponential histogram the newest stay.

    The SDK's reservoir of fixed size, which those have, would draw from `random`, whose state is the host's.
    """
    reservoir = aggregation._reservoir
    with aggregation._lock:
        if type(reservoir) is not SimpleFixedSizeExemplarReservoir:
            aggregation._sample_exemplar(measurement, should_sample_exemplar=True)
            return
        place = reservoir._measurements_seen % reservoir._size
        reservoir._measurements_seen += 1
        reservoir._reservoir_storage[place].offer(
            measurement.value, measurement.time_unix_nano, measurement.attributes, measurement.context
        )


def _with_value(measurement: Any, value: float) -> Any:
    return dataclasses.replace(measurement, value=value)


def _fill_explicit(aggregation: Any, values: Floats) -> None:
    for bucket, count in _counted(values, np.asarray(aggregation._boundaries, dtype=np.float64)):
        aggregation._value[bucket] += count
    aggregation._sum += float(values.sum())


def _fill_exponential(aggregation: Any, values: Floats) -> None:
    scale = aggregation._mapping.scale
    below, upto = np.searchsorted(values, 0.0, side="left"), np.searchsorted(values, 0.0, side="right")
    sides = (aggregation._value_positive, values[upto:]), (aggregation._value_negative, -values[:below][::-1])
    zeros = int(values.size)
    for buckets, magnitudes in sides:
        zeros -= int(magnitudes.size)
        for bucket, count in _buckets(magnitudes, scale, buckets.index_start, buckets.index_end):
            position = bucket - buckets.index_base
            buckets.increment_bucket(position + len(buckets.counts) if position < 0 else position, count)
    aggregation._zero_count += zeros
    aggregation._count += int(values.size)
    aggregation._sum += float(values.sum())


def _prepare(aggregation: Any) -> None:
    """Keep the next cumulative collection from failing, and all metrics with it.

    The SDK adds what is new to the buckets of collections before. Where those hold no value of a sign yet, they stand
    at index 0, and anything far from it ends in "Incorrect merge scale" (seen with 1.45.2). So the empty ones are put
    where the new values are.
    """
    scale = aggregation._previous_scale
    if scale is None:
        return
    for side in ("positive", "negative"):
        before = getattr(aggregation, f"_previous_value_{side}")
        now = getattr(aggregation, f"_value_{side}")
        if before is None or now is None or before.counts != [0] or not len(now):
            continue
        shift = scale - aggregation._mapping.scale
        index = now.index_start << shift if shift >= 0 else now.index_start >> -shift
        before.index_start = before.index_end = before.index_base = index


def _buckets(magnitudes: Floats, scale: int, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Bucket and count of ascending magnitudes; what rounds beyond the extremes' buckets belongs into them.

    The bucket i holds base^i < magnitude <= base^(i+1), with base = 2^(2^-scale).
    """
    if not magnitudes.size:
        return
    with np.errstate(over="ignore", under="ignore"):
        bounds = np.exp2(np.arange(first + 1, last + 1, dtype=np.float64) * 2.0**-scale)
    for index, count in _counted(magnitudes, bounds):
        yield index + first, count


def _counted(values: Floats, bounds: Floats) -> Iterator[tuple[int, int]]:
    """How many of the ascending values lie in each bucket that holds any; upper bounds are inclusive."""
    upto = np.searchsorted(values, bounds, side="right")
    counts = np.diff(upto, prepend=0, append=values.size)
    for bucket in np.flatnonzero(counts).tolist():
        yield bucket, int(counts[bucket])
