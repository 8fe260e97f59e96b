"""Write down at the end of a job where each of its modules was loaded from."""

import atexit
import json
import os
import sys
from pathlib import Path


def record() -> None:
    """Write the job's script, its prefix and the files of its modules to the folder RECORDS."""
    loaded = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if getattr(module, "__file__", None)
    }
    job = {"script": sys.argv[0], "prefix": sys.prefix, "modules": loaded}
    Path(os.environ["RECORDS"], f"{os.getpid()}.json").write_text(json.dumps(job))


if "RECORDS" in os.environ:
    atexit.register(record)
