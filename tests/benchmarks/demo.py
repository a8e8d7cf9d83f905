"""Profile the demonstration end to end: the shares of import, data, training, saving, scoring and report.

    python tests/benchmarks/demo.py [--quick] [--cpu_profile demo.prof]

The script runs `gpt1 demo` in this process and times the functions of each part. A part's time excludes that of the
parts inside it: a library that training imports first counts as import. `--quick` trains for one epoch.
"""

import argparse
import contextlib
import cProfile
import importlib
import io
import tempfile
import time
from collections.abc import Callable
from functools import wraps


# Part -> the functions that do its work, as module and name.
PARTS = {
    "import": [("importlib._bootstrap", "_find_and_load")],
    "data": [
        ("gpt1_hf.inside.demo", "load_task"),
        ("gpt1_hf.tasks.task", "Task.load"),
        ("gpt1_hf.training.finetune", "prepare"),
        ("gpt1_hf.inside.demo", "finetuning_facts"),
    ],
    "loading the model": [
        ("gpt1_hf.training.finetune", "model_to_train"),
        ("gpt1_hf.training.finetune", "open_model"),
    ],
    "training": [("gpt1_hf.training.finetune", "train"), ("transformers", "Trainer.train")],
    "saving": [
        ("gpt1_hf.training.finetune", "save"),
        ("gpt1_hf.inside.demo", "remove_checkpoints"),
        ("gpt1_hf.inside.demo", "write_results"),
    ],
    "scoring": [("gpt1_hf.training.finetune", "score_saved")],
}
REST = "report and the rest"


class Parts:
    """Seconds of each part. Entering a part stops the clock of the one around it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.seconds, self.stack, self.since = clock, dict.fromkeys([*PARTS, REST], 0.0), [REST], clock()

    def switch(self):
        """Add the time since the last switch to the current part."""
        now = self.clock()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    def timing(self, part: str, function: Callable) -> Callable:
        @wraps(function)
        def timed(*args, **kwargs):
            self.switch()
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self.stack.pop()

        return timed


def replace(module: str, name: str, change: Callable[[Callable], Callable]) -> Callable[[], None]:
    """Replace a function or method, and return a function that restores it."""
    *owners, last = name.split(".")
    owner = importlib.import_module(module)
    for attribute in owners:
        owner = getattr(owner, attribute)
    original = getattr(owner, last)
    setattr(owner, last, change(original))
    return lambda: setattr(owner, last, original)


def profile(epochs: int | None, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds of each part of the demonstration; with `epochs`, of a shorter one."""
    parts, undo = Parts(clock), contextlib.ExitStack()
    with undo, tempfile.TemporaryDirectory() as folder:
        for part, functions in PARTS.items():
            for module, name in functions:
                undo.callback(replace(module, name, lambda function, part=part: parts.timing(part, function)))
        demo = importlib.import_module("gpt1_hf.inside.demo")
        if epochs is not None:
            shorter = lambda make: lambda **settings: make(**{**settings, "num_train_epochs": epochs})  # noqa: E731
            undo.callback(replace("gpt1_hf.inside.demo", "FinetuneArguments", shorter))
        with contextlib.redirect_stdout(io.StringIO()):
            demo.demo(folder)
        parts.switch()
    return parts.seconds


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Train for one epoch.")
    parser.add_argument("--processor_time", action="store_true", help="Measure processor time: for a busy machine.")
    parser.add_argument("--cpu_profile", help="Also write cProfile's statistics, for `python -m pstats FILE`.")
    args = parser.parse_args(argv)
    profiler = cProfile.Profile()
    with profiler if args.cpu_profile else contextlib.nullcontext():
        seconds = profile(1 if args.quick else None, time.process_time if args.processor_time else time.perf_counter)
    if args.cpu_profile:
        profiler.dump_stats(args.cpu_profile)
    total = sum(seconds.values())
    print("| part | s | share |\n|---|---|---|")
    for part, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {part} | {value:.1f} | {100 * value / total:.0f} % |")
    print(f"| all | {total:.1f} | 100 % |")
    return seconds


if __name__ == "__main__":
    main()
