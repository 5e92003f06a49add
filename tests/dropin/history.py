"""Histories of registers, and whether one order of the operations explains what all clients saw.

Registers do not touch each other, so each has a history of its own. The search is Wing and Gong's, with Lowe's memory of
the configurations that were tried: it takes the operations one by one in an order that respects real time, and goes back
when the next answer does not fit.

An operation without an answer may have happened at any time after its begin, or never: its end is never, and the search may
leave it out.
"""

import math
import random
from typing import NamedTuple

NEVER = math.inf
CONFIGURATIONS_MAX = 3_000_000


class Operation(NamedTuple):
    """kind is read, write, cas (compare-and-set) or swap (read and write in one transaction).

    `seen` is what a read or a swap found, None if unknown; `done` whether a cas changed anything, None if unknown.
    """

    kind: str
    begin: float
    end: float
    expected: int | None = None
    value: int | None = None
    seen: int | None = None
    done: bool | None = None
    client: str = ""


class Undecided(Exception):
    """The search would take too long."""


def after(state, operation):
    """The state behind the operation, None if its answer does not fit."""
    match operation.kind:
        case "read":
            return state if operation.seen == state else None
        case "write":
            return operation.value
        case "swap":
            return operation.value if operation.seen in (None, state) else None
        case "cas" if operation.done is False:
            return state if state != operation.expected else None
        case "cas":
            return operation.value if state == operation.expected else None


class Entry:
    """The begin or the end of an operation, in a list by time."""

    __slots__ = ("next", "number", "operation", "partner", "previous")

    def __init__(self, number, operation):
        self.number, self.operation = number, operation
        self.partner = self.previous = self.next = None

    def unlink(self):
        self.previous.next = self.next
        if self.next is not None:
            self.next.previous = self.previous

    def link(self):
        self.previous.next = self
        if self.next is not None:
            self.next.previous = self

    def take(self):
        self.unlink()
        if self.partner is not None:
            self.partner.unlink()

    def put_back(self):
        if self.partner is not None:
            self.partner.link()
        self.link()


def entries(operations):
    """The head of the list. At equal times begins come first."""
    timed = []
    for number, operation in enumerate(operations):
        begin = Entry(number, operation)
        timed.append((operation.begin, 0, number, begin))
        if operation.end != NEVER:
            begin.partner = Entry(number, None)
            timed.append((operation.end, 1, number, begin.partner))
    head = last = Entry(-1, None)
    for *_, entry in sorted(timed, key=lambda each: each[:3]):
        last.next, entry.previous = entry, last
        last = entry
    return head


def contradiction(operations, initial=0):
    """None if some order explains the answers of one register, otherwise the operations that no order reached."""
    head = entries(operations)
    answered = [operation.end != NEVER for operation in operations]
    remaining = sum(answered)
    state, taken, tried, way = initial, 0, set(), []
    fewest, best = remaining + 1, 0
    entry = head.next
    while remaining > 0:
        if remaining < fewest:
            fewest, best = remaining, taken
        if entry is not None and entry.operation is not None:
            following = after(state, entry.operation)
            configuration = (taken | 1 << entry.number, following)
            if following is None or configuration in tried:
                entry = entry.next
                continue
            if len(tried) >= CONFIGURATIONS_MAX:
                raise Undecided(f"{len(operations)} operations, {remaining} of them in no order yet")
            tried.add(configuration)
            way.append((entry, state))
            taken, state = configuration
            remaining -= answered[entry.number]
            entry.take()
            entry = head.next
            continue
        if not way:
            missed = [each for number, each in enumerate(operations) if not best >> number & 1]
            return sorted(missed, key=lambda each: each.begin)
        entry, state = way.pop()
        taken ^= 1 << entry.number
        remaining += answered[entry.number]
        entry.put_back()
        entry = entry.next
    return None


def atomic(seed, clients=4, count=40):
    """A history of a register that is correct: every operation happens at one moment between its begin and its end."""
    source = random.Random(seed)
    moments = []
    for client in range(clients):
        now = source.random()
        for number in range(count):
            begin, moment, end = sorted(now + source.random() * 3 for _ in range(3))
            moments.append((moment, begin, end, client * count + number + 1))
            now = end
    state, history = 0, []
    for _, begin, end, value in sorted(moments):
        kind = source.choice(["read", "write", "cas", "swap"])
        expected = source.choice([state, value])
        operation = Operation(kind, begin, end, expected, value, state, state == expected)
        following = after(state, operation)
        if kind != "read" and source.random() < 0.05:
            # The answer got lost, on the way there or on the way back.
            operation = operation._replace(end=NEVER, seen=None, done=None)
            following = source.choice([following, state])
        state = following
        history.append(operation)
    return history


def check_itself():
    """The checker takes what is right and finds what is wrong."""

    def write(value, begin, end):
        return Operation("write", begin, end, value=value)

    def read(seen, begin, end):
        return Operation("read", begin, end, seen=seen)

    def cas(expected, value, begin, end, done):
        return Operation("cas", begin, end, expected, value, done=done)

    right = {
        "an overlapping write is seen": [write(1, 0, 3), read(0, 0, 1), read(1, 1, 2)],
        "a lost answer is seen late": [write(1, 0, NEVER), write(2, 1, 2), read(2, 3, 4), read(1, 5, 6)],
        "a lost answer is never seen": [write(1, 0, NEVER), write(2, 1, 2), read(2, 3, 4)],
    }
    wrong = {
        "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
        "a read that goes back": [write(1, 0, NEVER), read(1, 1, 2), read(0, 3, 4)],
        "an acknowledged write is lost": [write(1, 0, 1), read(0, 2, 3)],
        "a write happens twice": [write(1, 0, NEVER), read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)],
        "two compare-and-sets of one value": [cas(0, 1, 0, 2, True), cas(0, 2, 1, 3, True)],
        "a compare-and-set without its value": [write(1, 0, 1), cas(2, 3, 2, 3, True)],
        "two swaps of one value": [Operation("swap", 0, 1, value=1, seen=0), Operation("swap", 0, 1, value=2, seen=0)],
    }
    for name, operations in right.items():
        assert contradiction(operations) is None, f"the checker refuses what is right: {name}"
    for name, operations in wrong.items():
        assert contradiction(operations) is not None, f"the checker does not find: {name}"
    for seed in range(20):
        operations = atomic(seed)
        assert contradiction(operations) is None, f"the checker refuses history {seed}, which is right"
        stale = max((o for o in operations if o.kind == "read" and o.seen != 0), key=lambda o: o.begin)
        operations[operations.index(stale)] = stale._replace(seen=0)
        assert contradiction(operations) is not None, f"the checker takes history {seed} with a stale read"
    return len(right) + len(wrong) + 40


if __name__ == "__main__":
    print(f"history: {check_itself()} histories judged as they should be")
