"""The runtimes that are compared: where each lives, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm_passes.bench.block import ORDERS, ORIGINAL

PEERS_ENVIRONMENT = "peers"


@dataclass(frozen=True)
class Runtime:
    """One way of running a block.

    Parameters
    ----------
    name
        As in results and in `tvm_passes.bench.worker.BACKENDS`.
    environment
        Name of the virtual environment that has it.
    variants
        What it is given; the fastest counts.  The first word is the order of activation and pool.
    ours
        Whether it is this package, which finds the better order by itself.
    """

    name: str
    environment: str
    variants: tuple[str, ...] = ORDERS
    ours: bool = False


OURS = (
    Runtime("tvm_passes", "relax", (ORIGINAL,), ours=True),
    Runtime("tvm_passes_untuned", "relax", (ORIGINAL,), ours=True),
    Runtime("tvm_passes_winograd", "relax", (ORIGINAL,), ours=True),
    Runtime("tvm_passes_relay", "relay", (ORIGINAL,), ours=True),
)
_XLA = tuple(f"{order} xla" for order in ORDERS)
PEERS = (
    Runtime("onnxruntime", PEERS_ENVIRONMENT),
    Runtime("openvino", PEERS_ENVIRONMENT),
    Runtime("torch", PEERS_ENVIRONMENT, (*ORDERS, *(f"{order} nhwc" for order in ORDERS))),
    Runtime("inductor", PEERS_ENVIRONMENT),
    Runtime("tensorflow", PEERS_ENVIRONMENT, (*ORDERS, *_XLA)),
    Runtime("xla", PEERS_ENVIRONMENT, _XLA),
    Runtime("tvm", "relax"),
    Runtime("tvm_relay", "relay"),
    Runtime("tvm_metaschedule", "relax"),
)
GPU_PEERS = ("torch", "inductor")
"""Those that run on a GPU, too: PyTorch by cuDNN, and its compiler."""
BENCH_PEERS = tuple(
    replace(peer, variants=ORDERS) if peer.name == "tensorflow" else peer
    for peer in PEERS
    if peer.environment == PEERS_ENVIRONMENT
)
"""Those of tvm-reorder bench, which has rows of their own for TensorFlow's graphs and XLA."""
DEFAULT_PEERS = tuple(peer.name for peer in PEERS if peer.name != "xla")
"""XLA is among TensorFlow's variants."""


def one_order(runtime: Runtime) -> Runtime:
    """The runtime, given models in the order that they have."""
    variants = [v for v in runtime.variants if v.partition(" ")[0] == ORIGINAL]
    return replace(runtime, variants=tuple(variants))
