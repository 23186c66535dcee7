"""Entry point of `python -m edge.cli`, the same as `edge`."""

from edge.cli.start import main

if __name__ == "__main__":
    main()
