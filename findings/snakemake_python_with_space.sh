#!/bin/sh
# Snakemake 9.27.1 (2026-11-29): below a path with a space no Python script of a rule runs: exit status 127.
#
# `script:` puts sys.executable into the shell's command without quotes ("{py_exec} {fname:q}"), so the shell looks
# for the program "/path/with". The environment itself is fine: pip writes scripts that cope with the space.
#
# Exit status 0 while it is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/with space"
cd "$folder/with space"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check snakemake==9.27.1
cat > Snakefile <<'END'
rule all:
    output: "done"
    script: "write.py"
END
echo 'open(snakemake.output[0], "w").close()' > write.py
echo "Snakemake $(env/bin/python -m snakemake --version)"
env/bin/python -m snakemake --cores 1 > log 2>&1 && code=0 || code=$?
grep -E "with: |exit status" log || true
echo "snakemake exited with $code"
[ "$code" -ne 0 ] && grep -q 127 log && [ ! -e done ]
