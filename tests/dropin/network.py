"""Where the nodes of a cluster live: on loopback, or each in a network namespace of its own.

Namespaces are made by a process that has a private /run and a network of its own (namespaces.sh), where the clients are and
a bridge connects all:

    clients: bridge 192.0.2.100 ---+--- n1 === eth0 192.0.2.1 in the namespace node1
                                   +--- n2 === eth0 192.0.2.2 in the namespace node2 ...

Everybody has fixed entries for everybody else's hardware address. A cut from A to B is a wrong entry at A: what A sends to
B is lost without a trace, and nobody is told. Connections stay and hang, as they do when a switch fails.
"""

import random
import socket
import subprocess

CLIENTS = 100
NOWHERE = "02:00:00:00:ff:ff"


class Loopback:
    """Nodes share the network of the script."""

    can_cut = False

    def address(self, _id):
        while True:
            port = random.randrange(10000, 32000)
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                    return f"127.0.0.1:{port}"
                except OSError:
                    pass

    def command(self, _id):
        return []


class Namespaces:
    can_cut = True

    def __init__(self):
        self.ids = []
        self.lost = set()
        ip(None, "link set lo up", "link add bridge type bridge", f"addr add {host(CLIENTS)}/24 dev bridge")
        ip(None, f"link set bridge address {hardware(CLIENTS)} up")

    def address(self, id):
        """Makes the namespace."""
        name = namespace(id)
        ip(None, f"netns add {name}", f"link add n{id} type veth peer name eth0 netns {name}")
        ip(None, f"link set n{id} master bridge up")
        ip(name, "link set lo up", f"link set eth0 address {hardware(id)}", f"addr add {host(id)}/24 dev eth0")
        ip(name, "link set eth0 up")
        self.ids.append(id)
        everybody = [*self.ids, CLIENTS]
        self.route({(a, b) for a in everybody for b in everybody if a != b and id in (a, b)}, False)
        return f"{host(id)}:9001"

    def command(self, id):
        return ["ip", "netns", "exec", namespace(id)]

    def route(self, ways, lost):
        """Sets what happens to what is sent on these ways, pairs of sender and receiver."""
        for sender in sorted({sender for sender, _ in ways}):
            receivers = [b for a, b in ways if a == sender]
            device = "bridge" if sender == CLIENTS else "eth0"
            entries = [
                f"neigh replace {host(b)} lladdr {NOWHERE if lost else hardware(b)} dev {device} nud permanent"
                for b in receivers
            ]
            ip(namespace(sender), *entries)

    def cut(self, ways):
        self.lost |= set(ways)
        self.route(set(ways), True)

    def heal(self):
        self.route(self.lost, False)
        self.lost = set()

    def plug(self, id, state):
        """The cable of a node, "up" or "down"."""
        ip(None, f"link set n{id} {state}")

    def squeeze(self, id):
        """Little goes out of a node, and what is too much is lost."""
        run(["tc", "-n", namespace(id), *"qdisc replace dev eth0 root tbf rate 1mbit burst 5kb limit 15kb".split()])

    def release(self, id):
        run(["tc", "-n", namespace(id), *"qdisc del dev eth0 root".split()])


def both_ways(some, others):
    return {way for a in some for b in others for way in ((a, b), (b, a))}


def one_way(senders, receivers):
    return {(a, b) for a in senders for b in receivers}


def host(id):
    return f"192.0.2.{id}"


def hardware(id):
    return f"02:00:00:00:00:{id:02x}"


def namespace(id):
    return None if id == CLIENTS else f"node{id}"


def ip(name, *commands):
    run(["ip", *(["-n", name] if name else []), "-batch", "-"], "\n".join(commands) + "\n")


def run(command, text=""):
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr} {text}"
