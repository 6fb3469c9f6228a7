"""Attacks one daemon's ports: as a stranger, and between it and its true peer.

Usage: attack.py strangers|between SEED COUNT
Runs in the peer's namespace. `strangers` calls with arbitrary bytes, `between` forwards both nodes' calls and cuts,
stalls or falsifies them at random places; ends with both well connected and the proxy still forwarding.
"""

import os
import random
import selectors
import socket
import struct
import sys
import time

VICTIM = ("10.99.0.1", 7788)
PEER = ("10.99.0.3", 7788)
# Where each of them calls: our addresses.
FOR_VICTIM = ("10.99.0.2", 7788)
FOR_PEER = ("10.99.0.4", 7788)
CONTROL = "/run/halab-replica/r0.sock"

INITIAL_META, INITIAL_DATA, FEATURES = 0xFFF1, 0xFFF2, 0xFFFE


def packet(command, body):
    return struct.pack(">IHH", 0x83740267, command, len(body) & 0xFFFF) + body


def garbage(chance):
    """Bytes that are more or less like packets."""
    body = chance.randbytes(chance.choice([0, 1, 8, 16, 24, 80, 500]))
    return chance.choice([
        lambda: chance.randbytes(chance.randint(1, 4000)),
        lambda: packet(chance.randint(0, 0x40), body),
        lambda: struct.pack(">HHI", 0x835A, chance.randint(0, 0x40), chance.getrandbits(32)) + body,
        lambda: struct.pack(">IHHII", 0x8620EC20, 0, chance.randint(0, 0x40), len(body), 0) + body,
        lambda: struct.pack(">IHHII", 0x8620EC20, 0, chance.randint(0, 0x40), chance.getrandbits(32), 0),
    ])()


def call(address, source=None):
    made = socket.socket()
    made.settimeout(5)
    if source:
        made.bind((source, 0))
    made.connect(address)
    return made


def call_patiently():
    """A node that has just hung up does not listen for a moment."""
    until = time.monotonic() + 60
    while True:
        try:
            return call(VICTIM, FOR_VICTIM[0])
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def strangers(chance, count):
    for number in range(count):
        links = [call_patiently()]
        stage = chance.randint(0, 3)
        try:
            if stage > 0:
                links[0].sendall(packet(chance.choice([INITIAL_DATA, INITIAL_META]), b""))
            if stage > 1:
                links.append(call(VICTIM, FOR_VICTIM[0]))
                links[1].sendall(packet(INITIAL_META, b""))
            if stage > 2:
                features = struct.pack(">II", 86, 101) + bytes(56)
                links[0].sendall(packet(FEATURES, features + bytes(16)))
            for _ in range(chance.randint(1, 5)):
                chance.choice(links).sendall(garbage(chance))
            if chance.random() < 0.2:
                links[0].shutdown(socket.SHUT_WR)
                links[0].recv(100)
        except OSError:
            pass  # it hung up: that is its right
        for link in links:
            link.close()
        if number % 5 == 0:
            tool = socket.socket(socket.AF_UNIX)
            tool.connect(CONTROL)
            try:
                tool.sendall(chance.randbytes(chance.randint(1, 3000)) + b"\n")
                tool.sendall(bytes(chance.choice([0, 100_000])))
            except OSError:
                pass
            tool.close()


class Between:
    """Forwards every call to the other node; what falls due happens at a number of bytes."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.pairs = {}
        for own, other, source in [(FOR_VICTIM, PEER, FOR_PEER), (FOR_PEER, VICTIM, FOR_VICTIM)]:
            listener = socket.create_server(own)
            self.selector.register(listener, selectors.EVENT_READ, (other, source))

    def accept(self, listener, other, source):
        near = listener.accept()[0]
        try:
            far = call(other, source[0])
        except OSError:
            near.close()
            return
        for one, two in [(near, far), (far, near)]:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(5)
            self.pairs[one] = two
            self.selector.register(one, selectors.EVENT_READ, None)

    def close(self, one):
        for end in [one, self.pairs.get(one)]:
            if self.pairs.pop(end, None) is not None:
                self.selector.unregister(end)
                end.close()

    def close_all(self):
        for one in list(self.pairs):
            self.close(one)

    def forward(self, limit, until):
        """Returns an end that has something to say once `limit` bytes went by, or None at the time."""
        while time.monotonic() < until:
            for key, _ in self.selector.select(0.1):
                if key.data:
                    self.accept(key.fileobj, *key.data)
                    continue
                one = key.fileobj
                if one not in self.pairs:
                    continue
                try:
                    data = one.recv(max(1, min(65536, limit)))
                    if not data:
                        raise OSError("closed")
                    self.pairs[one].sendall(data)
                except OSError:
                    self.close(one)
                    continue
                limit -= len(data)
                if limit <= 0:
                    return one
        return None

    def misfortune(self, chance):
        one = self.forward(int(2 ** chance.uniform(3, 22)), time.monotonic() + 8)
        what = chance.choice(["cut", "stall", "falsify"])
        if one in self.pairs:
            if what == "stall":
                time.sleep(chance.choice([0.5, 4]))
            elif what == "falsify":
                try:
                    self.pairs[one].sendall(garbage(chance) + chance.randbytes(64))
                except OSError:
                    pass
                self.forward(1 << 20, time.monotonic() + 0.3)
        self.close_all()
        return what if one else "nothing"


def main():
    what, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    if what == "strangers":
        strangers(chance, count)
        return
    between = Between()
    done = [between.misfortune(chance) for _ in range(count)]
    print({name: done.count(name) for name in ["cut", "stall", "falsify", "nothing"]}, flush=True)
    # From here on an honest wire, until it is told to end.
    while not os.path.exists("/root/attack.end"):
        between.forward(1 << 60, time.monotonic() + 0.5)


main()
