"""`python -m peftsearch`: the command line where the console script is not on the path."""

from peftsearch.cli.main import main

if __name__ == "__main__":
    main()
