"""The target of this machine."""

import json

import pytest
import tvm

from tvm_passes import target
from tvm_passes.namespaces import cpu_features, host_cpu
from tvm_passes.target import parse_target, require_host

HASWELL = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}


def test_host_runs_here():
    config = parse_target("host")
    assert config["mcpu"] == host_cpu()
    require_host(config)


def test_host_lacks_what_a_hypervisor_hides(monkeypatch):
    monkeypatch.setattr(target, "_lacks", lambda: frozenset({"sse4.2", "cx16", "avx10.9"}))
    assert {"sse4.2", "cx16"} <= cpu_features(tvm.target.Target({**HASWELL, "mcpu": host_cpu()}))
    assert parse_target("host")["mattr"] == ["-sse4.2"]


@pytest.mark.parametrize("options", [{"num-cores": 1}, {"num-cores": 4}, {"cl-opt": []}])
def test_options_that_change_no_result(options):
    assert parse_target(json.dumps({**HASWELL, **options})) == {**HASWELL, **options}


def test_features_may_be_taken_away():
    without = {**HASWELL, "mattr": ["-fma"]}
    assert {"avx2", "fma"} <= cpu_features(tvm.target.Target(HASWELL))
    features = cpu_features(tvm.target.Target(without))
    assert "avx2" in features
    assert "fma" not in features
