"""Lets the chaos tests import what lies beside them and the fixtures one folder up."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
