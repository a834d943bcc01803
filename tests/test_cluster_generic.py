"""`profiles/cluster-generic` through a batch system that is two shell scripts."""

import pandas as pd
from test_workflow_faults import TINY, errors, tiny  # noqa: F401

SUBMIT = """#!/bin/bash
# Prints the job's number; runs the job, notes how it ended.
folder=$(dirname "$0"); job=$(mktemp -u XXXXXX)
echo "$@" >> "$folder/submitted"
(bash "${@: -1}" > "$folder/$job.log" 2>&1; echo $? > "$folder/$job.rc") > /dev/null 2>&1 &
echo "$job"
"""
STATUS = """#!/bin/bash
ended=$(dirname "$0")/$1.rc
if [ ! -s "$ended" ]; then echo running
elif [ "$(cat "$ended")" = 0 ]; then echo success
else echo failed; fi
"""


def test_any_batch_system(project, tmp_path_factory, tiny):  # noqa: F811
    folder = tmp_path_factory.mktemp("batch")
    for name, script in (("submit", SUBMIT), ("status", STATUS)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    project.run(
        "measurements", *TINY, "--workflow-profile", "profiles/cluster-generic", "--cores", "2",
        "--cluster-generic-submit-cmd",
        f"{folder}/submit {{rule}} {{resources.mem_mb}} {{resources.runtime}} {{threads}}",
        "--cluster-generic-status-cmd", f"{folder}/status", "--latency-wait", "5",
        "--max-status-checks-per-second", "5",
    )  # fmt: skip
    submitted = (folder / "submitted").read_text().splitlines()
    kinds = sorted(line.split()[0] for line in submitted)
    assert kinds == ["GROUP", "GROUP", "environment", "inputs_ready"]  # groups: inputs, errors
    for line in submitted:
        memory, minutes, threads = map(int, line.split()[1:4])
        assert memory >= 500
        assert minutes >= 10
        assert 1 <= threads <= 2
    here, there = (errors(of.folder / "results/tiny") for of in (tiny, project))
    pd.testing.assert_frame_equal(here, there)
