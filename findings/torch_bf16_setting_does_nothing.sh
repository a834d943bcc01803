#!/usr/bin/env bash
# torch 2.13.0 (CPU build, oneDNN 3.12.0), 2026-11-30: on a processor with AVX512-BF16 but without AMX,
# `torch.backends.mkldnn.matmul.fp32_precision = "bf16"` is accepted, is read back as "bf16", and changes
# nothing: float32 products keep float32's precision, and its time.
#
# `torch.cpu._is_avx512_bf16_supported()` says True there. With AMX the same line rounds operands to
# bfloat16 (relative error of a product of normal numbers .0024 in place of 3e-7) and is faster. So a
# benchmark that sets it and does not look at the error takes float32 for bfloat16: whether the setting
# works has to be tried on each machine.
#
# Needs a processor with AVX512-BF16 and without AMX; exits 0 while torch behaves like this.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this processor has no AVX512-BF16"; exit 1; }
if grep -q amx_bf16 /proc/cpuinfo; then echo "this processor has AMX"; exit 1; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PY'
import torch

torch.manual_seed(0)
A, B = torch.randn(2, 1024, 1024)
exact = A.double() @ B.double()


def error(C):
    return float((C - exact).norm() / exact.norm())


setting = torch.backends.mkldnn.matmul
setting.fp32_precision = "bf16"
with_it, read_back = error(A @ B), setting.fp32_precision
rounded = error(A.bfloat16().float() @ B.bfloat16().float())
print(f"torch {torch.__version__}, AVX512-BF16 said to be {torch.cpu._is_avx512_bf16_supported()}")
print(f"fp32_precision reads {read_back}; relative error {with_it:.2g}, of rounded operands {rounded:.2g}")
if read_back != "bf16" or with_it > 1e-5:
    raise SystemExit("the setting works now")
print("as described: it changes nothing, silently")
PY
