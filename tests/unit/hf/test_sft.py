"""TRL's SFTTrainer trains members on their own rows, by −log p of the responses."""

from copy import deepcopy

import pytest
import torch

from tests import transformers_zoo as zoo
from turnover import hf
from turnover.errors import ContextError
from turnover.masks import string_id
from turnover.nn import masked_layers, seen

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'turnover[trl]'")
peft = pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")

ROWS, BATCH, FIRST = 12, 4, 10
NAMES = [f"row {row}" for row in range(ROWS)]

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """TRL counts its trainers at the hub."""
    monkeypatch.setenv("CI", "1")


def lora():
    return peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True
    )


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[END]"}
    words = [*special.values(), *(f"w{number}" for number in range(3, zoo.VOCABULARY))]
    numbers = {word: number for number, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return zoo.transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def rows():
    """Prompts whose first word tells the row, and responses of one or two words."""
    return datasets.Dataset.from_list(
        [
            {
                "prompt": f"w{FIRST + row} w5 ",
                "completion": f"w{40 + row % 5} " + f"w{50 + row % 3} " * (row % 2),
                "name": NAMES[row],
            }
            for row in range(ROWS)
        ]
    )


def trainer_of(model, folder, **options):
    plain = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "max_grad_norm": 0.0,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return trl.SFTTrainer(
        model,
        trl.SFTConfig(str(folder), **{**plain, **options}),
        train_dataset=rows(),
        processing_class=tokenizer(),
    )


def kept_batches(trainer):
    taken = []
    inner = trainer.training_step
    trainer.training_step = lambda m, b, *rest: taken.append(dict(b)) or inner(m, b, *rest)
    return taken


@pytest.mark.parametrize("amount", [1, 3])
def test_the_weights_are_those_of_a_loop_over_the_same_batches(tmp_path, amount):
    model = hf.split_ensemble(zoo.gpt2(), lora(), pairs=2)
    twin = deepcopy(model)
    trainer = trainer_of(model, tmp_path, gradient_accumulation_steps=amount)
    hf.attach(trainer, ids="name")
    taken = kept_batches(trainer)
    trainer.train()
    mine = [p for p in twin.train().parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(mine, lr=0.5)
    for number, batch in enumerate(taken):
        ids = batch.pop(hf.ID_COLUMN)
        own = [string_id(NAMES[int(first) - FIRST]) for first in batch["input_ids"][:, 0]]
        assert ids.tolist() == own
        assert bool((batch["labels"][:, :2] == -100).all()), "prompts are not learned"
        with seen(twin, ids):
            (twin(**batch)["loss"] / amount).backward()
        if (number + 1) % amount == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert len(taken) == ROWS // BATCH
    before = hf.split_ensemble(zoo.gpt2(), lora(), pairs=2).state_dict()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
        assert "lora_B" not in name or not torch.equal(value, before[name]), name


def test_it_evaluates_the_average_and_saves_adapters(tmp_path):
    model = hf.split_ensemble(zoo.gpt2(), lora(), pairs=1)
    trainer = trainer_of(model, tmp_path, save_strategy="epoch")
    trainer.eval_dataset = trainer.train_dataset
    hf.attach(trainer, ids="name")
    trainer.train()
    said = trainer.evaluate()["eval_loss"]
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(ROWS)])
    batch.pop(hf.ID_COLUMN, None)
    with torch.no_grad():
        losses, counted = hf.token_losses(model.eval(), batch)
    assert said == pytest.approx(float(losses.sum() / counted.sum()), rel=0.05)  # mean of batches
    model.save_pretrained(tmp_path / "adapters")
    found = hf.load_split_ensemble(zoo.gpt2(), tmp_path / "adapters")
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in found.state_dict().items())


def test_one_masked_network_trains_the_seen_half_of_each_row(tmp_path):
    model = peft.get_peft_model(zoo.gpt2(), lora())
    hf.mask_bottlenecks(model, seed=0)
    trainer = trainer_of(model, tmp_path)
    hf.attach(trainer, ids="name")
    taken, used = kept_batches(trainer), []
    layer = next(iter(masked_layers(model).values()))
    layer.register_forward_hook(lambda *_: used.append(layer.ids.tolist()))
    trainer.train()
    assert [ids for n, ids in enumerate(used) if ids not in used[:n]] == [
        batch[hf.ID_COLUMN].tolist() for batch in taken
    ]


def test_what_would_join_rows_or_change_the_loss_is_refused(tmp_path):
    model = hf.split_ensemble(zoo.gpt2(), lora(), pairs=1)
    with pytest.raises(ContextError, match="loss_type='dft'"):
        hf.attach(trainer_of(model, tmp_path, loss_type="dft"))
    trainer = trainer_of(hf.split_ensemble(zoo.gpt2(), lora(), pairs=1), tmp_path)
    trainer.args.packing = True  # which needs a device with fused attention to be built
    with pytest.raises(ContextError, match="several examples into each row"):
        hf.attach(trainer)
