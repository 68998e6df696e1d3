"""Reading a source of prices and texts: the embedded closes, a price CSV, or data in the deepstock schema."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pandas as pd

from stonk_trainer.errors import UserError, first_line, hub_error
from stonk_trainer.tasks.prices import read_price_csv

# Flattened name in the deepstock schema → ours. The first three are needed.
DEEPSTOCK_COLUMNS = {
    "ticker": "ticker",
    "company_info.price.price_date": "date",
    "company_info.price.close": "close",
    "company_info.current_date": "current_date",
    "company_info.price.open": "open",
    "company_info.price.close_previous": "previous_close",
    "company_info.price.previous_date": "previous_date",
    "company_info.company_info.name": "name",
    "company_info.company_info.description": "description",
    "company_info.news.news_headlines": "headlines",
    "company_info.news.news_date": "news_date",
    "company_info.financials.year": "financial_year",
    "company_info.financials.financials": "financials",
}
_NEEDED = ("ticker", "date", "close")
_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def read_source(name: str, split: str = "train") -> pd.DataFrame:
    """Rows of `embedded:sp500`, a price CSV, a local parquet/JSONL file or folder, or a Hub dataset.

    Columns: those on the right of `DEEPSTOCK_COLUMNS`, and volume; None or NaN where the source has none.
    """
    path = Path(name).expanduser()
    if name == "embedded:sp500":
        frame = _embedded_sp500()
    elif name.startswith("embedded:"):
        raise UserError(f"dataset_name: {name}: the one embedded dataset is embedded:sp500")
    elif path.suffix.lower() == ".csv":
        frame = read_price_csv(path)
    else:
        frame = _read_deepstock(name, path, split)
    for column in (*DEEPSTOCK_COLUMNS.values(), "volume"):
        if column not in frame:
            frame[column] = None
    return frame


def _embedded_sp500() -> pd.DataFrame:
    assets = resources.files("stonk_trainer") / "assets"
    with resources.as_file(assets / "sp500_closes.csv.gz") as path:
        wide = pd.read_csv(path, parse_dates=["Date"])
    frame = wide.melt(id_vars="Date", var_name="ticker", value_name="close").rename(columns={"Date": "date"})
    with resources.as_file(assets / "sp500_companies.csv") as path:
        return frame.merge(pd.read_csv(path), on="ticker")


def _read_deepstock(name: str, path: Path, split: str) -> pd.DataFrame:
    import datasets

    files = _data_files(path)
    if not files and (path.suffix.lower() in _BUILDERS or name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise UserError(f"dataset_name: {name} is neither a file or folder here nor a Hub dataset (owner/name)")
    builders = {_BUILDERS.get(file.suffix.lower()) for file in files}
    if files and (len(builders) != 1 or None in builders):
        raise UserError(f"dataset_name: {path} must be parquet or JSONL (.parquet, .jsonl, .json), of one kind")
    try:
        if files:
            dataset = datasets.load_dataset(builders.pop(), data_files=[str(file) for file in files], split="train")
        else:
            dataset = datasets.load_dataset(name, split=split)
        if isinstance(dataset.features.get("company_info"), datasets.Json):  # JSONL whose rows differ in their keys
            frame = pd.json_normalize(dataset.to_list(), max_level=2)
        else:
            frame = dataset.flatten(max_depth=3).to_pandas()
    except Exception as error:  # the Hub client and the file readers raise dozens of kinds; all mean this
        raise hub_error(
            f"dataset_name: {name} cannot be read: {first_line(error.__cause__ or error)}", error
        ) from error
    missing = [theirs for theirs, ours in DEEPSTOCK_COLUMNS.items() if ours in _NEEDED and theirs not in frame]
    if missing:
        raise UserError(
            f"dataset_name: {name} lacks the column {', '.join(missing)} of the deepstock schema "
            f"(found: {', '.join(map(str, frame.columns[:12]))})"
        )
    return frame[[column for column in DEEPSTOCK_COLUMNS if column in frame]].rename(columns=DEEPSTOCK_COLUMNS)


def _data_files(path: Path) -> list[Path]:
    """The file itself, or the data files of a folder, without hidden ones; none where the path does not exist."""
    if path.is_file():
        return [path]
    inside = (p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts))
    return sorted(p for p in inside if p.suffix.lower() in _BUILDERS and p.name != "dataset_info.json")
