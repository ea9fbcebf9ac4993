"""The masks of every training step are those of its rows, by whatever way the rows came there."""

import json

import numpy as np
import pytest
import torch

from tests import transformers_zoo as zoo
from turnover import hf
from turnover.errors import ContextError, ConversionError, DataError, IdError, RunError
from turnover.masks import gates, string_id
from turnover.nn import masked_layers, seen

transformers = zoo.transformers
ROWS, BATCH, FIRST_TOKEN = 14, 4, 3

# The newest transformers calls it activation checkpointing; PEFT, and older releases, do not.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


class Sentences(torch.utils.data.Dataset):
    """Sentences of different lengths; the first token tells the row."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        tokens = [FIRST_TOKEN + row, *range(20, 21 + row % 4)]
        own = {name: values[row] for name, values in self.columns.items()}
        return {"input_ids": tokens, "label": row % 3, "text": f"sentence {row}", **own}


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        data = Sentences(name=[f"row {row}" for row in range(ROWS)])
        yield from (data[row] for row in range(ROWS))


def tokenizer():
    from tokenizers import Tokenizer, models

    words = {f"w{number}": number for number in range(zoo.VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w1"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="w0", unk_token="w1"
    )


def arguments(folder, **options):
    plain = {
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 2,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(output_dir=str(folder), **{**plain, **options})


def masked_bert(seed=3):
    model = zoo.bert()
    hf.add_adapters(model, 8)
    hf.mask_bottlenecks(model, seed=seed)
    return model


class Spy:
    """Every forward pass of a model: its batch, the ids in force, and the gates of one layer."""

    def __init__(self, model):
        self.batches, self.ids, self.gates = [], [], []
        name, layer = list(masked_layers(model).items())[-1]
        model.register_forward_pre_hook(self._enter, with_kwargs=True)
        layer.register_forward_hook(self._masked)
        self.layer, self.name = layer, name

    def _enter(self, model, _, batch):
        ids = self.layer.ids
        self.ids.append(None if ids is None else ids.clone())
        kept = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
        kept.pop("num_items_in_batch", None)
        self.batches.append((model.training, kept))

    def _masked(self, _, args, output):
        self.gates.append((output / args[0]).detach())

    def rows(self, step):
        return (self.batches[step][1]["input_ids"][:, 0] - FIRST_TOKEN).tolist()

    def steps(self):
        return [step for step, (training, _) in enumerate(self.batches) if training]


def make(folder, data=None, ids=None, model=None, options=None, **named):
    model = model or masked_bert()
    spy = Spy(model)
    trainer = transformers.Trainer(
        model,
        arguments(folder, **(options or {})),
        train_dataset=data or Sentences(),
        data_collator=named.pop("collator", transformers.DataCollatorWithPadding(tokenizer())),
        **named,
    )
    hf.attach(trainer, ids)
    return trainer, spy


def assert_masks_are_those_of_the_rows(spy, id_of):
    """From the tokens that reached the model, not from the ids that should have."""
    assert spy.steps()
    layer = spy.layer
    for step in spy.steps():
        ids = torch.tensor([id_of(row) for row in spy.rows(step)])
        assert torch.equal(spy.ids[step], ids)
        units = spy.gates[step].shape[-1]
        expected = gates(ids, units, seed=layer.seed, layer=layer.layer, keep=layer.keep)
        assert torch.equal(spy.gates[step].nan_to_num(1.0) != 0, expected != 0)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_is_that_of_a_plain_loop_bit_for_bit(tmp_path):
    trainer, spy = make(tmp_path)
    start = weights(trainer.model)
    trainer.train()
    model = masked_bert()
    model.load_state_dict(start)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in spy.steps():
        optimizer.zero_grad()
        with seen(model, spy.rows(step)):
            model(**spy.batches[step][1]).loss.backward()
        optimizer.step()
    assert same_bits(weights(model), weights(trainer.model))
    assert not same_bits(weights(model), start)


def test_shuffling_keeps_identity(tmp_path):
    trainer, spy = make(tmp_path)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: row)
    epochs = [row for step in spy.steps() for row in spy.rows(step)]
    assert epochs[:ROWS] != list(range(ROWS)) and sorted(epochs[:ROWS]) == list(range(ROWS))
    assert epochs[ROWS:] != epochs[:ROWS] and sorted(epochs[ROWS:]) == list(range(ROWS))


def test_sequences_are_padded_by_the_batch(tmp_path):
    trainer, spy = make(tmp_path)
    trainer.train()
    assert len({spy.batches[step][1]["input_ids"].shape[1] for step in spy.steps()}) > 1


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize(
    ("column", "id_of"),
    [
        ([100 + row for row in range(ROWS)], lambda row: 100 + row),
        ([f"row {row}" for row in range(ROWS)], lambda row: string_id(f"row {row}")),
    ],
    ids=["numbers", "names"],
)
def test_a_column_of_ids(tmp_path, column, id_of, remove):
    data, collator = Sentences(name=column), None
    if not remove:
        inner = transformers.DataCollatorWithPadding(tokenizer())

        def collator(items):
            return inner([{k: v for k, v in item.items() if k != "text"} for item in items])

    options = {"remove_unused_columns": remove}
    named = {} if collator is None else {"collator": collator}
    trainer, spy = make(tmp_path, data, "name", options=options, eval_dataset=data, **named)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, id_of)
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_ids_beside_the_data(tmp_path):
    ids = torch.arange(ROWS).flip(0) * 7 - 3
    trainer, spy = make(tmp_path, ids=ids)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: int(ids[row]))


def test_a_stream_names_its_column(tmp_path):
    options = {"max_steps": 6, "num_train_epochs": 1}
    trainer, spy = make(tmp_path, Stream(), "name", options=options)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: string_id(f"row {row}"))


@pytest.mark.parametrize("group", [None, "length"])
def test_a_data_set_of_the_package_datasets(tmp_path, group):
    datasets = pytest.importorskip("datasets")
    plain = Sentences(name=[f"row {row}" for row in range(ROWS)])
    data = datasets.Dataset.from_list(
        [{**plain[row], "length": len(plain[row]["input_ids"])} for row in range(ROWS)]
    )
    options = {} if group is None else {"train_sampling_strategy": "group_by_length"}
    for ids, id_of in [(None, lambda row: row), ("name", lambda row: string_id(f"row {row}"))]:
        trainer, spy = make(tmp_path, data, ids, options=options, eval_dataset=data)
        trainer.train()
        assert_masks_are_those_of_the_rows(spy, id_of)
        assert hf.ID_COLUMN not in data.column_names
        trainer.evaluate()


def test_gradients_accumulate_over_the_masks_of_all_rows(tmp_path):
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer, spy = make(tmp_path, options={**options, "max_steps": 3})
    start = weights(trainer.model)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: row)
    steps = spy.steps()
    assert len(steps) == 6
    model = masked_bert()
    model.load_state_dict(start)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for pair in zip(steps[::2], steps[1::2], strict=True):
        optimizer.zero_grad()
        for step in pair:
            with seen(model, spy.rows(step)):
                (model(**spy.batches[step][1]).loss * scale(trainer)).backward()
        optimizer.step()
    assert same_bits(weights(model), weights(trainer.model))


def scale(trainer):
    """The Trainer does not divide what a model that takes ``num_items_in_batch`` may have."""
    return 1.0 if trainer.model_accepts_loss_kwargs else 0.5


def test_evaluation_and_prediction_run_the_full_network(tmp_path):
    data = Sentences()
    trainer, spy = make(
        tmp_path, options={"eval_strategy": "steps", "eval_steps": 1}, eval_dataset=data
    )
    trainer.train()
    evaluated = [
        ids for (training, _), ids in zip(spy.batches, spy.ids, strict=True) if not training
    ]
    assert len(evaluated) >= 8 and all(ids is None for ids in evaluated)
    logits = trainer.predict(data).predictions
    again = trainer.predict(trainer.train_dataset).predictions
    plain = transformers.Trainer(
        trainer.model, arguments(tmp_path), data_collator=trainer.data_collator.inner
    )
    assert np.array_equal(logits, again)
    assert np.array_equal(logits, plain.predict(data).predictions)


def test_resuming_ends_with_the_same_bits(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3}
    whole, _ = make(tmp_path, options=options)
    whole.train()
    resumed, spy = make(tmp_path, options=options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert len(spy.steps()) == 5
    assert_masks_are_those_of_the_rows(spy, lambda row: row)
    assert same_bits(weights(whole.model), weights(resumed.model))


@pytest.mark.parametrize("other", ["seed", "ids"])
def test_the_checkpoint_of_another_training_is_refused(tmp_path, other):
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    make(tmp_path, options=options)[0].train()
    about = json.loads((tmp_path / "checkpoint-3" / "turnover.json").read_text())
    assert about["mask version"] == 1 and len(about["masks (layer, seed, p)"]) == 5
    trainer, _ = make(
        tmp_path,
        model=masked_bert(seed=4) if other == "seed" else None,
        ids=torch.arange(ROWS) + 1 if other == "ids" else None,
        options=options,
    )
    with pytest.raises(RunError, match="masks" if other == "seed" else "hash of ids"):
        trainer.train(resume_from_checkpoint=True)


def test_workers_and_checkpointed_activations_keep_identity(tmp_path):
    options = {"gradient_checkpointing": True, "dataloader_num_workers": 1, "max_steps": 2}
    trainer, spy = make(tmp_path, options=options)
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: row)


def test_a_subclass_stays_what_it_was(tmp_path):
    class Own(transformers.Trainer):
        def compute_loss(self, model, inputs, **options):
            self.called = True
            return super().compute_loss(model, inputs, **options)

    collator = transformers.DataCollatorWithPadding(tokenizer())
    trainer = Own(masked_bert(), arguments(tmp_path, max_steps=1), collator, Sentences())
    hf.attach(trainer)
    trainer.train()
    assert trainer.called and isinstance(trainer, Own) and type(trainer).__name__ == "Own"


def test_lora_through_the_trainer(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS")
    model = peft.get_peft_model(zoo.bert(), config)
    hf.mask_bottlenecks(model, seed=3)
    trainer, spy = make(tmp_path, model=model, options={"max_steps": 2})
    trainer.train()
    assert_masks_are_those_of_the_rows(spy, lambda row: row)


def test_clipping_by_the_norm_is_warned_of(tmp_path):
    with pytest.warns(hf.LeakWarning, match="max_grad_norm=0"):
        make(tmp_path, options={"max_grad_norm": 1.0})
    with pytest.warns(hf.LeakWarning, match="adamw_torch"):
        make(tmp_path, options={"optim": "adafactor"})


def test_what_cannot_be_attached_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="no turn-over layer"):
        hf.attach(transformers.Trainer(zoo.bert(), arguments(tmp_path), None, Sentences()))
    trainer, _ = make(tmp_path)
    with pytest.raises(ContextError, match="already"):
        hf.attach(trainer)
    with pytest.raises(IdError, match="no row numbers"):
        make(tmp_path, Stream(), options={"max_steps": 1})
    with pytest.raises(IdError, match="rows 0 and 1"):
        make(tmp_path, Sentences(name=["one"] * ROWS), "name")
    with pytest.raises(DataError, match="'nothing'"):
        make(tmp_path, ids="nothing")
    with pytest.raises(IdError, match="3 ids for 14 rows"):
        make(tmp_path, ids=[1, 2, 3])


def test_data_parallel_in_one_process_is_refused(tmp_path, monkeypatch):
    collator = transformers.DataCollatorWithPadding(tokenizer())
    trainer = transformers.Trainer(masked_bert(), arguments(tmp_path), collator, Sentences())
    monkeypatch.setattr(trainer.args, "_n_gpu", 2)
    with pytest.raises(ContextError, match="torchrun --nproc-per-node 2"):
        hf.attach(trainer)


def test_a_batch_that_lost_its_ids_is_refused(tmp_path):
    trainer, _ = make(tmp_path)
    trainer.data_collator = trainer.data_collator.inner
    trainer.train_dataset = Sentences()
    with pytest.raises(IdError, match="dropped it"):
        trainer.train()
