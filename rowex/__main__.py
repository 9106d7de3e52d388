"""`python -m rowex`: the command line."""

from rowex.cli import main

if __name__ == "__main__":
    main()
