"""Preconditions of every rule: each looks at a site, or at one op of its chain.

A precondition returns None where it holds, and where it does not, a `Decline` that says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

from tvm_passes.decline import Condition, Decline, Direction, Reason
from tvm_passes.neighbours import (
    MERGED,
    adds,
    adds_own,
    heeds_proofs,
    is_merged,
    may_merge,
    may_vanish_op,
    multiplies,
)
from tvm_passes.rule import INTEGERS, NARROW
from tvm_passes.site import ElementwiseOp, Operand, Pool, Producer, Shape, Site, elements, extents

# Preconditions of every op of a chain.


def not_output(op: ElementwiseOp, _pool: Pool) -> Decline | None:
    """The un-pooled result does not leave the function."""
    if op.is_output:
        return Decline(
            Reason.OUTPUT,
            f"the un-pooled result of {op.op} is an output of the function",
            "drop that output if nobody reads it",
        )
    return None


def single_consumer(op: ElementwiseOp, pool: Pool) -> Decline | None:
    """Nothing but the op below it reads the un-pooled result."""
    if op.consumers != 1:
        return Decline(
            Reason.SHARED,
            f"{op.consumers} ops read the un-pooled result of {op.op}",
            f"only an activation with {pool.op} as its one consumer can sink",
        )
    return None


def commutes_with_moves(op: ElementwiseOp, _pool: Pool) -> Decline | None:
    """What lies between the op and the pool gives the same below it as above it."""
    if op.stuck:
        between = ", ".join(move.op for move in op.crosses) or "another pool"
        return Decline(
            Reason.LAYOUT,
            f"{op.stuck} of {op.op} cannot be written for the data below {between}",
            "keep the pooled axes together in a reshape or transposition above a pool",
        )
    for move in op.crosses:
        if move.fills and (move.fill is None or not op.rule.fixes(op, move.fill)):
            fill = "an unknown number" if move.fill is None else f"{move.fill:g}"
            return Decline(
                Reason.PAD_VALUE,
                f"{move.op} pads with {fill}, which {op.op} may not map to itself",
                "let the pool pad: its own padding is never the maximum",
            )
    return None


def keeps_shape(op: ElementwiseOp, pool: Pool) -> Decline | None:
    """The op does not broadcast the data that flows through it.

    On an axis of symbolic extent only an operand of extent 1 is known not to.
    """
    operands = [value for value in op.params.values() if isinstance(value, Operand)]
    unknown = [axis for axis, extent in enumerate(pool.in_shape) if extent is None]
    provable = all(operand.shape[axis] == 1 for operand in operands for axis in unknown)
    if op.shape == pool.in_shape and provable:
        return None
    return Decline(
        Reason.SHAPE,
        f"{op.op} reads shape {extents(op.shape)}, the pool reads {extents(pool.in_shape)}",
        "broadcast the data before the activation, to extents known at compile time",
    )


def dtype_covered(op: ElementwiseOp, pool: Pool) -> Decline | None:
    """The rule holds for the element types of the data and of the result."""
    results = op.rule.results or {op.reads}
    if op.reads not in op.rule.dtypes or op.dtype not in results or op.dtype != pool.dtype:
        return Decline(
            Reason.DTYPE,
            f"the rule {op.rule.name} does not hold for {op.reads}",
            "the rule table lists the element types of each row",
        )
    return None


def keeps_numbers(op: ElementwiseOp, _pool: Pool) -> Decline | None:
    """No division is by a number in one kernel's code before, and by a kernel's argument after."""
    if not op.unsettled:
        return None
    return Decline(
        Reason.ROUNDING,
        f"{op.op} reads a number that an op divides by, or raises to, and others read: kernels "
        "multiply by its reciprocal or divide, as they are cut",
        "give each op that reads the number a constant of its own",
    )


def rule_conditions(op: ElementwiseOp, pool: Pool) -> Decline | None:
    """Every condition of the rule's row, where its operands are on the pool's axes."""
    if op.stuck:
        return commutes_with_moves(op, pool)
    declines = (condition(op, pool) for condition in op.rule.conditions)
    return next((decline for decline in declines if decline is not None), None)


OP_PRECONDITIONS: tuple[Condition, ...] = (
    not_output,
    single_consumer,
    commutes_with_moves,
    keeps_shape,
    dtype_covered,
    rule_conditions,
    keeps_numbers,
)


# Preconditions of a site.


def selects(site: Site) -> Decline | None:
    """The pool returns one of its inputs."""
    if not site.pool.selects:
        return Decline(
            Reason.NOT_SELECTING,
            f"{site.pool.op} mixes its inputs: f(mean(x)) is not mean(f(x))",
            "only pools that select one of their inputs commute with an activation",
        )
    return None


def has_chain(site: Site) -> Decline | None:
    """There is an activation above the pool, and a rule for it."""
    if site.chain:
        return None
    if site.producer.reads_activation:
        return Decline(
            Reason.NO_RULE,
            f"no rule covers {site.producer.op}, which the pool reads",
            "add a rule if the op is monotone: rules=RULES + (Rule(...),)",
        )
    return Decline(
        Reason.NO_ACTIVATION,
        f"the pool reads {site.producer.op} itself",
        "nothing to do",
    )


def in_dataflow(site: Site) -> Decline | None:
    """Nothing around the pool has effects."""
    if site.in_dataflow:
        return None
    return Decline(
        Reason.NOT_DATAFLOW,
        f"what is around {site.pool.op} may have effects: it is in no dataflow block, or a call of "
        "its function writes over what it reads",
        "run relax.transform.ConvertToDataflow before this pass, and what writes in place after it",
    )


def layout_known(site: Site) -> Decline | None:
    """The pooled axes can be told from the layout, and the pool keeps it."""
    pool = site.pool
    axes = pool.spatial_axes()
    if axes and len(pool.in_shape) > max(axes) and pool.out_layout in ("", pool.layout):
        return None
    return Decline(
        Reason.LAYOUT,
        f"{pool.op} reads {pool.layout} of rank {len(pool.in_shape)} "
        f"and writes {pool.out_layout or pool.layout}",
        "use a layout that keeps each pooled axis whole, such as NCHW, NHWC or NCHW16c",
    )


def windows_touch_data(site: Site) -> Decline | None:
    """Every window covers an element of the data.

    A window wholly in padding, or of no elements, yields the pool's initial value, the lowest
    finite number, and f(lowest) after the swap.
    """
    pool = site.pool
    for n, axis in enumerate(pool.spatial_axes() or ()):
        if not pool.kernel and not pool.in_shape[axis]:
            return Decline(
                Reason.EMPTY_WINDOW,
                f"{pool.op} reads {extents(pool.in_shape)}, of which axis {axis} may be empty",
                "make the extents of the pooled axes known at compile time",
            )
        if pool.kernel and not _axis_touches_data(pool, n, axis):
            return Decline(
                Reason.EMPTY_WINDOW,
                f"a window of {pool.op} may lie wholly in the padding of axis {pool.layout[axis]} "
                f"(kernel {pool.kernel[n]}, padding {pool.padding})",
                "pad by less than the kernel, on axes whose extent is known",
            )
    return None


def _axis_touches_data(pool: Pool, n: int, axis: int) -> bool:
    """Whether all windows, from the first to the last, have a tap in [0, extent)."""
    extent, outputs = pool.in_shape[axis], pool.out_shape[axis]
    stride, dilation = pool.strides[n], pool.dilation[n]
    reach = (pool.kernel[n] - 1) * dilation
    before, after = pool.padding[n], pool.padding[n + len(pool.kernel)]
    if extent is None or outputs is None:
        # The floor rule starts its last window at most at extent + after - reach - 1; padding
        # that alone fills a window would matter for an extent of 0.
        floor = not pool.ceil_mode and dilation == 1
        return floor and before + after <= reach
    starts_inside = (outputs - 1) * stride - before < extent
    # Where a window starts in the padding, its first tap past it is below the dilation.
    lands_inside = before <= reach and (before == 0 or dilation <= extent)
    return extent > 0 and starts_inside and lands_inside


def pays(site: Site) -> Decline | None:
    """Fewer evaluations of the activation after than before."""
    pool = site.pool
    before, after = evaluations(pool)
    first = site.chain[0]
    padded = elements(pool.in_shape) > first.evaluations if first.crosses else False
    share = Fraction(first.evaluations, elements(pool.in_shape)) if padded else 1
    if after < before * share:
        return None
    return Decline(
        Reason.DOES_NOT_PAY,
        f"{pool.op} reads {before} elements and writes {after}",
        "only a pool that shrinks its input saves evaluations",
    )


def tells_nothing(site: Site) -> Decline | None:
    """No kernel below is compiled otherwise for what an op tells of its results.

    LLVM folds a comparison with 0 of what is never negative, and a choice between a number and its
    multiple of what is never NaN: a product that was chosen is then contracted with a sum.
    """
    if not site.told_below:
        return None
    below = ", ".join(site.told_below)
    return Decline(
        Reason.FOLDING,
        f"{site.chain[0].op} would tell the kernel of {below} of its signs, which decides what is "
        "contracted there",
        "nothing to do: sinking it could change the last bit",
    )


def stores_below(site: Site) -> Decline | None:
    """Kernels below store what they multiply before they add to it, whatever else is in them."""
    shape = site.pool.out_shape
    if not site.unstored or not (site.small_below or _is_small(shape, site)):
        return None
    if not (site.joined_below or (site.products_below and site.sums_below)):
        return None
    names = sorted({*site.products_below, *site.sums_below})
    names += ["what is computed beside the pool"] if site.joined_below else []
    return Decline(
        Reason.FOLDING,
        f"small results below {extents(shape)} may stay in registers, and what is contracted in "
        f"the kernel of {', '.join(names)} depends on all that is in it",
        "nothing to do: sinking anything into it could change the last bit",
    )


def stores_above(site: Site) -> Decline | None:
    """Kernels above store what they multiply before they add to it, whatever else is in them."""
    if not site.unstored:
        return None
    computed = (op.shape if op.computed is None else op.computed for op in site.chain)
    is_apart = site.producer.rounded and _apart(site.chain) == len(site.chain)
    if is_apart or not any(_is_small(shape, site) for shape in computed):
        return None
    return Decline(
        Reason.ROUNDING,
        f"results above {extents(site.pool.in_shape)} may stay in registers, and what of "
        f"{site.producer.op} or below it is contracted there depends on all that is in the kernel",
        "nothing to do: taking anything out of it could change the last bit",
    )


def stored(site: Site) -> int:
    """How many of the lowest ops may sink, so that no product comes to be added to in registers.

    Kernels of Relax store what each op gives, but LLVM may keep small tensors in registers, and
    contracts a product and a sum then: whether it does depends on all that is in the kernel.
    """
    is_small = _is_small(site.pool.out_shape, site)
    return _apart(site.chain) if is_small else len(site.chain)


def not_kept(op: ElementwiseOp, site: Site) -> Decline:
    """Why an op stays that is the first above those that `stored` counts."""
    return Decline(
        Reason.ROUNDING,
        f"{extents(site.pool.out_shape)} may stay in registers, and whether {op.op} is contracted "
        "there, with a sum below it or in it, depends on all that is in the kernel",
        "nothing to do: sinking it could change the last bit",
    )


def _apart(chain: Sequence[ElementwiseOp]) -> int:
    """How many of the lowest ops may be in one kernel, without a product that is added to."""
    is_added = False
    for n, op in enumerate(chain):
        if adds_own(op) or (is_added and multiplies(op)):
            return n
        is_added = adds(op) or (is_added and (op.rule.is_sign or may_vanish_op(op)))
    return len(chain)


def _is_small(shape: Shape, site: Site) -> bool:
    """Whether what an op gives may be kept in registers; not where its extents are not known."""
    return None not in shape and elements(shape) < site.unstored


def direction_allowed(op: ElementwiseOp, allow: Collection[str]) -> Decline | None:
    """The op is monotone, or functions of its direction are allowed."""
    if op.rule.direction is not Direction.QUASI_CONVEX or op.rule.direction.value in allow:
        return None
    exactly = "" if op.rule.is_exact else ", which is exact in real numbers alone"
    return Decline(
        Reason.QUASI_CONVEX,
        f"{op.op} falls, then rises: it has to be computed at both ends of each window{exactly}",
        'allow it with allow={"quasi-convex"}, or --allow quasi-convex',
    )


TURNED = {
    Direction.NON_DECREASING: Direction.NON_INCREASING,
    Direction.NON_INCREASING: Direction.NON_DECREASING,
}
"""How a function of a non-increasing one moves, by how it moves itself."""


def composed(below: Direction, op: ElementwiseOp, pool: Pool) -> Direction | Decline:
    """The direction of a function that moves as `below`, of the op's results.

    A function that falls, then rises, still does so of monotone data; if it is monotone data of
    another that does, nothing is known.  Under a minimum nothing is known of either, nor of what
    is monotone one way in some channels and the other way in others.
    """
    direction = op.rule.direction
    if direction is Direction.NON_DECREASING:
        return below
    if direction is Direction.NON_INCREASING:
        return TURNED.get(below, below)
    if direction is Direction.BY_CHANNEL and not pool.minimum:
        return below if below is Direction.QUASI_CONVEX else direction
    if below is Direction.NON_DECREASING and not pool.minimum:
        return direction
    least = "minimum" if pool.minimum else f"maximum of a {below.value} function"
    return Decline(
        Reason.NOT_MONOTONE,
        f"{op.op} is {direction.value}: at the ends of a window is not the {least} of it",
        "only the maximum of it, or of a non-decreasing function of it, is there",
    )


def evaluations(pool: Pool) -> tuple[int, int]:
    """How often an activation is evaluated above the pool and below it, up to a common factor.

    Where the extent of a pooled axis is symbolic, the strides say how many windows it has.
    """
    axes = pool.spatial_axes() or ()
    if any(pool.in_shape[axis] is None for axis in axes):
        return math.prod(pool.strides), 1
    return elements(pool.in_shape), elements(pool.out_shape)


SITE_PRECONDITIONS: tuple[Callable[[Site], Decline | None], ...] = (
    selects,
    has_chain,
    in_dataflow,
    layout_known,
    windows_touch_data,
    pays,
    tells_nothing,
)


def sinks_below_all(sites: Sequence[Site], sunk: Sequence[int]) -> Decline | None:
    """An activation that several pools read may sink below each, and that is less work.

    Parameters
    ----------
    sites
        The sites of the pools that are all that reads it.
    sunk
        How many ops of its chain could sink below each if it were the only one.
    """
    work = [evaluations(site.pool) for site in sites]
    shares = [Fraction(after, max(before, 1)) for before, after in work]
    if all(sunk) and sum(shares) < 1:
        return None
    which = "they write no less together" if all(sunk) else "it may not sink below all of them"
    return Decline(
        Reason.SHARED,
        f"{len(sites)} pools read the same activation, and {which}",
        "an activation sinks below all pools that read it, or none",
    )


def keeps_rounding(op: ElementwiseOp, above: ElementwiseOp | Producer) -> Decline | None:
    """The op's rounding does not depend on the kernel that it is compiled into.

    TVM lets LLVM and nvcc contract a * b + c into one fused multiply-add, and Relay merges
    (x + a) + b into x + (a + b).  An addition that sinks away from arithmetic which stays would
    round twice where it rounded once.  Of integers nothing is rounded, but other ops merge, too.
    What an op above tells of its results may contract arithmetic in a choice below it.
    """
    is_exact = op.reads in INTEGERS or _is_rounded(above)
    is_told = heeds_proofs(op) and not (isinstance(above, Producer) and above.rounded)
    if not (_merged(above, op) or is_told) and (is_exact or not op.rule.is_arithmetic):
        return None
    return Decline(
        Reason.ROUNDING,
        f"{op.op} may be contracted or folded with {above.op}, which stays above",
        "nothing to do: sinking it alone could change the last bit",
    )


def wrapping(site: Site) -> tuple[int, str]:
    """How many of the lowest ops are below narrow integers that may have to wrap around.

    And what computes these.  Each op whose row holds for them keeps to their bits.
    """
    chain, producer = site.chain, site.producer
    is_whole = producer.rounded or producer.op.startswith("qnn.")
    if chain[-1].reads in NARROW and not is_whole:
        return len(chain), producer.op
    for n in range(len(chain) - 1, -1, -1):
        op = chain[n]
        if op.reads in NARROW and op.dtype in NARROW and op.reads not in op.rule.dtypes:
            return n, op.op
    return 0, ""


def keeps_bits(op: ElementwiseOp, n: int, wraps: tuple[int, str]) -> Decline | None:
    """The `n`-th op reads no narrow integers that may have to wrap around.

    Kernels in C, as those of GPUs, compute them in 32 bits, and cut them to their own where they
    are stored: a pool stores what it reads, and the ops above it do not.

    Parameters
    ----------
    wraps
        What `wrapping` tells of the site.
    """
    if op.reads not in NARROW:
        return None
    count, name = wraps
    if n >= count:
        return None
    return Decline(
        Reason.ROUNDING,
        f"{op.op} reads {op.reads} of {name}, which may have to wrap around: some kernels do that "
        "where they store them, as below the pool",
        f"compute in int32 above, and clip to what {op.reads} holds",
    )


def not_folded(op: ElementwiseOp, site: Site) -> Decline | None:
    """The op nearest the pool does not meet arithmetic below it.

    Compilers fold constants of neighbouring arithmetic, as Relay's SimplifyExpr does when it
    turns (x + a) + b into x + (a + b): equal in real numbers, not in floating point.
    """
    found = [
        name for name in site.arithmetic_below if op.rule.is_arithmetic or may_merge(op.op, name)
    ]
    if op.op in MERGED and not (op.op == "clip" and op.dtype in INTEGERS):
        found += site.unknown_below
    if op.op == "cast" and op.dtype in INTEGERS:
        found += site.casts_below
    if not found:
        return None
    below = ", ".join(sorted(set(found)))
    return Decline(
        Reason.FOLDING,
        f"{op.op} would be next to {below}, and could be folded with it",
        "nothing to do: sinking it could change the last bit",
    )


def chooses_no_addend(op: ElementwiseOp, site: Site) -> Decline | None:
    """An op whose code depends on what is known of its data comes into no kernel with sums."""
    if not site.sums_below or not heeds_proofs(op):
        return None
    below = ", ".join(site.sums_below)
    return Decline(
        Reason.FOLDING,
        f"{op.op} would be in a kernel with {below}, and could be contracted with it",
        "nothing to do: sinking it could change the last bit",
    )


def not_absorbed(op: ElementwiseOp, site: Site) -> Decline | None:
    """No compiler folds the op's factor into the weights of a layer, above or below.

    Relay's FoldScaleAxis does, through additions and rectifiers, but not past a pool: the factor
    is free where it stands, and the weights round other products once it moves.
    """
    if not op.rule.is_scale or not site.absorbers:
        return None
    layers = ", ".join(sorted(set(site.absorbers)))
    return Decline(
        Reason.FOLDING,
        f"the factor of {op.op} may be folded into the weights of a layer: {layers}",
        "run SimplifyInference, FoldScaleAxis and FoldConstant before the pass",
    )


def _is_rounded(above: ElementwiseOp | Producer) -> bool:
    if isinstance(above, Producer):
        return above.rounded
    return above.rule.rounds_result


def _merged(above: ElementwiseOp | Producer, op: ElementwiseOp) -> bool:
    if may_merge(above.op, op.op):
        return True
    if not isinstance(above, Producer) or above.rounded or above.stays:
        return False
    return is_merged(op.op)
