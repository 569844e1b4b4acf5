"""What the tests of this folder import from each other."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
