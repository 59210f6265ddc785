"""``python -m parnet_deploy`` is ``parnet-deploy``."""

from __future__ import annotations

from .cli.main import main

if __name__ == "__main__":
    main()
