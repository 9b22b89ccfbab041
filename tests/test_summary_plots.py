"""Figures of the panel: what they draw, not how it looks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from test_contracts import run_python
from test_ivw import problem

import mrfast
from mrfast.errors import InvalidInputError
from mrfast.plots.mr_panel import interval_text, method_label, method_styles, robust_limits
from mrfast.summary.sensitivity_panel import PLOTS, Sensitivity

matplotlib = pytest.importorskip("matplotlib")
METHODS = ["ivw", "weighted_median", "egger"]


def panel_of(j: int, **more: object) -> Sensitivity:
    data = problem(j, seed=5, spread=0.02)
    if j > 6:
        data["beta_outcome"][3] += 0.6
    names = [f"rs{1000 + i}" for i in range(j)]
    return mrfast.sensitivity(**data, snps=names, methods=METHODS, rng=1, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def panel() -> Sensitivity:
    return panel_of(20, exposure="cost in $ of $x^2$", outcome="y")


def texts(figure: object) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", PLOTS)
@pytest.mark.parametrize("j", [1, 2, 80, 260])
def test_any_number_of_snps(kind: str, j: int, tmp_path: Path) -> None:
    found = panel_of(j)
    if kind == "radial" and found.radial is None:
        with pytest.raises(InvalidInputError, match="needs at least 2 SNPs"):
            found.plot(kind)
        return
    path = tmp_path / "figure.png"
    found.plot(kind).savefig(path, dpi=40)
    assert path.stat().st_size > 1_000


def test_scatter_turns_alleles_and_draws_the_lines(panel: Sensitivity) -> None:
    """Wrong: the line of Egger regression through the origin."""
    axis = panel.plot("scatter").axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    points = np.vstack([xy for label, xy in drawn.items() if label in ("SNP", "MR-PRESSO outlier")])
    assert len(points) == 20
    assert (points[:, 0] > 0).all()
    ratio = panel.associations["beta_outcome"] / panel.associations["beta_exposure"]
    assert sorted(points[:, 1] / points[:, 0]) == pytest.approx(sorted(ratio))
    for name in METHODS:
        (xy,) = [xy for label, xy in drawn.items() if label.startswith(method_label(name))]
        row = panel.methods.set_index("method").loc[name]
        slope = (xy[1, 1] - xy[0, 1]) / (xy[1, 0] - xy[0, 0])
        assert slope == pytest.approx(row["estimate"])
        start = row["intercept"] if name == "egger" else 0.0
        assert xy[0] == pytest.approx([0, start])
    assert "rs1003" in texts(axis.figure)
    assert axis.get_xlabel() == "SNP association with cost in $ of $x^2$"
    assert not axis.xaxis.label.get_parse_math()


def test_forest_has_a_line_for_each_snp_and_method(panel: Sensitivity) -> None:
    figure = panel.plot("forest")
    shown = texts(figure)
    for name in panel.snps:
        assert name in shown
    for name in METHODS:
        assert method_label(name) in shown
    row = panel.methods.iloc[0]
    assert interval_text(row["estimate"], row["ci_lower"], row["ci_upper"]) in shown
    ratios = panel.single_snp[panel.single_snp["method"] == "wald_ratio"]
    order = ratios.sort_values("estimate")["snp"].tolist()
    assert [text for text in shown if text in panel.snps] == order


def test_leave_one_out_marks_what_changes_the_conclusion() -> None:
    bx = np.array([0.3, *np.linspace(0.09, 0.11, 7)])
    found = mrfast.sensitivity(
        beta_exposure=bx, se_exposure=np.full(8, 0.002), beta_outcome=0.3 * bx,
        se_outcome=np.full(8, 0.0545), methods=["ivw"], rng=1,
    )  # fmt: skip
    p = found.leave_one_out["p_value"].to_numpy()
    assert p[-1] < 0.05 < p[0]
    figure = found.plot("leave_one_out")
    assert any("contains 0, unlike that of all SNPs" in text for text in texts(figure))
    assert "without 0" in texts(figure)


def test_funnel_keeps_far_snps_at_the_border() -> None:
    data = problem(20, seed=5)
    data["beta_exposure"][0] = 1e-4
    data["beta_outcome"][0] = 5.0
    found = mrfast.sensitivity(**data, methods=["ivw"], rng=1)
    axis = found.plot("funnel").axes[0]
    high = axis.get_xlim()[1]
    assert high < 1_000
    marks = [line.get_xydata() for line in axis.get_lines() if line.get_marker() in ("<", ">")]
    assert [mark[0, 0] for mark in marks] == [high]


def test_radial_points_and_slope(panel: Sensitivity) -> None:
    assert panel.radial is not None
    axis = panel.plot("radial").axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    points = np.vstack([drawn["SNP"], drawn["Outlier"]])
    assert np.sort(points[:, 0] ** 2) == pytest.approx(np.sort(panel.radial.ratio_weight))
    (xy,) = [xy for label, xy in drawn.items() if label.startswith("Radial inverse")]
    assert xy[1, 1] / xy[1, 0] == pytest.approx(panel.radial.estimate)
    line = mrfast.radial(**problem(20, seed=5, spread=0.02), regression="egger")
    axis = line.plot().axes[0]
    (xy,) = [
        one.get_xydata()
        for one in axis.get_lines()
        if str(one.get_label()).startswith("Radial egger")
    ]
    assert xy[0, 1] == pytest.approx(line.intercept)


def test_nothing_to_draw_lines_of() -> None:
    found = mrfast.sensitivity(**problem(2), methods=["egger"])
    assert found.methods["estimate"].isna().all()
    for kind in PLOTS:
        assert found.plot(kind).axes
    with pytest.raises(InvalidInputError, match="kind"):
        found.plot("histogram")


def test_files_with_figures(panel: Sensitivity, tmp_path: Path) -> None:
    written = panel.save(tmp_path)
    assert {f"{kind}.png" for kind in PLOTS} <= set(written)
    for kind in PLOTS:
        assert (tmp_path / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"


def test_helpers() -> None:
    assert interval_text(0.12345, 0.1, 0.15) == "0.1235 (0.1000 to 0.1500)"
    assert interval_text(-36.51, -52.3, -20.7) == "−36.5 (−52.3 to −20.7)"
    assert interval_text(1.0, np.nan, np.nan) == "1 (nan to nan)"
    assert method_label("weighted_median") == "Weighted median"
    names = ["ivw", *(f"other_{i}" for i in range(6))]
    assert len(set(map(str, method_styles(names).values()))) == 7
    low, high = robust_limits(np.array([0.0, 1, 2, 1, 1000]), np.full(5, 0.1), [0.0])
    assert low < 0
    assert 2 < high < 20
    assert robust_limits(np.array([np.nan]), np.array([np.nan]), []) == (-1.1, 1.1)


def test_missing_matplotlib_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import mrfast
panel = mrfast.sensitivity(
    beta_exposure=[0.1, 0.2, 0.3], se_exposure=[0.01] * 3,
    beta_outcome=[0.1, 0.2, 0.2], se_outcome=[0.02] * 3, methods=["ivw"],
)
print(panel.save({str(tmp_path / "a")!r}, figures=False)["summary.txt"])
for call in (lambda: panel.plot("scatter"), lambda: panel.save({str(tmp_path / "b")!r})):
    try:
        call()
    except mrfast.errors.MissingExtraError as error:
        print(error)
"""
    text = run_python(code)
    assert text.count("mrfast[plot]") == 2
    assert not (tmp_path / "b").exists()


def test_names_and_legends_do_not_overlap() -> None:
    """Wrong: names at the first corner of their points; letters of the legend of a fixed size."""
    data = problem(150, seed=5, spread=0.02)
    data["beta_outcome"][:12] += 0.5 + 0.002 * np.arange(12)
    data["beta_exposure"][:12] = 0.1 + 0.001 * np.arange(12)
    names = [f"rs12345678{i}" for i in range(150)]
    found = mrfast.sensitivity(
        **data, snps=names, rng=1, exposure="a long name " * 12, outcome="ü" * 90
    )
    for kind in ("scatter", "funnel", "radial"):
        figure = found.plot(kind)
        figure.savefig(io.BytesIO())
        axis = figure.axes[0]
        boxes = [text.get_window_extent() for text in axis.texts if text.get_text() in names]
        assert len(boxes) >= 3
        for i, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:i])
        whole = figure.bbox
        for part in (*figure.legends, axis.xaxis.label, axis.yaxis.label):
            box = part.get_window_extent()
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= whole.x1
            assert box.y1 <= whole.y1


def test_radial_figure_of_an_outcome_without_associations() -> None:
    data = problem(6, seed=5)
    data["beta_outcome"][:] = 0
    found = mrfast.radial(**data)
    assert found.plot() is not None
