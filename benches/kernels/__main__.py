"""Every CUDA kernel against torch: errors, then times beside their floors and torch's own.

Usage: python3 benches/kernels [check] [bench] [rows] [decode] [attention]
Needs torch, CuPy and an NVIDIA GPU. Exits with 1 when a kernel is wrong. The floor of a kernel is what it must move over 4.3 TB/s
or must compute over 790 TFLOP/s, whichever takes longer: what an H200 did in a copy and in a large bf16 product.
"""

import sys
import time
import traceback

import attention
import decode
import device
import rows
import torch

PARTS = {"rows": rows, "decode": decode, "attention": attention}


def main(words):
    parts = [PARTS[w] for w in PARTS if w in words] or list(PARTS.values())
    actions = [a for a in ("check", "bench") if a in words] or ["check", "bench"]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    print(torch.__version__, torch.cuda.get_device_name(), flush=True)
    begin = time.perf_counter()
    for action in actions:
        for part in parts:
            print(f"{part.__name__}: {action}", flush=True)
            try:
                part.checks() if action == "check" else part.bench()
                torch.cuda.synchronize()
            except Exception:
                device.failures.append(f"{part.__name__} {action}")
                traceback.print_exc()
            print(f"  [{time.perf_counter() - begin:.0f} s]", flush=True)
    if device.failures:
        print("WRONG:", *device.failures, sep="\n  ")
    return 1 if device.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
