"""Configuration of the LSTM that the paper compares GPT-1 with (Radford et al., 2018, §5).

This file travels to the Hub beside every checkpoint. It imports nothing from the package but files that travel too.
"""

from huggingface_hub.dataclasses import strict

from .configuration_gpt1 import GPT1FamilyConfig


# The code that transformers copies with this configuration, see `configuration_gpt1.py`.
_NEEDED_CODE = """
from .modeling_gpt1_lstm import GPT1LSTMModel
"""


@strict
class GPT1LSTMConfig(GPT1FamilyConfig):
    r"""
    Configuration of the LSTM baseline. The defaults are the paper's single layer of 2048 units with GPT-1's vocabulary
    and embedding width, which the paper does not state: 55.7 M parameters.

    Args:
        vocab_size (`int`, *optional*, defaults to 40478):
            Number of token embeddings.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the token embeddings and of `last_hidden_state`. The LSTM's output is projected to it so that the
            softmax can share the embeddings' weights.
        lstm_size (`int`, *optional*, defaults to 2048):
            Number of units of each LSTM layer (§5).
        num_hidden_layers (`int`, *optional*, defaults to 1):
            Number of layers, each an LSTM and its projection (§5: one).
        max_position_embeddings (`int`, *optional*, defaults to 512):
            Length in tokens of the spans for training and scoring. It does not limit the length of a text.
        embd_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on the embeddings.
        resid_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on each LSTM's output, before its projection. The recurrent state has no dropout (Zaremba et al.,
            2014).
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on the extract token's state before a task head.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that weights are drawn from. Biases are 0, those of the
            forget gates 1 (Jozefowicz et al., 2015). Fine-tuning draws a new head, and the embeddings of new special
            tokens, with it too.
        lm_coef (`float`, *optional*, defaults to 0.5):
            Weight λ of the auxiliary language-model loss in the task heads (paper eq. 5); 0 turns it off.
        regression_bins (`int`, *optional*):
            With `num_labels=1`, learn a score as a distribution over the integers from 0 to `regression_bins - 1` and
            predict its expectation, as in [`GPT1Config`].
        both_orders (`bool`, *optional*, defaults to `False`):
            Whether a sequence classifier reads pairs in both orders, as in [`GPT1Config`].
        trained_on (`dict`, *optional*):
            Task, labels, tokenizer and data of a fine-tuned model (see `training_record.py`).
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether to return the state for faster generation.
        pad_token_id (`int`, *optional*):
            Padding token. Without an attention mask, the extract token is a row's last token with another id.
    """

    model_type = "gpt1_lstm"
    auto_classes = {
        "AutoConfig": "configuration_gpt1_lstm.GPT1LSTMConfig",
        "AutoModel": "modeling_gpt1_lstm.GPT1LSTMModel",
        "AutoModelForCausalLM": "modeling_gpt1_lstm.GPT1LSTMForCausalLM",
        "AutoModelForMultipleChoice": "modeling_gpt1_lstm.GPT1LSTMForMultipleChoice",
        "AutoModelForSequenceClassification": "modeling_gpt1_lstm.GPT1LSTMForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_gpt1_lstm.GPT1LSTMForTokenClassification",
        "AutoProcessor": "processing_gpt1.GPT1Processor",
    }
    base_model_fsdp_plan = {"tokens_embed": "free_full_weight", "h.*": "free_full_weight"}

    lstm_size: int = 2048
    num_hidden_layers: int = 1

    @property
    def layer_types(self) -> list[str]:
        """Types of the cache's layers, from which `DynamicCache` picks the one defined beside the model."""
        return ["gpt1_lstm"] * self.num_hidden_layers

    def validate_layer_type(self):
        """Overrides a part of `@strict`'s validation that accepts only attention layers."""


__all__ = ["GPT1LSTMConfig"]
