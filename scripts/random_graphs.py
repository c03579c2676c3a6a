"""Random graphs of pools and of what stands around them, as Hypothesis draws and shrinks them.

A graph is a list of plain nodes, in no dialect; `graph_modules` makes modules of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from tvm_passes.dialects import installed
from tvm_passes.rules import RELAX

Draw = Callable[[st.SearchStrategy], Any]


@dataclass(frozen=True)
class Value:
    """A tensor: its extents, element type and, where it is an image, the layout of its axes."""

    shape: tuple[int, ...]
    dtype: str
    layout: str = ""

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return "float" in self.dtype

    @property
    def spatial(self) -> str:
        """The letters of the axes that a pool pools."""
        return "".join(letter for letter in "DHW" if letter in self.layout)

    def extent(self, letter: str) -> int:
        """The extent of an axis of the layout."""
        return self.shape[self.layout.index(letter)]


@dataclass(frozen=True)
class Node:
    """An op on earlier nodes, by index; constants are attributes."""

    op: str
    inputs: tuple[int, ...]
    value: Value
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they are computed, the input first, and those that leave."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


UNARY = ("relu", "relu", "relu", "sigmoid", "tanh", "abs", "negative", "floor", "erf", "cos", "cos")
INTEGER_UNARY = ("relu", "relu", "relu", "abs", "negative")
DTYPES = ("float32", "float32", "float32", "float16", "int8", "uint8", "int32")
LAYOUTS = ("NCHW", "NHWC")
FURTHER_DTYPES = ("bfloat16", *DTYPES)
FURTHER_LAYOUTS = ("NCHW4c", "NCW", "NWC", "NCDHW", "NDHWC")
BLOCK = 4


@st.composite
def inputs(draw: Draw) -> Value:
    """An image: small ones, which kernels may hold in registers, and larger ones."""
    layout = draw(st.sampled_from(LAYOUTS))
    sizes = {"N": draw(st.integers(1, 2)), "C": draw(st.sampled_from((1, 2, 3, 4, 64, 128)))}
    sizes |= {"H": draw(st.integers(3, 8)), "W": draw(st.integers(3, 8))}
    return Value(tuple(sizes[letter] for letter in layout), draw(st.sampled_from(DTYPES)), layout)


@st.composite
def further_inputs(draw: Draw) -> Value:
    """A sequence, a volume, an image in blocks of channels, or one in bfloat16."""
    dtype = draw(st.sampled_from(FURTHER_DTYPES))
    layout = draw(st.sampled_from(LAYOUTS if dtype == "bfloat16" else FURTHER_LAYOUTS))
    sizes = {"N": draw(st.integers(1, 2)), "C": draw(st.sampled_from((1, 2, 3, 4, 64))), "c": BLOCK}
    sizes |= {letter: draw(st.integers(3, 7)) for letter in "DHW"}
    return Value(tuple(sizes[a] for a in layout if a.isalpha()), dtype, layout.replace("4", ""))


@st.composite
def graphs(draw: Draw, pools: int, first: st.SearchStrategy[Value] = inputs()) -> Graph:  # noqa: B008
    """A graph of at most so many pools, with what may sink above each, and other things."""
    value = draw(first)
    nodes = [Node("input", (), value)]
    for _ in range(draw(st.integers(1, pools))):
        kinds = [
            *([draw(st.sampled_from(PRODUCERS))] if draw(st.booleans()) else []),
            *draw(st.lists(st.sampled_from(ACTIVATIONS), min_size=1, max_size=3)),
            *([draw(st.sampled_from(MOVES))] if draw(st.integers(0, 2)) == 0 else []),
            draw(st.sampled_from(POOLS)),
        ]
        for kind in kinds:
            # Mostly on from the last node, so that chains form.
            back = draw(st.sampled_from((*[1] * 10, 2, 3)))
            nodes += kind(draw, max(len(nodes) - back, 0), nodes)
    leaving = draw(st.sampled_from((0, 0, 0, 1, 2)))
    earlier = [draw(st.integers(0, len(nodes) - 1)) for _ in range(leaving)]
    outputs = {len(nodes) - 1, *(index for index in earlier if index)}
    return Graph(tuple(nodes), tuple(sorted(outputs)))


def _unary(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    if value.dtype == "uint8":
        return [Node("relu", (at,), value)]
    op = draw(st.sampled_from(UNARY if value.is_float else INTEGER_UNARY))
    if value.dtype == "int32" and op != "relu":  # of the lowest it is undefined
        clip = Node("clip", (at,), value, SMALL)
        return [clip, Node(op, (len(nodes),), value)]
    if op == "erf" and value.dtype in ("float16", "bfloat16"):
        op = "tanh"  # TVM has none of it
    return [Node(op, (at,), value)]


SMALL = {"low": -1000, "high": 1000}


def _cast(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """To another element type; clipped to what it holds, where that is not sure.

    Past casts that wrap around TVM itself proves wrong bounds, and drops a maximum with 0.
    """
    value = nodes[at].value
    dtype = draw(st.sampled_from(CASTS))
    cast = Node("cast", (at,), replace(value, dtype=dtype), {"dtype": dtype})
    if value.dtype == "bfloat16":
        return []
    holds = {"int32": ("int8", "uint8"), "float16": ("int8", "uint8", "float16")}
    if dtype == "float32" or value.dtype in holds.get(dtype, ()):
        return [cast]
    clip = Node("clip", (at,), value, {"low": 0, "high": 100})  # no number is undefined
    return [clip, replace(cast, inputs=(len(nodes),))]


def _clip(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    low = 0 if value.dtype == "uint8" else -4
    bounds = draw(st.lists(st.integers(low, 6), min_size=2, max_size=2))
    inverted = draw(st.integers(0, 9)) == 0
    first, second = bounds if inverted else sorted(bounds)
    if value.is_float and draw(st.booleans()):  # no numbers of bfloat16
        first, second = first / 10, second / 10
    return [Node("clip", (at,), value, {"low": first, "high": second})]


def _exp(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """Of what is bounded, so that nothing overflows."""
    value = nodes[at].value
    if not value.is_float:
        return []
    op = draw(st.sampled_from(("exp", "sqrt", "log")))
    low = -3 if op == "exp" else 1
    clip = Node("clip", (at,), value, {"low": low, "high": 4})
    return [clip, Node(op, (len(nodes),), value)]


def _leaky(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    alpha = draw(st.sampled_from((0.0, 0.1, 0.3, 1.0, 2.5, -0.5)))
    return [Node("leaky_relu", (at,), value, {"alpha": alpha})] if value.is_float else []


def _elu(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """In one of the ways in which front ends spell it with several ops."""
    value = nodes[at].value
    if not value.is_float:
        return []
    spelling = draw(st.sampled_from(("sum", "choice")))
    return [Node("elu", (at,), value, {"spelling": spelling, "alpha": draw(ELU_SLOPES)})]


def _function(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """A function that one dialect or both spell with several ops."""
    value = nodes[at].value
    op = draw(st.sampled_from(FUNCTIONS))
    return [Node(op, (at,), value)] if value.dtype == "float32" else []


FUNCTIONS = ("selu", "softplus", "gelu", "silu", "rsqrt", "celu", "choice", "power")
ELU_SLOPES = st.sampled_from((1.0, 1.0, 0.3, 2.0, -0.5))


def _arithmetic(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """An op with a constant: of one element, along the channels, or along any axis."""
    value = nodes[at].value
    rank = len(value.shape)
    ops = ("add", "add", "subtract", "multiply", "maximum", "minimum")
    op = draw(st.sampled_from((*ops, "divide") if value.is_float else ops))
    channel = value.layout.index("C") if value.layout else 0
    axis = draw(st.sampled_from((None, channel, channel, channel, rank - 1, 0)))
    shape = () if axis is None or not rank else (value.shape[axis], *[1] * (rank - 1 - axis))
    attrs = {"shape": shape, "seed": draw(st.integers(0, 2)), "negative": draw(st.booleans())}
    attrs["flip"] = draw(st.booleans()) and op != "divide"  # whose data may be 0
    attrs["shared"] = draw(st.booleans())
    if value.dtype == "int32":  # nothing overflows, not even what a window in padding gives
        clip = Node("clip", (at,), value, SMALL)
        return [clip, Node(op, (len(nodes),), value, attrs)]
    return [Node(op, (at,), value, attrs)]


def _bias_add(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    if not value.layout or not value.is_float:
        return []
    axis = value.layout.index("C")
    attrs = {
        "axis": axis - draw(st.sampled_from((0, len(value.shape)))),
        "seed": draw(st.integers(0, 9)),
    }
    op = draw(st.sampled_from(("bias_add", "bias_add", "prelu")))
    if op == "prelu" and value.dtype == "bfloat16":
        op = "bias_add"  # Relax has none of it
    return [Node(op, (at,), value, attrs | {"negative": draw(st.integers(0, 3)) == 0})]


def _pool(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    if not value.layout:
        return _reduce(draw, at, nodes)
    rank = len(value.spatial)
    attrs: dict[str, Any] = {
        "kernel": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        "strides": _of_rank(draw(st.sampled_from(((2, 2), (2, 2), (1, 1), (1, 2), (3, 3)))), rank),
        "dilation": _of_rank(draw(st.sampled_from(((1, 1), (1, 1), (1, 1), (2, 1), (2, 2)))), rank),
        "padding": _padding(draw(st.sampled_from(PADDINGS)), rank),
        "ceil_mode": draw(st.integers(0, 3)) == 0,
        "layout": value.layout.replace("c", f"{BLOCK}c"),
    }
    extents = [_windows(value.extent(letter), n, attrs) for n, letter in enumerate(value.spatial)]
    if min(extents) < 1:
        return []
    pooled = dict(zip(value.spatial, extents, strict=True))
    shape = [pooled.get(letter, value.extent(letter)) for letter in value.layout]
    op = "avg_pool" if draw(st.integers(0, 9)) == 0 and value.is_float else "max_pool"
    pool = Node(op, (at,), replace(value, shape=tuple(shape)), attrs)
    if draw(st.integers(0, 5)):
        return [pool]
    return [pool, Node("values", (len(nodes),), pool.value)]  # as PyTorch's importer writes it


PADDINGS = (
    *[(0, 0, 0, 0)] * 4,
    *[(1, 1, 1, 1)] * 3,
    (0, 1, 1, 0),
    (1, 0, 0, 2),
    (2, 2, 2, 2),
    (0, 3, 0, 3),
)


def _parted(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """A pool between ops that Relay takes for one where they meet: clip and casts, c / sqrt(x)."""
    value = nodes[at].value
    if value.dtype == "bfloat16":
        return _pool(draw, at, nodes)
    found = [*nodes, Node("clip", (at,), value, {"low": 1, "high": 100})]
    has_root = value.is_float and draw(st.booleans())
    if has_root:
        found.append(Node("sqrt", (len(found) - 1,), value))
    pool = _pool(draw, len(found) - 1, found)
    found += pool
    value = found[-1].value
    attrs = pool[0].attrs if pool else {}
    pads = any(attrs.get("padding", ())) or attrs.get("ceil_mode")
    dtypes = CASTS[:1] if pads else CASTS  # float32 alone holds the lowest number of another type
    if draw(st.integers(0, 2)) == 0:
        found.append(Node("multiply", (len(found) - 1,), value, NEUTRAL))
    if draw(st.integers(0, 2)) == 0:
        found += _nothing(draw, len(found) - 1, found)
    if has_root:
        found.append(Node("divide", (len(found) - 1,), value, NEUTRAL | {"value": 3, "flip": True}))
        return found[len(nodes) :]
    for dtype in draw(st.lists(st.sampled_from(dtypes), min_size=2, max_size=2)):
        value = replace(value, dtype=dtype)
        found.append(Node("cast", (len(found) - 1,), value, {"dtype": dtype}))
    return found[len(nodes) :]


CASTS = ("float32", "float16", "int8", "uint8", "int32")
NEUTRAL = {"shape": (), "value": 1, "flip": False, "shared": False}


def _padding(sides: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Padding before each axis, then after each."""
    return (*_of_rank(sides[:2], rank), *_of_rank(sides[2:], rank))


def _of_rank(pair: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A number for each of so many axes, from two."""
    return (*pair, pair[0])[:rank]


def _windows(extent: int, n: int, attrs: Mapping[str, Any]) -> int:
    """Number of windows along an axis; Relax drops one that rounding up put into the padding."""
    stride, before = attrs["strides"][n], attrs["padding"][n]
    after = attrs["padding"][n + len(attrs["kernel"])]
    reach = (attrs["kernel"][n] - 1) * attrs["dilation"][n]
    free = extent + before + after - reach - 1
    if free < 0:
        return 0
    if not attrs["ceil_mode"]:
        return free // stride + 1
    count = -(-free // stride) + 1
    dropped = installed() == RELAX and (count - 1) * stride >= extent + before
    return count - dropped


def _reduce(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    rank = len(value.shape)
    if not rank:
        return []
    axes = draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=rank))
    if value.layout and draw(st.booleans()):
        axes = {value.layout.index(letter) for letter in value.spatial}
    keepdims = draw(st.booleans())
    kept = [1 if n in axes else extent for n, extent in enumerate(value.shape)]
    shape = kept if keepdims else [extent for n, extent in enumerate(kept) if n not in axes]
    attrs = {"axes": tuple(sorted(axes)), "keepdims": keepdims}
    is_whole = all(n not in axes or value.layout[n] != "c" for n in range(len(value.layout)))
    layout = value.layout if keepdims and is_whole else ""
    op = draw(st.sampled_from(("max", "max", "min")))
    return [Node(op, (at,), replace(value, shape=tuple(shape), layout=layout), attrs)]


def _pad(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    if not value.layout:
        return []
    widths = [(0, 0)] * len(value.shape)
    for letter in value.spatial:
        widths[value.layout.index(letter)] = draw(st.sampled_from(((1, 1), (0, 1), (2, 0), (0, 0))))
    fill = draw(st.sampled_from((0, 0, 0, 1, 3) if value.dtype == "uint8" else (0, 0, 0, 1, -2)))
    shape = tuple(sum(widths[n]) + extent for n, extent in enumerate(value.shape))
    attrs = {"widths": tuple(widths), "fill": float(fill)}
    return [Node("pad", (at,), replace(value, shape=shape), attrs)]


def _transpose(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    rank = len(value.shape)
    if value.layout in LAYOUTS and draw(st.integers(0, 3)):
        layout = {"NCHW": "NHWC", "NHWC": "NCHW"}[value.layout]
        axes = tuple(value.layout.index(letter) for letter in layout)
    else:
        axes, layout = tuple(draw(st.permutations(range(rank)))), ""
    shape = tuple(value.shape[axis] for axis in axes)
    return [Node("transpose", (at,), Value(shape, value.dtype, layout), {"axes": axes})]


def _reshape(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """Two neighbouring axes as one, or one more axis."""
    value = nodes[at].value
    shape = list(value.shape)
    at_axis = draw(st.integers(0, max(len(shape) - 2, 0)))
    if len(shape) > 1 and draw(st.booleans()):
        shape[at_axis : at_axis + 2] = [shape[at_axis] * shape[at_axis + 1]]
    else:
        shape.insert(at_axis, 1)
    return [Node("reshape", (at,), Value(tuple(shape), value.dtype), {"shape": tuple(shape)})]


def _conv(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    if value.layout not in LAYOUTS or value.dtype != "float32":
        return []
    if min(map(value.extent, "HW")) < 2:
        return []
    channels, size = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    extents = {"N": value.extent("N"), "C": channels}
    extents |= {letter: value.extent(letter) - size + 1 for letter in "HW"}
    groups = 1
    if value.layout == "NCHW" and draw(st.integers(0, 3)) == 0:
        groups = value.extent("C")
        channels = extents["C"] = groups * draw(st.integers(1, 3))
    shape = tuple(extents[letter] for letter in value.layout)
    attrs = {"channels": channels, "in_channels": value.extent("C"), "size": size}
    attrs |= {"layout": value.layout, "seed": draw(st.integers(0, 9)), "groups": groups}
    return [Node("conv", (at,), replace(value, shape=shape), attrs)]


def _quantize(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """From float32 to integers of 8 bits, or from these to float32."""
    value = nodes[at].value
    attrs = {"scale": draw(st.sampled_from((0.02, 0.3))), "zero_point": draw(st.integers(0, 9))}
    if value.dtype == "float32":
        dtype = draw(st.sampled_from(("int8", "uint8")))
        return [Node("quantize", (at,), replace(value, dtype=dtype), attrs)]
    if value.dtype in ("int8", "uint8"):
        return [Node("dequantize", (at,), replace(value, dtype="float32"), attrs)]
    return []


def _requantize(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    value = nodes[at].value
    attrs = {"scale": draw(st.sampled_from((0.02, 0.3))), "zero_point": draw(st.integers(0, 9))}
    attrs |= {"scale_out": draw(st.sampled_from((0.05, 0.3))), "zero_point_out": 2}
    dtype = draw(st.sampled_from(("int8", "uint8")))
    known = value.dtype in ("int8", "uint8", "int32")
    return [Node("requantize", (at,), replace(value, dtype=dtype), attrs)] if known else []


def _average(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """The mean of windows next to each other, which ends in a product."""
    value = nodes[at].value
    rank = len(value.spatial)
    size = draw(st.integers(2, 3))
    if not rank or not value.is_float or min(map(value.extent, value.spatial)) < size:
        return []
    attrs = {"kernel": (size,) * rank, "strides": (1,) * rank, "dilation": (1,) * rank}
    attrs |= {"padding": (0,) * 2 * rank, "ceil_mode": False}
    attrs["layout"] = value.layout.replace("c", f"{BLOCK}c")
    pooled = {letter: value.extent(letter) - size + 1 for letter in value.spatial}
    shape = tuple(
        pooled.get(letter, n) for letter, n in zip(value.layout, value.shape, strict=True)
    )
    return [Node("avg_pool", (at,), replace(value, shape=shape), attrs)]


def _nothing(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """What does nothing, and is dropped sooner or later: a sum with zeros, a product with ones."""
    value = nodes[at].value
    ops = ("plus zeros", "times ones") if installed() == RELAX else NOTHING
    return [Node(draw(st.sampled_from(ops)), (at,), value)]


NOTHING = ("plus zeros", "times ones", "dropout", "cast_like")


def _residual(draw: Draw, at: int, nodes: Sequence[Node]) -> list[Node]:
    """The sum or the difference of two values of one shape."""
    value = nodes[at].value
    same = [n for n, node in enumerate(nodes) if node.value == value and n != at]
    if not same or not value.is_float:
        return []
    op = draw(st.sampled_from(("residual", "residual", "difference")))
    return [Node(op, (at, draw(st.sampled_from(same))), value)]


PRODUCERS = (_conv, _conv, _conv, _arithmetic, _unary, _residual, _exp, _average)
ACTIVATIONS = (
    *[_unary] * 4,
    *[_arithmetic] * 2,
    *[_bias_add] * 2,
    *[_clip] * 2,
    _leaky,
    _exp,
    _elu,
    _function,
    _cast,
    _quantize,
    _requantize,
    _nothing,
)
MOVES = (_pad, _pad, _transpose, _transpose, _reshape, _reshape)
POOLS = (*[_pool] * 6, _reduce, _reduce, _residual, _parted)
