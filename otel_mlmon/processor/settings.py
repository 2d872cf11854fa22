"""Gives each step of the processor its part of the configuration, and what follows from several parts."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from otel_mlmon.errors import ConfigurationError, ProfileError
from otel_mlmon.processor.alert.alert import AlertAddresses, AlertLink
from otel_mlmon.processor.alert.lifecycle import AlertStateMachine
from otel_mlmon.processor.alert.records import AlertsRecord
from otel_mlmon.processor.alert.rules.rule import ModelRules
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import compute_log10_alarm_line
from otel_mlmon.processor.window.config import ReferenceSection
from otel_mlmon.processor.window.reference import ModelWindowSettings, MovingReferenceSettings
from otel_mlmon.processor.window.window import StreamKey, WindowSettings
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey

_LOG: Final = logging.getLogger("otel_mlmon.processor")

HOUR_OF_WEEK_S: Final = 28 * 86_400.0
"""The past that an hour of the week is compared with by default: four of each."""

LEARN_PANES: Final = 10
"""How many panes a stream learns from at least: fewer cannot tell bursts and breaks from chance."""

_CACHED_MODELS: Final = 1024


class ProcessorSettings:
    """The settings of every step of the processor, from the configuration file.

    Args:
        config: The checked configuration.

    Raises:
        ConfigurationError: Reference profiles cannot be read; lists all of them.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._is_fleet_exceeded = False
        """Whether it was already reported that there are more streams than `alerts.fleet_streams` says."""
        self._profiles = _load_profiles(config)
        self.storage_engine: str = config.storage.engine
        self.storage_path: Path = config.storage.path
        self.max_models: int = config.limits.max_models
        self.max_streams: int = config.limits.max_streams
        self.max_series: int = config.limits.max_series
        self.max_gauge_streams: int = config.limits.max_gauge_streams
        references = [_build_moving_reference(config.find_model_section(name).reference) for name in config.models]
        self.windows = WindowSettings(
            pane_s=config.windows.pane_s,
            lateness_s=config.windows.lateness_s,
            idle_after_s=config.windows.idle_after_s,
            amend_for_s=min(config.windows.amend_for_s or config.storage.retention_s, config.storage.retention_s),
            rolling_s=config.windows.rolling_s,
            stale_after_s=config.limits.stale_after_s,
            max_bounds=config.limits.max_bounds,
            max_pending_points=config.limits.max_pending_points,
            retention_s=config.storage.retention_s,
            history_hours=max((moving.retained_hours for moving in references if moving is not None), default=0),
        )
        # Needed for every stream of every pane; there are as many names as models.
        self._model = lru_cache(maxsize=_CACHED_MODELS)(config.find_model_section)
        self._rules_of_name = lru_cache(maxsize=_CACHED_MODELS)(
            lambda name: ModelRules.from_section(config.find_model_section(name))
        )

    def find_model_settings(self, model: ModelKey) -> ModelWindowSettings:
        """Returns the settings by which a model's data points are counted in windows and compared."""
        section = self._model(model.name)
        latency, errors = section.find_rule_section("latency"), section.find_rule_section("errors")
        return ModelWindowSettings(
            learn=section.reference.learn,
            learn_for_ns=round(section.reference.learn_for_s * 1e9),
            learn_panes=LEARN_PANES,
            moving=_build_moving_reference(section.reference),
            profile=self._profiles[section.reference.file] if section.reference.file else None,
            latency_threshold_s=latency.threshold_s,
            latency_max_ratio=latency.max_ratio,
            error_max_ratio=errors.max_ratio,
            max_labels=section.max_labels,
            max_features=section.max_features,
        )

    def find_model_rules(self, model: ModelKey) -> ModelRules:
        """Returns the alert rules of a model."""
        return self._rules_of_name(model.name)

    def find_detection_policy(self, stream: StreamKey) -> DetectionPolicy | None:
        """Returns how drift of a stream is detected; None if no alert rule judges it."""
        policy = self.find_model_rules(stream.model).find_detection_policy(stream.stream)
        time_zone = self._model(stream.model.name).reference.time_zone
        return replace(policy, time_zone=time_zone) if policy is not None and time_zone else policy

    def create_state_machine(self, record: AlertsRecord | None = None, *, now_ns: int = 0) -> AlertStateMachine:
        """Creates the alert rules' state machine, which continues from a stored state of all alerts if there is one."""
        return AlertStateMachine(
            self._config.alerts,
            rules_of=self.find_model_rules,
            stale_after_s=self._config.limits.stale_after_s,
            addresses=build_addresses(self._config),
            record=record,
            now_ns=now_ns,
        )

    def find_alarm_line(self, streams: int) -> float:
        """Returns log10 of the evidence at which drift is declared, by how many streams are monitored.

        Of several processors each divides the budget among the streams of all of them.
        """
        rate, fleet_streams = self._config.alerts.false_alarms, self._config.alerts.fleet_streams
        if fleet_streams is not None and fleet_streams < streams and not self._is_fleet_exceeded:
            self._is_fleet_exceeded = True
            _LOG.warning(
                "This processor alone monitors %d streams, and alerts.fleet_streams says that all processors have %d. "
                "Raise it; until then this one divides the false-alarm budget among its own.",
                streams,
                fleet_streams,
            )
        return compute_log10_alarm_line(
            false_alarms=rate.count,
            per_s=rate.per_s,
            pane_s=self._config.windows.pane_s,
            streams=max(streams, fleet_streams or 0),
        )


def build_addresses(config: Config) -> AlertAddresses:
    """Builds the web addresses that alerts point to from the configuration."""
    section = config.alerts
    return AlertAddresses(
        web=config.web.listen or "",
        dashboard=section.dashboard_url or "",
        runbook=section.runbook_url or "",
        trace=section.trace_url or "",
        others=tuple(AlertLink(name=name, url=url) for name, url in section.links.items()),
    )


def _build_moving_reference(reference: ReferenceSection) -> MovingReferenceSettings | None:
    # A more specific entry with a file lies over a general one that rolls.
    if reference.file is not None or (reference.rolling_s is None and not reference.hour_of_week):
        return None
    rolling_s = HOUR_OF_WEEK_S if reference.rolling_s is None else reference.rolling_s
    return MovingReferenceSettings(
        rolling_hours=round(rolling_s / 3600),
        lag_hours=round(reference.lag_s / 3600),
        hour_of_week=reference.hour_of_week,
    )


def _load_profiles(config: Config) -> dict[Path, Profile]:
    profiles: dict[Path, Profile] = {}
    faults: list[str] = []
    for name, model in config.models.items():
        path = model.reference.file
        if path is None or path in profiles:
            continue
        try:
            profiles[path] = Profile.read_file(path)
        except (ProfileError, OSError) as error:
            faults.append(f"models.{name}.reference.file: {error}")
    if faults:
        raise ConfigurationError(*faults)
    return profiles
