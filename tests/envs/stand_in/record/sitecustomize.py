"""Write down at the end of a script where each of its modules was loaded from."""

import atexit
import json
import os
import sys
from pathlib import Path


def record() -> None:
    """Write the script's name, its prefix and the files of its modules to the folder RECORDS."""
    loaded = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if getattr(module, "__file__", None)
    }
    job = {"script": sys.argv[0], "prefix": sys.prefix, "modules": loaded}
    name = f"{Path(sys.argv[0]).name}.json"
    Path(os.environ["RECORDS"], name).write_text(json.dumps(job))


if "RECORDS" in os.environ:
    atexit.register(record)
