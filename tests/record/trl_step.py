"""Records tests/golden/trl_step.json: three optimiser steps of TRL's own trainers on a tiny Llama, in float32 on the CPU.

Weights come from a formula that the tests repeat, and rows are token ids, so only what the trainers found is kept: of each step
loss, gradient norm and metrics; of each parameter after the last step its sum, its norm, the norm of its change and a few numbers.

    python tests/record/trl_step.py tests/golden/trl_step.json
"""

import copy
import json
import sys
import tempfile

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

VOCAB, END = 24, 1
CONFIG = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
)
LORA = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
ADAM = dict(learning_rate=1e-2, weight_decay=0.1, adam_epsilon=1e-8)
COMMON = dict(
    per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=3, lr_scheduler_type="linear",
    warmup_steps=0, max_grad_norm=1.0, logging_steps=1, bf16=False, use_cpu=True, report_to=[], save_strategy="no",
    gradient_checkpointing=False, disable_tqdm=True, max_length=64, **ADAM,
)


def numbers(name, count):
    """The formula: every number a fraction that float32 holds nearly exactly, another sequence for each name."""
    seed = sum((place + 1) * ord(letter) for place, letter in enumerate(name)) % 97
    values = torch.arange(count, dtype=torch.int64)
    mixed = (values * values * 31 + values * (2 * seed + 7) + seed * 13) % 101
    return mixed.to(torch.float64) / 101 - 0.5


def fill(model):
    """Norms around one, everything else around zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", "")
            values = numbers(plain, parameter.numel()).reshape(parameter.shape)
            parameter.copy_(1 + 0.2 * values if "norm" in plain else 0.5 * values)
    return model


def adapters(lora):
    """Given to the trainer, so that its reference is the model with adapters switched off."""
    return LoraConfig(lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **LORA) if lora else None


def word(number):
    """No word begins another one: the end's would else be found inside."""
    return f"<{number}>"


def tokenizer():
    words = Tokenizer(models.WordLevel({word(number): number for number in range(VOCAB)}, unk_token=word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=word(0), eos_token=word(END), unk_token=word(0))


def ids(start, step, count, end=True):
    return [2 + (start + step * place) % (VOCAB - 2) for place in range(count)] + ([END] if end else [])


def words(tokens):
    return " ".join(word(token) for token in tokens)


PROMPTS = [ids(3, 5, 4, False), ids(9, 7, 6, False), ids(1, 3, 3, False), ids(14, 9, 5, False)]
CHOSEN = [ids(5, 1, 3), ids(2, 5, 6), ids(11, 3, 9), ids(7, 7, 1)]
REJECTED = [ids(8, 11, 5), ids(20, 13, 2), ids(4, 15, 4), ids(16, 17, 8)]
LABELS = [True, False, False, True]


def rows(kind):
    prompts = [words(prompt) + " " for prompt in PROMPTS]
    chosen, rejected = [words(side) for side in CHOSEN], [words(side) for side in REJECTED]
    if kind == "sft":
        return {"prompt": prompts, "completion": chosen}
    if kind == "kto":
        return {"prompt": prompts, "completion": chosen, "label": LABELS}
    return {"prompt": prompts, "chosen": chosen, "rejected": rejected}


def trainer(kind, lora, folder):
    policy = fill(LlamaForCausalLM(LlamaConfig(attn_implementation="eager", **CONFIG)))
    reference = None if lora else copy.deepcopy(policy)
    given = dict(processing_class=tokenizer(), train_dataset=Dataset.from_dict(rows(kind)), model=policy, peft_config=adapters(lora))
    common = dict(output_dir=folder, train_sampling_strategy="sequential", **COMMON)
    if kind == "sft":
        return SFTTrainer(args=SFTConfig(**common), **given)
    if kind == "kto":
        args = KTOConfig(beta=0.3, desirable_weight=1.0, undesirable_weight=1.5, **common)
        return KTOTrainer(ref_model=reference, args=args, **given)
    return DPOTrainer(ref_model=reference, args=DPOConfig(beta=0.3, **common), **given)


def run(kind, lora):
    with tempfile.TemporaryDirectory() as folder:
        training = trainer(kind, lora, folder)
        policy = fill(training.model)
        before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
        losses, inner = [], training.training_step
        training.training_step = lambda *args, **kwargs: losses.append(inner(*args, **kwargs)) or losses[-1]
        training.train()
    logs = [log for log in training.state.log_history if "grad_norm" in log]
    assert len(logs) == 3 and len(losses) == 6, (len(logs), len(losses))
    steps = []
    for step, log in enumerate(logs):
        entry = {"loss": sum(float(loss) for loss in losses[2 * step : 2 * step + 2]), "grad_norm": float(log["grad_norm"])}
        entry["learning_rate"] = log["learning_rate"]
        for name in ["kl", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected"]:
            if name in log:
                entry[name] = float(log[name])
        steps.append(entry)
    parameters = {}
    for name, parameter in policy.named_parameters():
        now = parameter.detach().to(torch.float64)
        change = (now - before[name].to(torch.float64)).norm().item()
        if not parameter.requires_grad:
            assert change == 0.0, name
            continue
        plain = name.removeprefix("base_model.model.").replace(".default", "")
        flat = now.flatten()
        places = [0, len(flat) // 3, len(flat) - 1]
        parameters[plain] = [flat.sum().item(), flat.norm().item(), change] + [flat[place].item() for place in places]
    return {"kind": kind, "lora": lora, "steps": steps, "parameters": parameters}


cases = [run(kind, lora) for kind in ["sft", "kto", "dpo"] for lora in [False, True]]
recorded = {
    "source": f"trl {trl.__version__}: SFTTrainer, KTOTrainer, DPOTrainer, float32 on the CPU",
    "config": {"model_type": "llama", **CONFIG}, "lora": LORA, "prompts": PROMPTS, "chosen": CHOSEN, "rejected": REJECTED,
    "labels": LABELS, "cases": cases,
}
with open(sys.argv[1], "w") as file:
    json.dump(recorded, file, indent=None, separators=(",", ":"))
    file.write("\n")
