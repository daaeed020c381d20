"""How many examples Hypothesis tries: few by default, as many as ever in `.ci/run`."""

from __future__ import annotations

from hypothesis import settings

DEFAULT = "dev"

#: The machine may be busy: no test fails for the time that an example takes.
settings.register_profile(DEFAULT, max_examples=20, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None)


def examples(factor: float) -> int:
    """As many examples as the profile has, times `factor`."""
    return max(1, round(factor * settings().max_examples))
