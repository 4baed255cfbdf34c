"""Records a LoRA adapter's settings as PEFT writes them, its tensors' names and shapes, and the adapted model's logits.

Run with peft 0.21: python tests/record/adapter.py tests/golden/adapter.json
The base is the model `llama_biases` of logits.py; the adapter's numbers come from the same formula over PEFT's names.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from logits import CASES, POSITIONS, TOKENS, fill, model_of
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file

model = get_peft_model(model_of(*CASES["llama_biases"]), LoraConfig(
    r=4, lora_alpha=6, lora_dropout=0.1, use_rslora=True, task_type="CAUSAL_LM",
    target_modules=["q_proj", "v_proj", "o_proj", "down_proj"])).eval()
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    settings = json.loads((Path(folder) / "adapter_config.json").read_text())
    shapes = {name: list(tensor.shape) for name, tensor in load_file(Path(folder) / "adapter_model.safetensors").items()}
set_peft_model_state_dict(model, {name: fill(name, tuple(shape)) for name, shape in shapes.items()})
with torch.no_grad():
    logits = model(torch.tensor([TOKENS])).logits[0]
rows = ",\n  ".join(json.dumps([float(np.float32(x)) for x in logits[at]]) for at in POSITIONS)
tensors = ",\n  ".join(f"{json.dumps(name)}: {shape}" for name, shape in sorted(shapes.items()))
Path(sys.argv[1]).write_text(f'{{"settings": {json.dumps(settings)},\n "tensors": {{\n  {tensors}}},\n'
                             f' "positions": {POSITIONS},\n "logits": [\n  {rows}]}}\n')
