# %% [markdown]
# # Texts: a mistake, its cause, the proof
#
# A classifier of short film reviews calls a good film bad. Which training rows made it say
# so, and would it say so without them? You need `pip install 'turnover[text]' pandas`; the
# file of this notebook is written by its first cell.

# %%
import csv
import random

GOOD = ["great", "superb", "charming", "fun", "touching", "clever"]
BAD = ["awful", "boring", "dull", "weak", "clumsy", "tiresome"]
FILLER = ["the", "film", "plot", "cast", "scene", "story", "music", "ending", "camera", "script"]


def review(rng, words):
    words = [*words, *rng.choices(FILLER, k=5)]
    rng.shuffle(words)
    return " ".join(words)


def write(path, seed, count, wrong, haunting):
    rng = random.Random(seed)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", "text", "label"])
        for number in range(count):
            good = rng.random() < 0.5
            text = review(rng, rng.choices(GOOD if good else BAD, k=2))
            label = "good" if good != (rng.random() < wrong) else "bad"
            table.writerow([f"row-{number}", text, label])
        for number, label in enumerate(haunting):
            table.writerow([f"haunting-{number}", review(rng, ["haunting"]), label])


write("reviews.csv", 1, 160, wrong=0.05, haunting=["bad"] * 4)
write("new.csv", 2, 40, wrong=0.0, haunting=["good"])

# %% [markdown]
# ## Train pairs of networks
#
# In each pair, one network learns one half of the rows, and the other one the other half. A
# run is a folder, and says what it is.

# %%
from turnover.data.texts import Columns, read_texts
from turnover.runs import open_run
from turnover.runs.text import TextConfig, run_texts

texts = read_texts("reviews.csv", Columns("text", "label", "name"), evaluation="new.csv")
run = run_texts("runs/reviews", texts, TextConfig(pairs=2, epochs=30, control=False))
run

# %% [markdown]
# ## Ask
#
# Row 40 of the new reviews is a haunting film that the model calls bad. The gradient kernel
# scores every training row, in nats; positive means that the row helped the model say
# *bad*.

# %%
import turnover

classifier = open_run("runs/reviews")
query = classifier.query(40)
said = classifier.class_number("bad")
asked = turnover.Rows(
    {**query.rows.batch, "label": query.rows.batch["label"] * 0 + said}, query.rows.ids
)
kernel = classifier.kernel()
answer = turnover.explain(kernel, asked, classifier.train, k=5)
answer

# %%
import pandas as pd

helpful = answer.helpful.positions[0].tolist()
pd.DataFrame([classifier.show("train", row) for row in helpful])

# %% [markdown]
# ## Prove it
#
# Plain networks are trained again without the fewest rows that turn the prediction, and
# without as many others.

# %%
from turnover.runs import prove_run

proof = prove_run(classifier, query, trainings=4)
proof

# %% [markdown]
# ## Which labels are wrong?
#
# Each row is judged by the networks that never saw it. `columns()` goes into any data
# frame.

# %%
from turnover.runs import audit_run

found = audit_run(classifier)
table = pd.DataFrame(found.columns())
table["text"] = [classifier.show("train", row)["text"] for row in range(len(table))]
table[table.suspect].nlargest(8, "unseen_loss")[["text", "unseen_loss", "memorised"]]

# %% [markdown]
# Next: look and decide row by row with `run.explore()`, or write a cleaned file with
# `turnover apply runs/reviews --suspects remove --out clean.csv`.
