"""From a configuration to shards; every mistake in one is named before anything is measured."""

import copy
import datetime
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import lrqmm
from lrqmm import methods
from lrqmm.bench import environment
from lrqmm.bench.configuration import as_typed, check_keys
from lrqmm.bench.sources.distributions import DISTRIBUTIONS
from lrqmm.bench.study import ConfigError, plan, schema, without_meaningless

ROOT = Path(__file__).parent.parent
STUDY = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def config(experiment=None, **top):
    """A small valid configuration, with changes."""
    own = {
        "measure": "error",
        "inputs": ["uniform01", "normal"],
        "sizes": [16],
        "methods": ["direct", "lrqmm"],
        "settings": {"bits": [4, 8], "rank": [1, 16]},
        **(experiment or {}),
    }
    own = {key: value for key, value in own.items() if value is not None}
    return {"run": "results/test", "experiments": {"one": own}, **top}


def planned(experiment=None, **top):
    return plan(config(experiment, **top))


def shards(*args, **kwargs):
    return {shard.name: shard for shard in planned(*args, **kwargs).shards}


# what a configuration means


def test_the_study_is_planned():
    before = copy.deepcopy(STUDY)
    study = plan(STUDY)
    assert before == STUDY
    assert study.run == "results/default"
    assert {shard.experiment for shard in study.shards} == set(STUDY["experiments"])
    assert len({shard.name for shard in study.shards}) == len(study.shards)
    table = {s.name: s for s in study.shards if s.experiment == "distributions"}
    assert {s.method for s in table.values()} == {
        name for name in lrqmm.list_methods() if methods.preset(name).usual
    }
    assert {i.input for i in table["distributions-direct-torch-0"].inputs} == {
        name for name in DISTRIBUTIONS if not name.startswith("power")
    }
    assert len(table["distributions-direct-torch-0"].settings) == 3 * 2 * 3
    assert len(table["distributions-lrqmm-torch-0"].settings) == 3 * 2 * 2
    layers = next(s for s in study.shards if s.name == "resnet50-lrqmm-torch-0")
    assert len(layers.inputs) == 54
    spectrum, steps = (
        next(s for s in study.shards if s.experiment == name) for name in ("spectrum", "steps")
    )
    assert spectrum.method is steps.method is None
    assert [given.layer for given in steps.inputs] == ["res2a_branch2b"]


def test_a_grid_holds_the_parameters_that_a_method_has():
    found = shards()
    assert set(found) == {"one-direct-torch-0", "one-lrqmm-torch-0"}
    assert found["one-direct-torch-0"].settings == ({"bits": 4}, {"bits": 8})
    assert found["one-lrqmm-torch-0"].settings == tuple(
        {"bits": bits, "rank": rank} for bits in (4, 8) for rank in (1, 16)
    )


def test_overrides_may_be_several_grids():
    grids = [{"zero_point": [None, "integer"]}, {"levels": ["odd", "signed"], "bits": [4, 8]}]
    planned = shards({"settings": {"bits": 4}, "overrides": {"direct": grids}})
    assert list(planned["one-direct-torch-0"].settings) == [
        {"bits": 4, "zero_point": None},
        {"bits": 4, "zero_point": "integer"},
        *({"bits": bits, "levels": kind} for bits in (4, 8) for kind in ("odd", "signed")),
    ]
    with pytest.raises(ConfigError, match=r"overrides\.direct: unknown parameter 'level'"):
        shards({"overrides": {"direct": [{"bits": 4}, {"level": "odd"}]}})
    with pytest.raises(ConfigError, match="levels is 'signed'; allowed: 'odd' where both"):
        shards({"overrides": {"direct": [{"zero_point": "float", "levels": "signed"}]}})


def test_overrides_replace_the_settings_of_one_method():
    found = shards({"overrides": {"direct": {"bits": 3, "zero_point": [None, "integer"]}}})
    assert found["one-direct-torch-0"].settings == (
        {"bits": 3, "zero_point": None},
        {"bits": 3, "zero_point": "integer"},
    )
    assert len(found["one-lrqmm-torch-0"].settings) == 4


def test_inputs_are_sizes_times_seeds():
    study = planned({"sizes": [16, "20x30x40"], "seeds": 2, "inputs": ["normal"]})
    found = [(i.m, i.k, i.n, i.input_seed, i.path) for i in study.shards[0].inputs]
    assert found == [
        (16, 16, 16, 0, "results/inputs/normal/16x16x16-seed0.safetensors"),
        (16, 16, 16, 1, "results/inputs/normal/16x16x16-seed1.safetensors"),
        (20, 30, 40, 0, "results/inputs/normal/20x30x40-seed0.safetensors"),
        (20, 30, 40, 1, "results/inputs/normal/20x30x40-seed1.safetensors"),
    ]
    assert set(study.inputs) == {path for *_, path in found}


def test_inputs_are_split_over_shards_without_loss():
    whole = planned({"sizes": [16, 20], "seeds": 3, "methods": ["direct"]})
    split = planned({"sizes": [16, 20], "seeds": 3, "methods": ["direct"], "inputs_per_shard": 5})
    assert [len(shard.inputs) for shard in split.shards] == [5, 5, 2]
    assert [s.name for s in split.shards] == [f"one-direct-torch-{i}" for i in range(3)]
    assert sum((shard.inputs for shard in split.shards), ()) == whole.shards[0].inputs


def test_libraries_have_shards_of_their_own():
    assert set(shards({"libraries": ["torch", "numpy"], "methods": ["direct"]})) == {
        "one-direct-torch-0",
        "one-direct-numpy-0",
    }


def test_timed_shards_carry_samples_and_baselines():
    (shard,) = planned({"measure": "time", "methods": ["lrqmm"], "samples": 7}).shards
    assert (shard.measure.samples, shard.measure.baselines) == (7, ["sgemm", "direct"])
    (untimed,) = planned({"methods": ["lrqmm"]}).shards
    assert shard.work > 8 * untimed.work


def test_layers_of_resnet50():
    study = planned({"inputs": ["resnet50"], "sizes": None}, resnet50={"pictures": 2})
    (given, *others) = study.shards[0].inputs
    assert len(others) == 53
    assert (given.layer, given.m, given.k, given.n) == ("conv1", 2 * 112 * 112, 147, 64)
    assert given.path == "results/inputs/resnet50-2pictures/conv1.safetensors"
    chosen = planned({"inputs": ["resnet50"], "layers": ["fc1000", "conv1"]})
    assert [i.layer for i in chosen.shards[0].inputs] == ["conv1", "fc1000"]


@pytest.mark.parametrize("asked", ["direct, lrqmm", "direct,lrqmm", ["lrqmm", "direct"]])
def test_subsets_of_methods(asked):
    study = planned({"methods": "all"}, methods=asked)
    assert [shard.method for shard in study.shards] == ["direct", "lrqmm"]
    assert [s.method for s in planned({"methods": asked}).shards] == ["direct", "lrqmm"]


@pytest.mark.parametrize("asked", ["normal,outliers", ["outliers", "normal"], "normal"])
def test_subsets_of_inputs(asked):
    study = planned(inputs=asked)
    for shard in study.shards:
        assert [given.input for given in shard.inputs] == ["normal"]
    assert len(study.shards) == 2


def test_subsets_change_no_shard_that_is_left():
    everything = shards({"methods": "all"})
    for name, shard in shards({"methods": "all"}, methods="lrqmm,two_slice").items():
        assert shard == everything[name]


# what was typed


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("run=20261129", "20261129"),
        ("run=007", "007"),
        ("run=1_000", "1_000"),
        ("run=1e5", "1e5"),
        ("run=true", "true"),
        ("run=null", "null"),
        ("run=~", "~"),
        ("run=2026-11-29", "2026-11-29"),
        ("run='007'", "007"),
        ("run=a: b", "a: b"),
        ("run=[a]", "[a]"),
        ("run=a=b", "a=b"),
        ("run=it's", "it's"),
        ("run=results/a #b", "results/a #b"),
        ("device=cpu", "cpu"),
        ("methods=direct,lrqmm", "direct,lrqmm"),
        ("methods=[direct, lrqmm]", ["direct", "lrqmm"]),
        ("inputs=1024", "1024"),
        ("leave_out=[direct]", ["direct"]),
        ("resnet50={pictures: 3}", {"pictures": 3}),
        ("experiments={one: {settings: {bits: [4, 8], zero_point: null}}}", None),
        ("run=", None),
    ],
)
def test_words_of_the_command_line_stand_as_typed(word, asked):
    key = word.partition("=")[0]
    found = as_typed({}, [word], schema())[key]
    if key == "experiments":
        asked = {"one": {"settings": {"bits": [4, 8], "zero_point": None}}}
    assert found == asked
    assert type(found) is type(asked)


def test_a_number_in_braces_is_a_number():
    merged = config(resnet50={"pictures": "3"})  # as Snakemake makes it
    study = plan(merged, ["resnet50={pictures: 3}"])
    assert study.config["resnet50"] == {"pictures": 3}
    own = "experiments={one: {sizes: [32], settings: {bits: 5}}}"
    (direct, _) = plan(config(), ["run=x", own, "run=2026"]).shards
    assert direct.settings == ({"bits": 5},)  # other keys of the experiment stay
    assert direct.inputs[0].path == "inputs/uniform01/32x32x32-seed0.safetensors"
    assert plan(config(), ["run=x", "run=2026"]).run == "2026"


def test_a_key_that_is_typed_twice_in_braces_is_refused():
    word = "resnet50={pictures: 3, pictures: 4}"
    with pytest.raises(ConfigError, match="config: resnet50: key 'pictures' stands twice, in line"):
        plan(config(), [word])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: a\nexperiments:\n  x: {}\n  y: {}\n  x: {}\n", "'x' stands twice, in lines 3 and 5"),
        ("run: a\nrun: b\n", "'run' stands twice, in lines 1 and 2"),
        ("a: {bits: 4, 'bits': 8}\n", "'bits' stands twice, in line 1;"),
        ("a:\n- b: 1\n  b: 2\n", "'b' stands twice, in lines 2 and 3"),
        ('{"experiments": {"x": 1, "x": 2}}', "'x' stands twice; allowed: once"),
        ('{"a":\t[{"x": 1,\t"x": 2}]}', "'x' stands twice; allowed: once"),
    ],
)
def test_a_key_that_stands_twice_in_a_file_is_refused(text, said, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"config: {path}: key {said}"):
        check_keys(path)


def test_keys_that_are_merged_stand_once(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc:\n  <<: *b\n  x: 4\nd: {x: 1, y: {x: 1}}\n"
    )
    check_keys(path)
    for path in (ROOT / "config").rglob("*.yaml"):
        check_keys(path)


# users' own matrices


@pytest.fixture
def own(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "A.npy", rng.random((8, 20)))
    np.save(tmp_path / "vector.npy", rng.random(8))
    save_file(
        {"B": rng.random((20, 12)), "weight": rng.random((12, 20))}, tmp_path / "B.safetensors"
    )
    (tmp_path / "torn.npy").write_bytes((tmp_path / "A.npy").read_bytes()[:50])
    (tmp_path / "text.npz").write_text("1 2 3")
    with open(tmp_path / "npy.npz", "wb") as stream:
        np.save(stream, rng.random((20, 4)))
    return tmp_path


def with_own(A, B, name="mine", **how):
    experiment = {"inputs": [name], "sizes": None, "settings": {"bits": 4}}
    return planned(experiment, matrices={name: {"A": A, "B": B, **how}})


def test_own_matrices(own):
    for B, how in (("B", {}), ("weight", {"transpose_B": True})):
        study = with_own(f"{own}/A.npy", f"{own}/B.safetensors:{B}", **how)
        (given,) = study.shards[0].inputs
        assert (given.input, given.m, given.k, given.n) == ("mine", 8, 20, 12)
        assert given.path == "results/inputs/matrices/mine.safetensors"
        assert given.input_seed is given.layer is None


@pytest.mark.parametrize(
    ("A", "B", "how", "said"),
    [
        ("A.npy", "B.safetensors:weight", {}, "A is 8 x 20 and B 12 x 20; allowed: .*transpose_B"),
        ("A.npy", "B.safetensors:B", {"transpose_B": True}, "A is 8 x 20 and B 12 x 20; allowed"),
        ("A.npy", "none.npy", {}, "none.npy cannot be read: .*No such file"),
        ("A.npy", "torn.npy", {}, "torn.npy cannot be read"),
        ("A.npy", "text.npz", {}, "text.npz cannot be read"),
        ("A.npy", "npy.npz", {}, "npy.npz"),
        ("A.npy", "B.safetensors", {}, "B.safetensors: several arrays.*it has: B, weight"),
        ("A.npy", "B.safetensors:b", {}, "B.safetensors: no array 'b'; it has: B, weight"),
        (
            "vector.npy",
            "B.safetensors:B",
            {},
            r"vector.npy has shape \(8,\) and dtype float64; allowed: two dimen",
        ),
        ("A.csv", "B.safetensors:B", {}, r"A.csv: allowed are \.npy"),
    ],
)
def test_own_matrices_that_will_not_do(own, A, B, how, said):
    with pytest.raises(ConfigError, match=rf"config: experiments\.one: matrices\.mine: .*{said}"):
        with_own(f"{own}/{A}", f"{own}/{B}", **how)


def test_own_matrices_of_short_floats(own):
    B = torch.ones(20, 12)
    kinds = {"bf16": torch.bfloat16, "f16": torch.float16, "f8": torch.float8_e5m2}
    save_torch({name: B.to(dtype) for name, dtype in kinds.items()}, own / "short.safetensors")
    for name in ("bf16", "f16"):
        (given,) = with_own(f"{own}/A.npy", f"{own}/short.safetensors:{name}").shards[0].inputs
        assert (given.m, given.k, given.n) == (8, 20, 12)
    said = r"matrices\.mine: .*:f8 has .* dtype F8_E5M2; allowed: .* floats of 16 bits or more"
    with pytest.raises(ConfigError, match=said):
        with_own(f"{own}/A.npy", f"{own}/short.safetensors:f8")


@pytest.mark.parametrize("name", ["normal", "resnet50", "all"])
def test_own_matrices_need_a_name_of_their_own(own, name):
    with pytest.raises(ConfigError, match=name):
        with_own(f"{own}/A.npy", f"{own}/B.safetensors:B", name=name)


# mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"experimets": {}},
            r"'experimets' at the top \(did you mean 'experiments'\?\); allowed: d",
        ),
        ({"device": "gpu"}, r"device is 'gpu' \(did you mean 'cpu'\?\); allowed: auto, cpu, cuda"),
        ({"run": ""}, "at run: ''"),
        ({"run": None}, "run is empty; allowed: text"),
        ({"run": 20261129}, "run is 20261129, a number in YAML; allowed: text, so put quotes"),
        ({"run": 1e5}, r"run is 100000\.0, a number in YAML; allowed: text, so put quotes"),
        ({"run": True}, "run is True, yes or no in YAML; allowed: text, so put quotes"),
        ({"run": datetime.date(2026, 11, 29)}, "run is 2026-11-29, a date in YAML; allowed: text"),
        (
            {"run": "results/{shard}"},
            r"run is 'results/\{shard\}'; allowed: .* without \{ and \}",
        ),
        ({"run": "a}"}, r"run is 'a\}'; allowed: .* without \{ and \}"),
        ({"run": "a/<results>"}, "run is 'a/<results>'; allowed: a path without <results>"),
        (
            {"matrices": {"mine": {"A": "a.npy", "B": "<b>/b.npy"}}},
            r"matrices\.mine\.B is '<b>/b\.npy'; allowed: a path without <b>",
        ),
        (
            {"experiments": {"x": {"measure": "network", "network": "llama", "data": "<temp>"}}},
            r"experiments\.x\.data is '<temp>'; allowed: a path without <temp>",
        ),
        ({"run": "~/run"}, "run is '~/run'; allowed: the path of a folder, in full, without ~"),
        ({"run": "a\nb"}, r"run is 'a\\nb'; allowed: .* that can be printed"),
        ({"run": "a\udcff"}, r"run is 'a\\udcff'; allowed: .* that can be printed"),
        ({"run": __file__}, r"test_study\.py', which is a file; allowed: the path of a folder"),
        ({"device": 3}, "device is 3; allowed: auto, cpu, cuda"),
        ({"methods": 3}, "methods is 3, a number in YAML; allowed: text"),
        ({"inputs": ["normal", 1024]}, r"inputs\.1 is 1024, a number in YAML; allowed: text"),
        ({2026: {}}, "at the top: key 2026 is a number in YAML; allowed: text, so put quotes"),
        (
            {"experiments": {True: {"measure": "error"}}},
            "at experiments: key True is yes or no in YAML; allowed: text, so put quotes",
        ),
        (
            {"experiments": {"x": {"overrides": {"direct": {None: 1}}}}},
            r"at experiments\.x\.overrides\.direct: key None is nothing in YAML; allowed: text",
        ),
        (
            {"methods": "direct,lrqmn"},
            r"methods: unknown name 'lrqmn' \(did you mean 'lrqmm'\?\); all",
        ),
        ({"methods": ["all", "lrqmm"]}, "methods: unknown name 'all'"),
        (
            {"inputs": "normla"},
            r"inputs: unknown name 'normla' \(did you mean 'normal'\?\); allowed: ",
        ),
        ({"inputs": "outliers"}, "no experiment is left"),
        ({"resnet50": {"pictures": 0}}, r"at resnet50\.pictures: 0 is less than the minimum of 1"),
        ({"resnet50": {"pictures": 21}}, r"at resnet50\.pictures: 21 is greater than .* 20"),
        ({"resnet50": {"images": 2}}, "unknown key 'images' at resnet50; allowed: pictures"),
        ({"experiments": {}}, "at experiments: {}"),
        ({"experiments": None}, "at experiments: None"),
        ({"experiments": {"Bad Name": {"measure": "error", "inputs": ["normal"]}}}, "'Bad Name'"),
        ({"matrices": {"mine": {"A": "x.npy"}}}, r"at matrices\.mine: 'B' is a required property"),
        (
            {"matrices": {"mine": {"A": "x", "B": "y", "C": "z"}}},
            "'C' at matrices.mine.*allowed: A, B",
        ),
    ],
    ids=str,
)
def test_mistakes_at_the_top(change, said):
    with pytest.raises(ConfigError, match=said):
        plan({**config(), **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"measure": "time", "held_out": True},
            r"unknown key 'held_out' at experiments\.one with measure: time; "
            "allowed: with measure: error$",
        ),
        ({"samples": 7}, "'samples' at .*one with measure: error; allowed: with measure: time$"),
        (
            {"measure": "spectrum"},  # whose experiment has methods here
            "'methods' at .* with measure: spectrum; allowed: with measure: count, error, network",
        ),
        ({"sizez": [1]}, r"'sizez' at experiments\.one \(did you mean 'sizes'\?\); allowed: case"),
        (
            {"measure": "time", "sample": 3},
            r"'sample' at .*did you mean 'samples'\?.*; allowed: as_called, base",
        ),
        (
            {"measure": "errors"},
            r"one\.measure is 'errors' \(did you mean 'error'\?\); allowed: 'count', 'error'",
        ),
        (
            {"measure": None},
            r"at experiments\.one: 'measure' is a required property; allowed: count, error",
        ),
        (
            {"inputs": ["uniform"]},
            r"one\.inputs: unknown name 'uniform' .*; allowed: uniform01, uniform11",
        ),
        ({"inputs": []}, r"at experiments\.one\.inputs: \[\]"),
        (
            {"inputs": "normal"},
            r"at experiments\.one\.inputs: 'normal' is no list \(Distributions, `resnet50`",
        ),
        (
            {"methods": ["lrqm"]},
            r"one\.methods: unknown name 'lrqm' \(did you mean 'lrqmm'\?\); allowed",
        ),
        (
            {"measure": "time", "baselines": ["sgem"]},
            r"one\.baselines: unknown name 'sgem' \(did you mean 'sgemm'\?\)",
        ),
        ({"libraries": ["jax"]}, r"one\.libraries\.0 is 'jax'.*; allowed: torch, numpy, cupy"),
        (
            {"layers": ["conv2"], "inputs": ["resnet50"]},
            r"one: layers is 'conv2' .did you mean 'conv1'.*allowed",
        ),
        ({"sizes": None}, r"experiments\.one: sizes is missing, and uniform01 needs it"),
        ({"sizes": []}, r"at experiments\.one\.sizes: \[\]"),
        ({"sizes": [0]}, r"at experiments\.one\.sizes\.0: 0 .*1"),
        ({"sizes": ["16"]}, r"at experiments\.one\.sizes\.0: '16'"),
        ({"sizes": ["4x0x4"]}, r"at experiments\.one\.sizes\.0: '4x0x4'"),
        ({"sizes": [16.0]}, r"experiments\.one\.sizes\.0.*16\.0"),
        ({"seeds": 0}, r"at experiments\.one\.seeds: 0 is less than the minimum of 1"),
        ({"seeds": 2.0}, r"experiments\.one\.seeds.*2\.0"),
        ({"inputs_per_shard": 2.0}, r"experiments\.one\.inputs_per_shard.*2\.0"),
        ({"measure": "time", "samples": 2}, r"at experiments\.one\.samples: 2 is less than .* 3"),
        ({"measure": "time", "samples": 3.0}, r"experiments\.one\.samples.*3\.0"),
        ({"sizes": [16, 16]}, r"at experiments\.one\.sizes: \[16, 16\] has non-unique"),
        ({"settings": {"bits": [4, 8, 4]}}, r"settings\.bits: \[4, 8, 4\]"),
        ({"settings": {"bits": 9}}, "one: method direct: bits is 9; allowed: an integer 2 to 8"),
        ({"settings": {"bits": 4.0}}, r"bits.* 4\.0"),
        ({"settings": {"bits": True}}, r"at experiments\.one\.settings\.bits: True"),
        (
            {"settings": {"bits": "4"}},
            "one: method direct: bits is '4'; allowed: an integer 2 to 8",
        ),
        (
            {"settings": {"rank": -1}},
            "one: method lrqmm: rank is -1; allowed: an integer of at least 0",
        ),
        ({"settings": {"rank": [1, 17]}}, "one: method lrqmm: rank is 17; allowed: 0 to .* = 16"),
        (
            {"settings": {"rnk": 1}},
            r"one\.settings: unknown parameter 'rnk' \(did you mean 'rank'\?\)",
        ),
        (
            {"settings": {"terms": "some"}},
            "lrqmm: terms is 'some'; allowed: 'first', 'full', 'exact'",
        ),
        ({"settings": {"bits": []}}, r"at experiments\.one\.settings\.bits: \[\]"),
        (
            {"overrides": {"dirct": {"bits": 4}}},
            r"one\.overrides: unknown name 'dirct' \(did you mean 'direct'\?\); allowed",
        ),
        (
            {"overrides": {"direct": {"rank": 4}}},
            r"one\.overrides\.direct: unknown parameter 'rank'; allowed: bits, bits_a, execution",
        ),
        ({"overrides": {"lrqmm": {"rank": 17}}}, "method lrqmm: rank is 17; allowed: 0 to .* = 16"),
        (
            {"measure": "spectrum", "methods": None, "settings": {"bits": 9}},
            r"one\.settings: bits is 9; allowed: an integer 2 to 8",
        ),
        (
            {"measure": "spectrum", "methods": None, "settings": {"rank": 4}},
            r"one\.settings: unknown parameter 'rank'; allowed: bits, granularity, levels, round",
        ),
        (
            {"measure": "steps", "methods": None, "settings": {"bits": 4}},
            r"one\.settings: rank is None; allowed: an integer 1 to 32",
        ),
        (
            {"measure": "steps", "methods": None, "settings": {"bits": 4, "rank": 33}},
            r"one\.settings: rank is 33; allowed: an integer 1 to 32",
        ),
    ],
    ids=str,
)
def test_mistakes_in_an_experiment(change, said):
    with pytest.raises(ConfigError, match=rf"config: .*{said}"):
        planned(change)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"methods": ["direct"]},
            "method direct, which has no rank; allowed: .*lrqmm, lrqmm_aware",
        ),
        ({"methods": ["lrqmm"], "settings": {"rank": 4}}, "allowed: one of rank and ranks_within"),
    ],
)
def test_ranks_by_layer_need_a_method_with_ranks(given, said):
    network = {"measure": "network", "network": "resnet50", "ranks_within": 5, "sizes": None}
    with pytest.raises(ConfigError, match=f"config: experiments.one: .*{said}"):
        planned({**network, "inputs": None, **given})


@pytest.mark.parametrize("name", ["resnet", "all"])
def test_networks_are_those_that_have_a_file(name):
    network = {"measure": "network", "network": name, "sizes": None, "inputs": None}
    with pytest.raises(ConfigError, match=rf"one\.network is '{name}'.*; allowed: llama, mini"):
        planned(network)


def test_no_more_items_share_a_gemm_than_there_are():
    network = {"measure": "network", "network": "minilm", "sizes": None, "inputs": None}
    with pytest.raises(
        ConfigError, match=r"experiments\.one: per_gemm is 8; allowed: up to items = 4"
    ):
        planned({**network, "items": 4, "per_gemm": [2, 8]})


@pytest.mark.parametrize("content", [None, [], "run", {}, {"run": "x"}])
def test_no_configuration(content):
    with pytest.raises(ConfigError, match="at the top"):
        plan(content)


def test_the_tables_of_keys_are_those_of_the_source():
    text = (ROOT / "config/README.md").read_text()
    assert runpy.run_path(str(ROOT / "docs/configuration.py"))["page"](text) == text, "make keys"


def test_a_stored_study_has_the_keys_of_every_measure():
    stored = planned().config
    one = stored["experiments"]["one"]
    older = {**one, "samples": 20, "network": "llama", "per_gemm": [1], "prepared": [False]}
    config = {**stored, "experiments": {"one": older}}
    with pytest.raises(ConfigError, match="unknown key 'samples'"):
        plan(config)
    assert plan(without_meaningless(config)).config == stored
    with pytest.raises(ConfigError, match="unknown key 'sampels'"):
        plan(without_meaningless({**config, "experiments": {"one": {**older, "sampels": 3}}}))
    for damaged in (None, [], {}, {"experiments": 3}, {"experiments": {"one": {"measure": []}}}):
        assert without_meaningless(damaged) == damaged


# adding a method

NEW = '''"""Direct under another name. Source: none."""

from lrqmm.products.composition import Preset

METHOD = Preset({name!r}, usual=True)
'''


def test_a_new_file_is_a_new_method_and_changes_no_other(tmp_path, monkeypatch):
    environment.code_hash.cache_clear()
    names = lrqmm.list_methods()
    before = plan(STUDY)
    hashes = {name: environment.code_hash(name, "error") for name in names}

    (tmp_path / "brand_new.py").write_text(NEW.format(name="brand_new"))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    environment.code_hash.cache_clear()
    assert lrqmm.list_methods() == sorted([*names, "brand_new"])
    A, B = np.random.default_rng(0).random((2, 8, 8), np.float32)
    np.testing.assert_array_equal(
        lrqmm.matmul(A, B, method="brand_new"), lrqmm.matmul(A, B, method="direct")
    )
    after = plan(STUDY)
    old = {shard.name: shard for shard in before.shards}
    new = {shard.name: shard for shard in after.shards}
    assert {name: new[name] for name in old} == old
    added = {new[name].method for name in new.keys() - old.keys()}
    assert added == {"brand_new"}
    assert {new[name].experiment for name in new.keys() - old.keys()} == {
        name
        for name, experiment in STUDY["experiments"].items()
        if "all" in experiment.get("methods", ["all"])
        and experiment["measure"] not in ("spectrum", "steps")
    }
    assert before.inputs == after.inputs
    assert {name: environment.code_hash(name, "error") for name in names} == hashes


def test_a_composition_is_a_method_of_a_configuration():
    found = shards({"methods": ["direct", "hadamard+octav+lrqmm"], "settings": {"rank": 4}})
    names = {shard.method for shard in found.values()}
    assert names == {"direct", "hadamard+octav+lrqmm"}
    only = shards({"methods": ["direct", "octav+lrqmm"]}, methods="octav+lrqmm")
    assert {shard.method for shard in only.values()} == {"octav+lrqmm"}
    with pytest.raises(
        ConfigError, match=r"part of 'octaf\+lrqmm' is 'octaf' .did you mean 'octav'"
    ):
        shards({"methods": ["octaf+lrqmm"]})


def test_methods_that_are_left_out_are_measured_where_all_is_said():
    study = planned({"methods": "usual"}, leave_out=["direct", "octav"])
    usual = {shard.method for shard in study.shards}
    every = {name for name in lrqmm.list_methods() if methods.preset(name).usual}
    assert {"direct", "lrqmm_aware", "bf16"} < every < set(lrqmm.list_methods())
    assert usual == every - {"direct", "octav"}
    study = planned({"methods": "all"}, leave_out=["direct", "octav"])
    assert {shard.method for shard in study.shards} == set(lrqmm.list_methods())


def test_a_method_file_must_name_itself(tmp_path, monkeypatch):
    (tmp_path / "misnamed.py").write_text(NEW.format(name="other"))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"misnamed.py defines METHOD named 'other'"):
        lrqmm.get_method("misnamed")


def test_planning_loads_no_slow_library():
    """Every job of a cluster plans anew, and would pay for it."""
    script = (
        "import sys, yaml\n"
        "from lrqmm import figures\n"
        "from lrqmm.bench.data import packages\n"
        "from lrqmm.bench import devices, environment, progress\n"
        "from lrqmm.bench.study import plan\n"
        "plan(yaml.safe_load(open(sys.argv[1])))\n"
        "print(*{'torch', 'pandas', 'scipy', 'numba', 'matplotlib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, ROOT / "config/config.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
