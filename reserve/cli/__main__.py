"""`python -m reserve.cli`, for launchers such as torchrun."""

import sys

from reserve.cli import main

sys.exit(main())
