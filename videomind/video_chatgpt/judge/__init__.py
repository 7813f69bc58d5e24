"""Answers judged by a language model: criteria, judges, their replies."""
