"""Turns the drift scores of a model's streams into alerts by the model's alert rules (step 4 of the processor).

In: the `StreamWindow` and `DriftScore` of each stream of a model after a pane, and the time. Out: an `Alert` whenever a
rule of a model changes its state, one a model and rule, with its causes ranked inside. `rules/` decide what is
breached, `cause` describes how much it moved and since when, `lifecycle` when that is notified, `message` how a person
reads it.
"""
