"""The rivals' figure, the leaderboard and the predictions, from a small run measured here."""

from itertools import pairwise

import numpy as np
import pytest
from test_verify import measure

import lrqmm
from lrqmm.bench.sources.distributions import sample
from lrqmm.error import exact_product, relative_error
from lrqmm.figures import NothingToDraw, make, prediction, rivals
from lrqmm.run.read import read_run

METHODS = ["direct", "lrqmm", "qera", "mxfp4", "bf16", "affine+lrqmm_aware"]
OVERRIDES = {
    "direct": [{"levels": ["odd", "signed"]}, {"bits": 8, "granularity": "group:16"}],
    "mxfp4": {"scale_rule": ["ceil", "floor"]},
}
STUDY = {
    "rivals": {
        "measure": "error", "inputs": ["uniform01", "outliers"], "sizes": ["96x40x32"], "seeds": 2,
        "methods": METHODS, "held_out": True, "cost": True, "settings": {"bits": 4, "rank": 4},
        "overrides": OVERRIDES,
    },
    "rivals_time": {
        "measure": "time", "inputs": ["uniform01", "outliers"], "sizes": [48], "samples": 3,
        "methods": METHODS, "baselines": ["sgemm"], "prepared": [True],
        "settings": {"bits": 4, "rank": 4},
        "overrides": OVERRIDES,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(measure(tmp_path_factory.mktemp("runs") / "run", experiments=STUDY))


def test_points_are_medians_of_the_measured_half(run):
    table = rivals.points(run).set_index(["input", "name", "calibration"])
    found = []
    for seed in range(2):
        A, B = sample("outliers", 96, 40, 32, seed=seed)
        C = lrqmm.matmul(A[48:], B, "qera", bits=4, rank=4, calibration=A[:48])
        found.append(relative_error(C, exact_product(A[48:], B)))
    point = table.loc["outliers", "QERA", "held_out"]
    assert point["error"] == pytest.approx(np.median(found), rel=1e-4)
    assert (point["low"], point["high"]) == pytest.approx((min(found), max(found)), rel=1e-4)
    bits = lrqmm.get_method("direct", bits=4).cost(48, 40, 32).operand_bits / (48 * 40 + 40 * 32)
    assert table.loc["outliers", "direct", "none"]["bits"] == bits


def test_settings_of_a_method_are_points_of_their_own(run):
    table = rivals.points(run)
    names = table["name"].groupby(table["method"], sort=False).unique()
    assert list(names["direct"]) == [
        "direct",
        "direct, signed levels",
        "direct, 8 bits, groups of 16",
    ]
    assert list(names["mxfp4"]) == ["MXFP4", "MXFP4, scale rule floor"]
    assert list(names["lrqmm"]) == ["LRQMM"]
    table = table.set_index(["input", "name"])
    for name, params in {
        "direct, signed levels": {"method": "direct", "bits": 4, "levels": "signed"},
        "direct, 8 bits, groups of 16": {"method": "direct", "granularity": "group:16"},
        "MXFP4, scale rule floor": {"method": "mxfp4", "scale_rule": "floor"},
    }.items():
        method = lrqmm.get_method(params.pop("method"), **params)
        point = table.loc["uniform01", name]
        found = []
        for seed in range(2):
            A, B = sample("uniform01", 96, 40, 32, seed=seed)
            found.append(relative_error(method.matmul(A[48:], B), exact_product(A[48:], B)))
        assert point["error"] == pytest.approx(np.median(found), rel=1e-4)
        assert point["bits"] == method.cost(48, 40, 32).operand_bits / (48 * 40 + 40 * 32)
    board = make("table6_leaderboard", run)
    assert {"direct", "direct, signed levels", "MXFP4, scale rule floor"} <= set(board["method"])
    assert not board["method"].duplicated().any()


def test_calibration_on_the_measured_operand_is_not_ranked(run):
    every = rivals.points(run)
    table = rivals.fair(every)
    assert set(table.loc[table["method"] == "qera", "calibration"]) == {"held_out"}
    assert len(every) == len(table) + 2
    only_same = every[every["calibration"] != "held_out"]
    assert len(rivals.fair(only_same)) == len(only_same)
    board = make("table6_leaderboard", run).set_index("method")
    assert board.loc["QERA", "calibration"] == "held_out"
    (column,) = [name for name in board if "on itself" in name]
    assert board[column].notna().sum() == 1
    assert sorted(board["best rank"])[0] == 1


def test_times_are_those_of_products_with_b_prepared(run):
    table = rivals.timed(run)
    assert set(table["method"]) == {*METHODS} - {"mxfp4"}  # which is imitated: no time
    assert (table["slowness"] > 0).all()
    errors = rivals.fair(rivals.points(run)).set_index(["input", "name"])["error"]
    assert {"direct", "direct, signed levels"} <= set(table["name"])
    assert table.set_index(["input", "name"])["error"].to_dict().items() <= dict(errors).items()
    assert set(table.loc[table["method"] == "qera", "calibration"]) == {"held_out"}
    seconds = run.measurements.query("metric == 'seconds' and phase.isna()")
    floats = seconds["method"].isin(["sgemm", "bf16"])
    assert not seconds.loc[floats, "b_prepared"].any()
    assert seconds.loc[~floats, "b_prepared"].all()
    figure = make("rivals", run)
    assert len(figure.axes) == 4
    by_bits, by_time = ({*axis.get_legend_handles_labels()[1]} for axis in figure.axes[:2])
    directs = {"direct", "direct, signed levels", "direct, 8 bits, groups of 16"}
    assert by_bits == directs - {"direct, 8 bits, groups of 16"}  # of ten bits here
    assert by_time == {*directs, "LRQMM"}  # its factors take over 8.5 bits of matrices this small
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == by_time
    beside = {text.get_text() for axis in figure.axes for text in axis.texts}
    assert "SGEMM" not in beside
    assert beside.isdisjoint(by_time)


def test_names_at_the_right_do_not_overlap(run):
    figure = make("rivals", run)
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda box: box.y0)
        for lower, upper in pairwise(boxes):
            assert upper.y0 > lower.y0 + 0.6 * lower.height


def test_predictions_are_beside_what_was_measured(run):
    table = prediction.points(run)
    assert set(table["method"]) == {"direct"}
    assert len(table) == 12
    settings = [{}, {"levels": "signed"}, {"bits": 8, "granularity": "group:16"}]
    methods = [lrqmm.get_method("direct", **{"bits": 4, **setting}) for setting in settings]
    for point in table.itertuples():
        direct = methods[point.setting]
        A, B = sample(point.input, 96, 40, 32, seed=point.input_seed)
        missed = relative_error(direct.matmul(A[48:], B), exact_product(A[48:], B))
        assert point.measured == pytest.approx(missed, rel=1e-4)
        assert point.predicted == pytest.approx(direct.predicted_error(A[48:], B), rel=1e-3)
    assert "of 12 products" in make("prediction", run).axes[0].get_title()


def test_a_run_of_errors_alone_has_one_column(tmp_path):
    only = {"rivals": {**STUDY["rivals"], "methods": ["direct", "lrqmm"]}}
    run = read_run(measure(tmp_path / "run", experiments=only))
    assert len(make("rivals", run).axes) == 2
    with pytest.raises(NothingToDraw):
        make("rivals", read_run(measure(tmp_path / "other")))
