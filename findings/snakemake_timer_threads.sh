#!/bin/sh
# Snakemake 9.27.1 (2026-11-29): every job that ends leaves a timer that wakes the scheduler each second.
#
# With its usual --max-jobs-per-timespan 100/1s each look for jobs starts a threading.Timer of a second for the
# next look, whatever else is going to wake the scheduler. The end of a job is one more look, so one more chain of
# timers, and a chain goes on for as long as any job is ready and not started. After n jobs the main process has n
# threads and looks n times a second, each time with parameters of all ready jobs evaluated anew: here 40 jobs that
# end at once, then two that need both cores, one after the other. Expected: a main process that sleeps.
#
# Exit status 0 while it is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check snakemake==9.27.1
cat > Snakefile <<'END'
rule all:
    input: expand("short/{n}", n=range(40)), expand("long/{n}", n=range(2))
rule short:
    output: "short/{n}"
    priority: 1
    shell: "touch {output}"
rule long:
    output: "long/{n}"
    threads: 2
    shell: "sleep 12; touch {output}"
END
cat > watch.py <<'END'
import os, subprocess, sys, time
process = subprocess.Popen([sys.executable, "-m", "snakemake", "--version"], stdout=subprocess.PIPE, text=True)
print("Snakemake", process.communicate()[0].strip())
command = [sys.executable, "-m", "snakemake", "--cores", "2", "--scheduler", "greedy", "--quiet", "all"]
process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
deadline = time.monotonic() + 300
while len(os.listdir("short") if os.path.exists("short") else ()) < 40 and time.monotonic() < deadline:
    time.sleep(0.1)
time.sleep(2)  # the first of the long jobs runs, and nothing ends

def look():
    with open(f"/proc/{process.pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return int(fields[17]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

threads, before = look()
time.sleep(5)
_, after = look()
assert process.wait() == 0
print(f"40 jobs ended, one runs, one waits: {threads} threads, {100 * (after - before) / 5:.0f}% of a core")
sys.exit(threads < 30)
END
env/bin/python watch.py
