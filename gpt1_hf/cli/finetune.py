"""Fine-tune a pre-trained model on one task, or on all tasks."""

from .flags import check


def main(argv: list[str]):
    check("gpt1_hf.training.arguments.FinetuneArguments", argv, "finetune", __doc__, required=[("task", "train_file")])

    from ..training.arguments import FinetuneArguments
    from ..training.finetune import finetune
    from .parser import parse

    args = parse(FinetuneArguments, argv, "finetune", __doc__)
    if args.task != "all":
        finetune(args)
        return

    from ..resources import recipes_dir
    from ..tasks import all_tasks
    from ..training.finetune_all import finetune_all

    runs = []
    for task_id in all_tasks():
        recipe = recipes_dir() / "finetune" / f"{task_id}.yaml"
        task_argv = [*argv, "--task", task_id, "--output_dir", f"{args.output_dir}/{task_id}"]
        runs.append(
            parse(FinetuneArguments, task_argv, "finetune", __doc__, str(recipe) if recipe.is_file() else None)
        )
    finetune_all(runs, args.output_dir)
