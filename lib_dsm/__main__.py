"""`python -m lib_dsm COMMAND`."""

import sys

from lib_dsm.cli.main import main

sys.exit(main(sys.argv[1:]))
