"""`python -m mage` is the command `mage`."""

from mage.cli.main import main

if __name__ == "__main__":
    main()
