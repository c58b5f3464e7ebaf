"""`python -m vivavoce` is the `vivavoce` command."""

from vivavoce.cli import main

if __name__ == "__main__":
    main()
