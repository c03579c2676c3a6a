"""What the words of a rule's row mean, as the numbers that kernels print to three digits."""

BOUNDS = LOW, HIGH = -1.0, 6.0
"""Of clip, maximum and minimum in these tests; other parameters are 0, or as below."""
SIGNS = (0.5, -0.5, -0.5, 0.5)
"""A factor for each of the inputs: infinities become +inf."""
SHIFT, FACTOR, DIVISOR, SLOPE = 0.0, 0.5, 4.0, 0.1

NAN = {
    "0": {"0"},
    "NaN": {"nan"},
    "a bound": {"-1", "6"},
    "b, or NaN, by the order of the operands": {"-1", "6", "nan"},
}
NEGATIVE_ZERO = {
    "+0": {"0"},
    "-0": {"-0"},
    "either zero": {"-0", "0"},
    "-0 or +0": {"-0", "0"},
    "0": {"0"},
    "1": {"1"},
    "kept": {"-0"},
    "kept inside the bounds": {"-0"},
    "1/2": {"0.5"},
    "log(2)": {"0.693"},
    "pi/2": {"1.57"},
    "-inf": {"-inf"},
    "NaN": {"nan"},
    "+0 unless b is -0": {"0"},
    "kept unless b is -0": {"-0"},
}
INFINITY = {
    "-inf to 0, +inf kept": ("0", "inf"),
    "-inf to NaN, +inf kept": ("nan", "inf"),
    "-inf to -1.758, +inf kept": ("-1.76", "inf"),
    "-inf to NaN, +inf to 0": ("nan", "0"),
    "+inf and -inf": ("inf", "-inf"),
    "-0 and +0": ("-0", "0"),
    "+inf": ("inf", "inf"),
    "either infinity": ("inf", "inf"),
    "-inf to b, +inf kept": ("-1", "inf"),
    "-inf kept, +inf to b": ("-inf", "6"),
    "the nearer bound": ("-1", "6"),
    "0 and 1": ("0", "1"),
    "-1 and +1": ("-1", "1"),
    "-pi/2 and +pi/2": ("-1.57", "1.57"),
    "kept": ("-inf", "inf"),
    "NaN": ("nan", "nan"),
}
"""Of -inf, and of +inf."""


def wrong_words(rule, results):
    """What a row says that is not so.

    Parameters
    ----------
    rule
        A row of the table.
    results
        What a kernel gives for NaN, -0, -inf and +inf.
    """
    of_nan, of_zero, *of_ends = (f"{float(value):.3g}" for value in results)
    nan, zero, ends = (
        said.partition(";")[0] for said in (rule.nan, rule.negative_zero, rule.infinity)
    )
    right = {
        f"nan: {nan}": of_nan in NAN[nan],
        f"negative_zero: {zero}": of_zero in NEGATIVE_ZERO[zero],
        f"infinity: {ends}": tuple(of_ends) == INFINITY[ends],
    }
    return {words: (of_nan, of_zero, *of_ends) for words, is_so in right.items() if not is_so}
