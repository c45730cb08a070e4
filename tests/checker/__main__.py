"""Print what was searched, what must fail and does, and who notices each mutant; `--night`: the large worlds too."""

import sys

from tests.checker.search import search
from tests.checker.variations import HOLD, MUST_FAIL, MUTANTS, NIGHT, noticed

print("Configurations that hold\n")
for config in [*HOLD, *(NIGHT if "--night" in sys.argv else [])]:
    print(search(config), flush=True)
print("\nProtocols that must fail, and mutants of the machine: who notices\n")
for variation in [*MUST_FAIL, *MUTANTS]:
    print(f"{variation.name:50} {noticed(variation) or 'NOBODY'}", flush=True)
