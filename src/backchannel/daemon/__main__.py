"""`python -m backchannel.daemon` is `backchanneld`."""

from .run import main

main()
