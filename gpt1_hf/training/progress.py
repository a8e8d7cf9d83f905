"""How a run shows that it is at work: on standard error, and with bars on a terminal only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from ..console import note


# Rows whose encoding takes long enough for a bar.
MANY_ROWS = 20_000


@contextmanager
def reading_bars(n_rows: int = 0) -> Iterator[None]:
    """Let the library datasets draw its bars only on a terminal, and where there are many rows."""
    are_shown = not are_progress_bars_disabled()
    if are_shown and not (n_rows >= MANY_ROWS and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    finally:
        if are_shown:
            enable_progress_bars()


class Bar(tqdm):
    """A bar whose lines beside it go to standard error, too."""

    @classmethod
    def write(cls, s: str, file=None, end: str = "\n", nolock: bool = False):
        super().write(s, file=file or sys.stderr, end=end, nolock=nolock)


class OneBar(ProgressCallback):
    """transformers' bar of a training run, without another one for each evaluation."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.training_bar = Bar(total=state.max_steps, dynamic_ncols=True)
        self.current_step = 0

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        pass


class Lines(TrainerCallback):
    """The Trainer's logs, a line each."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs is not None:
            shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in logs.items()}
            shown.pop("total_flos", None)
            note(str(shown))
