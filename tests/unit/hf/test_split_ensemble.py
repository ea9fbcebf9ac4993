"""Adapters of all members on one frozen transformer: what each learns, holds, and keeps."""

import gc
import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests import transformers_zoo as zoo
from tests.unit.hf.test_trainer import Sentences, arguments, tokenizer
from turnover import GradientKernel, Recipe, Rows, hf
from turnover.errors import ContextError, ConversionError, RunError
from turnover.leaks import check_split_ensemble
from turnover.nn import full, seen, unseen
from turnover.training import member_seeds, train_split_ensemble

transformers = zoo.transformers
peft = pytest.importorskip("peft")
PAIRS, ROWS = 2, 12

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


def lora(**options):
    plain = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query", "value"]}
    return peft.LoraConfig(**{**plain, **options})


def language_lora(names):
    of_gpt2 = names == ["c_attn"]
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=names, fan_in_fan_out=of_gpt2)


LAST = {"layers_to_transform": [1]}
KINDS = {
    "lora": (zoo.bert, lora, zoo.rows),
    "lora in the last block": (zoo.bert, lambda: lora(**LAST), zoo.rows),
    "houlsby": (zoo.bert, lambda: hf.Houlsby(4), zoo.rows),
    "houlsby in the last block": (zoo.bert, lambda: hf.Houlsby(4, first=2), zoo.rows),
    "roberta": (zoo.roberta, lora, zoo.rows),
    "all biases": (zoo.bert, lambda: lora(bias="all"), zoo.rows),
    "gpt2": (zoo.gpt2, lambda: language_lora(["c_attn"]), zoo.texts),
    "llama": (zoo.llama, lambda: language_lora(["q_proj", "v_proj"]), zoo.texts),
}
REPEATED = {"lora in the last block", "houlsby", "roberta", "llama"}  # the same paths once more


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in REPEATED else []) for n in KINDS]
)
def parts(request):
    base, adapters, batch = KINDS[request.param]
    return base().eval(), adapters(), batch(ROWS)


def ensemble(parts, **options):
    return hf.split_ensemble(parts[0], parts[1], **{"pairs": PAIRS, **options})


def shaken(model, seed=0):
    """LoRA begins at zero, where members are equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


def own(member):
    return {name: p for name, p in member.named_parameters() if p.requires_grad}


def test_members_share_every_frozen_tensor_and_nothing_that_is_trained(parts):
    base, *_ = parts
    lent = {id(p) for p in base.parameters()}
    model = ensemble(parts)
    trained = [id(p) for member in model.members for p in own(member).values()]
    assert len(trained) == len(set(trained)) and trained and not lent & set(trained)
    for member in model.members:
        assert {id(p) for p in member.parameters() if not p.requires_grad} <= lent
    assert not any(p.requires_grad for p in base.parameters())
    assert {t.data_ptr() for t in model.state_dict().values()} <= {
        p.data_ptr() for member in model.members for p in own(member).values()
    }


def test_the_base_says_what_it_said_before(parts):
    base, _, batch = parts
    with torch.no_grad():
        before = base(**without_labels(batch))["logits"]
        shaken(ensemble(parts))
        assert torch.equal(before, base(**without_labels(batch))["logits"])


def test_the_output_is_the_mean_over_the_members_that_a_block_chooses(parts):
    model, ids = shaken(ensemble(parts)), torch.arange(ROWS)
    batch = without_labels(parts[2])
    with torch.no_grad():
        each = torch.stack([member(**batch)["logits"] for member in model.members])
        chosen = model.trains_on(ids).T  # [row, member]

        def mean(weights):
            shape = (*weights.shape, *[1] * (each.dim() - 2))
            return (weights.float().view(shape) * each.transpose(0, 1)).sum(1) / PAIRS

        with full(model):
            torch.testing.assert_close(model(**batch)["logits"], each.mean(0))
        with seen(model, ids):
            torch.testing.assert_close(model(**batch)["logits"], mean(chosen))
        with unseen(model, ids):
            torch.testing.assert_close(model(**batch)["logits"], mean(~chosen))


def step(model, batch, ids):
    model.train()
    with seen(model, ids):
        found = model(**batch)
        found["loss"].backward()
    return found


def test_gradients_are_those_of_members_that_train_alone_on_their_rows(parts):
    model, ids = shaken(ensemble(parts, share_prefix=False)), torch.arange(ROWS)
    batch = parts[2]
    found = step(model, batch, ids)
    losses = []
    for member, rows in zip(model.members, model.trains_on(ids), strict=True):
        alone = deepcopy(member)
        alone.zero_grad()
        loss = alone.train()(**{name: value[rows] for name, value in batch.items()})["loss"]
        loss.backward()
        losses.append(loss.detach())
        wanted = {n: p.grad for n, p in own(alone).items()}
        for name, parameter in own(member).items():
            assert torch.equal(parameter.grad, wanted[name]), name
    torch.testing.assert_close(found["loss"].detach(), torch.stack(losses).mean())


def test_a_shared_prefix_changes_nothing_but_time(parts):
    whole, ids = shaken(ensemble(parts, share_prefix=False)), torch.arange(ROWS)
    other = deepcopy(whole)
    other.share_prefix = ensemble(parts).share_prefix
    for model in (whole, other):
        step(model, parts[2], ids)
    for one, two in zip(whole.members, other.members, strict=True):
        for name, parameter in own(one).items():
            torch.testing.assert_close(parameter.grad, own(two)[name].grad, msg=name)
    with torch.no_grad():
        batch = without_labels(parts[2])
        torch.testing.assert_close(whole.eval()(**batch)["logits"], other.eval()(**batch)["logits"])


def test_a_frozen_prefix_is_run_once_for_all_members():
    model = hf.split_ensemble(zoo.bert(), lora(**LAST), pairs=4)
    assert model.share_prefix
    calls = []
    for one in model.transformers:
        one.bert.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
    step(model, zoo.rows(ROWS), torch.arange(ROWS))
    assert len(calls) == 1


def test_tails_on_features_are_the_members():
    model = shaken(hf.split_ensemble(zoo.bert(), lora(**LAST), pairs=PAIRS)).eval()
    tail, features = hf.split_prefix(model)
    batch = zoo.rows(ROWS)
    with torch.no_grad():
        ready = without_labels(features(batch))
        torch.testing.assert_close(
            tail(**ready)["logits"], model(**without_labels(batch))["logits"]
        )
    assert {id(p) for p in tail.parameters() if p.requires_grad} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    with pytest.raises(ConversionError, match="LoraConfig\\(layers_to_transform"):
        hf.split_prefix(hf.split_ensemble(zoo.bert(), lora(), pairs=1))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def test_members_trained_side_by_side_are_single_adapters_trained_alone(parts):
    """Routing inside one loop, and a loop for each member, end with the same bits."""
    rows = Rows(parts[2], torch.arange(ROWS))
    model = shaken(ensemble(parts, share_prefix=False))
    twins = deepcopy(model)
    optimizer = sgd([p for p in model.parameters() if p.requires_grad])
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).split(5)
    for batch in order:
        optimizer.zero_grad()
        step(model, {n: v[batch] for n, v in parts[2].items()}, rows.ids[batch])
        optimizer.step()
    for member, twin, mine in zip(
        model.members, twins.members, model.trains_on(rows.ids), strict=True
    ):
        alone = sgd([p for p in twin.parameters() if p.requires_grad])
        for batch in order:
            if len(some := batch[mine[batch]]):
                alone.zero_grad()
                twin.train()(**{n: v[some] for n, v in parts[2].items()})["loss"].backward()
                alone.step()
        for name, value in member.state_dict().items():
            assert torch.equal(value, twin.state_dict()[name]), name


def test_accelerate_trains_what_a_plain_loop_trains(parts):
    accelerate = pytest.importorskip("accelerate")
    batch = parts[2]
    plain, ids = shaken(ensemble(parts)).train(), torch.arange(ROWS)
    prepared = deepcopy(plain)
    loop = sgd(plain.parameters())
    helper = accelerate.Accelerator(cpu=True)
    model, optimizer = helper.prepare(prepared, sgd(prepared.parameters()))
    for rows in ids.split(4):
        part = {name: value[rows] for name, value in batch.items()}
        with seen(plain, rows):
            plain(**part).loss.backward()
        loop.step()
        loop.zero_grad()
        with seen(prepared, rows):
            helper.backward(model(**part).loss)
        optimizer.step()
        optimizer.zero_grad()
    trained = [p for p in plain.parameters() if p.requires_grad]
    others = [p for p in prepared.parameters() if p.requires_grad]
    assert all(torch.equal(one, other) for one, other in zip(trained, others, strict=True))


def test_no_row_reaches_its_unseen_members(parts):
    recipe = Recipe(1, 4, optimizer=sgd)
    rows = Rows(parts[2], torch.arange(ROWS))
    assert check_split_ensemble(ensemble(parts), rows, hf.loss, recipe).ok


def test_training_one_after_the_other_resumes_from_small_files(tmp_path):
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=PAIRS)
    whole = deepcopy(model)
    rows, recipe = Rows(zoo.rows(ROWS), torch.arange(ROWS)), Recipe(2, 4, optimizer=sgd)
    train_split_ensemble(whole, rows, hf.loss, recipe)
    part = tmp_path / "training"
    train_split_ensemble(model, rows, hf.loss, replace(recipe, epochs=1), checkpoint=part)
    train_split_ensemble(model, rows, hf.loss, recipe, checkpoint=part)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    names = set(load_file(tmp_path / "training.0"))
    assert {name.removeprefix("model.") for name in names if name.startswith("model.")} == set(
        model.members[0].state_dict()
    )


def test_a_copy_shares_what_is_frozen():
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=PAIRS)
    copy = deepcopy(model)
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
    assert {p.data_ptr() for p in copy.parameters() if not p.requires_grad} == frozen
    mine = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    assert not mine & {p.data_ptr() for p in copy.parameters()}


def test_saved_members_come_back_and_are_plain_adapters_of_peft(parts, tmp_path):
    model = shaken(ensemble(parts, seed=5)).eval()
    model.save_pretrained(tmp_path)
    found = hf.load_split_ensemble(parts[0], tmp_path).eval()
    batch = without_labels(parts[2])
    with torch.no_grad():
        assert torch.equal(model(**batch)["logits"], found(**batch)["logits"])
    ids = torch.arange(ROWS)
    assert torch.equal(model.trains_on(ids), found.trains_on(ids))
    if hasattr(parts[1], "peft_type"):
        alone = peft.PeftModel.from_pretrained(deepcopy(parts[0]), tmp_path / "member-1").eval()
        with torch.no_grad():
            torch.testing.assert_close(
                alone(**batch)["logits"], model.members[1](**batch)["logits"]
            )


def test_a_smaller_ensemble_leaves_no_members_of_a_larger_one(tmp_path):
    hf.split_ensemble(zoo.bert(), lora(), pairs=2).save_pretrained(tmp_path)
    (tmp_path / "member-3" / "notes.txt").write_text("mine")
    hf.split_ensemble(zoo.bert(), lora(), pairs=1).save_pretrained(tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    files = ("adapter_config.json", "adapter_model.safetensors")
    own = [f"member-{n}{part}" for n in (0, 1) for part in ("", *(f"/{f}" for f in files))]
    assert found == ["ensemble.json", *own, "member-3", "member-3/notes.txt"]
    assert hf.load_split_ensemble(zoo.bert(), tmp_path).pairs == 1


def test_damaged_folders_are_refused(tmp_path):
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=1)
    model.save_pretrained(tmp_path)
    with pytest.raises(RunError, match="does not fit"):
        hf.load_split_ensemble(zoo.bert(num_labels=4), tmp_path)
    (tmp_path / "member-1" / "adapter_model.safetensors").unlink()
    with pytest.raises(RunError, match="incomplete"):
        hf.load_split_ensemble(zoo.bert(), tmp_path)
    about = json.loads((tmp_path / "ensemble.json").read_text())
    (tmp_path / "ensemble.json").write_text(json.dumps({**about, "pairs": "two"}))
    with pytest.raises(RunError, match="damaged"):
        hf.load_split_ensemble(zoo.bert(), tmp_path)
    with pytest.raises(RunError, match="Cannot read"):
        hf.load_split_ensemble(zoo.bert(), tmp_path / "nowhere")


def test_adapters_come_back_on_their_own_base_and_with_their_length(tmp_path):
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=1)
    model.length = 0.5
    model.save_pretrained(tmp_path)
    assert hf.load_split_ensemble(zoo.bert(), tmp_path).length == 0.5
    other = zoo.bert()
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    with pytest.raises(RunError, match="another fingerprint"):
        hf.load_split_ensemble(other, tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ensemble.json", {"layer": 3}),
        ("ensemble.json", {"length": "half"}),
        ("ensemble.json", {"pairs": 0}),
        ("member-0/adapter_config.json", {"r": "x"}),
        ("member-0/adapter_config.json", {"target_modules": ["nowhere"]}),
    ],
)
def test_damaged_settings_are_refused_in_words(tmp_path, name, change):
    hf.split_ensemble(zoo.bert(), lora(), pairs=1).save_pretrained(tmp_path)
    path = tmp_path / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RunError):
        hf.load_split_ensemble(zoo.bert(), tmp_path)


def test_steps_that_would_join_members_are_refused():
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=1).train()
    batch, ids = zoo.rows(), torch.arange(6)
    with pytest.raises(ContextError, match="which rows each member"):
        model(**batch)
    with unseen(model, ids), pytest.raises(ContextError, match="which rows each member"):
        model(**batch)
    with seen(model, ids), pytest.raises(ContextError, match="no labels"):
        model(**without_labels(batch))


def test_a_loss_of_ones_own_is_routed_too():
    model, ids = shaken(hf.split_ensemble(zoo.bert(), lora(), pairs=1)), torch.arange(ROWS)
    batch = zoo.rows(ROWS)
    with seen(model, ids):
        model.losses(hf.loss, batch).backward()
    given = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    step(model, batch, ids)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, given[name])


def test_what_cannot_be_an_ensemble_is_told():
    with pytest.raises(ConversionError, match=r"LoraConfig or turnover.hf.Houlsby"):
        hf.split_ensemble(zoo.bert(), 8)
    adapted = zoo.bert()
    hf.add_adapters(adapted, 4)
    with pytest.raises(ConversionError, match="has adapters already"):
        hf.split_ensemble(adapted, hf.Houlsby(4))
    with pytest.raises(ConversionError, match="has adapters already"):
        hf.split_ensemble(peft.get_peft_model(zoo.bert(), lora()), lora())
    with pytest.raises(ConversionError, match="at least one pair"):
        hf.split_ensemble(zoo.bert(), lora(), pairs=0)
    with pytest.raises(ConversionError, match="not where BERT"):
        hf.split_ensemble(zoo.distilbert(), hf.Houlsby(4), share_prefix=True)


def test_seeds_decide_weights_and_coins():
    one, again, other = (hf.split_ensemble(zoo.bert(), lora(), pairs=2, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in one.state_dict().items())
    ids = torch.arange(64)
    assert not torch.equal(one.trains_on(ids), other.trains_on(ids))
    assert len(set(member_seeds(1, 2)) | set(member_seeds(2, 2))) == 8


@pytest.mark.parametrize(
    ("amount", "checkpointing"),
    [
        (2, None),
        (1, True),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in [(1, None), (2, True), (1, False)]),
        (2, False),
    ],
)
def test_a_trainer_trains_each_member_on_its_rows(tmp_path, amount, checkpointing):
    """The weights after a training by Trainer are those of a loop over the same batches."""
    data = Sentences()
    more = {"gradient_accumulation_steps": amount}
    if checkpointing is not None:
        more |= {"gradient_checkpointing": True}
        more |= {"gradient_checkpointing_kwargs": {"use_reentrant": checkpointing}}
    model = shaken(hf.split_ensemble(zoo.bert(), lora(), pairs=PAIRS))
    twin, start = deepcopy(model), deepcopy(model.state_dict())
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, num_train_epochs=1, **more),
        train_dataset=data,
        data_collator=transformers.DataCollatorWithPadding(tokenizer()),
    )
    hf.attach(trainer)
    taken = []
    inner = trainer.training_step
    trainer.training_step = lambda m, b, *rest: taken.append(b) or inner(m, b, *rest)
    trainer.train()
    optimizer = sgd([p for p in twin.parameters() if p.requires_grad])
    for number, batch in enumerate(taken):
        bare = {n: v for n, v in batch.items() if n != hf.ID_COLUMN}
        twin.train()
        with seen(twin, batch[hf.ID_COLUMN]):
            (twin(**bare)["loss"] / amount).backward()
        if (number + 1) % amount == 0 or number + 1 == len(taken):
            optimizer.step()
            optimizer.zero_grad()
    assert len(taken) == 4
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], msg=name)
    changed = [n for n, v in twin.state_dict().items() if not torch.equal(v, start[n])]
    assert {n for n in start if "lora_B" in n} <= set(changed)


def test_a_trainer_evaluates_the_average_and_saves_adapters_alone(tmp_path):
    model = hf.split_ensemble(zoo.bert(), lora(), pairs=PAIRS)
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, num_train_epochs=1, save_strategy="epoch"),
        train_dataset=Sentences(),
        eval_dataset=Sentences(),
        data_collator=transformers.DataCollatorWithPadding(tokenizer()),
    )
    hf.attach(trainer)
    trainer.train()
    said = trainer.evaluate()
    trainer.model.eval()
    batches = list(trainer.get_eval_dataloader())
    with torch.no_grad():
        losses = [
            hf.loss(model, {k: v for k, v in b.items() if k != hf.ID_COLUMN}) for b in batches
        ]
    assert said["eval_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    (folder,) = tmp_path.glob("checkpoint-*")
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())
    again = hf.split_ensemble(zoo.bert(), lora(), pairs=PAIRS)
    other = transformers.Trainer(
        model=again,
        args=arguments(tmp_path, num_train_epochs=1),
        train_dataset=Sentences(),
        data_collator=transformers.DataCollatorWithPadding(tokenizer()),
    )
    hf.attach(other)
    other.train(resume_from_checkpoint=str(folder))
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())


def test_a_trainer_with_smoothed_labels_is_refused(tmp_path):
    trainer = transformers.Trainer(
        model=hf.split_ensemble(zoo.bert(), lora(), pairs=1),
        args=arguments(tmp_path, label_smoothing_factor=0.1),
        train_dataset=Sentences(),
        data_collator=transformers.DataCollatorWithPadding(tokenizer()),
    )
    hf.attach(trainer)
    with pytest.raises(ContextError, match="label smoothing"):
        trainer.train()


def test_half_precision_trains():
    model = hf.split_ensemble(zoo.bert().bfloat16(), lora(), pairs=1)
    before = deepcopy(model.state_dict())
    optimizer = sgd([p for p in model.parameters() if p.requires_grad])
    with torch.autocast("cpu", torch.bfloat16):
        found = step(model, zoo.rows(ROWS), torch.arange(ROWS))
    optimizer.step()
    assert torch.isfinite(found["loss"])
    assert any(not torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_a_row_without_labelled_tokens_trains_nothing():
    model = shaken(hf.split_ensemble(zoo.gpt2(), language_lora(["c_attn"]), pairs=1))
    batch = zoo.texts(4)
    batch["labels"][:] = -100
    with pytest.raises(ContextError, match="No row of this batch has a label"):
        step(model, batch, torch.arange(4))
    batch["labels"][0] = batch["input_ids"][0]
    step(model, batch, torch.arange(4))
    mine = int(torch.nonzero(model.trains_on([0])[:, 0])[0])
    assert all(p.grad is None for p in own(model.members[1 - mine]).values())
    assert all(torch.isfinite(p.grad).all() for p in own(model.members[mine]).values())


def test_the_kernel_reads_what_members_have_of_their_own(parts):
    """Without pairs there is nothing to choose: the scores are those of gradients one by one."""
    model = shaken(ensemble(parts, pairs=1)).eval()
    rows = Rows(parts[2], torch.arange(ROWS))
    fitted = GradientKernel(model, hf.loss, link="none", damping=0.3).fit(rows)
    assert fitted.about["read_by_factors"] == 1.0
    values = fitted.scores(rows.select(slice(0, 3))).values
    wanted = torch.zeros_like(values)
    for member in model.members:
        each = []
        for row in range(ROWS):
            single = {n: v[row : row + 1] for n, v in parts[2].items()}
            loss = hf.loss(member, single).sum()
            grads = torch.autograd.grad(loss, list(own(member).values()), allow_unused=True)
            each.append(torch.cat([g.flatten() for g in grads if g is not None]).double())
        phi = torch.stack(each)
        gram = phi @ phi.T
        damping = 0.3 * gram.diagonal().mean()
        inverse = torch.linalg.inv(gram + damping * torch.eye(ROWS, dtype=torch.float64))
        wanted += (gram[:3] @ inverse).float() / len(model.members)
    torch.testing.assert_close(values, fitted.slope * wanted, rtol=2e-3, atol=2e-5)


def test_eight_members_take_little_more_memory_than_one():
    """Of tensors alone; the benchmark measures whole processes."""
    gc.collect()
    one, eight = (hf.split_ensemble(zoo.bert(), lora(), pairs=p) for p in (1, 4))

    def size(model, members):
        every = [t for m in model.members[:members] for t in (*m.parameters(), *m.buffers())]
        return sum({t.data_ptr(): t.nbytes for t in every}.values())

    trained = sum(p.nbytes for p in one.members[0].parameters() if p.requires_grad)
    assert size(eight, 8) == size(one, 1) + 7 * trained
