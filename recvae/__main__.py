"""`python -m recvae` is the command line too, which is how torchrun starts it."""

from recvae.cli.main import main

if __name__ == "__main__":
    main()
