"""Formats by name."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from sim.traces import (
    azure_functions_2019,
    azure_functions_2021,
    azure_llm,
    burstgpt,
    chutes,
    mooncake,
    servegen,
)
from sim.traces.row import Row, Window

Reader = Callable[[Path, Window, int], Iterator[Row]]

FORMATS: Mapping[str, Reader] = MappingProxyType(
    {
        "azure-functions-2019": azure_functions_2019.rows,
        "azure-functions-2021": azure_functions_2021.rows,
        "azure-llm-2023": azure_llm.rows,
        "azure-llm-2024": azure_llm.rows,
        "burstgpt": burstgpt.rows,
        "mooncake": mooncake.rows,
        "servegen": servegen.rows,
        "chutes": chutes.rows,
    }
)
