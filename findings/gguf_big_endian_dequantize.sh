#!/usr/bin/env bash
# gguf 0.19.0, 2026-11-29: `gguf.quants.dequantize` turns the tensors of a big-endian file into other
# numbers, without a word, for F32 and F16.
#
# `GGUFWriter(endianess=GGUFEndian.BIG)` writes such a file and `GGUFReader` reads it: `tensor.data` is
# right. Given to `dequantize`, as its documentation has it for every type, the bytes are taken as
# little-endian ones: 0.5 becomes 8.8e-44. So a loader has to ask for the byte order first.
#
# Exits 0 while gguf behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version
import gguf, numpy as np
wrong = []
for dtype in (np.float32, np.float16):
    numbers = np.array([0.5, 1.5, 2.5, -4.0], dtype)
    writer = gguf.GGUFWriter("big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("x", numbers.copy())
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file()
    writer.close()
    tensor = gguf.GGUFReader("big.gguf").tensors[0]
    found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    print(f"gguf {version('gguf')}, {tensor.tensor_type.name}: written {numbers.tolist()}, "
          f"read {tensor.data.tolist()}, dequantized {found.tolist()}")
    wrong.append(not np.array_equal(found, numbers) and np.array_equal(tensor.data, numbers))
raise SystemExit(not all(wrong))
PY
echo "as described"
