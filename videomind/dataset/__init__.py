"""Annotations: from the files that people publish to what a role is asked.

    rows of a file ── Source.parse ──> Annotation ── View.sample ──> Sample ──> `encoding`

A source (`sub_classes/`, a file each) knows its names, files, splits and how to read a row; `base` finds it.
An annotation (`schema`) is one question or query about one video, with the same fields whatever its source.
A view (`views`) makes of it what a role learns: prompt, excerpt, response, targets.
`parts` reads `--datasets NAME@SPLIT:WEIGHT,...`; `filters` decides what trains; `cache` and `table` keep it
on disk, where all processes share it. `own_data` reads a file of your own, `making` makes those of verifier
and planner. What cannot be used is left out and counted with the reason (`filters.Report`).
"""
