"""Generated inputs hit what they are named after; a user's file fits the model or is refused."""

import numpy as np
import pytest

from tvm_passes.errors import InputError
from tvm_passes.input_file import read_samples
from tvm_passes.inputs import DRAWS, GENERATORS, Draws, generated

pytestmark = pytest.mark.no_tvm

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int32", "int64"]
SHAPE = (2, 4, 9, 7)


def tensor(name="x", shape=SHAPE, dtype="float32"):
    return {"name": name, "shape": list(shape), "dtype": dtype}


def samples(*inputs, draws=DRAWS, **options):
    """Arrays by generator and round."""
    found = generated(inputs, draws, **options)
    return {sample.name: sample.arrays for sample in found}


def values(name, dtype, shape=SHAPE):
    """The first array of a generator."""
    return samples(tensor(dtype=dtype, shape=shape), extreme=True)[f"{name} #0"][0]


class TestAllGenerators:
    @pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
    @pytest.mark.parametrize("shape", [SHAPE, (1,), ()])
    def test_shape_dtype_and_no_nan(self, dtype, shape):
        for name, (array,) in samples(tensor(shape=shape, dtype=dtype), extreme=True).items():
            assert isinstance(array, np.ndarray), name
            assert (array.shape, array.dtype) == (shape, dtype), name
            assert not np.isnan(array.astype("float64")).any(), name

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_infinities_are_left_to_one_generator(self, dtype):
        found = samples(tensor(dtype=dtype), extreme=True)
        infinite = {name.split(" #")[0] for name, (x,) in found.items() if np.isinf(x).any()}
        assert infinite == {"infinities"}

    def test_every_one_for_floats_and_three_for_integers(self):
        every = [f"{generator.name} #0" for generator in GENERATORS]
        once = Draws(rounds=1, seed=0)
        assert list(samples(tensor(), draws=once, extreme=True)) == every
        integers = samples(tensor(dtype="int8"), draws=once, extreme=True)
        assert list(integers) == ["random #0", "ties #0", "large #0"]
        assert list(samples(tensor(dtype="bool"), draws=once, extreme=True)) == ["random #0"]

    def test_the_seed_decides(self):
        def flat(seed):
            found = samples(tensor(), draws=Draws(rounds=2, seed=seed), extreme=True)
            return {name: x.tobytes() for name, (x,) in found.items()}

        assert flat(1) == flat(1)
        first, second = flat(1), flat(2)
        assert all(first[name] != second[name] for name in first)
        assert len(set(first.values())) == len(first)

    def test_generators_draw_apart(self):
        assert not np.array_equal(np.rint(values("random", "float32")), values("ties", "float32"))

    def test_whole_models_get_no_extremes(self):
        names = {name.split(" #")[0] for name in samples(tensor())}
        assert names == {"random", "ties", "saturation", "denormals", "zeros"}

    def test_extremes_are_for_the_first_input_alone(self):
        found = samples(tensor("x"), tensor("bias", (4, 1, 1)), extreme=True)
        x, bias = found["infinities #0"]
        assert np.isinf(x).any()
        assert np.isfinite(bias).all()
        assert np.abs(found["large #0"][1]).max() < 100
        assert (np.abs(found["denormals #0"][1]) < 1e-30).any()

    def test_an_input_that_a_generator_has_nothing_for_is_random(self):
        found = samples(tensor("x"), tensor("flags", (3,), "bool"), tensor("n", (3,), "int8"))
        assert all((flags.dtype, n.dtype) == ("bool", "int8") for _, flags, n in found.values())
        assert set(samples(tensor("n", (3,), "int8"), tensor("x"))) == set(found)


@pytest.mark.parametrize("dtype", FLOATS)
class TestFloats:
    def test_random_has_both_signs(self, dtype):
        x = values("random", dtype)
        assert x.min() < -1
        assert x.max() > 1

    def test_ties_are_few_distinct_values(self, dtype):
        x = values("ties", dtype)
        assert len(np.unique(x)) < 30
        assert not np.signbit(x[x == 0]).any()

    def test_saturation_goes_past_where_exp_overflows(self, dtype):
        x = values("saturation", dtype)
        with np.errstate(over="ignore", under="ignore"):
            assert np.isinf(np.exp(x)).any()
            assert (np.exp(x) == 0).any()
        assert np.isfinite(x).all()

    def test_denormals(self, dtype):
        x = values("denormals", dtype)
        info = np.finfo(dtype)
        small = np.abs(x[(np.abs(x) < info.smallest_normal) & (x != 0)])
        assert len(small) > x.size / 4
        assert small.min() == info.smallest_subnormal
        assert small.max() == info.smallest_normal - info.smallest_subnormal

    def test_zeros_of_both_signs_often_are_a_windows_maximum(self, dtype):
        x = values("zeros", dtype)
        windows = x[:, :, :8, :6].reshape(2, 4, 4, 2, 3, 2).swapaxes(3, 4).reshape(-1, 4)
        zero = windows == 0
        both = (zero & np.signbit(windows)).any(1) & (zero & ~np.signbit(windows)).any(1)
        assert windows.max() == 0
        assert both.mean() > 0.3

    def test_large_has_whole_windows_of_the_lowest_number(self, dtype):
        x = values("large", dtype)
        info = np.finfo(dtype)
        assert (x[0, 0] == info.min).all()
        assert (x == info.max).any()
        assert np.isfinite(x).all()

    def test_infinities_are_mixed_and_fill_whole_windows(self, dtype):
        x = values("infinities", dtype)
        assert (x[0, 0] == -np.inf).all()
        assert (x[1] == np.inf).any()
        assert (x[1] == -np.inf).any()
        assert np.isfinite(x[1]).any()


class TestIntegers:
    @pytest.mark.parametrize("dtype", ["int8", "uint8"])
    def test_small_ones_take_the_whole_range(self, dtype):
        info = np.iinfo(dtype)
        x = values("random", dtype, (100, 100))
        assert (x.min(), x.max()) == (info.min, info.max)

    @pytest.mark.parametrize("name", ["random", "ties"])
    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
    def test_wide_ones_may_be_indices(self, name, dtype):
        assert set(values(name, dtype).ravel().tolist()) == {0, 1}

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_large_reaches_both_ends(self, dtype):
        x = values("large", dtype)
        info = np.iinfo(dtype)
        assert (x.min(), x.max()) == (info.min, info.max)
        assert len(np.unique(x)) > 50


class TestFiles:
    def refusal(self, path, *inputs):
        with pytest.raises(InputError) as raised:
            read_samples(path, inputs)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_one_run(self, tmp_path):
        x = np.arange(8, dtype="float32").reshape(2, 4)
        np.savez(tmp_path / "in.npz", x=x)
        (sample,) = read_samples(tmp_path / "in.npz", [tensor(shape=(2, 4))])
        assert sample.name == "in.npz #0"
        assert np.array_equal(sample.arrays[0], x)

    def test_several_runs_of_several_inputs_in_the_models_order(self, tmp_path):
        arrays = {
            "b": np.arange(6, dtype="int8").reshape(6),
            "a": np.asarray(np.arange(24, dtype="float32").reshape(3, 8), order="F"),
        }
        np.savez(tmp_path / "in.npz", **arrays)
        inputs = [tensor("a", (1, 8)), tensor("b", (2,), "int8")]
        found = read_samples(tmp_path / "in.npz", inputs)
        assert [sample.name for sample in found] == ["in.npz #0", "in.npz #1", "in.npz #2"]
        assert all(sample.arrays[0].flags.c_contiguous for sample in found)
        assert np.array_equal(np.concatenate([s.arrays[0] for s in found]), arrays["a"])
        assert np.array_equal(np.concatenate([s.arrays[1] for s in found]), arrays["b"])

    def test_an_npy_for_one_input(self, tmp_path):
        np.save(tmp_path / "in.npy", np.ones((4, 3), "float32"))
        assert len(read_samples(tmp_path / "in.npy", [tensor(shape=(2, 3))])) == 2

    def test_a_scalar(self, tmp_path):
        np.save(tmp_path / "in.npy", np.float32(3))
        (sample,) = read_samples(tmp_path / "in.npy", [tensor(shape=())])
        assert sample.arrays[0].shape == ()

    def test_infinities_and_nan_are_told(self, tmp_path):
        np.save(tmp_path / "in.npy", np.array([[1], [np.inf], [np.nan]], "float32"))
        found = read_samples(tmp_path / "in.npy", [tensor(shape=(1, 1))])
        assert [sample.has_infinity for sample in found] == [False, True, False]
        assert [sample.has_nan for sample in found] == [False, False, True]

    def test_missing(self, tmp_path):
        path = tmp_path / "no.npz"
        assert self.refusal(path, tensor()) == f"cannot read {path}: No such file or directory"
        assert "Is a directory" in self.refusal(tmp_path, tensor())

    @pytest.mark.parametrize("data", [b"", b"hello, world", b"\x93NUMPY", b"PK\x03\x04"])
    def test_something_else(self, tmp_path, data):
        path = tmp_path / "in.npz"
        path.write_bytes(data)
        assert "is no .npz or .npy file of numbers" in self.refusal(path, tensor())

    @pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
    def test_each_byte_broken_or_cut_off(self, tmp_path, save):
        path = tmp_path / ("in.npy" if save is np.save else "in.npz")
        save(path, np.arange(4, dtype="float32"))
        data = path.read_bytes()
        name = "x" if save is np.save else "arr_0"
        broken = [data[:n] + bytes([data[n] ^ 0x10]) + data[n + 1 :] for n in range(len(data))]
        refused = 0
        for changed in [*broken, *(data[:n] for n in range(len(data)))]:
            path.write_bytes(changed)
            try:
                read_samples(path, [tensor(name, (4,))])
            except InputError:
                refused += 1
        assert refused > len(data)  # all that are cut off, and most of the broken ones

    def test_python_objects_are_not_loaded(self, tmp_path):
        np.save(tmp_path / "in.npy", np.array([{}], object), allow_pickle=True)
        assert "is no .npz or .npy file of numbers" in self.refusal(tmp_path / "in.npy", tensor())

    @pytest.mark.parametrize("names", [["y"], ["x", "y"], []])
    def test_names(self, tmp_path, names):
        path = tmp_path / "in.npz"
        np.savez(path, **{name: np.zeros(SHAPE, "float32") for name in names})
        found = ", ".join(repr(name) for name in names) or "none"
        line = self.refusal(path, tensor())
        assert line == f"{path}: expected arrays named 'x', found {found}"

    def test_an_npy_for_two_inputs(self, tmp_path):
        np.save(tmp_path / "in.npy", np.zeros(SHAPE, "float32"))
        line = self.refusal(tmp_path / "in.npy", tensor("x"), tensor("y"))
        assert line.endswith("the model has 2 inputs: give an .npz file with 'x', 'y'")

    @pytest.mark.parametrize("dtype", ["uint8", "float64", ">f4", "U3"])
    def test_types_are_not_converted(self, tmp_path, dtype):
        np.save(tmp_path / "in.npy", np.zeros(SHAPE, dtype))
        line = self.refusal(tmp_path / "in.npy", tensor())
        assert f"input 'x' is float32, found {np.dtype(dtype)}: convert it" in line

    @pytest.mark.parametrize("shape", [(), (3, 4, 9, 7), (2, 4, 9), (2, 4, 9, 8), (0, 4, 9, 7)])
    def test_shapes(self, tmp_path, shape):
        np.save(tmp_path / "in.npy", np.zeros(shape, "float32"))
        line = self.refusal(tmp_path / "in.npy", tensor())
        assert f"input 'x' has shape {SHAPE}, found {shape}: only the first axis" in line

    def test_one_number_of_runs(self, tmp_path):
        path = tmp_path / "in.npz"
        np.savez(path, x=np.zeros((2, 1), "float32"), y=np.zeros((3, 1), "float32"))
        line = self.refusal(path, tensor("x", (1, 1)), tensor("y", (1, 1)))
        assert line.endswith("one number of runs, found 'x' for 2, 'y' for 3")
