"""What several processes need beyond `accelerate launch`."""

from __future__ import annotations

import os

from accelerate import state
from accelerate.utils import DistributedType


def patch_cpu_fsdp() -> None:
    """Let recipes/accelerate/fsdp2.yaml shard on a CPU as it does on GPUs.

    Accelerate 1.15 silently makes it plain data parallel there, although PyTorch's FSDP2 runs on gloo.
    """
    if (
        os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true"
        or "fsdp" in state.AcceleratorState.__init__.__name__
    ):
        return
    plain = state.AcceleratorState.__init__

    def fsdp_init(self, *args, fsdp_plugin=None, **kwargs):
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = self.distributed_type

    state.AcceleratorState.__init__ = fsdp_init
