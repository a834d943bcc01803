"""What figures and tables take from a run, how they tell settings apart, what is said of them."""

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import lrqmm
from lrqmm import methods
from lrqmm.figures import (
    NothingToDraw,
    _data,
    _page,
    _style,
    findings,
    list_figures,
    make,
    met_by,
    rivals_networks,
    save,
    save_all,
    show,
    without_figure,
)  # fmt: skip
from lrqmm.figures.figure4_transformers import _short
from lrqmm.run.read import read_run

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "results/reference/networks-cpu-2core"


@cache
def reference(name):
    return read_run(FOLDER.with_name(name))


@pytest.fixture(scope="module")
def run():
    return reference(FOLDER.name)


def changed(run, select, **columns):
    """The run with rows that are copies of others, but for some columns."""
    more = run.networks[select(run.networks)].assign(**columns)
    return replace(run, networks=pd.concat([run.networks, more], ignore_index=True))


def resnet50(table):
    return (table["network"] == "resnet50") & (table["method"] == "lrqmm") & (table["rank"] == 16)


def test_settings_that_differ_in_anything_are_rows_of_their_own(run):
    before = make("table4_accuracy", run)
    for how in (
        {"parameters": json.dumps({"terms": "first"})},
        {"shard": "another"},
        {"reference": "mine: float32"},
        {"ranks_within": 5.0},
        {"keep": "conv1", "shard": "another"},
    ):
        after = make("table4_accuracy", changed(run, resnet50, **how))
        assert len(after) == len(before) + 2, how  # 1 and 10 pictures a GEMM
    make("figure8_accuracy", changed(run, resnet50, parameters="{}"))


def test_failed_settings_are_rows_with_a_reason(run):
    broken = changed(
        run, lambda t: resnet50(t) & (t["metric"] == "kl") & (t["per_gemm"] == 10),
        shard="broken", value=None, status="failed", reason="out of memory",
    )  # fmt: skip
    table = make("table4_accuracy", broken)
    (reason,) = table["failed"].dropna()
    assert reason == "out of memory"
    only = replace(broken, networks=broken.networks[broken.networks["status"] == "failed"])
    with pytest.raises(NothingToDraw, match="1 failed, the first: out of memory"):
        make("table4_accuracy", only)
    assert "1 failed" in show("table4_accuracy", only)["note"][0]


def test_usual_settings_have_one_line_a_method(run):
    extras = (
        {"keep": "conv1"}, {"ranks_within": 5.0}, {"sides": "b"}, {"rounding": "truncate"},
        {"granularity": "tensor"}, {"zero_point_a": "integer"}, {"bits_a": 8}, {"per_gemm": 1},
        {"data": "others"}, {"reference": "mine: float32"}, {"parameters": "{}"},
        {"levels": "signed"},
    )  # fmt: skip
    want = _data.usual(_data.networks(run, "own_error"))
    for how in extras:
        more = changed(run, resnet50, **how)
        found = _data.usual(_data.networks(more, "own_error"))
        assert len(found) == len(want), how
        assert not found.duplicated(["network", "bits", "method", "layer"]).any()
    ranks = want[want["network"] == "llama"].groupby("bits")["rank"].max()
    assert ranks.to_dict() == {4: 64, 8: 16}


def test_blocks_of_layers():
    names = pd.Series(
        ["model.layers.3.mlp.up_proj", "lm_head", "res2a_branch1", "features.10.conv"]
    )
    found = _data.blocks(names)
    assert found["kind"].tolist() == ["mlp.up_proj", "lm_head", "res2a_branch1", "conv"]
    assert found["block"].tolist() == [3, pd.NA, pd.NA, 10]


def test_kinds_have_short_names_of_their_own():
    kinds = ["attention.self.query", "attention.output.dense", "output.dense", "mlp.up_proj"]
    assert list(_short(kinds).values()) == ["query", "attention output", "output", "up"]


COMPOSITIONS = FOLDER.with_name("compositions-cpu-2core")


def test_rivals_in_networks_are_points_with_names():
    run = read_run(COMPOSITIONS)
    table = rivals_networks.points(run)
    assert not table.duplicated(["network", "name", "data"]).any()
    own = run.networks[run.networks["layer"].isna() & (run.networks["method"] == "lopro")]
    (point,) = table[table["method"] == "lopro"].itertuples()
    for column, metric in (("x", "average_bits"), ("error", "relative_error")):
        (value,) = own.loc[own["metric"] == metric, "value"]
        assert getattr(point, column) == value
    assert (point.name, point.calibration) == ("LoPRo r=16", "held_out")
    names = {text.get_text() for axis in make("rivals_networks", run).axes for text in axis.texts}
    assert {"direct", "LRQMM r=16", "product-aware r=16", "LoPRo r=16"} <= names


def test_signed_levels_are_points_of_their_own(run, study):
    more = changed(run, resnet50, levels="signed", parameters="{}")
    before, after = (rivals_networks.points(each) for each in (run, more))
    assert set(after["name"]) - set(before["name"]) == {"LRQMM r=16, signed levels"}
    words = {text.get_text() for axis in make("figure8_accuracy", more).axes for text in axis.texts}
    assert {"16", "16, signed"} <= words

    table = study.measurements
    own = table.query("bits == 4 and method == 'lrqmm' and rounding == 'nearest'")
    own = own[own["experiment"].isin(["rank", "resnet50"])]
    signed = own.assign(levels="signed", value=own["value"] / 7)
    more = replace(study, measurements=pd.concat([table, signed], ignore_index=True))
    usual, other = "LRQMM (paper)", "LRQMM (paper), signed levels"
    with_both = lines(make("figure3a_rank", more).axes[0])
    np.testing.assert_array_equal(
        with_both[usual], lines(make("figure3a_rank", study).axes[0])[usual]
    )
    np.testing.assert_allclose(with_both[other][1], with_both[usual][1] / 7)
    layers = lines(make("figure4_layers", more).axes[0])
    np.testing.assert_allclose(layers["LRQMM + signed levels"][1], layers["LRQMM"][1] / 7)
    rows = make("table4_layers", more).set_index(["bits", "method"])["median"]
    assert rows[4, "lrqmm + signed levels"] == pytest.approx(rows[4, "lrqmm"] / 7)


def lines(axis):
    return {line.get_label(): np.array(line.get_data(), float) for line in axis.get_lines()}


def test_ranks_of_table_2_are_columns_of_their_own(study):
    table = study.measurements
    here = table[table["experiment"] == "distributions"]
    doubled = here[here["method"] == "lrqmm"].assign(rank=100, value=7.0)
    made = make("table2_distributions", replace(study, measurements=pd.concat([table, doubled])))
    rank = int(here.loc[here["method"] == "lrqmm", "rank"].iloc[0])
    columns = [name for name in made.columns if name.startswith("lrqmm r=")]
    assert columns == [f"lrqmm r={rank}", "lrqmm r=100"]
    assert (made["lrqmm r=100"] == 7).all()
    before = make("table2_distributions", study)["lrqmm"]
    np.testing.assert_array_equal(made[f"lrqmm r={rank}"], before)


def test_ranks_and_bits_of_figure_5b_are_told_apart(study):
    table = study.measurements
    timed = table["experiment"] == "time"
    one = table[timed & (table["n"] == 1024)]
    own = one[one["method"] == "lrqmm"]
    more = [one, own.assign(rank=4), one[one["method"] != "sgemm"].assign(bits=4)]
    figure = make("figure5b_speed", replace(study, measurements=pd.concat(more)))
    panels = {axis.get_title().removeprefix("torch, fast path, "): axis for axis in figure.axes}
    assert set(panels) == {"8 bits", "4 bits", "float"}
    words = {text.get_text() for text in panels["8 bits"].texts}
    assert {"LRQMM, r=4", "LRQMM, r=16"} <= words
    figure.canvas.draw()
    width = figure.bbox.width
    for text in figure.findobj(Text):
        assert text.get_window_extent().x1 <= width + 1, text.get_text()


def test_whole_calls_are_beside_the_times_without_them(study):
    table = study.measurements
    one = table[(table["experiment"] == "time") & (table["n"] == 1024)]
    own = one[(one["metric"] == "seconds") & one["phase"].isna() & (one["method"] == "lrqmm")]
    calls = own.assign(metric="call_seconds", value=2 * own["value"])
    more = replace(study, measurements=pd.concat([one, calls], ignore_index=True))
    before = make("table5_speed", replace(study, measurements=one)).set_index(
        ["method", "B prepared"]
    )
    after = make("table5_speed", more).set_index(["method", "B prepared"])
    assert not [name for name in before if "called" in name]
    assert after["as called, ms"].loc["direct"].isna().all()
    core = after.loc["lrqmm", "ms"]
    np.testing.assert_allclose(after.loc["lrqmm", "as called, ms"], 2 * core)
    for prepared in (False, True):
        whole, alone = (
            float(after.loc[("lrqmm", prepared), f"{how}times SGEMM's speed"].split()[0])
            for how in ("as called, ", "")
        )
        assert whole == pytest.approx(alone / 2, abs=0.01)
    (panel,) = make("figure5b_speed", more).axes
    handles, labels = panel.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    names = ("LRQMM (paper)", "LRQMM (paper), as called")
    speeds = [np.array(found[name].lines[0].get_ydata(), float) for name in names]
    np.testing.assert_allclose(speeds[0], 2 * speeds[1])
    assert "direct, as called" not in found


def test_figure_8_leaves_rivals_to_their_own(run):
    found = make("figure8_accuracy", read_run(COMPOSITIONS))
    shown = {label for axis in found.axes for label in axis.get_legend_handles_labels()[1]}
    assert shown
    assert not {"lopro", "resq", "hadamard"} & shown


@pytest.fixture(scope="module")
def study():
    return reference("cpu-2core")


DRAWN = [drawing.name for drawing in list_figures() if drawing.function == "draw"]


@pytest.mark.parametrize("name", [drawing.name for drawing in list_figures()] + ["explorer"])
def test_a_caption_says_in_three_sentences_what_is_shown(name):
    caption = (ROOT / f"workflow/report/{name}.rst").read_text().strip()
    assert len(re.findall(r"[.!?](?=\s|$)", caption)) == 3
    assert caption.endswith(".")
    assert not re.search(r"(?<!`)`(?!`)|\*|::", caption)  # the same words in Markdown
    runs = re.findall(r"reference runs? ``([^`]+)``", caption)
    assert all((FOLDER.parent / run).is_dir() for run in runs)


def test_every_caption_belongs_to_something():
    names = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    assert names == {drawing.name for drawing in list_figures()} | {
        "explorer",
        "figure",
        "workflow",
    }


@pytest.mark.parametrize("name", DRAWN)
def test_figures_fit_a_paper(name):
    """Two columns or one; no text below the smallest size; every axis with numbers has two."""
    for each in map(reference, sorted(folder.name for folder in FOLDER.parent.iterdir())):
        try:
            figure = make(name, each)
            break
        except NothingToDraw:
            continue
    assert figure.get_figwidth() in (_style.WIDTH, _style.COLUMN)
    assert figure.get_figheight() <= 9
    figure.canvas.draw()
    assert min(text.get_fontsize() for text in figure.findobj(Text)) >= _style.SMALL
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
            assert not axes.axison or not ticks or len(ticks) >= 2, (axes.get_title(), ticks)
            shown = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_text()]
            if axis is axes.xaxis and axes.get_xscale() != "linear":
                assert all(a.x1 < b.x0 for a, b in pairwise(shown))
    _style.close(figure)


def test_a_method_says_its_title(tmp_path, monkeypatch):
    text = "from lrqmm.products.composition import Preset\n"
    text += 'METHOD = Preset("with_title", title="With title (new)", short="mine")\n'
    (tmp_path / "with_title.py").write_text(text)
    assert _style.label("with_title") == _style.short_label("with_title") == "with title"
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert _style.label("with_title") == "With title (new)"
    assert _style.label("hadamard+with_title") == _style.short_label("hadamard+with_title")
    assert _style.short_label("hadamard+with_title") == "Hadamard+mine"
    for name in ("with_title", "ozaki", "sgemm"):  # of every kind
        assert not {"title", "short"} & lrqmm.get_method(name).parameters.keys()


def test_known_methods_differ_in_colour_or_marker():
    looks = [(str(colour), marker) for colour, marker in _style.LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert _style.colour("my_own") == _style.colour("my_own")


@pytest.mark.parametrize(
    ("low", "high", "x", "words"),
    [(0.01, 3, 0.5, "0.5"), (1e-7, 1, 1e-6, "$10^{-6}$"), (1e-6, 1e-4, 2e-6, r"$2\times10^{-6}$")],
)
def test_logarithmic_axes_have_plain_numbers(low, high, x, words):
    _style.use()
    figure = _style.notice("")
    (axis,) = figure.axes
    _style.log(axis, "y")
    axis.set_ylim(low, high)
    assert axis.yaxis.get_major_formatter()(x) == words
    _style.close(figure)


@pytest.mark.parametrize(
    "wanted", [[], [0.5], [0.1, 0.9], [0.5, 0.5, 0.52], [0.0, 0.0], [1.0, 1.0, 1.0]]
)
def test_names_are_moved_apart_no_more_than_needed(wanted):
    places = _style._apart(wanted, 0.1)
    assert np.all(np.diff(places) >= 0.1 - 1e-12)
    assert all(0 <= place <= 1 for place in places)
    if min(np.diff(wanted), default=1) >= 0.1:
        assert places == pytest.approx(wanted)


def test_lines_are_named_at_their_ends(study):
    figure = make("figure3a_rank", study)
    for axis in figure.axes:
        names = {text.get_text() for text in axis.texts}
        assert {"direct", "LRQMM", "product-aware", "mean fix", "SGEMM"} <= names
        assert axis.get_legend() is None
    _style.close(figure)


def test_findings_say_what_a_mean_fix_wins_of_the_gain(study):
    found = findings.origin(study).reset_index().set_index(["input", "rounding"])
    gains = make("table_ablation", study).groupby(["input", "rounding", "method"])["gain"].max()
    for case in (("uniform01", "truncate"), ("exponential", "nearest")):
        removed = {method: 1 - 1 / gains[(*case, method)] for method in ("lrqmm", "mean_fix")}
        part = found.loc[case, ("part", "")].item()
        assert part == pytest.approx(removed["mean_fix"] / removed["lrqmm"])
    assert np.isnan(found.loc[("normal", "nearest"), ("part", "")].item())  # LRQMM wins too little


def contest(*points):
    columns = ["method", "x", "error"]
    table = pd.DataFrame(points, columns=columns).assign(price="bits", where="here")
    ours = [any(part in findings.OURS for part in name.split("+")) for name in table["method"]]
    return table.assign(name=table["method"], low=table["error"], high=table["error"], ours=ours)


@pytest.mark.parametrize(
    ("rivals", "wins", "rival"),
    [
        (
            [("direct", 4, 0.2), ("affine", 5, 0.15)],
            True,
            "affine",
        ),  # the most exact of the cheaper
        ([("direct", 4, 0.104), ("affine", 5, 0.01)], False, "direct"),  # the cheapest as good
        ([("direct", 4, 0.2), ("bf16", 16, 0.001)], True, "direct"),  # that costs more
    ],
)
def test_a_setting_wins_where_no_rival_is_as_good_for_no_more(rivals, wins, rival):
    (found,) = findings.verdicts(contest(("lrqmm", 6, 0.1), *rivals)).itertuples()
    assert (found.wins, found.rival_name) == (wins, rival)


def test_settings_that_another_of_ours_beats_are_not_first_and_useless_ones_are_left_out():
    points = [("direct", 4, 0.5), ("lrqmm", 6, 0.1), ("lrqmm_aware", 6, 0.05), ("lrqmm", 7, 1.2)]
    found = findings.verdicts(contest(*points))
    assert found["first"].tolist() == [False, True]
    assert findings.verdicts(contest(("lrqmm", 6, 0.1))).empty  # beside nothing


def test_nothing_slower_than_the_float_network_wins_on_time(run):
    table, missing = findings.contests(run)
    found = findings.verdicts(table)
    slower = (found["price"] == "time / float network's") & (found["x"] >= 1)
    assert slower.any()
    assert not found.loc[slower, "wins"].any()
    assert any("rivals" in reason for reason in missing)


class Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_findings_are_a_page_with_headings_and_headed_tables(study, tmp_path):
    (path,) = save("findings", study, tmp_path)
    page = path.read_text()
    parts = Parts()
    parts.feed(page)
    tags = [tag for tag, _ in parts.found]
    assert ("html", {"lang": "en"}) in parts.found
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("h2") == tags.count("section") == 5  # what is missing has one too
    assert all(about.get("scope") in ("col", "row") for tag, about in parts.found if tag == "th")
    assert not {"script", "link", "img"} & set(tags)
    assert "color-scheme: light dark" in page
    for fact in (study.environment["packages"]["torch"], study.measurements["git_commit"].iloc[0]):
        assert fact in page
    assert "This run has no relative error of the experiment &#x27;rivals&#x27;." in page


def test_findings_of_a_run_without_any_say_so(study):
    nothing = replace(study, measurements=study.measurements[:0], networks=study.networks[:0])
    with pytest.raises(NothingToDraw, match="ablation"):
        make("findings", nothing)
    assert "ablation" in _page.text(show("findings", nothing))


# what a figure needs


def without(run, experiments):
    """The run without the rows of some experiments."""
    tables = {kind: getattr(run, kind) for kind in ("measurements", "networks", "arrays")}
    left = {kind: table[~table["experiment"].isin(experiments)] for kind, table in tables.items()}
    return replace(run, **left)


@pytest.mark.parametrize("drawing", list_figures(), ids=lambda drawing: drawing.name)
def test_a_figure_needs_what_it_says_and_nothing_else(drawing):
    """A run of the experiments that it names is enough, and without any one of them it is none."""
    for each in map(reference, sorted(folder.name for folder in FOLDER.parent.iterdir())):
        study = json.loads((each.folder / "manifest.json").read_text())["study"]
        experiments = study["experiments"]
        if drawing.missing(experiments):
            continue
        try:
            make(drawing.name, each)
        except NothingToDraw:  # of networks without blocks, of errors without predictions
            continue
        break
    needed = [
        {name for name, about in experiments.items() if met_by(name, about) & {*need.split(" or ")}}
        for need in drawing.needs
    ]
    only = without(each, {*experiments} - set().union(*needed))
    make(drawing.name, only)
    for names in needed:
        with pytest.raises(NothingToDraw):
            make(drawing.name, without(only, names))
    _style.plt.close("all")


def test_what_was_planned_but_is_not_there_is_not_drawn(study, tmp_path):
    one = without(study, {*study.measurements["experiment"]} - {"rank"})
    one = replace(one, networks=one.networks[:0], arrays=one.arrays[:0])
    stale = tmp_path / "figures/figure3b_size.png"
    stale.parent.mkdir()
    stale.write_text("of an earlier drawing")
    paths = {path.relative_to(tmp_path).as_posix() for path in save_all({tmp_path: one}, 1)}
    drawn = {"figures/figure3a_rank.png", "figures/figure3a_rank.pdf", "tables/left_out.html"}
    assert paths == drawn
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")} == drawn
    page = (tmp_path / "tables/left_out.html").read_text()
    for drawing in list_figures():
        assert (f">{drawing.name}<" in page) == (drawing.name != "figure3a_rank")
    assert "growth, growth_rank, shapes" in page
    promised = save_all({tmp_path: one}, 1, {"table3_rank_size"})  # Snakemake waits for it
    assert tmp_path / "tables/table3_rank_size.csv" in set(promised)


def test_experiments_that_no_figure_draws_are_named():
    measures = {"rank": "error", "rnak": "error", "rivals_time": "time", "mine": "network"}
    assert without_figure({name: {"measure": each} for name, each in measures.items()}) == [
        "experiment 'rnak': no figure draws it by this name (did you mean 'rank'?)"
    ]
