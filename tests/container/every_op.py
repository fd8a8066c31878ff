"""Runs every op of the installed package twice, natively and in PyTorch, and prints what it found as JSON.

Standalone: it needs nothing but the installed package, here and in a container.
"""

import json
import sys

# None of them is needed: importing them fails.
sys.modules.update({"triton": None, "einops": None, "reserve": None})
import torch  # noqa: E402

import reserve_kernels as ops  # noqa: E402
from reserve_kernels import native  # noqa: E402

torch.manual_seed(0)
found = {"version": ops.__version__, "file": ops.__file__, "native": native.describe(), "errors": {}}
x, y = torch.randn(2, 12, 32).unbind()
calls = {
    "log_mel_spectrogram": lambda b: ops.log_mel_spectrogram(torch.linspace(-1, 1, 9000).sin(), backend=b),
    "whisper": lambda b: ops.log_mel_spectrogram(torch.linspace(-1, 1, 9000).sin(), preset="whisper", backend=b),
    "rotary_attention": lambda b: ops.rotary_attention(
        torch.linspace(-1, 1, 3456).view(9, 3, 2, 64), torch.tensor([0, 4, 9], dtype=torch.int32), 5, backend=b
    ),
    "bias_quick_gelu": lambda b: ops.bias_quick_gelu(x, y[0], backend=b),
    "contrastive_loss": lambda b: ops.contrastive_loss(x, y, 1.0, backend="chunked" if b == "native" else b).loss,
}
for name, call in calls.items():
    found["errors"][name] = float((call("native") - call("reference")).abs().max())
weights = [torch.nn.Parameter(torch.ones(100)) for _ in range(2)]
for weight, backend in zip(weights, ("native", "reference"), strict=True):
    weight.grad = torch.linspace(-1, 1, 100)
    ops.BF16AdamW([weight], lr=0.1, backend=backend).step()
found["isa"] = [isa for isa in native.ISA if isa != "auto" and native.library().has_isa(isa)]
found["errors"]["BF16AdamW"] = float((weights[0] - weights[1]).detach().abs().max())
print(json.dumps(found))
assert max(found["errors"].values()) < 1e-4
