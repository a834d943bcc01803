#!/usr/bin/env bash
# auto-round-lib 0.16.0 with torch 2.13.0, 2026-11-30, on an AMD EPYC with AVX512-VNNI and without AMX:
# `auto_round_kernel.woqgemm` packed for compute type "int8" or "bf16" gives the float32 product of the
# float activations, bit for bit what compute type "fp32" gives. No error, no warning.
#
# On Intel processors with VNNI or AMX the same call quantises the activations (the product of
# normal numbers has a relative error of .011 in place of .008) and takes a third of the time. A
# comparison of int8 kernels that does not look at the error therefore times float32 here, and calls
# it int8: what a kernel computes in has to be tried on each machine.
#
# Needs an AMD processor with AVX512-VNNI; exits 0 while the library behaves like this.
set -euo pipefail
grep -q AuthenticAMD /proc/cpuinfo || { echo "this processor is not AMD's"; exit 1; }
grep -q avx512_vnni /proc/cpuinfo || { echo "this processor has no AVX512-VNNI"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0 \
    auto-round-lib==0.16.0
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import auto_round_kernel
import torch

torch.manual_seed(0)
A, W = torch.randn(64, 256), torch.randn(256, 128)
scale = W.abs().amax(0, keepdim=True) / 127
codes = (W / scale).round().to(torch.int8)
empty = torch.empty(0, dtype=torch.int8)
exact = A.double() @ (codes * scale).double()
results = {}
for compute in ("fp32", "bf16", "int8"):
    about = (256, compute, "int8", "fp32", False)
    packed = auto_round_kernel.repack_quantized_weight(codes, scale, empty, *about)
    C = torch.empty(64, 128)
    results[compute] = auto_round_kernel.woqgemm(
        A, packed, torch.empty(0), 128, 256, *about, C
    ).clone()
    error = float((results[compute] - exact).norm() / exact.norm())
    print(f"auto-round-lib {version('auto-round-lib')}, {compute}: error beside the float product {error:.2g}")
for compute in ("bf16", "int8"):
    if not torch.equal(results[compute], results["fp32"]):
        raise SystemExit(f"{compute} computes in something else than float32 now")
print("as described: every compute type is float32, silently")
PY
