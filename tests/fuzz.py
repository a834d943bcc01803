"""Mutated files of every kind that the suite reads: `make fuzz`, or `python tests/fuzz.py 2000`.

Each case is read in a process with bounded memory. It must be read, or refused in one clear error
that names the file; it must not crash, hang, run code, start a process or open a connection. Files
of `fuzz_models` must also be read as what they say.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from fuzz_models import CASES as MODELS
from fuzz_products import CASES as PRODUCTS
from safetensors.numpy import save_file

from lrqmm.bench.data.matrices import matrix_shape, read_matrix
from lrqmm.bench.networks.llama.model import load_llama
from lrqmm.bench.networks.resnet50.model import load_resnet50
from lrqmm.bench.study import plan
from lrqmm.run.folder import write_json, write_manifest
from lrqmm.run.read import read_run, write_table

CASES = {**MODELS, **PRODUCTS}
SECONDS = 20  # a case that takes longer hangs
MEMORY = 2**30  # bytes that the process may grow by
CHUNK = 100  # cases of one process
ROOT = Path(__file__).parent.parent
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect",
    "socket.getaddrinfo", "pickle.find_class", "ctypes.dlopen", "urllib.Request",
)  # fmt: skip
WORDS = (
    "-1", "0", "1e309", ".nan", "null", "true", "[]", "{}", "9" * 40, "''", '"\\x00"', "a: b",
    "!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "&a [*a, *a]",
    "$(touch ran)", "; touch ran", "{{7*7}}", "../../etc/passwd", "/dev/zero", "x" * 5000,
    "&b [a,a,a,a,a,a,a,a,a]", "\u202e", "<script>alert(1)</script>", "results/x y", "2.0", "1_0",
)  # fmt: skip


def seeds(folder: Path) -> dict[str, Path]:
    """One good file of each kind."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_llama import make_weights, write_folder, write_gguf, write_indexed
    from test_store import row

    from lrqmm.run.read import table

    X = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    np.save(folder / "a.npy", X)
    np.savez(folder / "a.npz", x=X, y=X)
    np.savez_compressed(folder / "b.npz", x=X)
    save_file({"x": X, "y": X}, folder / "a.safetensors")
    weights = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(1000)}
    torch.save(weights, folder / "net.pt")
    save_file({name: w.numpy() for name, w in weights.items()}, folder / "net.safetensors")
    write_gguf(folder / "llama.gguf", make_weights())
    write_folder(folder / "llama", make_weights())
    (folder / "shards").mkdir()
    write_indexed(folder / "shards/llama", make_weights())
    write_table(table([row(), row(value=0.5)]), folder / "run/measurements/t.parquet")
    write_json({"machine": "m"}, folder / "run/environment.json")
    write_manifest(folder / "run", [folder / "run/measurements/t.parquet"], {})
    write_table(table([row()]), folder / "part/measurements/t.parquet")
    for name in ("config.yaml", "networks.yaml", "test/small.yaml", "test/tiny.yaml"):
        target = folder / "config" / name.replace("/", "-")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / "config" / name).read_bytes())
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> None:
    """Read a file as the suite does."""
    if path.suffix == ".yaml":
        plan(yaml.safe_load(path.read_text(errors="surrogateescape")))
    elif path.name.startswith("net."):
        load_resnet50(path)
    elif path.suffix == ".gguf":
        load_llama(path)
    elif path.parent.name == "llama":
        load_llama(path.parent)
    elif path.suffix == ".parquet":
        read_run(path.parent.parent, unfinished=True)
    elif path.suffix == ".json":
        read_run(path.parent)
    else:
        name = f"{path}:x" if path.suffix != ".npy" and path.name[0] == "a" else str(path)
        matrix_shape(name)
        read_matrix(name)


def mutate(content: bytes, rng: random.Random, text: bool) -> bytes:
    """A few changes: of bits, lengths, numbers; in text, of words too."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        kind = rng.choice(("flip", "cut", "drop", "repeat", "number", "word" if text else "header"))
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 4, 8, 64, 1000))
        if kind == "flip" and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == "header":
            at = rng.randrange(min(200, len(data) + 1))
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * rng.choice((1, 3))
        elif kind == "number":
            width = rng.choice((4, 8))
            value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**40)) % 2 ** (8 * width)
            data[at : at + width] = value.to_bytes(width, "little")
        elif kind == "word":
            words = bytes(data).split()
            if words:
                word = rng.choice(words)
                data = bytearray(bytes(data).replace(word, rng.choice(WORDS).encode(), 1))
    return bytes(data)


def one(name: str, path: Path, number: int) -> str:
    """Read one mutated file; what became of it."""
    good = path.read_bytes()
    text = path.suffix in (".yaml", ".json")
    path.write_bytes(mutate(good, random.Random(f"{name} {number}"), text))
    try:
        return outcome(path, partial(read, path))
    finally:
        path.write_bytes(good)


def outcome(path: Path, attempt: Callable[[], None]) -> str:
    """What became of the attempt to read a file."""
    signal.alarm(SECONDS)
    try:
        attempt()
        return "read"
    except (ValueError, FileNotFoundError, yaml.YAMLError) as error:
        named = any(word in str(error) for word in (str(path), str(path.parent), "config: "))
        clear = named or isinstance(error, yaml.YAMLError)
        return "refused" if clear else f"unclear: {type(error).__name__}: {error}"
    except Exception as error:
        return f"crash: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def work(first: int, last: int) -> None:
    """Cases `first` to `last`, a line of JSON each."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = seeds(Path(folder))
        for path in files.values():
            # what is imported on first use is no code of a file; net.* have a few layers only
            with suppress(ValueError) if path.name.startswith("net.") else nullcontext():
                read(path)
        for case in CASES.values():
            path, attempt = case(random.Random(0), Path(folder))
            outcome(path, attempt)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        data = psutil.Process().memory_info().data
        resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
        seen: list[str] = []
        sys.addaudithook(lambda event, _: seen.append(event) if event in FORBIDDEN else None)
        names = sorted(files) + sorted(CASES)
        for number in range(first, last):
            name = names[number % len(names)]
            print(json.dumps({"number": number, "name": name}), flush=True)
            if name in CASES:
                found = outcome(*CASES[name](random.Random(f"{name} {number}"), Path(folder)))
            else:
                found = one(name, files[name], number)
            if seen:
                found = f"ran: {', '.join(seen)} ({found})"
                seen.clear()
            print(json.dumps({"number": number, "name": name, "found": found}), flush=True)
        assert not list(Path(folder).rglob("ran")), "a command of a file was run"


def run(cases: int, start: int = 0) -> tuple[Counter, list[str], int]:
    """(how many were read and refused, what went wrong, the most memory of a process in bytes)."""
    outcomes, wrong, number = Counter(), [], start
    while number < start + cases:
        last = min(number + CHUNK, start + cases)
        done = subprocess.run(
            [sys.executable, __file__, "--work", str(number), str(last)],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            if "found" in line:
                kind = line["found"].partition(":")[0]
                outcomes[line["name"], kind] += 1
                if kind not in ("read", "refused"):
                    wrong.append(f"case {line['number']}, {line['name']}: {line['found']}")
        number = last
        if done.returncode:
            stopped = lines[-1] if lines else {"number": "?", "name": "?"}
            how = "hung" if done.returncode == -signal.SIGALRM else f"ended {done.returncode}"
            wrong.append(
                f"case {stopped['number']}, {stopped['name']}: the process {how}: "
                f"{done.stderr[-500:]}"
            )
            number = stopped["number"] + 1 if lines else last
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return outcomes, wrong, peak


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(int(sys.argv[2]), int(sys.argv[3]))
        sys.exit()
    begun = time.monotonic()
    outcomes, wrong, peak = run(int(sys.argv[1]))
    for name in sorted({name for name, _ in outcomes}):
        counts = ", ".join(
            f"{outcomes[key]} {key[1]}" for key in sorted(outcomes) if key[0] == name
        )
        print(f"{name:32} {counts}")
    print(f"{sum(outcomes.values())} cases in {time.monotonic() - begun:.0f} s, "
          f"at most {peak / 2**20:.0f} MiB")  # fmt: skip
    print("\n".join(wrong) or "nothing went wrong")
    sys.exit(bool(wrong))
