"""Tells in a line what is wrong with a config file, where Snakemake would show a traceback.

Snakemake reads the config files of a command before any line of a Snakefile, so what speaks of them
has to be there earlier: it imports every package of this kind of name when its command line starts.
`make` puts this folder on the path of the environment. Nobody has to choose it as a logger.
"""

import logging

from snakemake_interface_logger_plugins.base import LogHandlerBase

from .config_files import in_a_line


class LogHandler(LogHandlerBase):
    """What Snakemake expects of a plugin: a handler, here one that shows nothing."""

    writes_to_stream = writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def emit(self, record: logging.LogRecord) -> None:
        """Show nothing."""


logging.getLogger("snakemake.logging").addFilter(in_a_line)
