"""Entry point of the command line: `recvae`, and `python -m recvae`, which torchrun needs."""

import sys
import time


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends with one line too."""
    started = time.monotonic()
    try:
        from recvae.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("recvae: interrupted\n")
        sys.exit(130)
    run(started)


if __name__ == "__main__":
    main()
