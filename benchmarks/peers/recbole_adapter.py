"""RecBole's MultiVAE and RecVAE as contestants."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.utils import get_dataloader
from recbole.utils import get_model, get_trainer, init_seed
from scipy import sparse

from benchmarks.peers.exchange import Ids, Run, Settings, best, main


def make_config(model: str, directory: Path, **settings: Any) -> Config:
    """RecBole's configuration of one of its models: everything in `task.inter` is trained on."""
    return Config(
        model=model,
        dataset="task",
        config_dict={
            "data_path": str(directory),
            "checkpoint_dir": str(directory / "saved"),
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": "none", "mode": "full"},
            "train_neg_sample_args": None,
            "use_gpu": False,
            "show_progress": False,
            **settings,
        },
    )


def config_of(settings: Settings, directory: Path) -> Config:
    """The configuration of a contestant."""
    layers: dict[str, Any]
    if settings.model == "multvae":  # its latent_dimension counts mu and logvar together
        layers = {"mlp_hidden_size": [settings.hidden], "latent_dimension": 2 * settings.latent}
    else:
        layers = {"hidden_dimension": settings.hidden, "latent_dimension": settings.latent}
    return make_config(
        {"multvae": "MultiVAE", "recvae": "RecVAE"}[settings.model],
        directory,
        train_batch_size=settings.batch_size,
        seed=settings.seed,
        **layers,
        **settings.params,
    )


def write_interactions(train: sparse.csr_matrix, directory: Path) -> None:
    """RecBole's own file format."""
    interactions = train.tocoo()
    (directory / "task").mkdir()
    with (directory / "task" / "task.inter").open("w", encoding="utf8") as file:
        file.write("user_id:token\titem_id:token\n")
        np.savetxt(file, np.column_stack([interactions.row, interactions.col]), fmt="%d", delimiter="\t")


def find_columns(dataset: Any, matrix: sparse.csr_matrix) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The items that have interactions, and RecBole's columns of them; its column 0 is padding."""
    items = np.flatnonzero(np.diff(matrix.tocsc().indptr))
    return items, dataset.token2id(dataset.iid_field, items.astype(str))


def make_trainer(config: Config, model: Any, directory: Path) -> Any:
    """RecBole's trainer; it opens a log in the working directory, which is another one meanwhile."""
    with contextlib.chdir(directory):
        return get_trainer(config["MODEL_TYPE"], config["model"])(config, model)


def train(run: Run) -> None:
    """Train for the given epochs."""
    settings = run.settings
    n_items = run.task.train.shape[1]
    with tempfile.TemporaryDirectory() as scratch:
        write_interactions(run.task.train, Path(scratch))
        config = config_of(settings, Path(scratch))
        init_seed(config["seed"], True)
        dataset = create_dataset(config).build()[0]
        known, column = find_columns(dataset, run.task.train)
        loader = get_dataloader(config, "train")(config, dataset, None, shuffle=True)
        run.start()
        model = get_model(config["model"])(config, dataset)
        trainer = make_trainer(config, model, Path(scratch))

        def rank(fold_in: sparse.csr_matrix) -> Ids:
            histories = np.zeros((fold_in.shape[0], dataset.item_num), dtype=np.float32)
            histories[:, column] = fold_in.toarray()[:, known]
            model.eval()
            with torch.no_grad():
                inputs = (torch.from_numpy(histories), *([0.0] if settings.model == "recvae" else []))
                logits = model.forward(*inputs)[0].numpy()
            scores = np.full((len(logits), n_items), -np.inf, dtype=np.float32)
            scores[:, known] = logits[:, column]
            return best(scores, fold_in)

        for epoch in range(settings.epochs):
            trainer._train_epoch(loader, epoch)
            run.epoch_done(rank)


if __name__ == "__main__":
    main(train, "recbole", "torch", "numpy", "scipy")
