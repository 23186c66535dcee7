"""Entry point of `python -m edge`, the same as `edge`. Installed into the namespace package."""

from edge.cli.start import main

if __name__ == "__main__":
    main()
