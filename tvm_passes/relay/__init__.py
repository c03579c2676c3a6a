"""The passes for Relay, on TVM 0.19."""

from tvm_passes.dialects import require
from tvm_passes.rules import RELAY

require(RELAY)

from tvm_passes.relay.build import build
from tvm_passes.relay.reorder import ReorderActivationAfterMaxPool, decisions

__all__ = ["ReorderActivationAfterMaxPool", "build", "decisions"]
