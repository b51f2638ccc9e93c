"""`python -m jaxcompress` is the command line."""

import sys

from jaxcompress.cli import main

__all__: list[str] = []

sys.exit(main())
