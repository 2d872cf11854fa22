"""Notifies people of alerts: one back end a module, each behind a delivery of its own.

In: an `Alert`. Out: the alert at its recipient, or in the dead letters with the reason. A notifier only knows how to
send one alert once; queue, time-out, retry, circuit breaker and dead letters are those of `AlertDelivery`.
"""
