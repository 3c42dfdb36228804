"""Controlled experiments.

Checks of variants, ours and yours:

    contracts   what every part of the model must keep to
    checks      what batches, optimizers, schedules and samplers must keep to
    plugin      a file of your own that adds variants

Studies, which change one thing:

    study       arms, seeds and one budget, from a TOML file
    runner      runs a study, each run in a process of its own (one)
    judge       which differences are larger than the noise between seeds
    report      the report of a study

And:

    scaling     a ladder of small models predicts a larger one, by a scaling law (law)
    heads       what attention heads look at
    circuit     the smallest set of heads that keeps a behaviour, and the paths between them
    speedrun    whether runs that others hand in reach a loss by the rules
"""
