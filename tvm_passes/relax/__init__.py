"""The passes for Relax, on current TVM."""

from tvm_passes.dialects import require
from tvm_passes.rules import RELAX

require(RELAX)

from tvm_passes.relax.pipeline import (
    PIPELINE_NAME,
    register_pipeline,
    stock_pipeline,
    tvm_reorder_pipeline,
)
from tvm_passes.relax.reorder import ReorderActivationAfterMaxPool, decisions

__all__ = [
    "PIPELINE_NAME",
    "ReorderActivationAfterMaxPool",
    "decisions",
    "register_pipeline",
    "stock_pipeline",
    "tvm_reorder_pipeline",
]
