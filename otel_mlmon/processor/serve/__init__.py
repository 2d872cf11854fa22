"""The read-only web port: JSON for programs, Prometheus for dashboards, health for orchestrators.

In: functions that say what is known now. Out: HTTP answers. Nothing here can change the processor's state.
"""
