"""What the operator wrote, turned into what each step is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, get_args

from otel_mlmon.errors import ConfigurationError, ProfileError
from otel_mlmon.processor.alert.alert import RuleName
from otel_mlmon.processor.alert.lifecycle import AlertSettings
from otel_mlmon.processor.alert.rules import ModelRules, rule_of
from otel_mlmon.processor.config import Config, ModelConfig
from otel_mlmon.processor.detect.alarm_line import log10_alarm_line
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.threshold import Threshold
from otel_mlmon.processor.window.settings import ModelWindowSettings, MovingReferenceSettings, WindowSettings
from otel_mlmon.processor.window.window import StreamKey
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey

HOUR_OF_WEEK_S: Final = 28 * 86_400.0
"""The past that an hour of the week is known by, unless said otherwise: four of each."""

LEARN_PANES: Final = 10
"""How many panes a stream learns from at least: fewer cannot tell bursts and breaks from chance."""


class Settings:
    """What each step is told.

    Args:
        config: What the operator wrote.

    Raises:
        ConfigurationError: A reference profile cannot be read; all such faults.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._profiles = _profiles(config)
        self.storage_engine: str = config.storage.engine
        self.storage_path: Path = config.storage.path
        self.max_streams: int = config.limits.max_streams
        self.windows = WindowSettings(
            pane_s=config.windows.pane_s,
            lateness_s=config.windows.lateness_s,
            rolling_s=config.windows.rolling_s,
            stale_after_s=config.limits.stale_after_s,
            retention_s=config.storage.retention_s,
            history_hours=max(
                (moving.retained_hours for moving in map(_history, _models(config)) if moving), default=0
            ),
        )
        self.alerts = AlertSettings(
            rules_for=self.rules,
            for_s=config.alerts.for_s,
            keep_firing_for_s=config.alerts.keep_firing_for_s,
            stale_after_s=config.limits.stale_after_s,
            links=tuple(config.alerts.links.items()),
        )
        # Asked for every stream of every pane; the names are as many as there are models.
        self._model = lru_cache(maxsize=1024)(config.model)

    def model_settings(self, model: ModelKey) -> ModelWindowSettings:
        """What the window step is told of a model."""
        config = self._model(model.name)
        return ModelWindowSettings(
            learn=config.reference.learn,
            learn_panes=LEARN_PANES,
            moving=_history(config),
            profile=self._profiles[config.reference.file] if config.reference.file else None,
            latency_threshold_s=config.latency.threshold_s,
            latency_max_ratio=config.latency.max_ratio,
            error_max_ratio=config.errors.max_ratio,
            max_labels=config.max_labels,
            max_features=config.max_features,
        )

    def rules(self, model: ModelKey) -> ModelRules:
        """What the alert step is told of a model."""
        config = self._model(model.name)
        return ModelRules(
            enabled=frozenset(name for name in get_args(RuleName) if _is_enabled(config, name)),
            latency_threshold_s=config.latency.threshold_s,
            latency_max_ratio=config.latency.max_ratio,
            error_max_ratio=config.errors.max_ratio,
            prediction_tolerance=config.prediction_drift.tolerance,
            confidence_tolerance=config.confidence.tolerance,
            data_tolerance=config.data_drift.tolerance,
            no_data_after_s=config.no_data.after_s,
        )

    def watch(self, stream: StreamKey) -> DetectionPolicy | None:
        """What the drift step is told of a stream; None if no rule judges it.

        Latency and errors have a budget for a reference, so nothing more is forgiven, and only growing is drift.
        Confidence is judged for collapse only.
        """
        config = self._model(stream.model.name)
        rule = rule_of(stream.stream)
        thresholds = _thresholds(config, stream.stream) if rule not in ("latency", "errors") else ()
        if not (_is_enabled(config, rule) or thresholds):
            return None
        watches: Mapping[RuleName, DetectionPolicy] = {
            "latency": DetectionPolicy(tolerance=0.0, direction="up"),
            "errors": DetectionPolicy(tolerance=0.0, direction="up"),
            "prediction_drift": DetectionPolicy(tolerance=config.prediction_drift.tolerance, direction="both"),
            "confidence": DetectionPolicy(tolerance=config.confidence.tolerance, direction="down"),
            "data_drift": DetectionPolicy(tolerance=config.data_drift.tolerance, direction="both"),
        }
        return replace(watches[rule], thresholds=thresholds) if thresholds else watches[rule]

    def alarm_line(self, streams: int) -> float:
        """log10 of the alarm line while so many streams are watched."""
        budget = self._config.alerts.false_alarms
        return log10_alarm_line(
            false_alarms=budget.count, per_s=budget.per_s, pane_s=self._config.windows.pane_s, streams=streams
        )


def _models(config: Config) -> Iterator[ModelConfig]:
    return (config.model(name) for name in config.models)


def _history(config: ModelConfig) -> MovingReferenceSettings | None:
    reference = config.reference
    # A more specific entry with a file lies over a general one that rolls.
    if reference.file is not None or (reference.rolling_s is None and not reference.hour_of_week):
        return None
    rolling_s = HOUR_OF_WEEK_S if reference.rolling_s is None else reference.rolling_s
    return MovingReferenceSettings(
        rolling_hours=round(rolling_s / 3600),
        lag_hours=round(reference.lag_s / 3600),
        hour_of_week=reference.hour_of_week,
    )


def _is_enabled(config: ModelConfig, rule: RuleName) -> bool:
    is_on = bool(getattr(config, rule).enabled)
    return is_on and (rule != "statistic" or bool(config.statistic.thresholds))


def _thresholds(config: ModelConfig, stream: str) -> tuple[Threshold, ...]:
    if not config.statistic.enabled:
        return ()
    every = (
        Threshold(statistic=rule.statistic, stream=rule.stream, above=rule.above, p_below=rule.p_below)
        for rule in config.statistic.thresholds
    )
    return tuple(threshold for threshold in every if threshold.is_about(stream))


def _profiles(config: Config) -> dict[Path, Profile]:
    profiles: dict[Path, Profile] = {}
    faults: list[str] = []
    for name, model in config.models.items():
        path = model.reference.file
        if path is None or path in profiles:
            continue
        try:
            profiles[path] = Profile.read(path)
        except (ProfileError, OSError) as error:
            faults.append(f"models.{name}.reference.file: {error}")
    if faults:
        raise ConfigurationError(*faults)
    return profiles
