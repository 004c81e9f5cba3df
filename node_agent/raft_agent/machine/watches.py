"""Who wants to hear of changes: watchers by exact key, by prefix, and of messages.

A write looks up its key and, for each length that a watched prefix has, the key's beginning of that
length; its cost does not depend on how many watchers there are. What a batch changed is delivered
once, as one list per watched key or prefix, after the whole batch is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

ItemT = TypeVar("ItemT")
Cancel = Callable[[], None]
Jumped = Callable[[int], None]


class KeyChange(msgspec.Struct, frozen=True, gc=False):
    """One change of one key by the command at log index `index`; `value` is None for a delete.

    `revision` is the store's revision that this change made, alone or with others of the same
    command. `lease`: the one that a put key ends with, or that a deleted key has ended with.
    """

    key: str
    value: bytes | None
    revision: int
    index: int
    lease: int = 0


class Message(msgspec.Struct, frozen=True, gc=False):
    """One text of the message log. `time_ms`: the leader's clock, since 1970, never going back."""

    index: int
    time_ms: int
    node: str
    text: str


class _Topic(Generic[ItemT]):
    """The watchers of one key, of one prefix or of the messages, and what they will be told."""

    __slots__ = ("callbacks", "pending")

    def __init__(self) -> None:
        # Two watchers may share one function, so each has a token of its own.
        self.callbacks: dict[object, Callable[[list[ItemT]], None]] = {}
        self.pending: list[ItemT] = []

    def deliver(self) -> None:
        items, self.pending = self.pending, []
        for token, callback in list(self.callbacks.items()):
            if token in self.callbacks:
                callback(items)


class WatchRegistry:
    """Callbacks get a non-empty list that they must not change, once per applied batch. They may
    add and cancel watches. A watch sees what is applied after it was added.

    `jumped` is called when the state was replaced by a newer one, so that what happened in between
    was not told: with the store's revision before it.
    """

    def __init__(self) -> None:
        self._keys: dict[str, _Topic[KeyChange]] = {}
        self._prefixes: dict[str, _Topic[KeyChange]] = {}
        self._prefix_lengths: dict[int, int] = {}
        self._messages: _Topic[Message] = _Topic()
        self._dirty: list[_Topic[KeyChange]] = []
        self._jumped: dict[object, Jumped] = {}
        self.watches_keys = False
        self.watches_messages = False

    def counts(self) -> dict[str, int]:
        """How many watches there are: of single "keys", of "prefixes", of "messages"."""
        return {
            "keys": sum(len(topic.callbacks) for topic in self._keys.values()),
            "prefixes": sum(len(topic.callbacks) for topic in self._prefixes.values()),
            "messages": len(self._messages.callbacks),
        }

    def watch_key(
        self,
        key: str,
        callback: Callable[[list[KeyChange]], None],
        jumped: Jumped | None = None,
    ) -> Cancel:
        """Every change of `key`, until the returned function is called."""
        return self._watch(self._keys, key, callback, jumped)

    def watch_prefix(
        self,
        prefix: str,
        callback: Callable[[list[KeyChange]], None],
        jumped: Jumped | None = None,
    ) -> Cancel:
        """Every change of a key that starts with `prefix` ("": every key)."""
        return self._watch(self._prefixes, prefix, callback, jumped)

    def watch_messages(
        self, callback: Callable[[list[Message]], None], jumped: Jumped | None = None
    ) -> Cancel:
        """Every message, until the returned function is called."""
        token = object()
        self._messages.callbacks[token] = callback
        if jumped is not None:
            self._jumped[token] = jumped
        self.watches_messages = True

        def cancel() -> None:
            self._messages.callbacks.pop(token, None)
            self._jumped.pop(token, None)
            self.watches_messages = bool(self._messages.callbacks)

        return cancel

    def key_changed(self, change: KeyChange) -> None:
        """Keep `change` for those who watch its key. Call only while `watches_keys`."""
        key = change.key
        topic = self._keys.get(key)
        if topic is not None:
            self._note(topic, change)
        prefixes = self._prefixes
        for length in self._prefix_lengths:
            topic = prefixes.get(key[:length]) if length <= len(key) else None
            if topic is not None:
                self._note(topic, change)

    def message_added(self, message: Message) -> None:
        """Keep `message` for those who watch messages. Call only while `watches_messages`."""
        self._messages.pending.append(message)

    def deliver(self) -> None:
        """Tell everyone what was kept since the last time."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for topic in dirty:
                topic.deliver()
        if self._messages.pending:
            self._messages.deliver()

    def tell_jumped(self, revision: int) -> None:
        """The state was replaced; the store's revision before was `revision`."""
        for token, jumped in list(self._jumped.items()):
            if token in self._jumped:
                jumped(revision)

    def _note(self, topic: _Topic[KeyChange], change: KeyChange) -> None:
        if not topic.pending:
            self._dirty.append(topic)
        topic.pending.append(change)

    def _watch(
        self,
        topics: dict[str, _Topic[KeyChange]],
        pattern: str,
        callback: Callable[[list[KeyChange]], None],
        jumped: Jumped | None,
    ) -> Cancel:
        topic = topics.get(pattern)
        if topic is None:
            topic = topics[pattern] = _Topic()
            if topics is self._prefixes:
                length = len(pattern)
                self._prefix_lengths[length] = self._prefix_lengths.get(length, 0) + 1
        token = object()
        topic.callbacks[token] = callback
        if jumped is not None:
            self._jumped[token] = jumped
        self.watches_keys = True

        def cancel() -> None:
            self._jumped.pop(token, None)
            if topic.callbacks.pop(token, None) is None or topic.callbacks:
                return
            del topics[pattern]
            if topics is self._prefixes:
                length = len(pattern)
                self._prefix_lengths[length] -= 1
                if not self._prefix_lengths[length]:
                    del self._prefix_lengths[length]
            self.watches_keys = bool(self._keys or self._prefixes)

        return cancel
