"""Messages of one line for everything that ends a command, except bugs."""

import re
from collections.abc import Iterable, Sequence


def usage_message(message: str, arguments: Sequence[str], commands: Iterable[str]) -> str:
    """Return the parser's message with what it leaves out: the value that was given, or the commands that exist."""
    message = message.rstrip(".")
    if message.startswith("No such command"):
        return f"{message}; expected one of {', '.join(commands)}"
    option = re.search(r"Invalid value for '(?:-\w / )?(--?[\w-]+)'", message)
    words = [word for argument in arguments for word in argument.split("=", 1)]
    if option and option[1] in words[:-1]:
        return f"{message} (given: {words[words.index(option[1]) + 1]!r})"
    return message


def resource_message(error: Exception) -> str:
    """Return the message for a missing package, file or memory; raise every other error again."""
    match error:
        case ModuleNotFoundError():  # an image that only serves has neither torch nor pandas
            return f"this needs {error.name}, which is not installed here; a whole installation of recvae has it"
        case OSError():
            return f"{error.filename or 'the file system'}: {error.strerror or error}"
        case MemoryError():
            return f"not enough memory: {error}"
        case _ if "can't allocate memory" in str(error):  # torch raises a RuntimeError
            return "not enough memory for a model of this size"
    raise error
