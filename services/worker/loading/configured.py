"""The loader that a worker's settings describe: a worker's own, and that of benchmarks which do without the rest."""

from mesh.clients.store import StoreClient
from services.worker.engine.batch import Limits
from services.worker.engine.host_tier import HostTier
from services.worker.engine.packing import PackBudget
from services.worker.loading.device import Device
from services.worker.loading.loader import Loader
from services.worker.loading.skeletons import Skeletons
from services.worker.settings import WorkerSettings

LENT_TIMES = 16  # what was booked for a replica: how far others' KV memory can extend it; bounds its tables


def configured(settings: WorkerSettings, stores: StoreClient, device: Device, skeletons: Skeletons) -> Loader:
    """Onto `device`; what its replicas share of memory and budgets begins with it."""
    return Loader(
        stores,
        device,
        skeletons,
        settings.kv_bytes,
        Limits(settings.max_batch_tokens, settings.slots, settings.draft_tokens),
        tier=HostTier(settings.host_kv_bytes),
        packing=PackBudget(settings.packed_bytes),
        most_kv_bytes=min(settings.memory_bytes, LENT_TIMES * settings.kv_bytes),
        numerics=settings.numerics,
    )
