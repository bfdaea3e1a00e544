"""Fit y = 3x + 1 with as many processes as there are, each on its share of the data.

The processes find each other as PyTorch's do, by MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE, which Azure ML sets for
`"distribution": {"type": "pytorch"}`; on one machine, without these, there is one process. Their gradients are summed
over plain sockets, so that the project needs nothing but MLflow.
"""

import argparse
import os
import random
import socket
import struct
import time

import mlflow

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
ADDRESS = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "29500"))
PAIR = struct.Struct("!dd")


def meet():
    """Rank 0 waits for the others; they wait for it."""
    if WORLD == 1:
        return []
    if RANK == 0:
        server = socket.create_server(("", ADDRESS[1]))
        return [server.accept()[0] for _ in range(WORLD - 1)]
    while True:
        try:
            return [socket.create_connection(ADDRESS)]
        except OSError:
            time.sleep(0.1)


def read(peer):
    data = b""
    while len(data) < PAIR.size:
        data += peer.recv(PAIR.size - len(data))
    return PAIR.unpack(data)


def summed(peers, pair):
    """The sum over all processes of a pair of numbers, the same everywhere."""
    if RANK == 0:
        others = [read(peer) for peer in peers]
        pair = tuple(sum(values) for values in zip(pair, *others))
        for peer in peers:
            peer.sendall(PAIR.pack(*pair))
        return pair
    peers[0].sendall(PAIR.pack(*pair))
    return read(peers[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=float, default=20)
    parser.add_argument("--rate", type=float, default=0.1)
    args = parser.parse_args()
    peers = meet()
    print(f"rank {RANK} of {WORLD}", flush=True)
    draw = random.Random(7)
    points = [draw.uniform(-1, 1) for _ in range(64)]
    mine = points[RANK::WORLD]
    slope = offset = 0.0
    for _ in range(int(args.steps)):
        errors = [(slope * x + offset - (3 * x + 1), x) for x in mine]
        pair = summed(peers, (sum(error * x for error, x in errors), sum(error for error, _ in errors)))
        slope, offset = (value - args.rate * 2 * step / len(points) for value, step in zip((slope, offset), pair))
    if RANK == 0:
        loss = sum((slope * x + offset - (3 * x + 1)) ** 2 for x in points) / len(points)
        with mlflow.start_run():
            mlflow.log_metric("loss", loss)
            mlflow.log_metric("world_size", WORLD)
        print(f"slope {slope:.3f}, offset {offset:.3f}, loss {loss:.4f}")


if __name__ == "__main__":
    main()
