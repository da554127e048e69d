"""How a checkpoint's own files make one vector of a text: what sentence-transformers wrote beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import Unsuitable
from mesh.requests import Pooling

POOLING, MODULES = "1_Pooling/config.json", "modules.json"
MODES = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_lasttoken": Pooling.LAST,
}
MODE = "pooling_mode_"
KNOWN_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})


@dataclass(frozen=True, slots=True)
class PoolingFiles:
    """What they say; both are empty for a model that sentence-transformers has not seen."""

    modes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    def choose(self, *, encoder: bool) -> Pooling:
        """Raises Unsuitable where the files want something else than a pooling of the last layer."""
        foreign = sorted(set(self.modules) - KNOWN_MODULES)
        if foreign or any(mode not in MODES for mode in self.modes) or len(self.modes) > 1:
            wanted = ", ".join(foreign or self.modes)
            message = f"this model's files want {wanted}, which is not done here; say which pooling to use"
            raise Unsuitable(message, reason="UNKNOWN_POOLING")
        if self.modes:
            return MODES[self.modes[0]]
        return Pooling.MEAN if encoder else Pooling.LAST


def pooling_files(directory: Path) -> PoolingFiles:
    """Reads them from a checkpoint's files."""
    config, modules = _json(directory / POOLING), _json(directory / MODULES)
    settings = config if isinstance(config, Mapping) else {}
    modes = sorted(key for key, on in settings.items() if key.startswith(MODE) and on is True)
    listed = modules if isinstance(modules, list) else []
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in listed if isinstance(one, Mapping)]
    return PoolingFiles(tuple(modes), tuple(kinds))


def _json(path: Path) -> object:
    return json.loads(path.read_text()) if path.is_file() else None
