"""The MCP adapter over HTTP on loopback, for the conformance suite, which speaks nothing else. Users have stdio alone.

python -m tests.e2e.serve_http NAME PORT
"""

import sys

from backchannel.mcp import ADAPTER
from backchannel.mcp.server import build
from backchannel.mcp.tools import Tools

if __name__ == "__main__":
    build(Tools(sys.argv[1], ADAPTER)).run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
