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
    3, takes the factors into the weights of a convolution before it.  That folds one of several
    factors a run, and ``relay.build`` runs it once: where it would fold another one then, none is
    folded here.  A module without a batch normalization stays as it is.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        if BATCH_NORM not in relay.analysis.list_op_freqs(mod):
            return mod
        constants, types = relay.transform.FoldConstant(), relay.transform.InferType()
        simplify = tvm.transform.Sequential([relay.transform.SimplifyInference(), constants, types])
        scale = tvm.transform.Sequential([relay.transform.FoldScaleAxis(), constants, types])
        simplified = simplify(mod)
        folded = scale(simplified)
        return folded if tvm.ir.structural_equal(scale(folded), folded) else simplified
