"""``python -m aeris``: the command line."""

from aeris.cli import main

raise SystemExit(main())
