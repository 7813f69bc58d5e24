"""The chain of roles at inference: plan, ground, verify, answer; on one video or over a data set."""
