"""How to train: arguments with the paper's values, the Trainer, and the two runs `pretrain` and `finetune`."""
