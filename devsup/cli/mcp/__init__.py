"""
devsup for clients of the Model Context Protocol: the commands as tools, over standard input and output.

Only `server` needs the protocol's SDK (`devsup[mcp]`).
"""
