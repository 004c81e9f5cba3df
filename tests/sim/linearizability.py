"""Is this history of concurrent operations linearizable?

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's cache of
configurations seen ("Testing for linearizability", 2017) and partitioning by key (Herlihy and Wing:
a history is linearizable when it is so for each object alone). A history is any iterable of
`Operation`; a `Model` says what one object does. `check` gives a `Result` that is true when the
history is linearizable and otherwise names the operations at which every order failed.

    history = [
        Operation("k", ("put", "a"), None, call=1, ret=4),
        Operation("k", ("get",), "a", call=2, ret=3),
    ]
    assert check(history, KeyValueModel())

An operation whose outcome nobody knows (a time-out, a crash) has `ret=None` and the output
`UNKNOWN`: it may take effect at any time after its call, or never. An operation that is known not
to have happened doesn't belong into the history.

Times are any integers that order calls and returns; an operation that returned before another one
was called comes before it, and equal times count as overlapping.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol


class Sentinel(enum.Enum):
    """`UNKNOWN`: the output of an operation that never returned. `ILLEGAL`: a model's answer when
    the output can't be what the operation gives in this state.
    """

    UNKNOWN = "unknown"
    ILLEGAL = "illegal"


_LAST: Final = 1 << 64
# Steps per operation of the first search, which leaves the unlikely out.
_QUICK_STEPS = 50
UNKNOWN: Final = Sentinel.UNKNOWN
ILLEGAL: Final = Sentinel.ILLEGAL


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on the object `key`: what was asked, what came back, and when.

    `ret` is None, and `output` UNKNOWN, when no answer ever came. `hint`: a guess of its place in
    the order, such as a log index (0: no idea); good guesses make the search fast, bad ones don't
    change what it finds.
    """

    key: Hashable
    action: tuple[Any, ...]
    output: Any
    call: int
    ret: int | None
    hint: int = 0

    def __post_init__(self) -> None:
        if self.ret is not None and self.ret < self.call:
            raise ValueError(f"an operation that returns before its call: {self}")
        if (self.ret is None) != (self.output is UNKNOWN):
            raise ValueError(f"no return time means the output UNKNOWN, and back: {self}")


class Model(Protocol):
    """One object, sequentially. States are hashable and never changed in place."""

    def initial(self) -> Hashable:
        """The state before the first operation."""

    def step(self, state: Any, action: tuple[Any, ...], output: Any) -> Any:
        """The state after `action`, or ILLEGAL when it can't give `output` in `state`. With the
        output UNKNOWN every action is legal.
        """

    def only_reads(self, action: tuple[Any, ...], output: Any) -> bool:
        """Whether `action`, when it gave `output`, left the state as it was, whatever that was.

        False is always right; True where it holds makes the search fast.
        """

    def worth_a_look(self, operations: list[Operation]) -> list[Operation]:
        """All of `operations`, less some of unknown outcome that explain nothing that was seen.

        All of them is always right; fewer make the search fast.
        """


class KeyValueModel:
    """One key of a store; values are anything hashable but None, which stands for "no such key".

    Actions and their outputs::

        ("get",)                 the value, or None
        ("put", value)           anything
        ("delete",)              whether there was such a key (bool); None when that isn't known
        ("cas", expected, value) whether `expected` was there and is now `value` (bool)
    """

    def initial(self) -> Hashable:
        return None

    def step(self, state: Any, action: tuple[Any, ...], output: Any) -> Any:
        match action:
            case ("get",):
                return state if output is UNKNOWN or output == state else ILLEGAL
            case ("put", value):
                return value
            case ("delete",):
                legal = output is UNKNOWN or output is None or output == (state is not None)
                return None if legal else ILLEGAL
            case ("cas", expected, value):
                swapped = state == expected
                if output is UNKNOWN or output == swapped:
                    return value if swapped else state
                return ILLEGAL
        raise ValueError(f"the key-value model knows no action {action!r}")

    def only_reads(self, action: tuple[Any, ...], output: Any) -> bool:
        return action[0] == "get" or (action[0] in ("cas", "delete") and output is False)

    def worth_a_look(self, operations: list[Operation]) -> list[Operation]:
        """Without the writes of unknown outcome whose value nobody ever saw."""
        seen: set[Any] = set()
        for operation in operations:
            match operation.action:
                case ("get",):
                    seen.add(operation.output)
                case ("cas", expected, _) if operation.output is not False:
                    seen.add(expected)
        return [
            operation
            for operation in operations
            if operation.ret is not None
            or operation.action[0] not in ("put", "cas")
            or operation.action[-1] in seen
        ]


class Verdict(enum.Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Result:
    """True when the history is linearizable.

    `key`: the object that failed. `stuck`: the operations of which one had to come next in the
    longest order that was found, none of which could, and `state` the object's state there.
    `steps`: how much was searched. UNDECIDED: the search gave up at `max_steps`.
    """

    verdict: Verdict
    steps: int
    key: Hashable = None
    stuck: tuple[Operation, ...] = ()
    state: Hashable = None

    def __bool__(self) -> bool:
        return self.verdict is Verdict.LINEARIZABLE

    def __str__(self) -> str:
        if self:
            return f"linearizable ({self.steps} steps)"
        lines = [
            f"{self.verdict.value}: key {self.key!r} in state {_short(self.state)}, next: one of"
        ]
        for operation in self.stuck:
            interval = f"{operation.call}..{'?' if operation.ret is None else operation.ret}"
            lines.append(f"  {interval} {_short(operation.action)} -> {_short(operation.output)}")
        return "\n".join(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}…{text[-10:]}"


def check(
    history: Iterable[Operation], model: Model | None = None, *, max_steps: int = 10_000_000
) -> Result:
    """Search an order of `history` that `model` (default: KeyValueModel) allows, key by key.

    The cost is about one step per operation for histories that are linearizable with few unknown
    outcomes, and exponential in the number of overlapping operations at worst: after `max_steps`
    steps, summed over all keys, the verdict is UNDECIDED.
    """
    model = model or KeyValueModel()
    by_key: dict[Hashable, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    steps = 0
    for key, operations in by_key.items():
        # What never returned may never have happened: an order without it proves as much, and is
        # found sooner. Only when there is none is everything looked at.
        seen = model.worth_a_look(operations)
        search = _Search(seen, model, min(len(operations) * _QUICK_STEPS, max_steps - steps))
        verdict = search.run()
        steps += search.steps
        if verdict is not Verdict.LINEARIZABLE:
            search = _Search(operations, model, max_steps - steps)
            verdict = search.run()
            steps += search.steps
        if verdict is not Verdict.LINEARIZABLE:
            return Result(verdict, steps, key, search.stuck, search.stuck_state)
    return Result(Verdict.LINEARIZABLE, steps)


@dataclass(slots=True)
class _Frame:
    """One configuration on the path, and what is still to be tried from it.

    Operations that returned are numbered by call time: all below `low` have their place in the
    order, and of those from `low` on the bits of `mask` tell. `opens` has a bit per operation
    without a return. `hint` is the largest of a write so far. `states` are those since the last
    operation that returned, this one's last; `open_action` is what led here if that did not return,
    with its number `open_index`.
    """

    low: int
    mask: int
    opens: int
    hint: int
    states: tuple[Any, ...]
    open_action: tuple[Any, ...] = ()
    open_index: int = -1
    choices: Iterator[tuple[int, bool]] = field(default_factory=lambda: iter(()))

    @property
    def state(self) -> Any:
        return self.states[-1]


class _Search:
    """Depth first over the orders of one key's operations."""

    def __init__(self, operations: list[Operation], model: Model, max_steps: int) -> None:
        ordered = sorted(operations, key=lambda operation: operation.call)
        self._closed = [operation for operation in ordered if operation.ret is not None]
        self._open = [operation for operation in ordered if operation.ret is None]
        self._returns: list[int] = [op.ret for op in self._closed if op.ret is not None]
        self._likely = [
            (op.hint or _LAST, ret) for op, ret in zip(self._closed, self._returns, strict=True)
        ]
        self._model = model
        self._max_steps = max_steps
        self._seen: set[tuple[int, int, int, Hashable]] = set()
        self._furthest = -1
        self.steps = 0
        self.stuck: tuple[Operation, ...] = ()
        self.stuck_state: Hashable = None

    def run(self) -> Verdict:
        total = len(self._closed)
        path = [self._frame(_Frame(0, 0, 0, 0, (self._model.initial(),)))]
        while path:
            frame = path[-1]
            # What never returned may also never have happened, so nothing waits for it.
            if frame.low == total:
                return Verdict.LINEARIZABLE
            for index, is_open in frame.choices:
                if self.steps >= self._max_steps:
                    return Verdict.UNDECIDED
                self.steps += 1
                following = self._follow(frame, index, is_open)
                if following is not None:
                    path.append(self._frame(following))
                    break
            else:
                path.pop()
        return Verdict.NOT_LINEARIZABLE

    def _frame(self, frame: _Frame) -> _Frame:
        """Give `frame` its choices: the operations called before the first return to come."""
        candidates: list[int] = []
        first_return: int | None = None
        for index in range(frame.low, len(self._closed)):
            if frame.mask >> (index - frame.low) & 1:
                continue
            if first_return is not None and self._closed[index].call > first_return:
                break
            candidates.append(index)
            if first_return is None or self._returns[index] < first_return:
                first_return = self._returns[index]
        if first_return is not None:
            candidates = [i for i in candidates if self._closed[i].call <= first_return]
        placed = frame.low + frame.mask.bit_count()
        if placed > self._furthest:
            self._furthest = placed
            self.stuck = tuple(self._closed[index] for index in candidates)
            self.stuck_state = frame.state
        for index in candidates:
            action, output = self._closed[index].action, self._closed[index].output
            if self._model.only_reads(action, output) and (
                self._model.step(frame.state, action, output) is not ILLEGAL
            ):
                # Wherever an order has it, it can be moved here: no other choice needs a look.
                frame.choices = iter(((index, False),))
                return frame
        frame.choices = self._choices(candidates, frame, first_return)
        return frame

    def _choices(
        self, candidates: list[int], frame: _Frame, first_return: int | None
    ) -> Iterator[tuple[int, bool]]:
        """What may come next, the likeliest first.

        Operations without a return are placed just in time, when something can't be explained
        without them: what the hints say comes next, and is illegal, asks for those whose hint is
        due, then for those that were left out, the latest first.
        """
        candidates.sort(key=self._likely.__getitem__)
        returned = [(index, False) for index in candidates]
        due: list[int] = []
        left_out: list[int] = []
        for index, operation in enumerate(self._open):
            if first_return is None or operation.call > first_return:
                break
            if not frame.opens >> index & 1:
                (due if operation.hint > frame.hint else left_out).append(index)
        due.sort(key=lambda index: self._open[index].hint)
        left_out.sort(key=lambda index: -self._open[index].hint)
        opens = [(index, True) for index in due + left_out]
        if candidates and self._is_missing_something(candidates[0], frame.state):
            yield from opens
            yield from returned
        else:
            yield from returned
            yield from opens

    def _is_missing_something(self, index: int, state: Any) -> bool:
        """Whether the hint says that this is next, which can't be before something else was."""
        operation = self._closed[index]
        step = self._model.step(state, operation.action, operation.output)
        return operation.hint > 0 and step is ILLEGAL

    def _follow(self, frame: _Frame, index: int, is_open: bool) -> _Frame | None:
        """The configuration after one more operation; None when it is illegal or needn't be
        looked at.
        """
        operation = self._open[index] if is_open else self._closed[index]
        state = self._model.step(frame.state, operation.action, operation.output)
        if state is ILLEGAL:
            return None
        if is_open and state in frame.states:
            # In a circle: without its operations the same could be reached.
            return None
        # Of two without a return that may change places one order is enough, but not none.
        in_order = is_open and index > frame.open_index
        if frame.open_action and self._is_dominated(frame, operation, state, in_order):
            return None
        low, mask, opens = frame.low, frame.mask, frame.opens
        if is_open:
            opens |= 1 << index
        else:
            mask |= 1 << (index - low)
            while mask & 1:
                mask >>= 1
                low += 1
        configuration = (low, mask, opens, state)
        if configuration in self._seen:
            return None
        self._seen.add(configuration)
        # A read may have been moved to here from far behind.
        is_read = self._model.only_reads(operation.action, operation.output)
        hint = frame.hint if is_read else max(frame.hint, operation.hint)
        if is_open:
            states = (*frame.states, state)
            return _Frame(low, mask, opens, hint, states, operation.action, index)
        return _Frame(low, mask, opens, hint, (state,))

    def _is_dominated(
        self, frame: _Frame, operation: Operation, state: Any, in_order: bool
    ) -> bool:
        """Whether the operation without a return that was placed just before wasn't needed yet.

        Without it this operation would have been legal too and led to the same state, or to one
        from which it can be placed afterwards: those orders are searched anyway, and without this
        rule every unknown outcome would double the search.
        """
        alone = self._model.step(frame.states[-2], operation.action, operation.output)
        if alone is ILLEGAL:
            return False
        if alone == state:
            return True
        if in_order:
            return False
        return bool(self._model.step(alone, frame.open_action, UNKNOWN) == state)
