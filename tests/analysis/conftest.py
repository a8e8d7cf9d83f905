"""A plan of tiny runs."""

import pytest
import yaml


TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "logging_steps": 1,
}


@pytest.fixture
def write_plan(tmp_path, base_model, texts):
    """Write a plan of a transformer and an LSTM on two tasks, changed by the given keys; returns its path."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")

    def write(**changes) -> str:
        plan = {
            "output_dir": str(tmp_path / "runs"),
            "models_dir": str(tmp_path / "models"),
            "pretrain": {
                **TINY,
                "corpus": str(corpus),
                "tokenizer": base_model,
                "tokens_dir": str(tmp_path / "tokens"),
            },
            "models": {"transformer": {}, "lstm": {"architecture": "lstm", "lstm_size": 24, "num_hidden_layers": 1}},
            "finetune": {
                "sample": True,
                "max_train_examples": 8,
                "max_steps": 1,
                "disable_tqdm": True,
                "use_cpu": True,
            },
            "tasks": {"cola": {"seeds": 2}, "sst2": None},
            "variants": {"full": {"model": "transformer"}, "lstm": {"model": "lstm", "lm_coef": 0.0}},
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({**plan, **changes}, sort_keys=False), encoding="utf-8")
        return str(path)

    return write
