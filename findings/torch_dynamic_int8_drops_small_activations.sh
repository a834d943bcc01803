#!/usr/bin/env bash
# torch 2.13.0 (CPU build), 2026-11-30: the dynamic int8 product `torch.ops.quantized.linear_dynamic`
# (engines x86 and onednn, behind `quantize_dynamic`) has a least scale for activations, about 6.1e-5.
# Activations whose range is smaller than 255 of those steps lose levels, and small ones are all zero,
# without a word.
#
# Normal data of standard deviation 1, 1e-3 and 1e-6 (all of it ordinary float32) times the same
# weight: a dynamic quantiser's relative error should not depend on the unit of its input. It grows
# from .013 to about .02 at 1e-3, and at 1e-6 the product is zero. Whoever measures activations in
# small units, or normalises them, must multiply them by a power of two first.
#
# Exits 0 while torch behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch

torch.manual_seed(0)
A, W = torch.randn(256, 512), torch.randn(384, 512)
scales = W.abs().amax(1).double() / 127
zeros = torch.zeros(384, dtype=torch.int64)
weight = torch.quantize_per_channel(W, scales, zeros, 0, torch.qint8)
print(f"torch {torch.__version__}")
found = {}
for engine in ("x86", "onednn"):
    if engine not in torch.backends.quantized.supported_engines:
        continue
    torch.backends.quantized.engine = engine
    packed = torch.ops.quantized.linear_prepack(weight, None)
    for unit in (1.0, 1e-3, 1e-6):
        X = A * unit
        exact = X.double() @ W.double().T
        C = torch.ops.quantized.linear_dynamic(X, packed, reduce_range=False).double()
        found[engine, unit] = float((C - exact).norm() / exact.norm())
        print(f"{engine}, activations of {unit:g}: relative error {found[engine, unit]:.3g}")
for engine in {name for name, _ in found}:
    if not (found[engine, 1.0] < 0.02 and found[engine, 1e-3] > 1.2 * found[engine, 1.0]):
        raise SystemExit("a thousandth is as exact as one now")
    if found[engine, 1e-6] < 0.99:
        raise SystemExit("a millionth is not dropped now")
print("as described: small activations lose their levels, silently")
PY
