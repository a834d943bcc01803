"""One file per source of matrices: a module here defines `SOURCE`, whose inputs a study asks for.

Adding a source is adding a file; nothing else lists them. A study is planned with all of them, so
these modules import slow libraries where they make matrices.
"""

from lrqmm._registry import Registry
from lrqmm.bench.data.matrices import Float32 as Float32
from lrqmm.bench.sources._source import Config as Config
from lrqmm.bench.sources._source import Matrices as Matrices
from lrqmm.bench.sources._source import Pair as Pair
from lrqmm.bench.sources._source import Source as Source
from lrqmm.bench.sources._source import chosen as chosen
from lrqmm.bench.sources._workload import Workload as Workload

SOURCES: Registry[Source] = Registry(__name__, "SOURCE")


def list_sources() -> list[Source]:
    """All sources, sorted by name."""
    return [SOURCES.get(name) for name in SOURCES.names()]


def input_sources(config: Config) -> dict[str, Source]:
    """The source of every input that a study may ask for; ValueError for a name of the
    configuration's own that another input has."""
    sources: dict[str, Source] = {}
    for source in sorted(list_sources(), key=lambda source: not source.titles):
        for name in source.inputs(config.get(source.name, {})):
            if name in sources or name == "all":
                names = ", ".join(["all", *sources])
                raise ValueError(
                    f"{source.name}.{name}: the name is taken; allowed: any but {names}"
                )
            sources[name] = source
    return sources


def source_of(name: str) -> Source | None:
    """The source of an input; None where it is of the configuration's own."""
    return input_sources({}).get(name)
