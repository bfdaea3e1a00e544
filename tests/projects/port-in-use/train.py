import socket
import sys

port = int(sys.argv[1])
with socket.create_server(("127.0.0.1", port)):
    second = socket.create_server(("127.0.0.1", port))
    second.close()
