"""Errors that a user can act on: one line each, with a code, the place, the problem and the fix.

docs/errors.md lists the codes. Their families are config (E1), what a dataset holds (E2), files
(E3), writing, memory and the process (E4), models and training (E5).
"""

import difflib

# Exit codes as in sysexits.h, by the longest beginning of a code.
STATUS = {
    "E1": 64,  # the config is wrong
    "E2": 65,  # the data are wrong
    "E3": 65,
    "E30": 66,  # an input is missing or cannot be opened
    "E335": 75,  # passing: the same command goes on
    "E4": 74,  # input or output failed
    "E400": 70,  # internal
    "E412": 73,  # no file can be made here
    "E42": 75,
    "E5": 65,
    "E502": 64,
}


class InputError(Exception):
    """Something in the user's input is wrong.

    Holds every problem found in one pass, one line each, so that a file is mended once.
    A job that ends with it prints the lines and no traceback.

    Parameters
    ----------
    problems : str
        One line per problem, as made by `problem`.

    Attributes
    ----------
    problems : list of str
        The lines.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    @property
    def status(self) -> int:
        """Return the exit code of a job that ends with it, by the code of its first problem."""
        return status(self.problems[0] if self.problems else "")


def problem(code: str, where: str, what: str, fix: str) -> str:
    """Return one line that names the code, the place, the problem and the fix.

    Text from data may hold line breaks and characters that steer a terminal; they are spelt out.
    """
    line = f"{code} {where}: {what}. Fix: {fix}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def status(line: str) -> int:
    """Return the exit code for a line that begins with an error's code."""
    return STATUS[max(filter(line.startswith, STATUS), key=len, default="E2")]


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
    listed = f"{', '.join(options[:20])}{', ...' if len(options) > 20 else ''}"
    if not close:
        return f"there are: {listed}"
    return f"did you mean '{lowered[close[0]]}'? There are: {listed}"
