"""TRL's SFTTrainer on the causal language model: texts, packed texts, prompts with completions."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt1_hf import GPT1ForCausalLM


pytestmark = pytest.mark.slow

END = "<|endoftext|>"
ROWS = [
    {"prompt": "The old captain walked into the", "completion": " dark house."},
    {"prompt": "A young lady", "completion": " smiled and answered."},
    {"prompt": "The letter was", "completion": " good."},
    {"prompt": "He spoke gently to the kind captain and", "completion": " wept."},
]


@pytest.fixture
def sft(base_model, tmp_path):
    """
    Trains a language model on [`ROWS`], all of them in every update; returns trainer, tokenizer and output folder.
    """
    trl = pytest.importorskip("trl", reason="needs the extra `trl`")
    # SFTTrainer ends every text with the tokenizer's end token, which GPT-1 lacks.
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.add_special_tokens({"eos_token": END})
    tokenizer.split_special_tokens = False
    torch.manual_seed(0)
    model = GPT1ForCausalLM.from_pretrained(base_model, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)

    def run(rows: list[dict], **settings):
        args = trl.SFTConfig(
            output_dir=str(tmp_path / "sft"),
            max_steps=30,
            learning_rate=1e-2,
            max_length=64,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            report_to="none",
            **{"per_device_train_batch_size": len(rows), **settings},
        )
        trainer = trl.SFTTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        return trainer, tokenizer, tmp_path / "sft"

    return run


@torch.no_grad()
def loss_of(model, sequences: list[list[int]], n_prompts: list[int]) -> float:
    """Mean loss of the tokens after each prompt and after the first token, one sequence at a time."""
    losses = []
    for ids, n in zip(sequences, n_prompts, strict=True):
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-log_probs[at - 1, ids[at]].item() for at in range(max(1, n), len(ids))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("kind", ["text", "packed", "completion"])
def test_sft_trains_and_its_model_is_loaded_again(sft, kind):
    texts = [row["prompt"] + row["completion"] for row in ROWS]
    rows = ROWS if kind == "completion" else [{"text": text} for text in texts]
    settings = {"packing": True, "per_device_train_batch_size": 1} if kind == "packed" else {}
    trainer, tokenizer, folder = sft(rows, **settings)
    if kind == "packed":
        assert len(trainer.train_dataset) < len(ROWS)
        batch = next(iter(trainer.get_train_dataloader()))
        assert "attention_mask" not in batch and (batch["position_ids"] == 0).sum() == len(ROWS)
    sequences = [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    prompts = tokenizer([row["prompt"] for row in ROWS])["input_ids"]
    n_prompts = list(map(len, prompts)) if kind == "completion" else [0] * len(ROWS)
    # Dropout is off: the first update's loss is that of the loaded model, with or without packing.
    expected = loss_of(trainer.model.eval(), sequences, n_prompts)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(expected, rel=1e-3)
    assert losses[-1] < 0.5 * losses[0]

    trainer.save_model()
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    assert type(reloaded) is GPT1ForCausalLM and reloaded.config.eos_token_id == tokenizer.eos_token_id
    assert loss_of(reloaded, sequences, n_prompts) == pytest.approx(
        loss_of(trainer.model.eval(), sequences, n_prompts), rel=1e-4
    )
    again = AutoTokenizer.from_pretrained(folder)
    ids = again(ROWS[0]["prompt"], return_tensors="pt")
    text = again.decode(reloaded.generate(**ids, max_new_tokens=20, do_sample=False)[0])
    assert text.endswith(END)
