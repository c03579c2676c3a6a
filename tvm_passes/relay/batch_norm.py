"""Relay: batch normalization at inference, as weights and a bias, by TVM's own passes."""

from __future__ import annotations

import tvm
from tvm import relay

PASS_NAME = "FoldBatchNorm"
BATCH_NORM = "nn.batch_norm"


@tvm.transform.module_pass(opt_level=1, name=PASS_NAME)
class FoldBatchNorm:
    """Run what ``relay.build`` would run later, so that no batch normalization hides a chain.

    ``SimplifyInference`` makes a product and a sum of it, and ``FoldScaleAxis``, at ``opt_level``
    3, takes the factors into the weights of a convolution before it.  A module without a batch
    normalization stays as it is.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if BATCH_NORM not in relay.analysis.list_op_freqs(mod):
            return mod
        constants = relay.transform.FoldConstant()
        passes = [
            relay.transform.SimplifyInference(),
            constants,
            relay.transform.FoldScaleAxis(),
            constants,
            relay.transform.InferType(),
        ]
        return tvm.transform.Sequential(passes)(mod)
