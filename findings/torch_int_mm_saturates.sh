#!/usr/bin/env bash
# torch 2.13.0 (CPU build), 2026-11-29: `torch._int_mm` on a CPU gives wrong sums, without a word,
# where oneDNN may not use the int8 dot product that the processor has.
#
# With ONEDNN_MAX_CPU_ISA=AVX2 or AVX512_CORE (documented by oneDNN; set for reproducible runs on a
# mixed cluster, or to keep clocks up) the int8 product goes through 16-bit sums that saturate:
# 127 * 127 + 127 * 127 is 32258, and comes out as another number. `torch.cpu._is_vnni_supported()`
# still says True: it asks what the processor has, not what oneDNN may use. So an int8 product has to be
# tried before it is trusted.
#
# Needs a processor with AVX512-VNNI or AVX-VNNI; exits 0 while torch behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0
cat > "$folder/try.py" <<'PY'
import os, torch
a, b = torch.full((1, 2), 127, dtype=torch.int8), torch.full((2, 1), 127, dtype=torch.int8)
print(
    f"torch {torch.__version__}, ONEDNN_MAX_CPU_ISA={os.environ.get('ONEDNN_MAX_CPU_ISA', 'not set')}, "
    f"VNNI said to be {torch.cpu._is_vnni_supported()}: 127*127 + 127*127 = {torch._int_mm(a, b).item()}"
)
raise SystemExit(torch._int_mm(a, b).item() == 32258)
PY
if "$folder/venv/bin/python" "$folder/try.py"; then echo "wrong without the setting too"; exit 1; fi
for isa in AVX2 AVX512_CORE; do
    ONEDNN_MAX_CPU_ISA=$isa "$folder/venv/bin/python" "$folder/try.py" || { echo "right now with $isa"; exit 1; }
done
echo "as described: the sums saturate, silently"
