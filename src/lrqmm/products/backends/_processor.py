"""The processor, and what it has for low-bit products."""

import platform

FLAGS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
}
"""Instruction sets that decide how fast low-bit products are, by their names in Linux."""


def processor_name() -> str:
    """The processor's name."""
    return _first("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Of `FLAGS` those that the processor has; none where the system is no Linux."""
    flags = {*_first("flags").split(), *_first("Features").split()}
    return [name for flag, name in FLAGS.items() if flag in flags]


def _first(field: str) -> str:
    """The first value of a field of /proc/cpuinfo, or ''."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""
