"""The report: what it holds, and what a browser shows of it."""

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs tvm-passes[report]")

from matplotlib.image import imread

from tvm_passes.bench.plots import plots, savings, svg
from tvm_passes.bench.report import html_report, side_by_side
from tvm_passes.cli import main

pytestmark = pytest.mark.no_tvm
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def timed(seconds):
    samples = {"samples": [seconds] * 3, "cpu": [seconds] * 3}
    return {"median": seconds, "mad": seconds / 50, "cores": 1.0, **samples}


def ratio(value, verdict):
    return {"ratio": value, "low": value * 0.9, "high": value * 1.1, "p": 0.001, "verdict": verdict}


def figures(kernel, source):
    loop = {"instructions": {"multiply-add": 12, "load": 2}, "spills": 1, "text": "vfmadd & <more>"}
    counts = {"evaluations": {"sigmoid": 1256}, "arithmetic": 18432, "maxima": 256, "exact": True}
    found = {"name": kernel, **counts, "bytes": 2048, "allocated": 512}
    times = [{"name": kernel, "samples": [1e-5, 2e-5, 3e-5]}]
    kernels = {kernel: found | {"inner_loop": loop, "source": source}}
    return {"calls": [kernel], "kernels": kernels, "planned": 1024, "times": times}


@pytest.fixture
def document():
    versions = {"original": 4e-5, "reordered": 5e-5, "scheduled": 2e-5, "fused": 1e-5}
    place = {"gflops": 50.0, "gbytes": 5.0, "intensity": 10.0, "share": 0.5}
    entry = {
        "block": "<tiny>",
        "threads": 2,
        "dialect": "relax",
        "samples": {
            "relax": {name: timed(seconds) for name, seconds in versions.items()},
            "openvino": {"swapped": timed(3e-5)},
        },
        "fastest_variant": {"relax": "fused", "openvino": "swapped"},
        "version_ratios": {
            "reordered": ratio(0.8, "slower"),
            "scheduled": ratio(2.0, "faster"),
            "fused": ratio(4.0, "faster"),
        },
        "bitwise": ["original", "reordered", "scheduled"],
        "others": 0.02,
        "failed": {"relax": {"tuned": "no records"}},
        "figures": {
            "scheduled": figures("conv", f"# from tvm\na line\nbefore\nthe end {'long ' * 60}"),
            "fused": figures("conv_pool", f"a line\nafter\nthe end {'long ' * 60}"),
            "reordered": {"error": "no figures"},
        },
        "roofline": {"scheduled": place, "fused": place},
        "predicted": {"evaluations_before": 1256, "evaluations_after": 64},
        "ir": {"original": "relu(x)\npool(x)", "reordered": "pool(x)\nrelu(x)"},
        "sites": 1,
        "flops": 36864,
    }
    environment = {"cpu": "A CPU & more", "isa": ["avx2", "fma"], "governor": None}
    peaks = {"peaks": {"2": {"gflops": 100.0, "gbytes": 10.0}}}
    return {"environment": environment | peaks, "results": [entry]}


def test_the_page_holds_everything_and_needs_nothing(document):
    page = html_report(document)
    assert not re.search(r"""(src|href)=["'](?!#)""", re.sub(r'xlink:href="#[^"]*"', "", page))
    assert "&lt;tiny&gt;, 2 threads" in page
    assert "<tiny>" not in page
    assert "vfmadd &amp; &lt;more&gt;" in page
    assert "no records" in page
    assert page.count("<svg") == 3
    assert 'class="diff_sub"' in page
    assert page.count("differs</td>") == 1
    assert "# from tvm" not in page
    assert "governor" not in page


def test_differences_are_marked():
    table = side_by_side("same\nrelu(x)", "same\ntanh(y)")
    assert "diff_chg" in table or "diff_sub" in table
    assert "diff_sub" not in side_by_side("same", "same")


def test_savings_are_those_of_the_formula(document):
    """1192 evaluations saved of 18432 multiply-adds and 1256 evaluations."""
    expected = pytest.approx(1192 / (18432 + 1256))
    found = savings(document["results"])
    assert [(version, p, round(m, 6)) for _, version, p, m in found] == [
        ("reordered", expected, -0.25),
        ("fused", expected, 0.5),
    ]


def test_plots_label_what_they_show(document):
    drawn = {name: svg(figure) for name, figure in plots(document).items()}
    assert "2 threads  fused" in drawn["ratios"]
    assert "2 threads" in drawn["roofline"]
    assert "as predicted" in drawn["savings"]


def test_without_figures(document):
    entry = document["results"][0]
    entry.update(figures={}, flops=None)
    del entry["roofline"]
    document["environment"]["peaks"] = {"2": {}}
    page = html_report(document)
    assert "Kernel source" not in page
    assert page.count("<svg") == 1


def test_savings_of_a_model_are_of_what_its_kernels_compute(document):
    document["results"][0]["flops"] = None
    expected = pytest.approx(1192 / (18432 / 2 + 1256))
    assert [p for _, _, p, _ in savings(document["results"])] == [expected, expected]


@pytest.fixture
def page(document, tmp_path, capsys):
    result, output = tmp_path / "result.json", tmp_path / "report.html"
    result.write_text(json.dumps(document))
    plots = tmp_path / "plots"
    assert main(["bench", "report", str(result), "-o", str(output), "--plots", str(plots)]) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    return output


def test_plots_are_files_too(page):
    folder = page.parent / "plots"
    for suffix in ("png", "svg"):
        found = {path.stem for path in folder.glob(f"*.{suffix}")}
        assert found == {"ratios", "roofline", "savings"}
    assert imread(folder / "ratios.png").std() > 0


@pytest.fixture
def browse(tmp_path):
    """Runs a headless browser on a page; returns what it prints."""
    if BROWSER is None and os.environ.get("CI"):
        pytest.fail("chromium is missing: .ci/run installs it")
    if BROWSER is None:
        pytest.skip("no chromium: apt-get install chromium")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
    command.append(f"--user-data-dir={tmp_path / 'profile'}")

    def run(page, *options):
        line = [*command, *options, page.as_uri()]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    return run


MEASURE = """<script>
const box = e => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; };
const cells = [...document.querySelectorAll("table.diff tbody tr")].map(row =>
  [...row.querySelectorAll("td:not(.diff_header):not(.diff_next)")].map(cell =>
    [cell.textContent.trim(), box(cell), [...cell.querySelectorAll("span")].map(mark =>
      [mark.textContent.trim(), getComputedStyle(mark).backgroundColor])]));
document.body.append(Object.assign(document.createElement("pre"), {id: "measured", textContent:
  JSON.stringify({width: innerWidth, plots: [...document.querySelectorAll("svg")].map(box),
                  clipped: [...document.querySelectorAll(".wide")].filter(part =>
                    part.querySelector("table.diff") && part.scrollWidth > part.clientWidth).length,
                  cells, wide: document.documentElement.scrollWidth})}));
</script>"""


def test_where_a_browser_puts_it(page, browse):
    """Plots have room, sources stand side by side, and their differences have a colour."""
    page.write_text(page.read_text().replace("</body>", f"{MEASURE}</body>"))
    shown = browse(page, "--dump-dom", "--window-size=1280,2000")
    found = json.loads(html.unescape(re.search(r'id="measured">(.*?)</pre>', shown)[1]))
    assert found["wide"] <= found["width"]
    assert found["clipped"] == 0
    assert len(found["plots"]) == 3
    for x, _, width, height in found["plots"]:
        assert x >= 0
        assert width > 600
        assert height > 100
    below = [y for _, y, _, _ in found["plots"]]
    assert below == sorted(below)
    rows = [row for row in found["cells"] if len(row) == 2]
    assert {text for row in rows for text, _, _ in row} >= {"relu(x)", "before", "after"}
    for (_, left, _), (_, right, _) in rows:
        assert left[1] == right[1]
        assert left[0] + left[2] <= right[0] + 1
    marks = {tuple(mark) for row in rows for _, _, marks in row for mark in marks}
    assert ("before", "rgb(255, 235, 233)") in marks
    assert ("after", "rgb(218, 251, 225)") in marks


def test_what_a_browser_shows(page, browse):
    shown = browse(page, "--dump-dom")
    text = re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", shown, flags=re.DOTALL))
    for expected in (
        "tvm-reorder bench",
        "&lt;tiny&gt;, 2 threads (relax)",
        "fused 0.0100 0.0002 4.000 3.600 to 4.400 faster differs 1,256 1",
        "openvino, swapped 0.0300",
        "other processes used 0.02 cores",
        "biases among them: 1,256 evaluations before, 64 after",
        "2 (gflops 100.0, gbytes 10.0)",
        "pool 0 20.0 conv 20.0 20.0 conv_pool 20.0",
        "scheduled 50.0 5.0 10.00 50",
        "12 multiply-add, 2 load 1",
        "Lines: the measured peaks of this machine.",
        "isa avx2, fma",
    ):
        assert expected in text


def test_how_it_looks(page, browse):
    """The verdicts' green and red are on the screen, and every plot has its width."""
    picture = page.parent / "screen.png"
    browse(page, f"--screenshot={picture}", "--window-size=1280,4000")
    pixels = (imread(picture)[:, :, :3] * 255).round().astype(int)
    for colour in ((0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E)):
        assert np.all(pixels == colour, axis=2).sum() > 50
    drawn = np.flatnonzero((pixels.min(axis=2) < 128).any(axis=1))
    assert drawn.max() > 1800, "plots and tables, one below the other"
    assert (pixels[:, -20:] > 200).all(), "nothing runs out of the page on the right"


@pytest.mark.parametrize("text", ["{}", "no JSON", '{"results": [{}]}'])
def test_what_is_no_result(tmp_path, capsys, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    assert main(["bench", "report", str(path), "-o", str(tmp_path / "out.html")]) == 1
    assert "is no output of bench run" in capsys.readouterr().err
