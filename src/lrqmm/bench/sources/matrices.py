"""Matrices of the user, named in the configuration's section `matrices`: files of A and B."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrqmm.bench.data.matrices import InputError, matrix_file, matrix_shape, read_values
from lrqmm.bench.sources import Config, Matrices, Pair, Source


@dataclass(frozen=True, kw_only=True)
class UserMatrices(Source):
    """Each entry of the section is an input of one pair."""

    @property
    def titles(self) -> Mapping[str, str]:
        return {}

    def inputs(self, section: Config) -> Sequence[str]:
        return tuple(section)

    def pairs(self, name: str, choice: Config, section: Config) -> Iterator[Pair]:
        files = section[name]
        try:
            left, right = matrix_shape(files["A"]), matrix_shape(files["B"])
        except InputError as error:
            raise ValueError(f"matrices.{name}: {error}") from None
        right = right[::-1] if files.get("transpose_B") else right
        if left[1] != right[0]:
            raise ValueError(
                f"matrices.{name}: A is {left[0]} x {left[1]} and B {right[0]} x {right[1]}; "
                "allowed: as many columns in A as rows in B (transpose_B: true for a weight)"
            )
        yield Pair(name, None, None, *left, right[1], f"matrices/{name}.safetensors")

    def make(self, pairs: Sequence[Pair], section: Config) -> Iterator[Matrices]:
        for pair in pairs:
            files = section[pair.input]
            A, B = read_values(files["A"]), read_values(files["B"])
            yield Matrices(pair, A, B.T if files.get("transpose_B") else B, files)

    def section_of(self, name: str, section: Config) -> Config:
        return {name: section[name]}

    def files(self, name: str, section: Config) -> list[Path]:
        return [matrix_file(section[name][side]) for side in "AB"]


SOURCE = UserMatrices(name="matrices", title="matrices of the user")
