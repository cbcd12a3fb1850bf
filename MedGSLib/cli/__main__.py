"""``python -m MedGSLib.cli``, for environments whose scripts folder is not on the path."""

from __future__ import annotations

import sys

from MedGSLib.cli.main import main

sys.exit(main())
