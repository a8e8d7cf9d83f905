"""Progress of a run, on standard error; a progress bar only on a terminal."""

import sys

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from ..console import note


class StderrBar(tqdm):
    """A progress bar that also writes other lines to standard error."""

    @classmethod
    def write(cls, s: str, file=None, end: str = "\n", nolock: bool = False):
        super().write(s, file=file or sys.stderr, end=end, nolock=nolock)


class TrainingBar(ProgressCallback):
    """transformers' progress bar for training, without extra bars for evaluations."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.training_bar = StderrBar(total=state.max_steps, dynamic_ncols=True)
        self.current_step = 0

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        pass


class LogLines(TrainerCallback):
    """Prints each log entry of the Trainer on one line."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs is not None:
            shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in logs.items()}
            shown.pop("total_flos", None)
            note(str(shown))
