"""`python -m reserve`."""

import sys

from reserve.cli import main

sys.exit(main())
