"""The target of this machine."""

import tvm

from tvm_passes import target
from tvm_passes.namespaces import cpu_features, host_cpu
from tvm_passes.target import parse_target, require_host


def test_host_runs_here():
    config = parse_target("host")
    assert config["mcpu"] == host_cpu()
    require_host(config)


def test_host_lacks_what_a_hypervisor_hides(monkeypatch):
    monkeypatch.setattr(target, "_missing", lambda *_: ["avx512fp16", "mwaitx"])
    assert target._host(tvm)["mattr"] == ["-avx512fp16"]  # noqa: SLF001


def test_features_may_be_taken_away():
    config = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}
    without = {**config, "mattr": ["-fma"]}
    assert {"avx2", "fma"} <= cpu_features(tvm.target.Target(config))
    features = cpu_features(tvm.target.Target(without))
    assert "avx2" in features
    assert "fma" not in features
