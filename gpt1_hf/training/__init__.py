"""Training: arguments with the paper's values, the Trainer, and the two kinds of run, `pretrain` and `finetune`."""
