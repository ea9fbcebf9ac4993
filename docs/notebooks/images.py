# %% [markdown]
# # Images: masks, a check, and pairs
#
# A small network for handwritten digits, made and trained in plain PyTorch. First the
# paper's way: one network whose units are masked for each picture, and a check that nothing
# leaks. Then pairs of networks, which rank best. You need `pip install
# 'turnover[eval,reports]'`.

# %%
import torch
from sklearn.datasets import load_digits

import turnover

digits = load_digits()
x = torch.from_numpy(digits.data).float().view(-1, 1, 8, 8) / 16
y = torch.from_numpy(digits.target)
x, y = x[:700], y[:700].clone()
y[:20] = (y[:20] + 1) % 10  # twenty wrong labels
train = turnover.Rows((x[:500], y[:500]))
queries = turnover.Rows((x[500:], y[500:]), ids=range(10_000, 10_200))


def build(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(1024, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 10, bias=False),
    )


def loss(model, batch):  # one loss per picture, in nats
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


# %% [markdown]
# ## Masks, as in the paper
#
# `convert` adds layers of masks behind both activations; names and weights stay as they
# were.

# %%
model = build(0)
turnover.convert(model, ["1", "4"])

# %% [markdown]
# Does a gradient of a picture reach the half that must not see it? The check takes real
# steps and compares bit for bit.

# %%
turnover.check(model, (x[:32], y[:32]), loss)

# %% [markdown]
# The bias of the first layer is no leak: each unit owns its entry. Let the output layer
# have one, and the check names it:

# %%
leaky = build(0)
leaky[5] = torch.nn.Linear(256, 10)
turnover.convert(leaky, ["1", "4"])
turnover.check(leaky, (x[:32], y[:32]), loss)

# %% [markdown]
# ## Pairs, which rank best
#
# Two pairs of ordinary networks, each trained on the half of the pictures that the other
# one never saw. The pairs also choose the damping, and say how well scores predict what
# they did.

# %%
recipe = turnover.Recipe(epochs=12, batch_size=50)
ensemble = turnover.fit_split_ensemble(build, train, loss, recipe, pairs=2)
with torch.no_grad():
    says = ensemble.eval()(queries.batch[0]).argmax(dim=1)
wrong = torch.nonzero(says != queries.batch[1]).flatten()
print(f"{len(wrong)} of {len(queries)} new pictures are wrong")
some = queries.select(wrong[:4] if len(wrong) >= 4 else torch.arange(4))
scores = turnover.GradientKernel(ensemble, loss).scores(some, train)
scores

# %% [markdown]
# The first query and the three training pictures that most spoke for its label, then the
# three that most spoke against it:

# %%
from matplotlib import pyplot as plt

rows = torch.cat([scores.top(3).positions[0], scores.top(3, "harmful").positions[0]])
figure, axes = plt.subplots(1, 7, figsize=(7, 1.4))
pictures = [some.batch[0][0], *train.batch[0][rows]]
labels = [some.batch[1][0], *train.batch[1][rows]]
for axis, picture, label in zip(axes, pictures, labels, strict=True):
    axis.imshow(picture[0].numpy(), cmap="gray_r")
    axis.set_title(f"{int(label)}", fontsize=9)
    axis.axis("off")

# %% [markdown]
# ## The wrong labels
#
# The score of a picture on itself is what the networks know of it only because they saw it.

# %%
from turnover.evaluation import mislabel

own = turnover.GradientKernel(ensemble, loss).fit(train).self_scores()
planted = torch.arange(500) < 20
found = mislabel(own, planted)
low, high = found.auc.low, found.auc.high
print(f"area under the ROC curve: {found.auc.value:.3f} ({low:.3f} to {high:.3f})")
