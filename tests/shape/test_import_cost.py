import subprocess
import sys

HEAVY = {
    *("PIL", "duckdb", "matplotlib", "numba", "peft", "scipy", "sklearn", "torch", "transformers"),
}
HELP = """
import sys
from turnover.cli import main
sys.argv = ["turnover", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
REPORT = "\nimport sys; print('LOADED', *sys.modules)"


def run(code):
    """Output of a fresh interpreter, and the modules it has loaded."""
    command = [sys.executable, "-c", code + REPORT]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    output, _, modules = done.stdout.rpartition("LOADED")
    return output, set(modules.split())


def test_import_of_the_root_is_light():
    _, modules = run("import turnover")
    assert not modules & HEAVY


def test_import_of_hf_brings_no_more_than_torch():
    _, modules = run("import turnover.hf")
    assert "torch" in modules and not modules & {"peft", "transformers", "lightning"}


def test_import_of_images_brings_no_more_than_torch():
    _, modules = run("import turnover.runs.images")
    assert "torch" in modules and not modules & (HEAVY - {"torch"})


def test_help_is_light():
    output, modules = run(HELP)
    assert "Usage" in output
    assert not modules & HEAVY


ASK = """
import torch, turnover
def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
rows = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
turnover.GradientKernel(torch.nn.Linear(4, 2), loss).scores(rows, rows)
"""


def test_scores_of_a_kernel_load_no_compiler():
    """It takes a third of the time to the first answer, and nothing is compiled."""
    _, modules = run(ASK)
    assert "turnover" in modules and "torch._dynamo" not in modules
