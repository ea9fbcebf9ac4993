"""``python -m turnover`` is the command ``turnover``."""

from turnover.cli import main

if __name__ == "__main__":
    main()
