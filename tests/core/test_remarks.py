import pytest
import yaml
from site_builders import CONV, MULTIPLY, bare_site, bias, op, pool, site

from tvm_passes.decision import decide
from tvm_passes.remarks import PASS_FLAG, Kind, remarks_of, to_yaml

NASTY = "a\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i\t j: - 'k' \"l\" #m %n !o &p *q {r} [s]"


class RecordLoader(yaml.SafeLoader):
    """Reads LLVM's optimization records; the tag becomes the key ``Kind``."""


for kind in Kind:
    RecordLoader.add_constructor(
        f"!{kind.value}",
        lambda loader, node, kind=kind: (
            {"Kind": kind.value} | loader.construct_mapping(node, deep=True)
        ),
    )


def read(text):
    return list(yaml.load_all(text, RecordLoader))


def kinds(one):
    return [remark.kind for remark in remarks_of(decide(one))]


def test_the_kinds_of_a_decision():
    assert kinds(site()) == [Kind.PASSED, Kind.ANALYSIS]
    assert kinds(site(op(), op("tanh", consumers=2))) == [
        Kind.PASSED,
        Kind.MISSED,
        Kind.ANALYSIS,
    ]
    assert kinds(bare_site()) == [Kind.MISSED]


def test_a_passed_remark_names_the_ops_in_program_order():
    passed = remarks_of(decide(site(op("clip"), bias())))[0]
    assert str(passed).startswith(
        "main/nn.max_pool2d#0: Passed: sunk: the.bias_add, the.clip below nn.max_pool2d, "
    )


def test_a_passed_remark_says_what_it_does_not_promise():
    # A pool starts from the finite lowest value: the maximum of nothing but -inf is that value.
    # leaky_relu(-inf) is -inf before, and the slope times the lowest value after; and two finite
    # float16 numbers may add up to -inf.
    passed = remarks_of(decide(site(op("leaky_relu"))))[0]
    assert "NaN" in passed.message
    assert "infinity" in passed.message


def test_a_passed_remark_says_which_ends_and_whether_it_is_exact():
    plain, other, both, inexact = (
        str(remarks_of(decide(site(op(rule)), {"quasi-convex"}))[0])
        for rule in ("relu", "acos", "abs", "gelu")
    )
    assert "end of each window" not in plain
    assert "the other end of each window, same values where" in other
    assert "at both ends of each window, same values where" in both
    assert "at both ends of each window, same values in real numbers" in inexact


def test_a_missed_remark_says_why_and_what_to_do():
    missed = remarks_of(decide(site(bias(), producer=MULTIPLY, location="net.py")))[0]
    assert missed.reason == "rounding"
    assert str(missed) == (
        "main/nn.max_pool2d#0: Missed: rounding: the.bias_add may be contracted or "
        "folded with multiply, which stays above; nothing to do: sinking it alone could "
        "change the last bit at net.py"
    )


def test_an_analysis_remark_counts():
    analysis = remarks_of(decide(site()))[-1]
    assert analysis.reason == "cost"
    assert dict(analysis.numbers) == {
        "evaluations_before": 2048,
        "evaluations_after": 512,
        "bytes_before": 10240,
        "bytes_after": 4096,
        "unpooled_bytes": 8192,
        "arithmetic_saved": pytest.approx(0.03),
    }
    assert str(analysis).endswith("unpooled_bytes=8192 arithmetic_saved=0.03")


def test_a_count_is_printed_to_its_last_digit():
    big = pool(in_shape=(1, 64, 224, 224), out_shape=(1, 64, 112, 112))
    analysis = remarks_of(decide(site(op(shape=big.in_shape), pool=big)))[-1]
    assert "evaluations_before=3211264 evaluations_after=802816" in str(analysis)


def test_every_remark_carries_its_site():
    one = site(op(), op("tanh", consumers=2), function="f", index=3, location="net.py")
    for remark in remarks_of(decide(one)):
        assert remark.function == "f"
        assert remark.site == "f/nn.max_pool2d#3"
        assert remark.op == "nn.max_pool2d"
        assert remark.location == "net.py"


def nasty_remarks():
    sites = (
        site(op(op=NASTY), function=NASTY, pool=pool(op=NASTY), location=NASTY),
        site(op(op=NASTY, consumers=2), pool=pool(op=NASTY), location=NASTY),
        bare_site(CONV, function=NASTY, location=NASTY),
    )
    return [remark for one in sites for remark in remarks_of(decide(one))]


def test_a_remark_is_one_line_whatever_the_names():
    for remark in nasty_remarks():
        line = str(remark)
        assert line.splitlines() == [line]
        assert f" {remark.kind.value}: {remark.reason}: " in line


def test_yaml_reads_back_as_llvms_records():
    remarks = nasty_remarks() + list(remarks_of(decide(site())))
    records = read(to_yaml(remarks))
    assert len(records) == len(remarks)
    for record, remark in zip(records, remarks, strict=True):
        assert list(record)[:3] == ["Kind", "Pass", "Name"]
        assert record["Kind"] == remark.kind.value
        assert record["Pass"] == PASS_FLAG == "reorder-activation-after-max-pool"
        assert record["Name"] == remark.reason
        assert record["Function"] == remark.function
        assert {"Site": remark.site} in record["Args"]
        assert {"Op": remark.op} in record["Args"]
        assert {"String": remark.message} in record["Args"]


def test_yaml_carries_the_numbers_as_numbers():
    analysis = remarks_of(decide(site()))[-1]
    (record,) = read(to_yaml([analysis]))
    assert {"evaluations_before": 2048} in record["Args"]
    assert record["Args"][-1] == {"arithmetic_saved": pytest.approx(0.03)}


def test_yaml_carries_the_location_only_where_there_is_one():
    (without,) = read(to_yaml(remarks_of(decide(bare_site()))))
    assert "DebugLoc" not in without
    (located,) = read(to_yaml(remarks_of(decide(bare_site(location="net.py")))))
    assert located["DebugLoc"]["File"] == "net.py"


def test_each_record_is_a_document_of_its_own():
    text = to_yaml(remarks_of(decide(site())))
    assert text.startswith("--- !Passed\n")
    assert text.count("--- !") == 2


def test_no_remark_makes_no_document():
    assert to_yaml([]) == ""
