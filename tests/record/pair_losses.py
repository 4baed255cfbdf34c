"""Records tests/golden/pair_losses.json: the losses of preference pairs, in float64, with their gradients.

DPO's cases run TRL's own `DPOTrainer._compute_loss` on given log-probabilities. SPIN and SELM, which TRL 1.16.0 does not have,
follow their authors' trainers (github.com/uclaml/SPIN, spin_loss; github.com/shenao-zhang/SELM, optimistic_dpo_loss), SELM's
further reply being each side of the pair in turn. Label smoothing is conservative DPO's.

    python tests/record/pair_losses.py tests/golden/pair_losses.json
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import trl
from trl import DPOTrainer


def trl_loss(policy, reference, beta):
    """TRL's loss, every completion one token behind one token of prompt."""
    rows = policy[0].shape[0]
    log_probs = torch.cat(policy)[:, None]  # [2 * rows, 1]
    outputs = SimpleNamespace(
        log_probs=log_probs,
        entropy=torch.zeros_like(log_probs),
        mean_logits=torch.zeros_like(log_probs),
        is_top1=torch.zeros_like(log_probs, dtype=torch.bool),
    )

    class Model:
        training = True

        def __call__(self, **_):
            return outputs

    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=Model(), accelerator=accelerator, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0], beta=beta, label_smoothing=0.0,
        use_weighting=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )
    ids = torch.ones((2 * rows, 2), dtype=torch.long)
    inputs = {
        "input_ids": ids, "attention_mask": ids, "completion_mask": torch.tensor([[0, 1]] * (2 * rows)),
        "ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1],
    }
    return DPOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False)


def smoothed(policy, reference, beta, smoothing):
    x = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    return (-F.logsigmoid(x) * (1 - smoothing) - F.logsigmoid(-x) * smoothing).mean()


def spin(policy, reference, beta):
    logits = (policy[0] - policy[1]) - (reference[0] - reference[1])
    return -F.logsigmoid(beta * logits).mean()


def selm(policy, reference, beta, alpha):
    logits = (policy[0] - policy[1]) - (reference[0] - reference[1])
    of = lambda side: -F.logsigmoid(beta * logits) + alpha * beta * (policy[side] - reference[side])
    return ((of(0) + of(1)) / 2).mean()


def case(name, loss, rows, beta, label_smoothing=0.0, alpha=0.0, spread=2.0):
    draw = lambda scale: scale * torch.randn(rows, dtype=torch.float64)
    reference = [-30 + draw(6.0), -30 + draw(6.0)]
    policy = [(side + draw(spread)).requires_grad_() for side in reference]
    value = {
        "dpo": lambda: smoothed(policy, reference, beta, label_smoothing) if label_smoothing else trl_loss(policy, reference, beta),
        "spin": lambda: spin(policy, reference, beta),
        "selm": lambda: selm(policy, reference, beta, alpha),
    }[loss]()
    value.backward()
    rewards = [(beta * (p.detach() - r)).mean().item() for p, r in zip(policy, reference)]
    return {
        "name": name, "loss": loss, "beta": beta, "label_smoothing": label_smoothing, "alpha": alpha,
        "policy": [side.detach().tolist() for side in policy], "reference": [side.tolist() for side in reference],
        "expect": {"loss": value.item(), "slopes": [side.grad.tolist() for side in policy], "rewards": rewards},
    }


torch.manual_seed(5)
cases = [
    case("dpo", "dpo", 5, 0.1),
    case("dpo_steep", "dpo", 4, 0.5, spread=20.0),
    case("dpo_smoothed", "dpo", 4, 0.1, label_smoothing=0.1),
    case("spin", "spin", 4, 0.1),
    case("selm", "selm", 5, 0.1, alpha=0.01),
    case("selm_bold", "selm", 3, 0.3, alpha=0.7),
]
source = f"trl {trl.__version__} (DPOTrainer._compute_loss), the SPIN and SELM authors' formulas, float64"
with open(sys.argv[1], "w") as file:
    json.dump({"source": source, "cases": cases}, file, indent=1)
    file.write("\n")
