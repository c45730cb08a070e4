"""Who runs: the host (where disk and wire meet), the server (sockets and time), and the process around them."""
