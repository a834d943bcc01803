#!/bin/sh
# Snakemake 9.27.1 (2026-11-30): `name:` inside `use rule ... with:` is dropped without a word.
#
# In a rule of its own `name:` sets the name that logs, reports and --until know, also one that is computed, and
# `use rule a as b with:` is documented to take what a rule takes, but for what it runs. Here the directive is
# read, no error or warning is given, and the rule is called b all the same. So a loop that derives a rule for
# each of several things cannot name them, and the second turn stops with b being defined already.
# Expected: the name, or an error.
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
    input: "plain.txt", "derived.txt"
rule:
    name: "called_" + "plain"
    output: "plain.txt"
    shell: "touch {output}"
rule base:
    output: "base.txt"
    shell: "touch {output}"
use rule base as derived with:
    name: "called_" + "derived"
    output: "derived.txt"
END
echo "Snakemake $(env/bin/python -m snakemake --version)"
env/bin/python -m snakemake --list | tee rules
grep -q called_plain rules
grep -qx derived rules
! grep -q called_derived rules
echo "the rule is called derived, and not called_derived"
sed -e 's/^use rule/for word in ("derived", "other"):\n    use rule/' -e '/^    name: "called_" + "derived"/s/.*/        name: "called_" + word/' \
    -e '/^    output: "derived.txt"/s/.*/        output: word + ".txt"/' Snakefile > Looped
if env/bin/python -m snakemake --snakefile Looped --list > looped 2>&1; then cat looped; exit 1; fi
grep -i "derived" looped
