"""Configuration of the LSTM that the paper compares GPT-1 with (Radford et al., 2018, §5), its size as default.

This file travels to the Hub beside every checkpoint; it imports nothing of the package but its siblings.
"""

from huggingface_hub.dataclasses import strict

from .configuration_gpt1 import GPT1FamilyConfig


@strict
class GPT1LSTMConfig(GPT1FamilyConfig):
    r"""
    Configuration of the LSTM baseline. The defaults are the paper's one layer of 2048 units, on GPT-1's vocabulary and
    embedding width (which the paper does not name): 55.7 M parameters.

    Args:
        vocab_size (`int`, *optional*, defaults to 40478):
            Number of token embeddings.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the token embeddings and of `last_hidden_state`, to which the LSTM's output is projected so that
            the softmax can share the embeddings' weights.
        lstm_size (`int`, *optional*, defaults to 2048):
            Number of units of each LSTM layer (§5).
        num_hidden_layers (`int`, *optional*, defaults to 1):
            Number of layers, each an LSTM and its projection (§5: one).
        max_position_embeddings (`int`, *optional*, defaults to 512):
            Length of the spans that the model is trained and scored on. It is no limit: an LSTM reads on for ever.
        embd_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on the embeddings.
        resid_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on each LSTM's output, before its projection. What a layer hands to itself is never dropped
            (Zaremba et al., 2014).
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on the extract token's state before a task head.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that weights are drawn from. Biases are 0, those of the
            forget gates 1 (Jozefowicz et al., 2015).
        lm_coef (`float`, *optional*, defaults to 0.5):
            Weight λ of the auxiliary language-model loss in the task heads (paper eq. 5); 0 switches it off.
        regression_bins (`int`, *optional*):
            With `num_labels=1`, learn a score as a distribution over the whole numbers from 0 to `regression_bins - 1`
            and read it out as their expectation, as [`GPT1Config`].
        both_orders (`bool`, *optional*, defaults to `False`):
            Whether a sequence classifier reads pairs in both orders, as [`GPT1Config`].
        trained_on (`dict`, *optional*):
            What a fine-tuned model was made with: task, labels, tokenizer and data (see `training_record.py`).
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether to return the state for faster generation.
        pad_token_id (`int`, *optional*):
            Token that fills up shorter rows; without an attention mask, the extract token is the last one that
            differs.
    """

    model_type = "gpt1_lstm"
    base_model_fsdp_plan = {"tokens_embed": "free_full_weight", "h.*": "free_full_weight"}

    vocab_size: int = 40478
    hidden_size: int = 768
    lstm_size: int = 2048
    num_hidden_layers: int = 1
    max_position_embeddings: int = 512
    embd_pdrop: float | int = 0.1
    resid_pdrop: float | int = 0.1
    classifier_dropout: float | int = 0.1
    initializer_range: float = 0.02
    lm_coef: float | int = 0.5
    regression_bins: int | None = None
    both_orders: bool = False
    trained_on: dict | None = None
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    @property
    def layer_types(self) -> list[str]:
        """By these `DynamicCache` chooses its layers: here the one that is defined beside the model."""
        return ["gpt1_lstm"] * self.num_hidden_layers

    def validate_layer_type(self):
        """Part of `@strict`'s validation, which knows attention layers only."""

    @classmethod
    def auto_classes(cls) -> dict[str, type]:
        # Imported here since those modules import this one; transformers finds them all the same when it copies the
        # code.
        from .modeling_gpt1_lstm import AUTO_CLASSES
        from .processing_gpt1 import GPT1Processor

        return {"AutoConfig": GPT1LSTMConfig, **AUTO_CLASSES, "AutoProcessor": GPT1Processor}


__all__ = ["GPT1LSTMConfig"]
