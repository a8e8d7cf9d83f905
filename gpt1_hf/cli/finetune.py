"""Fine-tune a pre-trained model on a benchmark task."""

from .parser import parse


def main(argv: list[str]):
    from ..training.arguments import FinetuneArguments
    from ..training.finetune import finetune

    finetune(parse(FinetuneArguments, argv, "finetune", __doc__))
