"""Loads and asks the artifacts whose folders are given as arguments, in one process.

`test_valgrind.py` runs it under valgrind. Folders are refused or answer; anything else ends it.
"""

import sys

from edge.runtime.errors import EdgeError
from edge.runtime.model import load

answered = 0
for folder in sys.argv[1:]:
    print(f"== {folder}", file=sys.stderr, flush=True)
    try:
        with load(folder) as model:
            model.generate("Who was it?", max_new_tokens=3)
        answered += 1
    except EdgeError as error:
        print(f"   {error}", file=sys.stderr, flush=True)
print(answered)
