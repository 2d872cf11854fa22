"""Who is told: from scores to alerts, sparingly.

In: the `Window` and `Score` of each stream of a model after a pane, and the time. Out: an `Alert` whenever a
rule of a model changes its state, one a model and rule, with its causes ranked inside. `rule` says what is
breached, `onset` how much it moved since when, `lifecycle` when that is told, `text` how a person reads it.
"""
