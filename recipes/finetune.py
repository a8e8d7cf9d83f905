"""`accelerate launch recipes/finetune.py --config recipes/finetune/cola.yaml`: the same run as `gpt1 finetune`."""

import sys

from gpt1_hf.cli import main


if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
