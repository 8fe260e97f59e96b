"""Errors that a user can act on: one line each, naming the place, the problem and the fix."""

import difflib


class InputError(Exception):
    """Something in the user's input is wrong.

    Holds every problem found in one pass, one line each, so that a file is mended once.
    A job that ends with it prints the lines and no traceback.

    Parameters
    ----------
    problems : str
        One line per problem, as made by `problem`.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def problem(where: str, what: str, fix: str) -> str:
    """Return one line that names the place, the problem and the fix."""
    return f"{where}: {what}. Fix: {fix}"


def nearest(name: str, options) -> str:
    """Say which options exist, the most similar to `name` first.

    Returns
    -------
    str
        For example ``did you mean 'batch'? There are: batch, donor, sex``.
    """
    options = [str(option) for option in options]
    lowered = {option.lower(): option for option in reversed(options)}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    there = f"There are: {', '.join(options[:20])}{', ...' if len(options) > 20 else ''}"
    return f"did you mean '{lowered[close[0]]}'? {there}" if close else there
