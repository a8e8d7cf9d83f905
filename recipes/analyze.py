"""`accelerate launch recipes/analyze.py ablations`: the same plan as `gpt1 analyze ablations`, divided."""

import sys

from gpt1_hf.cli import main


if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
