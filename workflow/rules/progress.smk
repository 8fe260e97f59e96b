"""What the terminal shows of a run: workflow/plugin/sclatent_view, in the place of Snakemake's lines.

Another workflow that takes this one as a module keeps its own. Snakemake's lines come by -p.
"""

VIEW = None
if workflow.is_main_process and not IS_MODULE:
    sys.path.insert(0, str(HERE / "workflow/plugin"))
    from sclatent_view import handler

    VIEW = handler.install(workflow.output_settings)


def close_view():
    """Take the bars away, so that what a hook prints stays."""
    if VIEW is not None:
        VIEW.close()
