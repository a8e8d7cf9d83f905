"""`accelerate launch recipes/pretrain.py --config recipes/pretrain/X.yaml`: the same run as `gpt1 pretrain`."""

import sys

from gpt1_hf.cli import main


if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
