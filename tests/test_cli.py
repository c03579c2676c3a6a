"""The command, run in this process: what it prints, writes and refuses."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from tvm_passes import dialects
from tvm_passes.cli import main
from tvm_passes.dialects import RELAX, engine
from tvm_passes.errors import how_to_install

DATA = Path(__file__).parent / "data"
MNIST = DATA / "mnist.tflite"
DIALECT = dialects.installed()

pytestmark = pytest.mark.skipif(DIALECT is None, reason="needs a TVM")


@pytest.fixture
def run(capsys):
    """Run the command; returns its exit code and what it printed."""

    def call(*argv):
        code = main([str(arg) for arg in argv])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def refusal(result):
    """The one line of a refusal, after checking that it is one, and on stderr alone."""
    code, out, err = result
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if "tvm-reorder: error:" in line]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


class TestHelp:
    def test_version(self, run):
        code, out, _ = run("--version")
        assert code == 0
        assert out == f"tvm-reorder, version {version('tvm-passes')}\n"

    @pytest.mark.parametrize("argv", [["--help"], ["compile", "--help"], ["inspect", "--help"]])
    def test_every_command_shows_an_example(self, run, argv):
        code, out, _ = run(*argv)
        assert code == 0
        assert "Example:\n" in out
        assert "tvm-reorder " in out.split("Example:")[1]

    @pytest.mark.parametrize(
        "argv", [["compile", MNIST], ["inspect"], ["nonsense"], ["inspect", MNIST, "--nonsense"]]
    )
    def test_wrong_usage_is_exit_code_2(self, run, argv):
        code, out, err = run(*argv)
        assert code == 2
        assert out == ""
        assert err.startswith("tvm-reorder: error: ")
        assert err.endswith("--help`\n")
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        "number", ["nan", "-nan", "inf", "-inf", "1e999", "0", "-1e-3", "many"]
    )
    def test_a_limit_of_errors_is_a_finite_number_above_0(self, run, tmp_path, number):
        code, out, err = run("compile", MNIST, "-o", tmp_path / "out", "--max-error", number)
        assert (code, out) == (2, "")
        assert "error: Invalid value for '--max-error': " in err
        assert list(tmp_path.iterdir()) == []


class TestInspect:
    def test_table(self, run):
        code, out, _ = run("inspect", MNIST)
        assert code == 0
        assert "2 pooling sites" in out
        assert out.count("passed") == 2
        assert "25088 → 6272" in out

    def test_json(self, run):
        code, out, err = run("inspect", MNIST, "--json")
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert document["dialect"] == DIALECT
        first, second = document["sites"]
        prefix = "relax." if DIALECT == RELAX else ""
        assert first["pool"] == second["pool"] == f"{prefix}nn.max_pool2d"
        assert first["decision"] == "passed"
        assert first["reason"] == "sunk"
        bias = "relax.add" if DIALECT == RELAX else "nn.bias_add"
        assert first["sunk"] == [bias, f"{prefix}nn.relu"]
        assert first["cost"]["arithmetic_saved"] == pytest.approx(0.03)
        assert "diff" not in document

    def test_for_a_target(self, run, tmp_path):
        model = tmp_path / "sigmoid.onnx"
        nodes = [
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("MaxPool", ["s"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, side, side])
            for name, side in (("x", 16), ("y", 8))
        )
        opset = helper.make_opsetid("", 13)
        graph = helper.make_graph(nodes, "one", [x], [y])
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), model)
        reasons = []
        for options in ([], ["--target", "sm_80"], ["--target", "sm_80", "--allow", "device-math"]):
            _, out, _ = run("inspect", model, "--json", *options)
            reasons += [site["reason"] for site in json.loads(out)["sites"]]
        assert reasons == ["sunk", "not-monotone", "sunk"]

    def test_diff_shows_the_pool_above_the_activation(self, run):
        code, out, _ = run("inspect", MNIST, "--diff", "--json")
        assert code == 0
        added = [line for line in json.loads(out)["diff"] if line.startswith("+ ")]
        assert [n for n, line in enumerate(added) if "max_pool2d" in line] == [0, 3]
        assert [n for n, line in enumerate(added) if "nn.relu" in line] == [2, 5]

    def test_diff_on_the_terminal(self, run):
        _, out, _ = run("inspect", MNIST, "--diff")
        assert "+++ after" in out


class TestCompile:
    def test_writes_a_library_and_a_manifest(self, run, tmp_path):
        folder = tmp_path / "out"
        code, out, _ = run("compile", MNIST, "-o", folder)
        assert code == 0
        assert sorted(path.name for path in folder.iterdir()) == ["lib.so", "manifest.json"]
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["dialect"] == DIALECT
        assert manifest["target"] == {"kind": "llvm"}
        assert manifest["reordered"] is True
        (image,) = manifest["inputs"]
        assert (image["shape"], image["dtype"]) == ([1, 28, 28, 1], "float32")
        assert [output["shape"] for output in manifest["outputs"]] == [[1, 10]]
        passed = [remark for remark in manifest["remarks"] if remark["kind"] == "Passed"]
        assert len(passed) == out.count(": Passed: sunk: ") == 2

    def test_both_orders_give_the_same_bits(self, run, tmp_path):
        images = np.load(DATA / "mnist_test.npz")["images"][:20] / np.float32(255)
        outputs = []
        for flag in ("--reorder", "--no-reorder"):
            folder = tmp_path / flag
            assert run("compile", MNIST, "-o", folder, flag)[0] == 0
            manifest = json.loads((folder / "manifest.json").read_text())
            names = [tensor["name"] for tensor in manifest["inputs"]]
            runner = engine().load(folder / "lib.so", names)
            outputs.append(np.stack([runner(image[None])[0] for image in images]))
            assert manifest["reordered"] is (flag == "--reorder")
            assert bool(manifest["remarks"]) is (flag == "--reorder")
        assert outputs[0].std() > 0
        assert np.array_equal(outputs[0].view("uint32"), outputs[1].view("uint32"))

    def test_kinds_of_remarks(self, run, tmp_path):
        _, out, _ = run("compile", MNIST, "-o", tmp_path / "out", "--remarks", "analysis")
        assert out.count("Analysis: cost: ") == 2
        assert "Passed" not in out
        _, out, _ = run("compile", MNIST, "-o", tmp_path / "out", "--remarks", "none")
        assert "remark:" not in out

    def test_remarks_output(self, run, tmp_path):
        file = tmp_path / "remarks.yaml"
        code, _, _ = run("compile", MNIST, "-o", tmp_path / "out", "--remarks-output", file)
        assert code == 0
        kinds = [event.tag for event in yaml.parse(file.read_text()) if getattr(event, "tag", None)]
        assert kinds == ["!Passed", "!Analysis"] * 2

    def test_remarks_output_through_a_link_and_to_a_device(self, run, tmp_path):
        file, link = tmp_path / "remarks.yaml", tmp_path / "link"
        file.write_text("old")
        link.symlink_to(file)
        for output in (link, "/dev/null"):
            argv = ["compile", MNIST, "-o", tmp_path / "out", "--remarks-output", output]
            assert run(*argv)[0] == 0
        assert link.is_symlink()
        assert file.read_text().startswith("--- !Passed")
        assert Path("/dev/null").is_char_device()

    def test_quiet_prints_nothing(self, run, tmp_path):
        assert run("compile", MNIST, "-o", tmp_path / "out", "--quiet") == (0, "", "")

    @pytest.mark.parametrize(
        "target", ["x86-64-v3", '{"kind": "llvm", "mcpu": "x86-64-v2"}', "file.json"]
    )
    def test_targets(self, run, tmp_path, monkeypatch, target):
        monkeypatch.chdir(tmp_path)
        Path("file.json").write_text('{"kind": "llvm", "mcpu": "haswell"}')
        assert run("compile", MNIST, "-o", "out", "--target", target)[0] == 0
        assert json.loads(Path("out/manifest.json").read_text())["target"]["mcpu"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("target", "expected"),
        [
            (
                '{"kind": "llvm", "mcpu": "haswell", "mattr": ["-avx9"]}',
                "LLVM knows no feature 'avx9'",
            ),
            (
                "nonsense",
                "no target 'nonsense': expected llvm, cuda, opencl, host, sm_90 or the like",
            ),
            ('{"kind": "opencl"}', "the target opencl is for verify, bench and tune"),
            ('{"kind": "cuda", "arch": "gfx90a"}', "the GPU architecture 'gfx90a': expected sm_90"),
            ("{bad", "is not JSON"),
            ("[1]", "no target '[1]'"),
            ('{"kind": "llvm", "foo": 1}', "TVM refuses the target"),
            ('{"kind": 3}', "is of kind 3: expected llvm, cuda, opencl"),
            ('{"kind": "llvm", "fast-math": true}', "sets fast-math, with which results change"),
            (
                '{"kind": "llvm", "fast-math-nnan": 1}',
                "sets fast-math-nnan, with which results change: leave it out",
            ),
            (
                '{"kind": "llvm", "cl-opt": ["-fp-contract:str=off"]}',
                "sets cl-opt, with which results change: leave it out",
            ),
            (
                '{"kind": "llvm", "cl-opt": ["-enable-double-float-shrink:bool=true"]}',
                "sets cl-opt, with which results change: leave it out",
            ),
            ('{"kind": "llvm", "cl-opt": "-O0"}', "sets cl-opt"),
            ('{"kind": "llvm", "num-cores": -3}', "to -3: expected a whole number from 1 to 2147"),
            ('{"kind": "llvm", "num-cores": 0}', "sets num-cores to 0"),
            ('{"kind": "llvm", "num-cores": 1.5}', "sets num-cores to 1.5"),
            ('{"kind": "llvm", "num-cores": true}', "sets num-cores to True"),
            ('{"kind": "llvm", "num-cores": "4"}', "sets num-cores to '4'"),
            ('{"kind": "llvm", "num-cores": NaN}', "sets num-cores to nan"),
            ('{"kind": "llvm", "num-cores": 2147483648}', "sets num-cores to 2147483648"),
            ('{"kind": "llvm", "mcpu": null}', "sets mcpu to null: give a value or leave it out"),
            ('{"kind": "llvm", "mattr": ["+avx2", null]}', "sets mattr to null"),
            ('{"kind": "llvm", "jit": "zzz"}', '"zzz"}\': invalid jit option zzz'),
            ('{"kind": "llvm", "mfloat-abi": "x"}', "invalid -mfloat-abi option x"),
            ('{"kind": "llvm", "mattr": ["+avx2", "+nonsense"]}', "no feature 'nonsense'"),
            ('{"kind": "llvm", "mtriple": "garbage", "mcpu": "haswell"}', "is for garbage"),
            ('{"kind": "llvm", "host": {"kind": "cuda"}}', "names a host"),
            ("x" * 5000, "File name too long"),
            ('{"a":' * 100_000, "is not JSON"),
            ('{"kind": "llvm", "mcpu": "haswel"}', "LLVM knows no CPU 'haswel': did you mean"),
        ],
    )
    def test_target(self, run, tmp_path, target, expected):
        result = run("compile", MNIST, "-o", tmp_path / "out", "--target", target)
        assert expected in refusal(result)
        assert list(tmp_path.iterdir()) == []

    def test_missing_model(self, run, tmp_path):
        line = refusal(run("compile", tmp_path / "no.onnx", "-o", tmp_path / "out"))
        assert "no model at" in line
        assert list(tmp_path.iterdir()) == []

    def test_truncated_model_leaves_nothing_behind(self, run, tmp_path):
        model = tmp_path / "cut.tflite"
        model.write_bytes(MNIST.read_bytes()[:5000])
        assert "cut.tflite" in refusal(run("compile", model, "-o", tmp_path / "out"))
        assert list(tmp_path.iterdir()) == [model]

    def test_other_dialect(self, run):
        other = next(dialect for dialect in dialects.DIALECTS if dialect != DIALECT)
        line = refusal(run("inspect", MNIST, "--dialect", other))
        assert line.endswith(f"an environment of its own: {how_to_install(other)}")

    def test_output_is_a_file(self, run, tmp_path):
        file = tmp_path / "out"
        file.write_text("mine")
        assert "is no folder" in refusal(run("compile", MNIST, "-o", file))
        assert file.read_text() == "mine"

    def test_output_is_somebody_elses_folder(self, run, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        assert "holds more than a compiled model" in refusal(run("compile", MNIST, "-o", tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_output_is_a_folder_with_a_manifest_of_its_own(self, run, tmp_path):
        (tmp_path / "manifest.json").write_text('{"name": "my web page"}')
        assert "more than a compiled" in refusal(run("compile", MNIST, "-o", tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]

    @pytest.mark.parametrize(
        "manifest",
        [
            '{"versions": null}',
            '{"versions": 5}',
            '{"versions": "tvm-passes"}',
            '{"versions": ["tvm-passes"]}',
            '{"versions": {"tvm": "1"}}',
            '["versions"]',
            "5",
            "null",
            "",
            "\xff",
            '{"versions":' * 100_000,
        ],
    )
    def test_output_is_a_folder_with_a_manifest_of_another_form(self, run, tmp_path, manifest):
        (tmp_path / "lib.so").write_text("mine")
        (tmp_path / "manifest.json").write_text(manifest, encoding="latin-1")
        assert "more than a compiled" in refusal(run("compile", MNIST, "-o", tmp_path))
        assert (tmp_path / "lib.so").read_text() == "mine"

    def test_output_holds_something_beside_an_earlier_result(self, run, tmp_path):
        folder = tmp_path / "out"
        assert run("compile", MNIST, "-o", folder)[0] == 0
        (folder / "notes.txt").write_text("mine")
        assert "more than a compiled" in refusal(run("compile", MNIST, "-o", folder))
        assert (folder / "notes.txt").read_text() == "mine"

    def test_output_of_too_long_a_name(self, run, tmp_path):
        line = refusal(run("compile", MNIST, "-o", tmp_path / ("x" * 300)))
        assert "cannot write" in line

    def test_output_below_a_file(self, run, tmp_path):
        (tmp_path / "file").write_text("mine")
        line = refusal(run("compile", MNIST, "-o", tmp_path / "file" / "out"))
        assert "cannot write" in line

    def test_remarks_output_is_found_out_before_the_work(self, run, tmp_path):
        remarks = tmp_path / "missing" / "remarks.yaml"
        result = run("compile", MNIST, "-o", tmp_path / "out", "--remarks-output", remarks)
        assert "cannot write" in refusal(result)
        assert list(tmp_path.iterdir()) == []

    def test_remarks_output_over_the_model(self, run, tmp_path):
        model = shutil.copy(MNIST, tmp_path / "model.tflite")
        result = run("compile", model, "-o", tmp_path / "out", "--remarks-output", model)
        assert "would overwrite" in refusal(result)
        assert Path(model).read_bytes() == MNIST.read_bytes()

    def test_remarks_output_in_the_output_folder(self, run, tmp_path):
        folder = tmp_path / "out"
        result = run("compile", MNIST, "-o", folder, "--remarks-output", folder / "r.yaml")
        assert "would overwrite" in refusal(result)
        assert list(tmp_path.iterdir()) == []

    def test_a_linker_that_fails(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("CXX", "/bin/false")
        line = refusal(run("compile", MNIST, "-o", tmp_path / "out"))
        assert "/bin/false could not link lib.so" in line
        assert list(tmp_path.iterdir()) == []

    def test_no_linker(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.delenv("CC", raising=False)
        assert "needs a C compiler" in refusal(run("compile", MNIST, "-o", tmp_path / "out"))
        assert list(tmp_path.iterdir()) == []


class TestAtomic:
    def test_an_earlier_result_is_replaced(self, run, tmp_path):
        folder = tmp_path / "out"
        assert run("compile", MNIST, "-o", folder, "--no-reorder")[0] == 0
        assert run("compile", MNIST, "-o", folder)[0] == 0
        assert json.loads((folder / "manifest.json").read_text())["reordered"] is True
        assert list(tmp_path.iterdir()) == [folder]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_interrupted_after_linking(self, run, tmp_path, monkeypatch, error):
        folder = tmp_path / "out"
        assert run("compile", MNIST, "-o", folder)[0] == 0
        before = {path: path.read_bytes() for path in folder.iterdir()}
        staged = []

        def stop(_model):
            staged.extend(tmp_path.glob(".out.*/lib.so"))
            raise error

        monkeypatch.setattr("tvm_passes.compile._sha256", stop)
        interrupted = [str(MNIST), "-o", str(folder), "--no-reorder"]
        if error is SystemExit:
            with pytest.raises(SystemExit):
                run("compile", *interrupted)
        else:
            assert run("compile", *interrupted)[0] == 130
        assert len(staged) == 1
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        assert list(tmp_path.iterdir()) == [folder]

    def test_stopped_between_the_renames(self, run, tmp_path, monkeypatch):
        folder = tmp_path / "out"
        assert run("compile", MNIST, "-o", folder)[0] == 0
        before = (folder / "manifest.json").read_bytes()
        rename = Path.rename

        def stop_after_the_first(self, to):
            rename(self, to)
            if self == folder:
                raise SystemExit(143)

        monkeypatch.setattr(Path, "rename", stop_after_the_first)
        with pytest.raises(SystemExit):
            run("compile", MNIST, "-o", folder, "--no-reorder")
        assert (folder / "manifest.json").read_bytes() == before
        assert list(tmp_path.iterdir()) == [folder]

    def test_a_failed_rename_puts_the_earlier_result_back(self, run, tmp_path, monkeypatch):
        folder = tmp_path / "out"
        assert run("compile", MNIST, "-o", folder)[0] == 0
        before = (folder / "manifest.json").read_bytes()
        rename = Path.rename

        def fail_into_place(self, to):
            if Path(to) == folder and self.name.startswith(".out.") and self.suffix != ".old":
                raise OSError(28, "No space left on device")
            return rename(self, to)

        monkeypatch.setattr(Path, "rename", fail_into_place)
        line = refusal(run("compile", MNIST, "-o", folder, "--no-reorder"))
        assert "No space left on device" in line
        assert (folder / "manifest.json").read_bytes() == before
        assert list(tmp_path.iterdir()) == [folder]


def test_the_library_needs_tvms_runtime_alone(run, tmp_path):
    """Loading in a fresh interpreter, which never imports this package."""
    folder = tmp_path / "out"
    assert run("compile", MNIST, "-o", folder)[0] == 0
    loaders = {
        "relax": (
            "from tvm import relax\n"
            "vm = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())\n"
            "out = vm['main'](tvm.runtime.tensor(np.zeros((1, 28, 28, 1), 'float32')))\n"
        ),
        "relay": (
            "from tvm.contrib.graph_executor import GraphModule\n"
            "graph = GraphModule(tvm.runtime.load_module(sys.argv[1])['default'](tvm.cpu()))\n"
            "graph.run()\n"
            "out = graph.get_output(0)\n"
        ),
    }
    code = (
        "import sys, numpy as np, tvm\n"
        + loaders[DIALECT]
        + ("assert out.numpy().shape == (1, 10)\nassert 'tvm_passes' not in sys.modules\n")
    )
    moved = shutil.copy(folder / "lib.so", tmp_path / "elsewhere.so")
    subprocess.run([sys.executable, "-c", code, str(moved)], check=True, cwd=tmp_path)
