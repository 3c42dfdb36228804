"""The token files of a run, and what is known of them."""

from dataclasses import replace

import pytest

from nanogpt.config import DataConfig
from nanogpt.errors import UserError
from nanogpt.text.dataset import PREPARED, settings_of_files
from nanogpt.text.prepare import prepare


def test_a_folder_says_what_it_was_made_with(tmp_path):
    """And so does every run on it."""
    (tmp_path / "mine.txt").write_text("To be, or not to be, that is the question.\n" * 60)
    made = DataConfig(source=str(tmp_path / "mine.txt"), tokenizer="char", val_fraction=0.2)
    prepare(made, tmp_path / "data", processes=1)
    asked = DataConfig(folder=str(tmp_path / "data"), batches="packed")
    assert settings_of_files(asked) == replace(made, folder=asked.folder, batches="packed")
    (tmp_path / "data" / PREPARED).write_text('{"source": 3}')
    with pytest.raises(UserError, match=r"prepared.json: .*prepare the text again"):
        settings_of_files(asked)
    (tmp_path / "data" / PREPARED).unlink()  # as in a folder from elsewhere
    assert settings_of_files(asked) == replace(asked, source=asked.folder)
