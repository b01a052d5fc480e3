"""Which rows a run reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """Which rows, which columns, which split."""

    data: str | None = None
    """The labelled file or folder to train on."""
    text_column: str | None = None
    """Column of the text; several joined by commas are joined by a line break. None: found by name."""
    pair_column: str | None = None
    """Column of the second text, where rows are pairs of texts. None: a row is one text."""
    label_column: str | None = None
    """Column of the label. None: found by name."""
    multi_label: bool | None = None
    """Whether a row has any number of labels. None: where a training row lists several, or label_separator is given."""
    label_separator: str | None = None
    """Multi-label: what joins a row's labels in one string, as `,` or `|`. None: they are lists."""
    level_separator: str | None = None
    """Hierarchy: what joins the levels of a label's name, as `##` in 科技##手机. None: labels lie side by side."""
    class_file: str | None = None
    """A file of class names, one a line: gives their order, and names to ids in the data."""
    dev: str | None = None
    """Labelled file to select the checkpoint on and to calibrate with. None: the folder's dev file, else `dev_ratio`."""
    dev_ratio: float | None = None
    """Share of the rows set aside for dev where no dev file is given. None: 0.15."""
    test: str | None = None
    """Labelled file that nothing is learned from or chosen by. None: the folder's test file, else `test_ratio`.

    `fenlei train` measures it at its end; from Python, `evaluate_run(result.out, result.test_data)` does.
    """
    test_ratio: float | None = None
    """Share of the rows set aside for test. None: none."""
    max_train_rows: int | None = None
    """Train on so many of the training rows, each class giving its share. None: on all."""

    store_exemplars: int | None = None
    """Training rows of each class that the run keeps, so that `extend` needs no replay. None: none, and no text of theirs."""

    def problems(self) -> list[str]:
        found = self._label_problems()
        if self.pair_column is not None and self.pair_column in ("", self.text_column, self.label_column):
            found.append(f"pair_column must name a column of its own, that of the second text, was {self.pair_column!r}")
        if self.max_train_rows is not None and self.max_train_rows < 1:
            found.append(f"max_train_rows must be at least 1, was {self.max_train_rows}")
        for name, ratio in (("dev_ratio", self.dev_ratio), ("test_ratio", self.test_ratio)):
            if ratio is not None and not 0 < ratio < 1:
                found.append(f"{name} must lie between 0 and 1, was {ratio}")
        if self.dev is not None and self.dev_ratio is not None:
            found.append("dev and dev_ratio exclude each other: give a dev file or a share of the training rows")
        if self.test is not None and self.test_ratio is not None:
            found.append("test and test_ratio exclude each other: give a test file or a share of the training rows")
        if not found and (self.dev_ratio or 0) + (self.test_ratio or 0) >= 1:
            found.append("dev_ratio and test_ratio together leave no rows to train on")
        return found

    def _label_problems(self) -> list[str]:
        found = []
        if "" in (self.label_separator, self.level_separator):
            found.append("label_separator and level_separator must be one character or more, was ''")
        if self.multi_label is False and self.label_separator is not None:
            found.append(f"label_separator {self.label_separator!r} belongs to multi_label, which is off")
        if self.label_separator is not None and self.label_separator == self.level_separator:
            found.append(f"label_separator and level_separator must differ, both were {self.label_separator!r}")
        if self.store_exemplars is not None and self.store_exemplars < 1:
            found.append(f"store_exemplars must be at least 1, was {self.store_exemplars}")
        if self.store_exemplars is not None and self.multi_label:
            found.append("store_exemplars keeps rows of each class, and with multi_label a row has any number of them")
        return found
