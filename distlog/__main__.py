"""`python -m distlog`: the same as the command `distlog`."""

import sys

from distlog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
