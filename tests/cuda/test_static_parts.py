"""Machine code read and followed, and the numbers of GPUs: no TVM, no compiler."""

import json

import pytest

from tvm_passes.cuda.execution import Counts, Place, execute
from tvm_passes.cuda.gpu import known_gpus, read_gpu
from tvm_passes.cuda.resources import Resources
from tvm_passes.cuda.roofline import estimate
from tvm_passes.cuda.sass import parse
from tvm_passes.errors import TargetError
from tvm_passes.target import shipped_targets, targets_folder

pytestmark = pytest.mark.no_tvm

LOOP = """
.text.loop_kernel:
        /*0000*/  S2R R0, SR_TID.X ;
        /*0010*/  HFMA2.MMA R1, -RZ, RZ, 0, 0 ;
        /*0020*/  MOV R4, c[0x0][0x160] ;
.L_x_0:
        /*0030*/  IADD3 R1, R1, 0x2, RZ ;
        /*0040*/  LDG.E.128 R8, [R4.64] ;
        /*0050*/  FFMA R2, R8, R9, R2 ;
        /*0060*/  ISETP.GE.AND P0, PT, R1, 0xa, PT ;
        /*0070*/  @!P0 BRA `(.L_x_0) ;
        /*0080*/  ISETP.NE.AND P1, PT, R0, 0x3, PT ;
        /*0090*/  @P1 EXIT ;
        /*00a0*/  STG.E.64 [R4.64], R2 ;
        /*00b0*/  EXIT ;
"""


def thread(text, x=0, block=(0, 0, 0)):
    (code,) = parse(text).values()
    return execute(code, Place(block, (x, 0, 0)))


def body(*lines):
    numbered = "".join(f"/*{16 * n:04x}*/ {line} ;\n" for n, line in enumerate(lines))
    return f".text.k:\n{numbered}"


class TestExecution:
    def test_loops_run_as_often_as_they_do(self):
        counts = thread(LOOP)
        assert counts.instructions["FFMA"] == counts.instructions["LDG"] == 5
        assert (counts.loaded, counts.stored) == (80, 0)
        assert counts.finished
        assert counts.unknown == 0

    def test_branches_depend_on_the_thread(self):
        assert thread(LOOP, 3).stored == 8

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("IMAD R1, R0, 0x3, 0x5", 26),
            ("IMAD.HI.U32 R1, R0, 0x40000000, RZ", 1),
            ("LEA R1, R0, 0x1, 0x2", 29),
            ("LEA.HI R1, R0, R0, RZ, 0x1e", 8),
            ("SHF.R.U32.HI R1, RZ, 0x1, R0", 3),
            ("SHF.R.S32.HI R1, RZ, 0x1f, R0", 0),
            ("SHF.L.U32 R1, R0, 0x3, RZ", 56),
            ("LOP3.LUT R1, R0, 0x3, RZ, 0xc0, !PT", 3),
            ("LOP3.LUT R1, R0, 0x8, RZ, 0xfc, !PT", 15),
            ("SEL R1, R0, 0x1, PT", 7),
            ("VIMNMX R1, R0, 0x5, PT", 5),
            ("IADD3 R1, R0, -0x2, RZ", 5),
            ("HFMA2.MMA R1, -RZ, RZ, 0, 2.9802322387695312e-07", 5),
        ],
    )
    def test_integers(self, line, value):
        check = f"ISETP.NE.AND P0, PT, R1, {value:#x}, PT"
        counts = thread(
            body("S2R R0, SR_TID.X", line, check, "@P0 EXIT", "STG.E [R2.64], R3", "EXIT"), 7
        )
        assert counts.stored == 4, line

    def test_a_high_half_adds_two_registers(self):
        """How ptxas divides by 15: the addend is R4 below R5, which is the dividend."""
        text = body(
            "MOV R4, RZ",
            "MOV R5, 0xc3",
            "IMAD.HI R4, R5, -0x77777777, R4",
            "ISETP.NE.AND P0, PT, R4, 0x68, PT",
            "@P0 EXIT",
            "STG.E [R2.64], R3",
            "EXIT",
        )
        assert 195 * 0x88888889 >> 32 == 0x68
        assert thread(text).stored == 4

    def test_unknown_conditions_are_counted_and_not_taken(self):
        text = body(
            "LDG.E R0, [R2.64]",
            "ISETP.NE.AND P0, PT, R0, RZ, PT",
            "@P0 BRA `(.L_x_9)",
            "FADD R1, R1, R1",
            "EXIT",
        )
        counts = thread(text)
        assert counts.unknown == 1
        assert counts.instructions["FADD"] == 1

    def test_an_endless_loop_is_given_up(self, monkeypatch):
        monkeypatch.setattr("tvm_passes.cuda.execution.LONGEST", 1000)
        counts = thread(".text.k:\n.L_x_0:\n/*0000*/ NOP ;\n/*0010*/ BRA `(.L_x_0) ;\n")
        assert not counts.finished


class TestGpus:
    def test_each_number_has_its_source(self):
        for name in known_gpus():
            found = json.loads((targets_folder() / "cuda" / name / "gpu.json").read_text())
            numbers = {key: value for key, value in found.items() if key not in ("name", "arch")}
            assert len(numbers) == 13
            assert all(
                value["value"] > 0 and len(value["source"]) > 20 for value in numbers.values()
            )
            unchecked = [key for key, value in numbers.items() if value["checked"][:3] == "no:"]
            assert not unchecked

    def test_each_is_a_target_of_its_architecture(self):
        assert set(known_gpus()) == {"a100", "h100", "h200", "rtx4090"}
        for name in known_gpus():
            assert f"cuda/{name}" in shipped_targets()
            target = json.loads((targets_folder() / "cuda" / name / "target.json").read_text())
            assert target["arch"] == read_gpu(name).arch

    def test_an_unknown_one(self):
        with pytest.raises(TargetError, match="no GPU 'b9000': expected a100, h100"):
            read_gpu("b9000")

    @pytest.mark.parametrize(
        ("registers", "shared", "threads", "blocks"),
        [
            (32, 0, 256, 8),
            (64, 0, 256, 4),
            (65, 0, 256, 3),
            (32, 40 << 10, 256, 4),
            (16, 0, 32, 32),
        ],
    )
    def test_blocks_that_fit(self, registers, shared, threads, blocks):
        taken = Resources(registers, shared, 0, 0, 0, threads)
        assert read_gpu("a100").resident(taken) == blocks

    def test_occupancy(self):
        assert read_gpu("a100").occupancy(Resources(64, 0, 0, 0, 0, 256)) == 0.5


class TestRoofline:
    TAKEN = Resources(32, 0, 0, 0, 0, 256)

    def bound(self, instructions, unique_bytes=0, blocks=108):
        counts = Counts()
        counts.instructions.update(instructions)
        return estimate(read_gpu("a100"), self.TAKEN, counts, blocks, unique_bytes)

    @pytest.mark.parametrize(
        ("instructions", "name"),
        [
            ({"FFMA": 100}, "fp32"),
            ({"FMNMX": 100}, "alu"),
            ({"MUFU": 100}, "special"),
            ({"LDS": 100}, "shared"),
            ({"BRA": 100}, "issue"),
        ],
    )
    def test_bounds(self, instructions, name):
        assert self.bound(instructions).bound == name

    def test_memory(self):
        found = self.bound({"FFMA": 1}, 2_039_000_000)
        assert found.bound == "memory"
        assert found.seconds == pytest.approx(1e-3)

    def test_the_busiest_multiprocessor_decides(self):
        one, two = self.bound({"FFMA": 64}), self.bound({"FFMA": 64}, blocks=109)
        assert two.seconds == pytest.approx(2 * one.seconds)
        # 64 multiply-adds of 8 warps on 64 lanes
        assert one.seconds == pytest.approx(64 * 8 * 32 / 64 / 1.41e9)
