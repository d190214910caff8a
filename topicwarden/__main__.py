"""`python -m topicwarden` is the command line too."""

from topicwarden.cli import main

if __name__ == "__main__":
    main()
