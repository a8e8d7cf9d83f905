"""The weights of an ONNX program as 8-bit integers, with onnxruntime's own tools: smaller, and faster on a CPU.

The products with the weights of the blocks' linear layers and of the LM head become onnxruntime's `MatMulNBits`. Each
column of a weight matrix has one scale for every 128 weights. A processor multiplies integers only with integers, so
activations are rounded inside each product, with a scale for every 128 numbers of a token. Results stay fp32.
Embeddings and a task's small classifier keep their weights.

`onnxruntime.quantization.quantize_dynamic` was also measured (`tests/benchmarks/README.md`). It processes prompts
faster, but loses more quality: it has one scale for all activations of a batch, so that the logits of a text depend on
the texts and the padding beside it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.exporters import ExportedModel


BITS = 8
# Weights, and activations, that share a scale.
BLOCK_SIZE = 128
# The level of `MatMulNBits` that multiplies integers. The others turn the weights back into fp32 for every product,
# which is several times slower than fp32 weights.
INTEGER_PRODUCTS = 4
# Metadata of a node: the modules that it was traced from.
MODULES = "pkg.torch.onnx.name_scopes"
CLASSIFIER = "'classifier'"  # as that list of modules writes it


def round_weights(exported: ExportedModel):
    """
    Replace the program of an exported model by one with int8 weights.

    Args:
        exported ([`~transformers.exporters.ExportedModel`]):
            Model exported to ONNX, with its weights in memory.
    """
    (component,) = exported.components.values()
    component.program = _rounded(component.program)


def _rounded(program: Any) -> Any:
    """An `onnx_ir.Model` with int8 weights."""
    import onnx_ir
    from onnxscript.optimizer import fold_constants

    with _same_root_logger():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # The LM head's weights are the token embeddings, transposed in the program. Only constants are quantized.
    fold_constants(program, input_size_limit=2**63, output_size_limit=2**63)
    quantizer = MatMulNBitsQuantizer(
        onnx_ir.to_proto(program),
        bits=BITS,
        block_size=BLOCK_SIZE,
        is_symmetric=True,
        accuracy_level=INTEGER_PRODUCTS,
        nodes_to_exclude=[node.name for node in program.graph if CLASSIFIER in node.metadata_props.get(MODULES, "")],
    )
    quantizer.process()
    return onnx_ir.from_proto(quantizer.model.model)


@contextmanager
def _same_root_logger() -> Iterator[None]:
    """Undo changes to the root logger, which importing onnxruntime's quantizer makes print messages."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
