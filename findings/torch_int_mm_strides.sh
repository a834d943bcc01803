#!/usr/bin/env bash
# torch 2.13.0 (CPU build), 2026-11-29: `torch._int_mm` on a CPU reads the wrong elements, without a
# word, of an operand with a dimension of size 1 whose stride is not the contiguous one.
#
# One column cut out of a wider int8 matrix, made `contiguous()`, is such an operand: torch calls it
# contiguous whatever the stride of a dimension of size 1 says, so `contiguous()` copies nothing.
#
# Exits 0 while torch behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PY'
import torch
torch.manual_seed(0)
wrong = []
for m, k, n in ((1, 8, 4), (4, 8, 1), (1, 64, 1), (4, 1, 4)):
    for name in ("a", "b"):
        a = torch.randint(-9, 9, (m, k), dtype=torch.int8)
        b = torch.randint(-9, 9, (k, n), dtype=torch.int8)
        right = a.int() @ b.int()
        x = a if name == "a" else b
        strides = [3 if size == 1 else stride for size, stride in zip(x.shape, x.stride())]
        odd = x.as_strided(x.shape, strides)
        assert odd.is_contiguous() and torch.equal(odd, x)
        C = torch._int_mm(odd, b) if name == "a" else torch._int_mm(a, odd)
        if not torch.equal(C, right):
            wrong.append(f"{m} x {k} by {k} x {n}, {name} with strides {tuple(odd.stride())}")
print(f"torch {torch.__version__}: wrong for {wrong or 'nothing'}")
raise SystemExit(not wrong)
PY
echo "as described"
