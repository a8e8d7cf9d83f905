"""GPT-1's configuration. The defaults are the sizes in the paper (Radford et al., 2018, §4.1).

This file travels to the Hub beside every checkpoint. It imports nothing else from the package.
"""

import shutil
from pathlib import Path
from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files


# transformers searches the text of a module for relative imports and copies the files that they name. These lines make
# it copy the model's code with its configuration, so that a configuration loaded alone can be saved with all its code.
# They are text because real imports would be circular.
_NEEDED_CODE = """
from .modeling_gpt1 import GPT1Model
from .processing_gpt1 import GPT1Processor
"""


@strict
class GPT1FamilyConfig(PreTrainedConfig):
    """
    Common base of the family's configurations. It validates what the heads read, rejects other models' folders, and
    saves the model's code with `config.json`. Subclasses define `auto_classes`, the value of `auto_map` there.
    """

    # Auto class -> "module.Class", for `auto_map`. The order is that of registration.
    auto_classes: ClassVar[dict[str, str]]
    # Excludes every output but `logits`, so that `Trainer.predict` returns one array.
    keys_to_ignore_at_inference = ["cache", "past_key_values", "hidden_states", "attentions", "task_loss", "lm_loss"]
    # Model types of other folders that this class can read.
    _other_model_types: ClassVar[tuple[str, ...]] = ()

    vocab_size: int = 40478
    hidden_size: int = 768
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

    @classmethod
    def _code(cls) -> dict[str, Path]:
        """File name -> source file, for every module that a saved folder needs."""
        modules = {reference.split(".")[0] for reference in cls.auto_classes.values()}
        sources = {Path(__file__).with_name(f"{module}.py") for module in modules}
        siblings = {Path(file) for source in sources for file in get_relative_import_files(source)}
        return {source.name: source for source in sources | siblings}

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        # Dropped, because the instance would keep the file's model type (configuration_utils.py, `__post_init__`).
        model_type = config_dict.pop("model_type", cls.model_type)
        accepted = (cls.model_type, *cls._other_model_types)
        if model_type not in accepted:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a `{model_type}` model, but {cls.__name__} reads only "
                f"{' and '.join(f'`{name}`' for name in accepted)}: load it with its own class"
            )
        return config_dict, kwargs

    def validate_architecture(self):
        """Part of `@strict`'s validation: rejects values that contradict each other."""
        super().validate_architecture()
        if self.regression_bins and self.num_labels != 1:
            raise ValueError(f"regression_bins gives one score: set num_labels to 1, not {self.num_labels}")
        if self.regression_bins and self.problem_type is None:
            self.problem_type = "regression"  # makes pipelines return the score unchanged

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """
        Save `config.json` and the Python files from which `trust_remote_code=True` loads any class of the family.
        """
        self.auto_map = dict(self.auto_classes)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in self._code().items():
            if source.resolve().parent != folder.resolve():
                shutil.copyfile(source, folder / name)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _get_files_timestamps(self, working_dir):
        # `push_to_hub` uploads files that are newer than these. The base class takes them after the code was copied.
        code = self._code()
        timestamps = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in timestamps.items() if name not in code}


@strict
class GPT1Config(GPT1FamilyConfig):
    r"""
    Configuration of a GPT-1 model. The defaults are the paper's 116.5 M-parameter model.

    It also accepts the names of transformers' `OpenAIGPTConfig`: `n_embd`, `n_layer`, `n_head`, `n_positions`,
    `n_ctx`, and `afn`, where `"gelu"` means the tanh form.

    Args:
        vocab_size (`int`, *optional*, defaults to 40478):
            Number of token embeddings: 478 base entries and 40,000 merges in the original.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the states between blocks.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of transformer blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads per block; must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to `4 * hidden_size`):
            Width of the feed-forward layers.
        max_position_embeddings (`int`, *optional*, defaults to 512):
            Context length in tokens.
        position_embedding_type (`str`, *optional*, defaults to `"learned"`):
            `"learned"` (as in the paper) or, for ablations, `"sinusoidal"` or `"none"`.
        hidden_act (`str`, *optional*, defaults to `"gelu_pytorch_tanh"`):
            Activation of the feed-forward layers; `gelu_pytorch_tanh` is the tanh approximation that GPT-1 uses.
        embd_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on the summed embeddings.
        attn_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on the attention probabilities.
        resid_pdrop (`float`, *optional*, defaults to 0.1):
            Dropout on the output of each attention and feed-forward layer, before the residual sum.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on the extract token's state before a task head.
        layer_norm_epsilon (`float`, *optional*, defaults to 1e-5):
            Epsilon of the layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that weights are drawn from. Fine-tuning draws a new head,
            and the embeddings of new special tokens, with it too.
        position_initializer_range (`float`, *optional*, defaults to `initializer_range`):
            Standard deviation of the initial position vectors, or amplitude of the sinusoidal ones. The paper has one
            scale for all weights. A small model whose weights are larger needs smaller positions: at the scale of the
            tokens they drown them.
        lm_coef (`float`, *optional*, defaults to 0.5):
            Weight λ of the auxiliary language-model loss in the task heads (paper eq. 5); 0 turns it off.
        regression_bins (`int`, *optional*):
            With `num_labels=1`, learn a score as a distribution over the integers from 0 to `regression_bins - 1` and
            predict its expectation, as the released code does for STS-B with 6 bins. Plain regression if not set.
        both_orders (`bool`, *optional*, defaults to `False`):
            Whether a sequence classifier reads pairs in both orders and rejects a single one. Training sets it.
        trained_on (`dict`, *optional*):
            Task, labels, tokenizer and data of a fine-tuned model (see `training_record.py`).
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether to return the keys and values for faster generation.
        pad_token_id (`int`, *optional*):
            Padding token. Without an attention mask, the extract token is a row's last token with another id.
    """

    model_type = "gpt1"
    auto_classes = {
        "AutoConfig": "configuration_gpt1.GPT1Config",
        "AutoModel": "modeling_gpt1.GPT1Model",
        "AutoModelForCausalLM": "modeling_gpt1.GPT1ForCausalLM",
        "AutoModelForMultipleChoice": "modeling_gpt1.GPT1ForMultipleChoice",
        "AutoModelForSequenceClassification": "modeling_gpt1.GPT1ForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_gpt1.GPT1ForTokenClassification",
        "AutoProcessor": "processing_gpt1.GPT1Processor",
    }
    _other_model_types = ("openai-gpt",)
    attribute_map = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "n_ctx": "max_position_embeddings",
        "n_inner": "intermediate_size",
        "afn": "hidden_act",
    }
    base_model_tp_plan = {
        "tokens_embed": "embedding_rowwise",
        "h.*.attn.q_proj": "colwise",
        "h.*.attn.k_proj": "colwise",
        "h.*.attn.v_proj": "colwise",
        "h.*.attn.o_proj": "rowwise",
        "h.*.mlp.up_proj": "colwise",
        "h.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "tokens_embed": (["input_ids"], ["inputs_embeds"]),
        "h": (["hidden_states", "attention_mask"], ["hidden_states"]),
    }
    base_model_fsdp_plan = {"tokens_embed": "free_full_weight", "h.*": "free_full_weight"}

    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    position_embedding_type: Literal["learned", "sinusoidal", "none"] = "learned"
    position_initializer_range: float | int | None = None
    hidden_act: str = "gelu_pytorch_tanh"
    attn_pdrop: float | int = 0.1
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self, **kwargs):
        if (afn := kwargs.pop("afn", None)) is not None:
            # In OpenAIGPTConfig, "gelu" means the tanh form (models/openai/modeling_openai.py, ACT_FNS).
            kwargs["hidden_act"] = "gelu_pytorch_tanh" if afn == "gelu" else afn
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.position_initializer_range is None:
            self.position_initializer_range = self.initializer_range

    def validate_architecture(self):
        """Part of `@strict`'s validation: rejects sizes that contradict each other."""
        super().validate_architecture()
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )


__all__ = ["GPT1Config", "GPT1FamilyConfig"]
