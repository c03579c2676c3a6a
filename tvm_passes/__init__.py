"""Make max-pooling networks faster by compilation, without changing a result.

The passes are in `tvm_passes.relax` and `tvm_passes.relay`; importing this needs no TVM.
"""

from tvm_passes.rules import RULES, Form, Rule
from tvm_passes.pattern import Apply, Data, Number
from tvm_passes.decline import Decline, Direction, Reason
from tvm_passes.decision import Decision, decide
from tvm_passes.cost import Cost, cost
from tvm_passes.remarks import Kind, Remark, remarks_of
from tvm_passes.errors import TvmPassesError

__all__ = [
    "RULES",
    "Apply",
    "Cost",
    "Data",
    "Decision",
    "Decline",
    "Direction",
    "Form",
    "Kind",
    "Number",
    "Reason",
    "Remark",
    "Rule",
    "TvmPassesError",
    "cost",
    "decide",
    "remarks_of",
]
