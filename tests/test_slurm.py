"""The small study through a real Slurm of one node, started here: `make test-cluster`.

Needs root and Debian's packages slurm-wlm and munge. The configuration must be at /etc/slurm; where
one is already, it is left alone and the test refuses.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from lrqmm.run.read import read_run

pytestmark = pytest.mark.cluster

SLURM = Path("/etc/slurm")
OURS = "# written by tests/test_slurm.py"
SMALL = ("--configfile", "config/test/small.yaml")
OF_EACH_KIND = ("spectrum", "distributions", "time", "cost", "network_minilm", "images", "pictures")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of this machine, with a stand-in GPU."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        assert shutil.which(program), f"{program} is missing: apt-get install slurm-wlm munge"
    assert os.geteuid() == 0, "Slurm's daemons need root here"
    configuration = SLURM / "slurm.conf"
    generic = SLURM / "gres.conf"
    for file in (configuration, generic):
        assert not file.exists() or file.read_text().startswith(OURS), f"{file} is another's"
    folder = Path("/tmp") / f"lrqmm-slurm-{secrets.token_hex(4)}"  # munge wants a short, safe path
    for name in ("state", "spool", "log", "run"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    SLURM.mkdir(exist_ok=True)
    configuration.write_text(_configuration(folder))
    host = socket.gethostname().split(".")[0]
    generic.write_text(f"{OURS}\nNodeName={host} Name=gpu File=/dev/null\n")
    try:
        run = folder / "run"
        subprocess.run(
            ["munged", "--force", f"--key-file={key}", f"--socket={run}/munge.socket",
             f"--pid-file={run}/munged.pid", f"--log-file={folder}/log/munged.log",
             f"--seed-file={folder}/munge.seed"], check=True,
        )  # fmt: skip
        subprocess.run(["slurmctld", "-c"], check=True)
        subprocess.run(["slurmd"], check=True)
        deadline = time.monotonic() + 60
        while "idle" not in _sinfo():
            if time.monotonic() > deadline:
                pytest.skip(f"Slurm does not start here: {_sinfo()}")
            time.sleep(0.5)
        yield host
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Slurm does not start here: {error}")
    finally:
        subprocess.run(["scancel", "--partition=debug"], check=False)
        time.sleep(5)
        for file in (folder / "run").glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except (ProcessLookupError, ValueError):
                continue
        configuration.unlink()
        generic.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _sinfo() -> str:
    done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
    return done.stdout + done.stderr


def _configuration(folder: Path) -> str:
    host = socket.gethostname().split(".")[0]
    cores = os.cpu_count()
    memory = psutil.virtual_memory().total // 2**20 - 500
    return f"""{OURS}
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=86400
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=600 State=UP
"""


# What profiles/slurm leaves to the user: this cluster's size, and that it has no accounting.
CLUSTER = (
    "--workflow-profile", "profiles/slurm",
    "--cores", str(os.cpu_count()),
    "--slurm-no-account", "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "1",
    "--latency-wait", "5",
)  # fmt: skip


def test_the_small_study_through_slurm_is_the_local_one(slurm, make_project):
    local, cluster = make_project("local"), make_project("cluster")
    for project in (local, cluster):
        config = project.folder / SMALL[1]
        study = yaml.safe_load(config.read_text())
        study["experiments"] = {name: study["experiments"][name] for name in OF_EACH_KIND}
        config.write_text(yaml.safe_dump(study))
    local.run("measurements", *SMALL)
    begun = time.monotonic()
    output = cluster.run("measurements", *SMALL, *CLUSTER, minutes=40)
    minutes = (time.monotonic() - begun) / 60
    jobs = set(re.findall(r"SLURM jobid (\d+)", output))
    assert jobs
    print(f"\n{len(jobs)} Slurm jobs, {minutes:.1f} minutes")
    here, there = (read_run(of.folder / "results/small") for of in (local, cluster))
    pd.testing.assert_frame_equal(_errors(here.measurements), _errors(there.measurements))
    pd.testing.assert_frame_equal(_scores(here.networks), _scores(there.networks))
    pd.testing.assert_frame_equal(here.arrays, there.arrays)
    assert set(there.measurements["node"]) == {slurm}
    assert set(here.measurements["node"]) == {"local"}


def _errors(table: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on where it was measured, in an order that does not either."""
    table = table[table["metric"] == "relative_error"]
    keys = ["shard", "input", "layer", "input_seed", "m", "parameters", "input_sha256", "value"]
    return table[keys].sort_values(keys[:6]).reset_index(drop=True)


def _scores(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table["metric"].isin(("agreement", "average_bits"))]
    keys = ["shard", "parameters", "per_gemm", "metric", "value"]
    return table[keys].sort_values(keys[:4]).reset_index(drop=True)
