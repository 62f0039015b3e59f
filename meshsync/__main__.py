"""`python -m meshsync` is the command line."""

from meshsync.cli import main

if __name__ == "__main__":
    main()
