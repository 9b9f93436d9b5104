"""What a user may set of learned pruning, and its own choices where nothing is set. Pure; loads nothing heavy."""

import dataclasses

from sweeper.option_checks import check_at_least_zero, check_count, check_fraction

LEARNED_MIN_POINTS = 20  # fewer are over before anything is learned from them
LEARNED_FRACTIONS = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the budget: rungs are cheap where the model decides


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedOptions:
    """How learned pruning spends its risk."""

    risk: float = 0.05  # chance that no finished trial lies within the tolerance of the grid's best
    tolerance: float | None = None  # in units of the metric; None: by the noise that the finished trials show
    n_calibration: int | None = None  # points that run to their end first; None: by the number of points
    skip_waiting: bool = True  # stop points before their start, where the finished ones say enough
    set_aside: bool = False  # give a trial's slot to a more promising one, and go on with it later or never
    fill_slots: bool = False  # never leave a slot free for the sake of what a far likelier trial will show
    audit_frac: float = 0.1  # of the condemned trials, goes on to check the rule
    seed: int = 0  # of the audit's choice

    def __post_init__(self) -> None:
        check_fraction("LearnedOptions.risk", self.risk)
        if self.tolerance is not None:
            check_at_least_zero("LearnedOptions.tolerance", self.tolerance)
        if self.n_calibration is not None:
            check_count("LearnedOptions.n_calibration", self.n_calibration)
        check_fraction("LearnedOptions.audit_frac", self.audit_frac, with_ends=True)


def points_in_words(number: int) -> str:
    """Return for example "1 point" or "12 points"."""
    return f"{number} point{'' if number == 1 else 's'}"


def too_few(n_points: int) -> str:
    """Say that there are too few points to learn from."""
    return f"{points_in_words(n_points)} {'is' if n_points == 1 else 'are'} too few to learn from"


LEARNED_MIN_OWN = 2  # points that run to their end first, however much an earlier study has shown


def calibration_size(n_points: int, *, n_prior: int = 0) -> int:
    """Return how many points run to their end before anyone is judged.

    Args:
        n_points: Of the study.
        n_prior: Finished trials of an earlier study that is learned from too.

    >>> calibration_size(20), calibration_size(36), calibration_size(56), calibration_size(1000)
    (6, 7, 9, 20)
    >>> calibration_size(36, n_prior=4), calibration_size(36, n_prior=36)
    (3, 2)
    """
    return max(LEARNED_MIN_OWN if n_prior else 0, min(max(6, round(3 + n_points / 9)), 20) - n_prior)
