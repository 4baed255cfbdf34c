"""Records blocks of ggml's number formats and what the package gguf makes of them, for src/model/gguf/tests.rs.

Run with gguf 0.19: python tests/record/quants.py tests/golden/gguf_blocks.json
"""

import json
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where a block holds half precision numbers: these must be numbers, everything else may be any bits.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

draw = np.random.default_rng(5)
found = []
for name, places in SCALES.items():
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    count = 1 if block == 256 else 3
    data = draw.integers(0, 256, (count, size), dtype=np.uint8)
    for place in places:
        scale = draw.uniform(-0.1, 0.1, count).astype(np.float16)
        data[:, place:place + 2] = scale.view(np.uint8).reshape(count, 2)
    values = dequantize(data.reshape(1, -1), kind).astype("<f4")
    found.append({"number": int(kind), "name": name.lower(), "bytes": data.tobytes().hex(),
                  "values": values.tobytes().hex()})
text = ",\n".join(json.dumps(case) for case in found)
open(sys.argv[1], "w").write(f"[\n{text}\n]\n")
