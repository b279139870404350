"""Tables of other libraries (polars, pyarrow, DuckDB, Ibis) as pandas DataFrames."""

from typing import Any

import pandas as pd
import pyarrow as pa

from recvae.errors import ParameterError


def to_frame(table: Any, name: str) -> pd.DataFrame:
    """Convert a caller's table to a DataFrame whose column names are text.

    Parameters
    ----------
    table : DataFrame, or any object with the Arrow stream interface (`__arrow_c_stream__`)
        Such as a polars DataFrame, a pyarrow Table, a DuckDB relation or an Ibis table.
    name : str
        The argument's name in messages.

    Raises
    ------
    ParameterError
        If it is anything else, or cannot be read.
    """
    frame = table
    if not isinstance(table, pd.DataFrame):
        if not hasattr(table, "__arrow_c_stream__"):
            hint = "; call its collect() first" if hasattr(table, "collect") else ""
            raise ParameterError(
                f"{name} is a {type(table).__module__}.{type(table).__name__}; expected a pandas or polars DataFrame, "
                f"or another table with the Arrow stream interface{hint}"
            )
        try:
            frame = pa.table(table).to_pandas()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ParameterError(f"{name} cannot be read as an Arrow table: {str(error).splitlines()[0]}") from None
    named: pd.DataFrame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    return named
