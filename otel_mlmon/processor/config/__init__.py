"""What the operator wrote, checked: one YAML file, every key with a default, unknown keys refused.

In: the text of a file and an environment. Out: a frozen `Config`, or a `ConfigurationError` that lists every
fault as `file:line: key.path: what is wrong`. No step imports this package: `pipeline.py` hands each step its
own few numbers.
"""

from __future__ import annotations

from otel_mlmon.processor.config.load import load
from otel_mlmon.processor.config.model import Config, ModelConfig, NotifierConfig, WebhookConfig
from otel_mlmon.processor.config.render import default_yaml
from otel_mlmon.processor.config.units import FalseAlarms

__all__ = ["Config", "FalseAlarms", "ModelConfig", "NotifierConfig", "WebhookConfig", "default_yaml", "load"]
