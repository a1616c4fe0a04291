"""The exporters of docs/features.md write tables that are read."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neuromm.features import read_features

DOCS = Path(__file__).parents[2] / "docs" / "features.md"


def snippets():
    return re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), flags=re.S)


def stand_ins():
    """What the snippets take as given, small and made here."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer4 = nn.Conv2d(3, 5, 3)

        def forward(self, images):
            return self.layer4(images)

    class Answer:
        hidden_states = tuple(torch.full((1, 4, 6), float(i)) for i in range(10))

    def model(**inputs):
        assert inputs["output_hidden_states"]
        return Answer()

    rng = np.random.default_rng(0)
    return {
        "files": ["faces/a.png", "faces/b.png", "c.png"],
        "file_names": ["faces/a.png", "faces/b.png", "c.png"],
        "activations": rng.standard_normal((3, 4)),
        "features": rng.standard_normal((3, 2, 2)),
        "luminance": [0.1, 0.2, 0.3],
        "contrast": [3, 2, 1],
        "net": Net(),
        "loader": [torch.zeros(2, 3, 8, 8), torch.ones(1, 3, 8, 8)],
        "model": model,
        "tokenizer": lambda text, **settings: {"input_ids": text},
        "contexts": ["once", "once upon"],
        "words": pd.DataFrame(
            {"onset": [0.3, 0.8], "duration": [0.4, 0.2], "run": [1, 1]}
        ),
        "matrices": [rng.standard_normal((4, 2)), rng.standard_normal((3, 2))],
        "run_labels": ["01", "02"],
        "t_r": 2.0,
    }


@pytest.mark.parametrize("number", range(len(snippets())))
def test_a_documented_exporter_writes_a_table_that_is_read(
    number, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code = snippets()[number]
    exec(compile(code, f"{DOCS.name}[{number}]", "exec"), stand_ins())
    (written,) = tmp_path.iterdir()
    table = read_features(written)
    assert len(table.keys) in (2, 3, 7)
    assert table.values.shape == (len(table.keys), len(table.columns))
    if "resnet50" in code:
        assert table.attrs["model"] == "resnet50"


def test_the_page_shows_an_exporter_for_each_way_of_working():
    assert len(snippets()) == 7
