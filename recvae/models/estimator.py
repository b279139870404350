"""Hyperparameters of a model as scikit-learn handles them, so that its tools can copy and search models."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from recvae.errors import ParameterError

OTHER_WORDS = {
    "random_state": "seed",
    "num_threads": "the environment variables OMP_NUM_THREADS and OPENBLAS_NUM_THREADS",
    "dtype": "nothing: models compute in float32",
    "use_gpu": "device, which the autoencoders have",
}
"""Arguments of `implicit`'s models, and what to use here."""


class Estimator:
    """Base of `Recommender`: the constructor's arguments are hyperparameters, stored under their own names.

    Attributes
    ----------
    consists_of_models : bool
        Whether a hyperparameter is a sequence of models.
    """

    consists_of_models: ClassVar[bool] = False
    _next_params: dict[str, Any] | None = None

    def __new__(cls, *_: Any, **params: Any) -> Self:
        """Refuse the words of other libraries, saying which to use, before Python calls them unexpected."""
        known = cls.parameter_names()
        for word in OTHER_WORDS.keys() & params.keys() - set(known):
            use = OTHER_WORDS[word] if word != "random_state" or "seed" in known else "nothing: it draws no numbers"
            raise ParameterError(f"{cls.__name__} has no argument {word}; use {use}")
        return super().__new__(cls)

    @classmethod
    def parameter_names(cls) -> list[str]:
        """Names of the hyperparameters, which are the constructor's arguments."""
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        return [argument.name for argument in arguments if argument.kind in kinds]

    @classmethod
    def build(cls, params: Mapping[str, Any], beside: Mapping[str, "Estimator"]) -> Self:
        """Create an unfitted model from hyperparameters by name.

        Parameters
        ----------
        beside : mapping of name to model
            Models that a model which consists of others may take instead of its own.
        """
        del beside
        return cls(**params)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Hyperparameters by name, as the constructor stores them; where `set_params` changed them, as changed.

        Parameters
        ----------
        deep : bool
            Where a hyperparameter is a sequence of models, also give theirs, as "models__0__l2".
        """
        params = dict(self._own_params() if self._next_params is None else self._next_params)
        if deep:
            for name, value in list(params.items()):
                for i, model in enumerate(value) if _are_models(value) else ():
                    params |= {f"{name}__{i}__{key}": inner for key, inner in model.get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Change hyperparameters, checked as the constructor checks them.

        A fitted model stays as it is, with the hyperparameters of its fit as attributes, until the next `fit`.

        Raises
        ------
        ParameterError
            For an unknown name, or a value that the hyperparameter cannot have.
        """
        own = self.get_params(deep=False)
        # New models are made of their names first, so that the other parameters can be theirs.
        changed = type(self)(**{name: params.get(name, value) for name, value in own.items()})
        known = changed.get_params()
        for name in params:
            if name not in known:
                raise ParameterError(f"{type(self).__name__} has no hyperparameter {name!r}; it has {', '.join(known)}")
        for name, value in params.items():
            if name not in own:
                attribute, i, inner = name.split("__", 2)
                getattr(changed, attribute)[int(i)].set_params(**{inner: value})
        if hasattr(self, "item_counts_"):  # `fit` sets them
            self._next_params = changed._own_params()
        else:
            type(self).__init__(self, **changed._own_params())
        return self

    def describe(self) -> dict[str, Any]:
        """The class and its hyperparameters as plain data, from which the registry can create the model again."""
        params = self._own_params()
        plain = {name: [m.describe() for m in value] if _are_models(value) else value for name, value in params.items()}
        return {"class": type(self).__name__, "hyperparameters": plain}

    def fitted_params(self) -> dict[str, Any]:
        """Hyperparameters as `fit` used them: what was left to the data is filled in."""
        return self._own_params()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params(deep=False).items())})"

    def _is_changed(self) -> bool:
        """Check whether `set_params` has changed what was fitted, or a part of it, since the last `fit`."""
        parts = [model for value in self._own_params().values() if _are_models(value) for model in value]
        return self._next_params is not None or any(model._is_changed() for model in parts)

    def _take_changes(self) -> None:
        """Take the hyperparameters that `set_params` has set since the last `fit`."""
        if self._next_params is not None:
            type(self).__init__(self, **self._next_params)
            self._next_params = None

    def _own_params(self) -> dict[str, Any]:
        """Hyperparameters as they are stored: those of the fit, once there is one."""
        return {name: getattr(self, name) for name in self.parameter_names()}


def _are_models(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(entry, Estimator) for entry in value)
